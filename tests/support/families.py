"""One small config of each family of decoders that a reward model may stand on."""

from __future__ import annotations

from typing import Any

from tiny import HIDDEN, llama_config
from transformers import Gemma2Config, PretrainedConfig, Qwen2Config, Qwen3Config

SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": llama_config(),
    "gemma2": Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=4),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
}
