"""Shorter words for heads and models where a terminal has no room for the printed ones. What is not here is never abbreviated."""

from __future__ import annotations

from collections.abc import Mapping

HEADS: Mapping[str, str] = {"Factuality": "Fact.", "Precise IF": "Prec. IF"}
# The family of the backbone is left out, since the published tables print each model's size too.
NAMES: Mapping[str, str] = {
    "ArmoRM-Llama3-8B-v0.1": "ArmoRM-8B-v0.1",
    "GRM-Llama3-8B-rewardmodel-ft": "GRM-8B-rewardmodel-ft",
    "Llama-3.1-Tulu-3-8B-RL-RM-RB2": "Tulu-3-8B-RL-RM-RB2",
    "Llama-3.1-Tulu-3-70B-SFT-RM-RB2": "Tulu-3-70B-SFT-RM-RB2",
    "RAMO-Llama3.1-8B": "RAMO-8B",
    "QRM-Llama3.1-8B-v2": "QRM-8B-v2",
    "Skywork-Llama-8B-v0.2": "Skywork-8B-v0.2",
    "LDL-Reward-Gemma-2-27B-v0.1": "LDL-27B-v0.1",
    "SAE Encoder with Random Init": "Random-init encoder",
    "Token-level SAE Pretraining": "Token-level SAE",
    "Random frozen encoder, TopK (matched)": "Random SAE, matched",
    "Token level, as many vectors": "Token level, matched",
    "Scalar head, truncated": "Scalar, truncated",
    "Scalar head, full depth": "Scalar, full depth",
    "Bag of words and length": "Bag of words, length",
    "Random decoder columns": "Random columns",
    "SparseRM: top-K directions, margin loss": "SparseRM",
}


def short_head(head: str) -> str:
    """A column's head where room is scarce."""
    return HEADS.get(head, head)


def short_name(label: str) -> str:
    """A model's name where room is scarce."""
    return NAMES.get(label, label)
