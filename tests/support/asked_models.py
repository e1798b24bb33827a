"""Tiny reward models as folders that `replicate reward` and `replicate demo` open, and the page's server around one of them."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from authors_checkpoints import random_sarm
from tiny import HIDDEN, llama_config, save_word_tokenizer

from sarm.backbone.decoder import truncated_backbone
from sarm.checkpoints.reward_models.layouts import save_reward_model
from sarm.reward.models import DenseRewardModel

PROMPT = "tell me about the dog"
REPLIES = ("a good dog.", "the awful cat ran home because it was tired.")


def write_sarm(folder: Path, latents: str = "topk") -> Path:
    """A SARM of 24 latents, k = 4, whose head has weights of ordinary size."""
    model = random_sarm(latents)
    torch.manual_seed(5)
    torch.nn.init.normal_(model.score.weight, std=0.5)
    save_word_tokenizer(folder.parent / "words")
    save_reward_model(folder, model, encoder="sae", tokenizer=folder.parent / "words")
    return folder


def write_dense(folder: Path) -> Path:
    """A scalar model, which has no latents."""
    torch.manual_seed(6)
    model = DenseRewardModel(truncated_backbone(llama_config(), 2, keep_final_norm=True), hidden_size=HIDDEN).eval()
    save_word_tokenizer(folder.parent / "words")
    save_reward_model(folder, model, encoder="none", tokenizer=folder.parent / "words")
    return folder


def write_explanations(folder: Path, weights: dict[int, float], text: str = "says that something is a {latent}") -> Path:
    """An artifact of explanations of these latents, with one of a control and one that could not be explained."""
    rows: list[dict[str, Any]] = [
        {"latent": latent, "group": "positive", "weight": weight, "explanation": text.format(latent=latent), "score": 4}
        for latent, weight in weights.items()
    ]
    rows += [{"latent": 0, "group": "control-positive", "weight": 99.0, "explanation": "of another model", "score": 4}]
    rows += [{"latent": 1, "group": "negative", "weight": 99.0, "explanation": None, "score": None}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "explanations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    content: Any


class Server(NamedTuple):
    """A server of the page in a thread of this process, and what it told the terminal."""

    port: int
    told: list[str]

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, path: str, content: Any = None, *, method: str = "", raw: bytes | None = None, **headers: str) -> Answer:
        """GET, or POST of JSON where there is content; header names are written with _ for -."""
        given = {"content-type": "application/json"} if content is not None or raw is not None else {}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        body = raw if raw is not None else json.dumps(content).encode() if content is not None else None
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            link.request(method or ("GET" if body is None else "POST"), path, body, given)
            answer = link.getresponse()
            text = answer.read().decode()
            kind = answer.headers.get("content-type", "")
            return Answer(answer.status, dict(answer.headers), json.loads(text) if kind == "application/json" else text)
        finally:
            link.close()


@contextmanager
def served(folder: Path, *, save: Path | None = None, explanations: Path | None = None, max_length: int = 200) -> Iterator[Server]:
    """The page of a model. Skips the test where the extra is not installed."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `demo` is not installed; run: make venv")
    pytest.importorskip("starlette", reason="the extra `demo` is not installed; run: make venv")
    from sarm.demo.__main__ import listening
    from sarm.demo.answers import AskedModel
    from sarm.demo.explanations import read_explanations
    from sarm.demo.web import Site

    read = read_explanations(explanations) if explanations else {}
    model = AskedModel(folder, device=torch.device("cpu"), max_length=max_length, explanations=read)
    told: list[str] = []
    site = Site(model, save=save, ending=lambda: server.should_exit, tell=told.append)
    settings = uvicorn.Config(site.app, log_level="critical", access_log=False, lifespan="off", ws="none", server_header=False)
    settings.timeout_graceful_shutdown = 3
    server = uvicorn.Server(settings)
    with listening(0) as socket:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        try:
            yield Server(socket.getsockname()[1], told)
        finally:
            server.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()
