"""The model behind the page: a prompt with one or two replies in, rewards and their parts out, with any edit of the head."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sarm.backbone.decoder import filler, require_rows
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.config.steering import SCHEMA_VERSION, Factor, HeadEdit, HeadIdentity, Latent, SteeringFile
from sarm.data.preferences import Message
from sarm.data.tokens import ConversationTokenizer, RowPooling
from sarm.data.turn_ends import ON_COMMAND_LINE
from sarm.demo.explanations import Explanation, texts_for
from sarm.demo.waterfall import Head, difference, waterfall
from sarm.job import UsageProblem
from sarm.scoring.conversations import head_latents
from sarm.scoring.edited_head import feature_factors, head_identity, scaled_head
from sarm.scoring.inference import score_batch
from sarm.store.manifest import Manifest
from sarm.store.verification import read_manifest

# Longer texts are refused before a chat template or a tokenizer meets them.
LONGEST_TEXT = 200_000
TOP = 12
# Conversations whose latents are kept, so that a slider asks the head alone.
REMEMBERED = 32
LETTERS = ("A", "B")

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class Asked(BaseModel):
    """What the page sends: a prompt, one or two replies to it, and factors on latents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Text
    answers: tuple[Text, ...] = Field(min_length=1, max_length=2)
    factors: dict[Latent, Factor] = {}


