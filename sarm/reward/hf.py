"""Register SARM with transformers' Auto classes: `import sarm.reward.hf`, then load with `AutoModelForSequenceClassification`.

No remote code: the classes are these. A trainer such as TRL's then trains or serves a SARM with its TopK head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

from sarm.backbone.decoder import truncated_backbone
from sarm.sae.model import TopKSAE, topk


class SarmConfig(PretrainedConfig):
    """Our checkpoint's `config.json`: a backbone's configuration, how deep it is cut, and the encoder's geometry."""

    model_type = "sarm"

    # transformers builds a configuration from keywords alone.
    def __init__(  # noqa: PLR0917
        self,
        backbone: dict[str, Any] | None = None,
        encoder: str = "sae",
        layer: int = 1,
        n_latents: int = 2,
        k: int = 1,
        latents: str = "topk",
        standardize: bool = True,
        **kwargs: Any,
    ) -> None:
        self.backbone = dict(backbone or {})
        self.encoder = encoder
        self.layer = layer
        self.n_latents = n_latents
        self.k = k
        self.latents = latents
        self.standardize = standardize
        kwargs.setdefault("num_labels", 1)
        super().__init__(**kwargs)

    def backbone_config(self) -> PretrainedConfig:
        """The decoder's own configuration."""
        fields = {key: value for key, value in self.backbone.items() if key != "model_type"}
        return AutoConfig.for_model(self.backbone["model_type"], **fields)


class SarmForSequenceClassification(PreTrainedModel):
    """One reward a conversation, read at the last token that is not padding."""

    config_class = SarmConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # Rewards in low precision make ties, so the head stays in float32 whatever the rest is loaded in.
    _keep_in_fp32_modules_strict = ["score"]  # noqa: RUF012

    def __init__(self, config: SarmConfig) -> None:
        super().__init__(config)
        text = config.backbone_config()
        # Built in the precision that the caller loads in, not in the one that the checkpoint was saved in.
        text.dtype = None
        self.num_labels = 1
        self.model = truncated_backbone(text, config.layer)
        if config.encoder == "linear":
            self.untrained_sae_encoder = nn.Linear(text.hidden_size, config.n_latents)
        else:
            self.sae = TopKSAE(hidden_size=text.hidden_size, n_latents=config.n_latents, k=config.k, standardizes=config.standardize)
        self.score = nn.Linear(config.n_latents, 1, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding table."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding table."""
        self.model.set_input_embeddings(value)

    def features(self, pooled: Tensor) -> Tensor:
        """`[batch, hidden_size]` to what the head sees, `[batch, n_latents]`."""
        if self.config.encoder == "linear":
            return self.untrained_sae_encoder(pooled)
        pre_acts = self.sae.pre_acts(self.sae.prepare(pooled))
        return topk(pre_acts, self.sae.k) if self.config.latents == "topk" else pre_acts

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits `[batch, 1]` in float32. Pooling follows the attention mask, or the pad id where there is none.

        Raises ValueError for several rows with neither.
        """
        output = self.model(input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask, use_cache=False)
        states = output.last_hidden_state
        if attention_mask is None:
            if input_ids is None:
                raise ValueError("without input_ids an attention_mask is needed to find the last token")
            pad = self.config.pad_token_id
            if pad is None and len(input_ids) > 1:
                raise ValueError("several rows need an attention_mask or config.pad_token_id to find each one's last token")
            attention_mask = torch.ones_like(input_ids) if pad is None else (input_ids != pad).long()
        positions = torch.arange(states.shape[1], device=states.device)
        last = (attention_mask * positions).argmax(dim=-1)
        pooled = states[torch.arange(len(states), device=states.device), last]
        logits = nn.functional.linear(self.features(pooled).float(), self.score.weight.float())
        loss = None if labels is None else nn.functional.mse_loss(logits.squeeze(-1), labels.float())
        return SequenceClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(SarmConfig.model_type, SarmConfig, exist_ok=True)
AutoModelForSequenceClassification.register(SarmConfig, SarmForSequenceClassification, exist_ok=True)
