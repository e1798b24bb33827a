"""SARM in parts: truncated language model, TopK sparse autoencoder, linear reward head, and the jobs that train and score them.

What Python users import stands here by name and is loaded when it is asked for, so that `import sarm` alone costs nothing (docs/python.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sarm.api.backbones import LoadedBackbone as LoadedBackbone
    from sarm.api.backbones import TokenStates as TokenStates
    from sarm.api.backbones import load_backbone as load_backbone
    from sarm.api.preference_files import read_preferences as read_preferences
    from sarm.api.preference_files import read_scored_preferences as read_scored_preferences
    from sarm.api.reward_models import LoadedRewardModel as LoadedRewardModel
    from sarm.api.reward_models import Rewards as Rewards
    from sarm.api.reward_models import load_reward_model as load_reward_model
    from sarm.api.saes import LoadedSAE as LoadedSAE
    from sarm.api.saes import load_sae as load_sae
    from sarm.checkpoints.reward_models.layouts import import_authors_checkpoint as import_authors_checkpoint
    from sarm.data.preferences import Conversation as Conversation
    from sarm.data.preferences import Message as Message
    from sarm.data.preferences import Preference as Preference
    from sarm.data.preferences import ScoredPreference as ScoredPreference
    from sarm.job import EnvironmentProblem as EnvironmentProblem
    from sarm.job import JobError as JobError
    from sarm.job import UsageProblem as UsageProblem
    from sarm.metrics.credits import BenchmarkScores as BenchmarkScores
    from sarm.metrics.credits import Metric as Metric
    from sarm.metrics.pairs import PairwiseScores as PairwiseScores
    from sarm.metrics.pairs import pairwise_scores as pairwise_scores
    from sarm.metrics.rewardbench2 import rewardbench2_scores as rewardbench2_scores
    from sarm.metrics.rmbench import rmbench_scores as rmbench_scores
    from sarm.sae.model import Encoding as Encoding
    from sarm.scoring.conversations import ExplainedReward as ExplainedReward
    from sarm.scoring.conversations import LatentContribution as LatentContribution

# Public name -> the module that defines it. The imports above say the same to type checkers; tests/test_layers.py compares the two.
FACE: Mapping[str, str] = {
    "BenchmarkScores": "sarm.metrics.credits",
    "Conversation": "sarm.data.preferences",
    "Encoding": "sarm.sae.model",
    "EnvironmentProblem": "sarm.job",
    "ExplainedReward": "sarm.scoring.conversations",
    "JobError": "sarm.job",
    "LatentContribution": "sarm.scoring.conversations",
    "LoadedBackbone": "sarm.api.backbones",
    "LoadedRewardModel": "sarm.api.reward_models",
    "LoadedSAE": "sarm.api.saes",
    "Message": "sarm.data.preferences",
    "Metric": "sarm.metrics.credits",
    "PairwiseScores": "sarm.metrics.pairs",
    "Preference": "sarm.data.preferences",
    "Rewards": "sarm.api.reward_models",
    "ScoredPreference": "sarm.data.preferences",
    "TokenStates": "sarm.api.backbones",
    "UsageProblem": "sarm.job",
    "import_authors_checkpoint": "sarm.checkpoints.reward_models.layouts",
    "load_backbone": "sarm.api.backbones",
    "load_reward_model": "sarm.api.reward_models",
    "load_sae": "sarm.api.saes",
    "pairwise_scores": "sarm.metrics.pairs",
    "read_preferences": "sarm.api.preference_files",
    "read_scored_preferences": "sarm.api.preference_files",
    "rewardbench2_scores": "sarm.metrics.rewardbench2",
    "rmbench_scores": "sarm.metrics.rmbench",
}

# Hidden from type checkers, for whom a module with `__getattr__` has every name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name, from the module that defines it. Raises AttributeError for any other."""
        if name not in FACE:
            raise AttributeError(f"module 'sarm' has no attribute {name!r}")
        return getattr(import_module(FACE[name]), name)

    def __dir__() -> list[str]:
        """Public names beside what is loaded."""
        return sorted({*globals(), *FACE})
