"""Sizes out of a model's `config.json`: the same jobs as with written ones, never against what stands there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_launcher import commit
from folders import ROOT
from hypothesis import given
from hypothesis import strategies as st

from replication.recipes.jobs import hub_weights
from replication.recipes.jobs_needed import recipe, unsized_weights
from replication.recipes.requested import Chosen, experiments_named, settings_for
from replication.recipes.setting import Setting
from replication.settings.model_sizes import shape_in
from replication.settings.profile_files import load_profile
from replication.settings.profiles import HubBackbone, TokenizerChanges
from replication.usage_problems import UsageProblems
from sarm.job import EnvironmentProblem, Job, topological_order
from sarm.store.artifacts import ArtifactStore

COMMIT = "c" * 40
SIZES = {
    **{"num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2},
    **{"num_key_value_heads": 1, "vocab_size": 90},
}
SHAPE = f"shape = {{ {', '.join(f'{name} = {value}' for name, value in SIZES.items())} }}"
FOLDER = 'source = { kind = "folder", path = "model" }'
HUB = f'source = {{ kind = "hub", repository = "owner/model", revision = "{COMMIT}" }}'


def profile(folder: Path, source: str, shape: str = "") -> Path:
    """The example profile with another backbone, for the rows of the smaller model."""
    text = (ROOT / "examples" / "real-small.toml").read_text(encoding="utf-8")
    small = f'[backbones.small]\nstands_for = "Llama-3.2-3B-Instruct"\n{source}\n{shape}\n'
    layers = "[backbones.small.layers]\n14 = 2\n21 = 3\n[backbones.small.ks]\n144 = 1\n\n"
    start, end = text.index("[backbones.small]"), text.index("[text]")
    path = folder / "own.toml"
    path.write_text(text[:start] + small + layers + text[end:], encoding="utf-8")
    return path


def model(folder: Path, **changes: object) -> Path:
    """A folder with a `config.json` alone; None takes a key away."""
    found = folder / "model"
    found.mkdir(exist_ok=True, parents=True)
    stated = {key: value for key, value in {"model_type": "llama", **SIZES, **changes}.items() if value is not None}
    (found / "config.json").write_text(json.dumps(stated), encoding="utf-8")
    return found


def settings(path: Path, store: ArtifactStore) -> Setting:
    """Table 1 of that profile."""
    data = Path(path.parent / "data")
    for name in ("corpus/text.jsonl", "preference/pairs.jsonl", "rewardbench2/safety.jsonl", "rmbench/chat.json"):
        (data / name).parent.mkdir(exist_ok=True, parents=True)
        (data / name).write_text("{}", encoding="utf-8")
    chosen = Chosen(profile=str(path), rows="small")
    return settings_for(experiments_named(["table1"]), chosen, store, {"SARM_DATA": str(data)})[0]


def keys(setting: Setting) -> list[str]:
    """Of every job that the setting needs."""
    return [job.key for job in topological_order(recipe(setting).jobs)]


def fetched(store: ArtifactStore, folder: Path, changes: TokenizerChanges | None = None) -> None:
    """Let a store have the model of the profile."""
    source = HubBackbone(kind="hub", repository="owner/model", revision=COMMIT)
    content = (folder / "config.json").read_text(encoding="utf-8")
    commit(Job(hub_weights(source, changes or TokenizerChanges())), store, lambda output: (output / "config.json").write_text(content))


def test_a_folder_s_sizes_need_not_be_repeated_and_give_the_same_keys(tmp_path: Path) -> None:
    model(tmp_path)
    store = ArtifactStore(tmp_path / "store")
    derived = keys(settings(profile(tmp_path, FOLDER), store))
    assert derived == keys(settings(profile(tmp_path, FOLDER, SHAPE), store)) and len(derived) > 5


def test_a_fetched_model_s_sizes_need_not_be_repeated_and_give_the_same_keys(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    written = keys(settings(profile(tmp_path, HUB, SHAPE), store))
    fetched(store, model(tmp_path))
    assert keys(settings(profile(tmp_path, HUB), store)) == written == keys(settings(profile(tmp_path, HUB, SHAPE), store))


def test_a_model_that_is_not_fetched_ends_with_code_7_and_the_command_that_fetches_it(tmp_path: Path) -> None:
    setting = settings(profile(tmp_path, HUB), ArtifactStore(tmp_path / "store"))
    with pytest.raises(EnvironmentProblem) as caught:
        recipe(setting)
    assert caught.value.exit_code == 7
    command = f"replicate fetch table1 --profile {tmp_path / 'own.toml'} --rows small --store {tmp_path / 'store'}"
    assert str(caught.value).endswith(f"run: {command}")
    assert "backbones.small: owner/model is not fetched" in str(caught.value)
    # What the command begins with is the job whose artifact the sizes are read from.
    (job,) = unsized_weights(setting)
    assert job == Job(hub_weights(HubBackbone(kind="hub", repository="owner/model", revision=COMMIT), TokenizerChanges()))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("source", [FOLDER, HUB])
def test_a_written_size_that_the_model_contradicts_is_refused_by_its_key(source: str, name: str, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    changed = {"num_key_value_heads": 2}.get(name, SIZES[name] * 2)
    fetched(store, model(tmp_path, **{name: changed}))
    with pytest.raises(UsageProblems, match=rf"backbones\.small\.shape\.{name} = {SIZES[name]}, but .*config\.json says {changed}"):
        recipe(settings(profile(tmp_path, source, SHAPE), store))


def test_rows_for_tokens_that_the_profile_adds_are_no_contradiction(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    fetched(store, model(tmp_path, vocab_size=91), TokenizerChanges(pad_token="[PAD]"))
    adding = f'{SHAPE}\ntokenizer = {{ pad_token = "[PAD]" }}'
    assert recipe(settings(profile(tmp_path, HUB, adding), store)).jobs


def test_the_width_of_a_head_is_the_stated_one_or_follows(tmp_path: Path) -> None:
    assert shape_in(model(tmp_path) / "config.json").head_dim == 0
    assert shape_in(model(tmp_path, head_dim=32) / "config.json").head_dim == 32
    with pytest.raises(UsageProblems, match=r"shape\.head_dim = 8, but .* says 32"):
        recipe(settings(profile(tmp_path, FOLDER, SHAPE), ArtifactStore(tmp_path / "store")))


def test_sizes_of_a_decoder_inside_another_model_and_of_one_without_grouped_heads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "both", "text_config": SIZES}), encoding="utf-8")
    assert shape_in(tmp_path / "config.json").hidden_size == 16
    assert shape_in(model(tmp_path, num_key_value_heads=None) / "config.json").num_key_value_heads == 2


def test_layers_beyond_the_derived_depth_are_refused(tmp_path: Path) -> None:
    model(tmp_path, num_hidden_layers=2)
    with pytest.raises(UsageProblems, match=r"backbones\.small\.layers\.21: layer 3 is beyond the model's 2 layers"):
        settings(profile(tmp_path, FOLDER), ArtifactStore(tmp_path / "store"))


def test_a_miniature_states_its_sizes_and_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageProblems, match=r"backbones\.small\.shape: missing"):
        load_profile(str(profile(tmp_path, 'source = { kind = "miniature", steps = 2 }')), environment={"SARM_DATA": str(tmp_path)})
    with pytest.raises(UsageProblems, match="model does not exist; mend the profile's path"):
        recipe(settings(profile(tmp_path, FOLDER), ArtifactStore(tmp_path / "store")))


NO_SIZE = st.one_of(st.none(), st.booleans(), st.text(), st.floats(), st.integers(max_value=0), st.lists(st.integers()))


@given(name=st.sampled_from(sorted(SIZES)), value=NO_SIZE)
def test_whatever_else_stands_for_a_size_is_refused_by_file_and_key(
    name: str, value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if name == "num_key_value_heads" and not value:
        return
    file = model(tmp_path_factory.mktemp("model")) / "config.json"
    file.write_text(json.dumps({**SIZES, name: value}), encoding="utf-8")
    with pytest.raises(UsageProblems, match=rf"config\.json: {name}"):
        shape_in(file)
