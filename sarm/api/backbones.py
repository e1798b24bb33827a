"""A language model's first blocks, and the hidden states that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from sarm.api.inputs import Turns, checked_conversations, checked_folder, checked_place, checked_texts
from sarm.backbone.decoder import blocks_of, require_rows
from sarm.backbone.harvest import Harvest
from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.data import notebook
from sarm.data.preferences import Conversation
from sarm.data.sentences import TextSequence
from sarm.data.tokens import ConversationTokenizer, EncodedConversation, EncodedText, encode_texts
from sarm.data.turn_ends import IN_PYTHON
from sarm.job import UsageProblem

if TYPE_CHECKING:
    import pandas

Positions = Literal["all", "last"]
# States of so many texts lie on the device together; then they move to the CPU.
TEXTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class TokenStates:
    """Hidden states of one text or conversation after block `layer`.

    `states` is `[tokens, hidden_size]`, in the model's precision, on the CPU; `token_ids` and `tokens` say what stands at each
    position. `truncated` tells that the text was longer than `max_length`.
    """

    layer: int
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    states: Tensor
    truncated: bool

    def to_frame(self) -> pandas.DataFrame:
        """A row for each token: `token_id`, `token`, and `norm`, the length of its state."""
        return notebook.frame(self._columns())

    def _repr_html_(self) -> str:
        cut = "; longer than max_length" if self.truncated else ""
        shape = " x ".join(map(str, self.states.shape))
        return notebook.table(f"hidden states after block {self.layer}", self._columns(), note=f"states: {shape}{cut}")

    def _columns(self) -> dict[str, Sequence[object]]:
        norms = self.states.float().norm(dim=-1).tolist()
        return {"token_id": self.token_ids, "token": self.tokens, "norm": norms}


@dataclass(frozen=True, eq=False)
class LoadedBackbone:
    """The first blocks of a decoder with its tokenizer; `module` is the `transformers` model. Made by `load_backbone`."""

    folder: Path
    module: PreTrainedModel = field(repr=False)
    tokenizer: Any = field(repr=False)

    def _repr_html_(self) -> str:
        found = {"kind": type(self.module).__name__, "blocks": self.layer, "hidden size": self.hidden_size}
        return notebook.facts(f"language model {self.folder.name}", found)

    @property
    def layer(self) -> int:
        """Blocks kept: the deepest layer there is."""
        return len(blocks_of(self.module))

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return int(self.module.config.hidden_size)

    @cached_property
    def conversation_tokenizer(self) -> ConversationTokenizer:
        """Template and end of turn as all jobs use them: one BOS, dates pinned. Raises UsageProblem where the tokenizer lacks a part."""
        return ConversationTokenizer(self.tokenizer, advice=IN_PYTHON)

    def text_states(
        self, texts: Sequence[str], *, layer: int, positions: Positions = "all", max_length: int = 2048, batch_tokens: int = 16384
    ) -> tuple[TokenStates, ...]:
        """Residual stream after block `layer` (0 = embeddings) of plain texts, one BOS before each; longer ones are cut at the end.

        `positions`: of all tokens, or of the last alone. `batch_tokens` bounds what one forward pass holds. Raises UsageProblem for a
        layer that is not there, an empty text, and one beyond the model's context.
        """
        rows = encode_texts(self.tokenizer, checked_texts(texts), max_length=max_length)
        return self._states(rows, "text", layer=layer, positions=positions, batch_tokens=batch_tokens)

    def conversation_states(
        self,
        conversations: Sequence[Conversation | Turns],
        *,
        layer: int,
        positions: Positions = "all",
        max_length: int = 2048,
        batch_tokens: int = 16384,
    ) -> tuple[TokenStates, ...]:
        """As `text_states`, of conversations in the model's chat template; the last token is the end of turn, at which rewards are given.

        Longer ones are cut at their beginning.
        """
        checked = checked_conversations(conversations)
        names = [f"conversation {number}" for number in range(1, len(checked) + 1)]
        rows = self.conversation_tokenizer.encode_many([one.messages for one in checked], max_length=max_length, names=names)
        return self._states(rows, "conversation", layer=layer, positions=positions, batch_tokens=batch_tokens)

    def _states(
        self, rows: Sequence[EncodedText | EncodedConversation], what: str, *, layer: int, positions: Positions, batch_tokens: int
    ) -> tuple[TokenStates, ...]:
        if not 0 <= layer <= self.layer:
            raise UsageProblem(f"{self.folder.name}: layer {layer} does not exist; choose 0 to {self.layer}, the blocks that are loaded")
        names = [f"{what} {number}" for number in range(1, len(rows) + 1)]
        require_rows(self.module, [row.ids for row in rows], names)
        harvest = Harvest(self.module, [layer], batch_tokens=batch_tokens, device=self.module.device, name=names.__getitem__)
        found = []
        for start in range(0, len(rows), TEXTS_AT_ONCE):
            part = rows[start : start + TEXTS_AT_ONCE]
            kept = [list(range(len(row.ids))) if positions == "all" else [len(row.ids) - 1] for row in part]
            sequences = [TextSequence(row.ids, places, start + line) for line, (row, places) in enumerate(zip(part, kept, strict=True))]
            # Cloned, since what inference mode made cannot take part in a training of the user's.
            states = harvest.states(sequences)[layer].cpu().clone()
            for row, places, own in zip(part, kept, states.split([len(places) for places in kept]), strict=True):
                ids = tuple(row.ids[place] for place in places)
                tokens = tuple(map(str, self.tokenizer.convert_ids_to_tokens(list(ids))))
                found.append(TokenStates(layer=layer, token_ids=ids, tokens=tokens, states=own.clone(), truncated=row.truncated))
        return tuple(found)


def load_backbone(
    folder: str | Path, *, layer: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LoadedBackbone:
    """The first `layer` blocks of a causal language model, base model or reward model in Hugging Face layout; deeper ones are not read.

    Raises UsageProblem for a layer beyond the model and for tensors that do not fit, EnvironmentProblem for files that are absent.
    """
    place, precision = checked_place(device, dtype)
    path = checked_folder(folder)
    module = load_truncated_backbone(path, layer=layer, dtype=precision, device=place)
    return LoadedBackbone(folder=path, module=module, tokenizer=load_tokenizer(path))
