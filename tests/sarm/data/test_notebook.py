"""Public objects in a notebook: small escaped HTML and data frames that hold what the objects hold."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT
from hypothesis import given
from hypothesis import strategies as st
from tiny import HIDDEN, save_backbone
from tiny_contexts import save_sarm

import sarm
from sarm import (
    BenchmarkScores,
    Conversation,
    Message,
    Metric,
    Preference,
    ScoredPreference,
    load_backbone,
    load_reward_model,
    load_sae,
    pairwise_scores,
    rewardbench2_scores,
)
from sarm.checkpoints.saes.files import save_sae
from sarm.data import notebook
from sarm.sae.model import TopKSAE

HARM = "<script>alert(1)</script> <img src=x onerror=y> \u202eevil \x1b[31m & \" ' " + "w" * 5000 + " שלום"
# No page of a notebook may load, run or restyle anything through these.
ALLOWED = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p"}


class Checker(HTMLParser):
    """Well formed, of harmless elements only."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED and set(attrs) <= {("dir", "auto"), ("scope", "row")}, (tag, attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> str:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == [] and len(text) < 60_000 and text.isprintable()
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("notebook")
    save_sarm(made / "my-model")
    save_backbone(made / "my-language-model")
    (made / "my-sae").mkdir()
    save_sae(made / "my-sae", TopKSAE(hidden_size=HIDDEN, n_latents=24, k=4), layer=2)
    return made


TALK = [{"role": "user", "content": "How are you today?"}, {"role": "assistant", "content": "I am fine."}]


def test_rewards_and_what_made_them(folder: Path) -> None:
    model = load_reward_model(folder / "my-model")
    assert "<td dir=\"auto\">24</td>" in checked(model._repr_html_()) and "reward model my-model" in model._repr_html_()
    rewards = model.rewards([TALK, TALK])
    frame = rewards.to_frame()
    assert list(frame.columns) == ["reward", "tokens", "truncated"] and tuple(frame["reward"]) == rewards.values
    assert "2 rewards" in checked(rewards._repr_html_())
    (explained,) = model.explained_rewards([TALK], top=3)
    latents = explained.to_frame()
    assert latents["contribution"].sum() + explained.rest + explained.bias == pytest.approx(explained.reward, abs=1e-4)
    assert f"rest {explained.rest:.5g}" in checked(explained._repr_html_())
    one = explained.latents[0]
    assert f"latent {one.latent}" in checked(one._repr_html_()) and one.to_frame()["latent"].tolist() == [one.latent]
    assert one == (one.latent, one.activation, one.weight, one.contribution), "still a tuple of four"


def test_states_and_saes(folder: Path) -> None:
    model = load_backbone(folder / "my-language-model", layer=2)
    (states,) = model.text_states(["The cat sat."], layer=2)
    assert "language model my-language-model" in checked(model._repr_html_())
    assert f"states: {len(states.tokens)} x {HIDDEN}" in checked(states._repr_html_())
    frame = states.to_frame()
    assert tuple(frame["token"]) == states.tokens and frame["norm"][0] == pytest.approx(float(states.states[0].norm()))
    assert "SAE my-sae" in checked(load_sae(folder / "my-sae")._repr_html_())


def test_scores() -> None:
    items = [ScoredPreference(id=str(n), subset="Math", chosen_rewards=(0.7,), rejected_rewards=(0.1, 0.7, 0.2)) for n in range(3)]
    scores = rewardbench2_scores(items)
    assert scores.to_frame().set_index("name")["value"]["Math"] == 0.5
    assert "no Overall: " in checked(scores._repr_html_())
    pairs = pairwise_scores([ScoredPreference(id="1", source="a", chosen_rewards=(1.0,), rejected_rewards=(0.0,))])
    assert pairs.to_frame()["name"].tolist() == ["pairwise_accuracy", "a"] and checked(pairs._repr_html_())
    assert BenchmarkScores(metrics={}).to_frame().empty and checked(BenchmarkScores(metrics={})._repr_html_())
    metric = Metric("Math", 0.5, 1, None, None, 0)
    assert "—" in checked(metric._repr_html_()) and metric.to_frame()["n"].tolist() == [1]


@pytest.mark.parametrize(
    ("one", "rows"),
    [
        (Message(role="user", content=HARM), 1),
        (Conversation.model_validate({"id": HARM, "messages": [{"role": "assistant", "content": HARM}]}), 1),
        (Preference(id=HARM, prompt=(Message(role="user", content=HARM),), chosen=(HARM,), rejected=(HARM, HARM), subset=HARM), 3),
        (ScoredPreference(id=HARM, subset=HARM, chosen_rewards=(1.0,), rejected_rewards=(float("nan"), float("inf"))), 3),
    ],
    ids=["message", "conversation", "item", "rewards"],
)
def test_texts_that_mean_harm_are_escaped_and_shortened_while_frames_keep_them_whole(one: Any, rows: int) -> None:
    text = checked(one._repr_html_())
    assert "<script" not in text and "\u202e" not in text and "\x1b" not in text and "w" * 100 not in text
    assert len(one.to_frame()) == rows
    if isinstance(one, Message):
        assert one.to_frame()["content"][0] == HARM


def test_long_tables_say_what_is_not_shown() -> None:
    text = checked(notebook.table("t", {f"c{n}": list(range(65536)) for n in range(20)}))
    assert "65,506 more rows" in text and "8 more columns" in text and text.count("<tr>") == 31


@given(st.text(), st.lists(st.text(), max_size=5), st.text())
def test_any_text_gives_harmless_html(title: str, values: list[str], note: str) -> None:
    checked(notebook.table(title, {title: values}, note=note))
    checked(notebook.facts(title, {title: note}))


def test_every_public_object_is_shown_and_nothing_loads_pandas_before_a_frame_is_asked_for() -> None:
    kinds = [getattr(sarm, name) for name in sarm.FACE]
    objects = [one for one in kinds if isinstance(one, type) and not issubclass(one, Exception)]
    assert [one.__name__ for one in objects if not hasattr(one, "_repr_html_")] == ["Encoding"], "tensors, which torch shows"
    code = (
        "import sys\n"
        "from sarm import Metric, Preference, load_reward_model, pairwise_scores\n"
        "metric = Metric('a', 0.5, 1, None, None, 0)\n"
        "metric._repr_html_()\n"
        "assert 'pandas' not in sys.modules\n"
        "assert metric.to_frame().shape == (1, 6) and 'pandas' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
