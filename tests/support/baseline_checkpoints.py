"""Tiny random reward models in the published layouts, the same bytes wherever they are made.

Imported by the tests and, in another environment, by `fixtures/make_baseline_fixtures.py`: numpy, torch and safetensors alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

HIDDEN, MLP, HEADS, HEAD_SIZE = 8, 12, 2, 4
LLAMA3_VOCABULARY = 128_256
BOS, END_OF_TURN, PAD = 128_000, 128_009, 128_255
OPENING = (128_009, 128_006, 78_191, 128_007, 271)
# As many quantiles as objectives (19 and 19 in the released models): the package's class can multiply no other sizes.
OBJECTIVES, QUANTILES, GATE_WIDTH = 5, 5, 6
LDL_OBJECTIVES, LDL_WIDTH = 22, 6
SMALL_VOCABULARY, SMALL_BOS, SMALL_END, SMALL_PAD = 40, 1, 2, 0

BASE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "head_dim": HEAD_SIZE,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
LARGE_IDS = {"vocab_size": LLAMA3_VOCABULARY, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": END_OF_TURN}
SMALL_IDS = {"vocab_size": SMALL_VOCABULARY, "pad_token_id": SMALL_PAD, "bos_token_id": SMALL_BOS, "eos_token_id": SMALL_END}
ONE_LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1}
GATED = {"num_objectives": OBJECTIVES, "gating_hidden_dim": GATE_WIDTH, "gating_n_hidden": 2, "gating_temperature": 2.0, **ONE_LABEL}
GEMMA2 = {
    "model_type": "gemma2",
    "query_pre_attn_scalar": HEAD_SIZE,
    "sliding_window": 8,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "classifier-llama": {"model_type": "llama", "architectures": ["LlamaForSequenceClassification"], **SMALL_IDS, **ONE_LABEL},
    "classifier-qwen3": {"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"], **SMALL_IDS, **ONE_LABEL},
    "classifier-gemma2": {**GEMMA2, "architectures": ["Gemma2ForSequenceClassification"], **SMALL_IDS, **ONE_LABEL},
    "armorm": {"model_type": "llama", "architectures": ["LlamaForRewardModelWithGating"], **LARGE_IDS, **GATED},
    "qrm-llama3": {"model_type": "llama", "num_quantiles": QUANTILES, **LARGE_IDS, **GATED},
    "qrm-llama3.1": {"model_type": "llama", "num_quantiles": QUANTILES, **LARGE_IDS, **GATED},
    "grm-mlp": {"model_type": "llama", "vhead_layer_type": "mlp", "vhead_num_neurons": 6, "vhead_num_layers": 2, **SMALL_IDS},
    "grm-linear": {"model_type": "gemma", "vhead_layer_type": "linear", **SMALL_IDS},
    "ldl": {**GEMMA2, "architectures": ["Gemma2Model"], "num_objectives": LDL_OBJECTIVES * 10, **SMALL_IDS},
    "ldl-softmax": {**GEMMA2, "num_objectives": LDL_OBJECTIVES * 10, "softmax": True, "temperature": 0.5, **SMALL_IDS},
}
CONFIGS = {name: {**BASE, **config} for name, config in CONFIGS.items()}


def rows_of(name: str) -> list[list[int]]:
    """Conversations as token ids, of three lengths, each ending with the end of turn; Llama 3's have assistant headers."""
    if CONFIGS[name]["vocab_size"] == SMALL_VOCABULARY:
        return [
            [SMALL_BOS, 5, 6, 7, 8, SMALL_END],
            [SMALL_BOS, 9, 10, 5, 11, 12, 13, 14, 15, 16, 17, 18, 6, SMALL_END],
            [SMALL_BOS, 20, 21, 22, 23, 24, 25, 26, SMALL_END],
        ]
    return [
        [BOS, 100, 2000, 30, *OPENING, 4000, 50, END_OF_TURN],
        [BOS, 7, 8, *OPENING, 600, 61, END_OF_TURN, 9, 10, *OPENING, 11, 12, 13, END_OF_TURN],
        [BOS, 70000, 90001, 15, 16, *OPENING, 17, END_OF_TURN],
    ]


