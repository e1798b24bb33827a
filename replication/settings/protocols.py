"""The written specifications of the paper's method, as data: each value with where it comes from.

`paper` is the preprint, `aaai` the proceedings text, `authors` and `authors-dec` the recipes that the authors released in
August and December 2025. Where a specification is silent the value is our choice and says so.
Source: specification notes `sarm-released-code.md` sections 2, 3, 7, 8 (S = schrieffer-z/sarm @ 19dd4e2, P = schrieffer-z/sae @ 8b572ce).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import Field

from replication.frozen import Frozen

SETUP_SAE = "paper, Setup, SAE Pretraining"
SETUP_SARM = "paper, Setup, SARM Training"
READER = "as reported by a reader of the proceedings; source not at hand"


class Choice(Frozen):
    """One value and where it comes from."""

    value: Any
    source: str


class Deviation(Frozen):
    """A place where we do not do what a text or the released code says."""

    text: str
    where: str = Field(description="Where it is done: a setting or a file.")


class Protocol(Frozen):
    """A complete, named set of choices."""

    name: str
    summary: str
    sae: Mapping[str, Choice]
    reward: Mapping[str, Choice]
    scoring: Mapping[str, Choice]
    feature_scores: Choice = Field(description="Data on which s_i is computed for steering.")
    steering: Mapping[str, Choice] = Field(default_factory=dict)
    deviations: tuple[Deviation, ...] = ()

    @property
    def checkpoint_rule(self) -> Choice:
        """Which checkpoint of reward training is the result."""
        return self.reward["selection"]

    def section(self, name: str) -> Mapping[str, Choice]:
        """The choices of one config section; empty for sections without any."""
        sections = {"sae": self.sae, "reward": self.reward, "scoring": self.scoring, "steering": self.steering}
        return sections.get(name, {})


def _chosen(source: str, **values: Any) -> dict[str, Choice]:
    return {name: Choice(value=value, source=source) for name, value in values.items()}


PAPER_SAE = {
    **_chosen(f"{SETUP_SAE}: 50 million sequences, about a billion tokens; one vector a sequence", vectors=50_000_000),
    **_chosen("paper, Sequence-level SAE Pretraining: only the final token of each sentence", tokens="last"),
    **_chosen("our choice: the text does not say whether a sentence is seen alone; alone, as P utils.py:146-176 does", context="sentence"),
    **_chosen("our choice: the text names no splitter; one whose model comes inside its package", splitter="nupunkt"),
    **_chosen("our choice: P utils.py:157 cuts at 96 tokens, which covers 99 % of sentences", max_tokens=96),
    **_chosen(f"{SETUP_SAE}: Adam with the standard decay rates", beta1=0.9, beta2=0.999),
    **_chosen(f"{SETUP_SAE}: learning rate 5e-4", learning_rate=5e-4),
    **_chosen(f"{SETUP_SAE}: activations are normalised; per token, as S sae.py:32-40", standardize=True),
    **_chosen("paper, Eq. 5: plain squared error", objective="squared_error"),
    **_chosen(f"{SETUP_SAE}: decoder columns to unit norm every 10 steps", unit_norm_every=10),
    **_chosen("our choice: the text names no batch size; 4,096 vectors a step", batch_vectors=4096),
    **_chosen("our choice: the text names no schedule", schedule="constant", warmup_fraction=0.05),
    **_chosen("our choice: the text names no auxiliary loss", auxk_weight=0.0),
    **_chosen("our choice: bfloat16 forward as in S, float32 SAE and Adam states", backbone_dtype="bfloat16", dtype="float32"),
}
AUTHORS_SAE = {
    **PAPER_SAE,
    **_chosen("P utils.py:459-475: also at , ? -- ; ! and quotes inside the sentence", tokens="last-and-inner"),
    **_chosen("P utils.py:146-176: the sentence alone after BOS", context="sentence"),
    **_chosen("P utils.py:146-176: nltk.sent_tokenize", splitter="nltk-punkt"),
    **_chosen("P utils.py:146-176: more than 9 tokens", min_tokens=10),
    **_chosen("P utils.py:146-176: at most 96 tokens", max_tokens=96),
    **_chosen("P utils.py:146-176: only characters up to U+00FF", latin1_only=True),
    **_chosen("S sae.py:22-30, P utils.py:338: normalised MSE", objective="normalized_mse"),
    **_chosen("P utils.py:396-403: warm-up 5 %, jump at 80 %, zero from 95 %", schedule="authors", warmup_fraction=0.05),
    **_chosen("P utils.py:438-440: SAE and Adam states in bfloat16", dtype="bfloat16", backbone_dtype="bfloat16"),
    **_chosen("our choice: P takes 64 sentences a step, about 3 vectors each; 192 vectors is the nearest fixed size", batch_vectors=192),
}
PAPER_REWARD = {
    **_chosen("paper, Eq. 9: the head sees TopK latents", latents="topk"),
    **_chosen(f"{SETUP_SARM}: the encoder's parameters are frozen", sae_trains=False, reconstruction_weight=0.0),
    **_chosen(f"{SETUP_SARM}: the first l layers and the head are trained", backbone_trains=True),
    **_chosen(f"{SETUP_SARM}: global batch 8", batch_pairs=8),
    **_chosen(f"{SETUP_SARM}: 3 epochs", epochs=3),
    **_chosen(f"{SETUP_SARM}: learning rate 4e-6", learning_rate=4e-6),
    **_chosen("S bradley_terry.py:95,128-137 (the text is silent): cosine, warm-up 3 %", schedule="cosine", warmup_fraction=0.03),
    **_chosen("S bradley_terry.py:95,128-137 (the text is silent): weight decay 0.001", weight_decay=0.001),
    **_chosen("S bradley_terry.py:242 (the text is silent): the Trainer's default clip", max_grad_norm=1.0),
    **_chosen("S bradley_terry.py:174-175 (the text is silent): 4,096 tokens, cut on the left", max_length=4096, overlong="left"),
    **_chosen("S bradley_terry.py:306-308 (the text is silent): the head starts at zero", head_init="zeros"),
    **_chosen("S recipes (the text is silent): bfloat16", dtype="bfloat16"),
    **_chosen("our choice: the text does not say which checkpoint is meant; the last one", selection="last", validation_fraction=0.0),
}
SCORING = {
    **_chosen("allenai/reward-bench run_v2.py default", max_length=2048),
    **_chosen("our choice: the benchmark's script cuts on the right, which loses the end of turn", truncation="left"),
    **_chosen("allenai/reward-bench run_v2.py with a Llama-3 template", bos="double-first-masked"),
}
# What the official script does with a model that has no entry of its own.
HARNESS: Mapping[str, Any] = MappingProxyType(
    {
        "formatting": "harness",
        "max_length": 2048,
        "truncation": "tokenizer",
        "bos": "double-first-masked",
        "dtype": "float16",
        "batches": "dataset-order",
        "batch_rows": 64,
    }
)
DRIVER_RULE = "our choice: S run_eval.py:103-120 scores every checkpoint on the test sets, which allows selection on test; the last one"

SHARED_DEVIATIONS = (
    Deviation(text="Rewards are read at the last token by attention mask, not at 'first pad minus one'.", where="sarm/data/tokens.py"),
    Deviation(text="Overlong conversations are cut on the left in scoring, so that the end of turn stays.", where="scoring.truncation"),
    Deviation(text="Reward head and losses are computed in float32.", where="sarm/reward/models.py"),
    Deviation(text="Optimizer is AdamW; the release uses its paged form, which differs in memory only.", where="sarm/jobs/train/reward.py"),
)

RELEASED_DEVIATIONS = (
    Deviation(text="Reward head in float32, whatever the backbone's precision.", where="sarm/reward/models.py, sarm/reward/baselines.py"),
    Deviation(text="Rows are pooled by their length, never by the first pad token.", where="sarm/scoring/inference.py"),
    Deviation(text="Templates that print today's date get a pinned one.", where="scoring.date_string"),
)

PAPER = Protocol(
    name="paper",
    summary="the preprint as written: batch 8, lr 4e-6, 3 epochs, frozen encoder, TopK",
    sae=PAPER_SAE,
    reward=PAPER_REWARD,
    scoring={**SCORING, **_chosen("our choice: bfloat16, in which the model was trained", dtype="bfloat16")},
    feature_scores=Choice(value="rewardbench2-safety", source="paper, RM Preference Manipulation: the Safety subset of RewardBench 2"),
    deviations=SHARED_DEVIATIONS,
)
AAAI = PAPER.model_copy(
    update={
        "name": "aaai",
        "summary": "the proceedings text: batch 512, s_i on RM-Bench safety",
        "reward": {**PAPER_REWARD, **_chosen(f"proceedings: global batch 512 ({READER})", batch_pairs=512)},
        "feature_scores": Choice(value="rmbench-safety", source=f"proceedings: RM-Bench safety ({READER})"),
    }
)
AUTHORS = Protocol(
    name="authors",
    summary="the recipe released in August 2025: lr 2e-6, 256 pairs, SAE trained with a reconstruction loss, no TopK in training",
    sae=AUTHORS_SAE,
    reward={
        **PAPER_REWARD,
        **_chosen("S recipes/sarm_train.sh:23: sarm_use_topk=false", latents="pre_acts"),
        **_chosen("S recipes/sarm_train.sh:26-27: train mode 3, lambda 1", sae_trains=True, reconstruction_weight=1.0),
        **_chosen("S recipes/sarm_train.sh: sequence-level reconstruction off", reconstruction_tokens="assistant"),
        **_chosen("S train mode 3: reconstruction of detached hidden states", reconstruction_reaches_backbone=False),
        **_chosen("S bradley_terry.py:92-93, sarm_train.sh:7-9: 1 x 4 GPUs x 64 accumulation steps", batch_pairs=256),
        **_chosen("S recipes/sarm_train.sh: learning rate 2e-6", learning_rate=2e-6),
        **_chosen(DRIVER_RULE, selection="last", validation_fraction=0.0),
    },
    scoring={**SCORING, **_chosen("S eval_rewardbench_sarm_llama.py:99: float16 by default", dtype="float16")},
    feature_scores=Choice(value="rmbench-safety", source="S steering/train/rm_bench: the released s_i is from RM-Bench"),
    steering=_chosen("S inference_with_steering.py:235: steering asserts TopK, also for a model that was trained without", latents="topk"),
    deviations=(
        *SHARED_DEVIATIONS,
        Deviation(text="Trained without TopK, scored without; the released loader takes 'woTopK' for TopK.", where="reward.latents"),
        Deviation(
            text="Only the last checkpoint is scored; the released driver scores each on the test sets, as selection = test does.",
            where="reward.selection",
        ),
    ),
)
AUTHORS_DEC = AUTHORS.model_copy(
    update={
        "name": "authors-dec",
        "summary": "the recipe of December 2025: frozen encoder, TopK, lr 2e-6",
        "reward": {
            **AUTHORS.reward,
            **_chosen("S of December 2025: sarm_use_activation=true", latents="topk"),
            **_chosen("S of December 2025: train mode 1, lambda 0", sae_trains=False, reconstruction_weight=0.0),
            **_chosen("S of December 2025: sequence-level on (unused in mode 1)", reconstruction_tokens="last"),
        },
        "deviations": (*SHARED_DEVIATIONS, AUTHORS.deviations[-1]),
    }
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({one.name: one for one in (PAPER, AAAI, AUTHORS, AUTHORS_DEC)})