class Edited(BaseModel):
    """Factors to be saved as a steering file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: dict[Latent, Factor] = Field(min_length=1)


class Latents(NamedTuple):
    """A head that is linear in latents: their numbers and its weights `[features]` on the CPU, its bias, and its identity."""

    numbers: Tensor
    weights: Tensor
    bias: float
    identity: HeadIdentity


class Remembered(NamedTuple):
    """A scored conversation: its reward as trained, its length, what the head saw `[features]` on its device."""

    reward: float
    tokens: int
    features: Tensor


class AskedModel:
    """A reward model of any layout that can be opened. Not for several threads at once.

    Raises on opening what `load_reward_model`, `ConversationTokenizer` and `texts_for` raise.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: torch.device,
        max_length: int,
        end_of_turn: str = "",
        pooling: RowPooling = "end_of_turn",
        explanations: Mapping[int, Explanation] | None = None,
    ) -> None:
        self.name = folder.name
        manifest = read_manifest(folder)
        self._label = manifest.label if isinstance(manifest, Manifest) else ""
        self.max_length = max_length
        loaded = load_tokenizer(folder)
        self._tokenizer = ConversationTokenizer(loaded, advice=ON_COMMAND_LINE, end_of_turn=end_of_turn, pooling=pooling)
        self._model = load_reward_model(folder, device=device)
        self._latents = self._linear_head()
        weights = {} if self._latents is None else dict(zip(self._latents.numbers.tolist(), self._latents.weights.tolist(), strict=True))
        self.explanations = texts_for(explanations or {}, weights, name=self.name)
        self._remembered: OrderedDict[tuple[str, str], Remembered] = OrderedDict()

    @property
    def facts(self) -> dict[str, Any]:
        """What the page says of the model. `n_latents` is None for one whose reward is not linear in latents."""
        found = self._latents
        return {
            "name": f"{self._label} ({self.name})" if self._label else self.name,
            "layer": self._model.layer,
            "n_latents": None if found is None else found.identity.n_latents,
            "read": None if found is None else len(found.numbers),
            "scored": "the last token" if self._tokenizer.pooling == "last_token" else self._tokenizer.end_of_turn_text,
            "max_length": self.max_length,
            "longest_text": LONGEST_TEXT,
            "explained": len(self.explanations),
        }

    def score(self, asked: Asked) -> dict[str, Any]:
        """Rewards with their waterfalls, and the difference of two. Raises JobError (DataError among them) in a line for the page."""
        if not asked.prompt.strip():
            raise UsageProblem("the prompt is empty; write one")
        empty = next((letter for letter, answer in zip(LETTERS, asked.answers, strict=False) if not answer.strip()), "")
        if empty:
            raise UsageProblem(f"answer {empty} is empty; write one, or leave answer B away")
        found = [self._scored(asked.prompt, answer, f"answer {letter}") for letter, answer in zip(LETTERS, asked.answers, strict=False)]
        if self._latents is None:
            if asked.factors:
                raise UsageProblem(f"{self.name}: this reward model has no latents to scale; ask for rewards alone")
            return {"answers": [{"reward": one.reward, "unscaled": one.reward, "tokens": one.tokens} for one in found]}
        return self._explained(found, self._latents, asked.factors)

    def steering_file(self, edited: Edited) -> SteeringFile:
        """The edit with the identity of this model. Raises UsageProblem where there are no latents, or none that is changed."""
        if self._latents is None:
            raise UsageProblem(f"{self.name}: this reward model has no latents to scale")
        feature_factors(edited.factors, self._latents.numbers)
        if all(factor == 1 for factor in edited.factors.values()):
            raise UsageProblem("no latent has a factor other than 1: there is no edit to save")
        edit = HeadEdit(model=self._latents.identity, factors=edited.factors)
        return SteeringFile(schema_version=SCHEMA_VERSION, name=self.name, **edit.model_dump())

    def _linear_head(self) -> Latents | None:
        try:
            numbers = head_latents(self._model, name=self.name)
        except UsageProblem:
            return None
        weights = self._model.score.weight[0].detach()
        with torch.inference_mode():
            bias = float(self._model.reward_of(torch.zeros_like(weights)))
        return Latents(numbers, weights.float().cpu().clone(), bias, head_identity(self._model, name=self.name))

    def _scored(self, prompt: str, answer: str, name: str) -> Remembered:
        known = self._remembered.get((prompt, answer))
        if known is None:
            known = self._remembered[prompt, answer] = self._forward(prompt, answer, name)
        self._remembered.move_to_end((prompt, answer))
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return known

    def _forward(self, prompt: str, answer: str, name: str) -> Remembered:
        turns = [Message(role="user", content=prompt), Message(role="assistant", content=answer)]
        # Whatever its length: the refusal tells it, and nothing is cut off unseen.
        ids = self._tokenizer.encode(turns, max_length=len(prompt) + len(answer) + LONGEST_TEXT, name=name).ids
        if len(ids) > self.max_length:
            raise UsageProblem(
                f"{name}: {len(ids):,} tokens with the prompt, and at most {self.max_length:,} are read; shorten it, or start the demo "
                "with a larger --max-length"
            )
        require_rows(self._model.model, [ids], [name], limit="--max-length")
        pad_id = filler(self._model.model, self._tokenizer.pad_id)
        batch = score_batch(self._model, [ids], [0], pad_id=pad_id, first_masked=False)
        reward = float(batch.rewards[0])
        if not math.isfinite(reward):
            raise UsageProblem(f"{name}: the reward is not finite; look at the weights of {self.name}")
        return Remembered(reward, len(ids), batch.features[0].float())

    def _explained(self, found: list[Remembered], latents: Latents, asked: Mapping[int, float]) -> dict[str, Any]:
        places = feature_factors(asked, latents.numbers)
        factors = torch.ones_like(latents.weights)
        for place, factor in places.items():
            factors[place] = factor
        with scaled_head(self._model, places), torch.inference_mode():
            rewards = [float(self._model.reward_of(one.features)) for one in found]
        if not all(map(math.isfinite, rewards)):
            raise UsageProblem("with these factors the reward is not finite; choose smaller ones")
        head = Head(latents.numbers, latents.weights, factors, latents.bias)
        features = [one.features.cpu() for one in found]
        answers = []
        for one, seen, reward in zip(found, features, rewards, strict=True):
            parts = waterfall(head, seen, top=TOP, always=places)
            bars = [{**bar._asdict(), "explanation": self.explanations.get(bar.latent, "")} for bar in parts.bars]
            part = {"bars": bars, "rest": parts.rest, "others": parts.others, "bias": parts.bias}
            answers.append({"reward": reward, "unscaled": one.reward, "tokens": one.tokens, **part})
        told: dict[str, Any] = {"answers": answers}
        if len(features) == len(LETTERS):
            parted = difference(head, features[0], features[1], top=TOP, always=places)
            names = ("latent", "first", "second", "explanation")
            bars = [dict(zip(names, (*bar, self.explanations.get(bar[0], "")), strict=True)) for bar in parted.bars]
            told["difference"] = {"reward": rewards[0] - rewards[1], "bars": bars, "rest": parted.rest, "others": parted.others}
        return told