def write_checkpoint(folder: Path, name: str, *, seed: int = 0) -> Path:
    """`config.json` and weights of one architecture; LDL's heads lie beside them as `.pt`."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIGS[name]
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    prefix = "" if name.startswith("ldl") else "model."
    tensors = {prefix + key: value for key, value in drawn(decoder_shapes(config), seed).items()}
    heads = drawn(head_shapes(name, config), seed)
    if name.startswith("ldl"):
        for head in ("regression_layer", "gating_layer"):
            part = {key.removeprefix(f"{head}."): value for key, value in heads.items() if key.startswith(head)}
            torch.save(part, folder / f"{head}.pt")
    else:
        tensors.update(heads)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Normal values by name and seed; norms and scales near 1, variances above 0, counters 1."""
    tensors = {}
    for name, shape in shapes.items():
        values = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1)
            continue
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        elif len(shape) == 1 and not name.endswith(("bias", "running_mean")):
            values = 1 + 0.1 * values
        elif "embed_tokens" not in name:
            values = 0.4 * values
        tensors[name] = torch.from_numpy(np.ascontiguousarray(values))
        if name == "reward_transform_matrix":
            # The package's class for QRM-Llama3-8B keeps it in bfloat16: values that lose nothing there.
            tensors[name] = tensors[name].bfloat16().float()
    return tensors


def decoder_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of a base decoder of that `model_type`."""
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (config["vocab_size"], HIDDEN), "norm.weight": (HIDDEN,)}
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config["model_type"] == "gemma2":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for number in range(config["num_hidden_layers"]):
        block = f"layers.{number}"
        for part, rows in (("q_proj", HEADS), ("k_proj", 1), ("v_proj", 1)):
            shapes[f"{block}.self_attn.{part}.weight"] = (rows * HEAD_SIZE, HIDDEN)
        shapes[f"{block}.self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_SIZE)
        if config["model_type"] == "qwen3":
            shapes.update({f"{block}.self_attn.{part}.weight": (HEAD_SIZE,) for part in ("q_norm", "k_norm")})
        shapes.update({f"{block}.mlp.{part}.weight": (MLP, HIDDEN) for part in ("gate_proj", "up_proj")})
        shapes[f"{block}.mlp.down_proj.weight"] = (HIDDEN, MLP)
        shapes.update({f"{block}.{norm}.weight": (HIDDEN,) for norm in norms})
    return shapes


def head_shapes(name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of the head of one architecture."""
    if name.startswith("classifier"):
        return {"score.weight": (1, HIDDEN)}
    if name == "grm-linear":
        return {"v_head.summary.weight": (1, HIDDEN), "v_head.summary.bias": (1,)}
    if name == "grm-mlp":
        return _layers("v_head.summary", {0: (6, HIDDEN), 2: (6, 6), 4: (1, 6)})
    if name.startswith("ldl"):
        wide, narrow = LDL_WIDTH, LDL_OBJECTIVES
        return {
            **_layers("regression_layer.network", {0: (wide, HIDDEN), 2: (wide, wide), 4: (narrow * 10, wide)}),
            **_layers("gating_layer.network", {0: (wide, HIDDEN), 3: (wide, wide), 6: (narrow, wide)}),
        }
    quantiles = config.get("num_quantiles", 1)
    shapes = {
        "regression_layer.weight": (OBJECTIVES * quantiles, HIDDEN),
        "reward_transform_matrix": (OBJECTIVES, OBJECTIVES),
        "gating.logit_scale": (1,),
    }
    if name == "armorm":
        return {**shapes, **_layers("gating.layers", {0: (GATE_WIDTH, HIDDEN), 1: (GATE_WIDTH, GATE_WIDTH), 2: (OBJECTIVES, GATE_WIDTH)})}
    for number, width in ((0, HIDDEN), (3, GATE_WIDTH)):
        shapes[f"gating.layers.{number}.weight"] = (GATE_WIDTH, width)
        parts = ("weight", "bias", "running_mean", "running_var")
        shapes.update({f"gating.layers.{number + 2}.{part}": (GATE_WIDTH,) for part in parts})
        shapes[f"gating.layers.{number + 2}.num_batches_tracked"] = ()
    return {**shapes, **_layers("gating.layers", {6: (OBJECTIVES, GATE_WIDTH)})}


def _layers(prefix: str, sizes: Mapping[int, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, size in sizes.items():
        shapes[f"{prefix}.{number}.weight"] = size
        shapes[f"{prefix}.{number}.bias"] = size[:1]
    return shapes
