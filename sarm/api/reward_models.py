"""A reward model: rewards of conversations and of benchmark items, and the latents that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sarm.api.backbones import LoadedBackbone
from sarm.api.inputs import Turns, checked_conversations, checked_folder, checked_place
from sarm.api.saes import LoadedSAE
from sarm.checkpoints.backbones import load_tokenizer
from sarm.checkpoints.reward_models import layouts
from sarm.data import notebook
from sarm.data.preferences import Conversation, Preference, ScoredPreference
from sarm.data.tokens import EncodedConversation
from sarm.job import UsageProblem
from sarm.reward.models import SARM, RewardModel
from sarm.reward.sparse_model import SparseRewardModel
from sarm.reward.sparse_rm import Activations
from sarm.sae.model import TopKSAE
from sarm.scoring.completions import completions_of, encode_completions, regroup
from sarm.scoring.conversations import ExplainedReward, NamedRows, conversation_rewards, explained_rewards, head_latents

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Rewards:
    """Rewards of conversations, in their order: `values`; how many tokens each has; whether its beginning was cut off."""

    values: tuple[float, ...]
    tokens: tuple[int, ...]
    truncated: tuple[bool, ...]

    def to_frame(self) -> pandas.DataFrame:
        """A row for each conversation: `reward`, `tokens`, `truncated`."""
        return notebook.frame(self._columns())

    def _repr_html_(self) -> str:
        return notebook.table(f"{len(self.values)} rewards", self._columns())

    def _columns(self) -> dict[str, tuple[float, ...] | tuple[int, ...] | tuple[bool, ...]]:
        return {"reward": self.values, "tokens": self.tokens, "truncated": self.truncated}


@dataclass(frozen=True, eq=False)
class LoadedRewardModel:
    """A reward model with its tokenizer; `module` is its torch module. Made by `load_reward_model`.

    A reward is read at the end-of-turn token, computed in float32 from there on. Rewards of one conversation alone and among others
    are equal up to rounding.
    """

    folder: Path
    module: RewardModel = field(repr=False)
    tokenizer: Any = field(repr=False)

    def _repr_html_(self) -> str:
        inside = _sae_inside(self.module)
        found = {"kind": type(self.module).__name__, "blocks": self.layer, "hidden size": self.backbone.hidden_size}
        return notebook.facts(f"reward model {self.folder.name}", {**found, "latents": inside.n_latents if inside is not None else None})

    @property
    def layer(self) -> int:
        """Decoder blocks below the head."""
        return self.module.layer

    @cached_property
    def backbone(self) -> LoadedBackbone:
        """The decoder below the head, for its hidden states."""
        return LoadedBackbone(folder=self.folder, module=self.module.model, tokenizer=self.tokenizer)

    @cached_property
    def sae(self) -> LoadedSAE:
        """The SAE inside. Raises UsageProblem for a model that has none."""
        found = _sae_inside(self.module)
        if found is None:
            raise UsageProblem(f"{self.folder.name}: this reward model has no SAE; give a SARM or a head on latents")
        return LoadedSAE(path=self.folder, module=found, layer=self.layer, layout="checkpoint")

    def rewards(
        self, conversations: Sequence[Conversation | Turns], *, max_length: int = 4096, batch_tokens: int = 16384
    ) -> Rewards:
        """A reward for the last assistant turn of each conversation; one longer than `max_length` tokens is cut at its beginning.

        Raises UsageProblem for a conversation that does not end with the assistant, for one beyond the model's positions, and for a
        reward that is not finite.
        """
        encoded, rows = self._rows(conversations, max_length)
        values = conversation_rewards(self.module, rows, batch_tokens=batch_tokens)
        return Rewards(tuple(values), tuple(len(row.ids) for row in encoded), tuple(row.truncated for row in encoded))

    def explained_rewards(
        self, conversations: Sequence[Conversation | Turns], *, top: int = 20, max_length: int = 4096, batch_tokens: int = 16384
    ) -> tuple[ExplainedReward, ...]:
        """Each reward with the `top` latents that made it; contributions, `rest` and `bias` sum to the reward up to rounding.

        Raises UsageProblem as `rewards` does, and for a model whose reward is not linear in latents.
        """
        if top < 1:
            raise UsageProblem(f"top = {top}: at least one latent is listed; ask `rewards` for rewards alone")
        latents = head_latents(self.module, name=self.folder.name)
        _, rows = self._rows(conversations, max_length)
        return tuple(explained_rewards(self.module, rows, latents=latents, top=top, batch_tokens=batch_tokens))

    def preference_rewards(
        self, items: Sequence[Preference], *, max_length: int = 2048, batch_tokens: int = 16384
    ) -> tuple[ScoredPreference, ...]:
        """A reward for each reply of benchmark items or pairs, in the order of the items: what the metrics take.

        The defaults are those of `replicate`. Raises UsageProblem that names the item of a conversation that cannot be encoded, and of
        a reward that is not finite.
        """
        tokenizer = self.backbone.conversation_tokenizer
        encoded = encode_completions(items, tokenizer, max_length=max_length, overlong="left", name=self.folder.name)
        names = [f"item {items[one.item].id!r}" for one in completions_of(items)]
        rows = NamedRows([row.ids for row in encoded], names, tokenizer.pad_id)
        return tuple(regroup(items, encoded, conversation_rewards(self.module, rows, batch_tokens=batch_tokens)))

    def _rows(self, conversations: Sequence[Conversation | Turns], max_length: int) -> tuple[list[EncodedConversation], NamedRows]:
        checked, tokenizer = checked_conversations(conversations), self.backbone.conversation_tokenizer
        names = [f"conversation {number}" for number in range(1, len(checked) + 1)]
        encoded = tokenizer.encode_many([one.messages for one in checked], max_length=max_length, names=names)
        return encoded, NamedRows([row.ids for row in encoded], names, tokenizer.pad_id)


def _sae_inside(model: RewardModel) -> TopKSAE | None:
    if isinstance(model, SARM):
        return model.sae
    if isinstance(model, SparseRewardModel) and isinstance(model.head.reader, Activations):
        return model.head.reader.sae
    return None


def load_reward_model(
    folder: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedRewardModel:
    """A reward model from a folder: ours, the authors', a sequence classifier of transformers with one label, a published head (ArmoRM,
    QRM, GRM, LDL), SparseRM or SAFER with its backbone.

    Weights are read in `dtype`, heads in float32. Raises UsageProblem for an unknown layout and for tensors that do not fit,
    EnvironmentProblem for files that are absent and for a device that is not there.
    """
    place, precision = checked_place(device, dtype)
    path = checked_folder(folder)
    tokenizer = load_tokenizer(path)
    return LoadedRewardModel(folder=path, module=layouts.load_reward_model(path, dtype=precision, device=place), tokenizer=tokenizer)
