"""What reward training writes is the model that it trained, also where that lies in pieces over processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import ROOT, SUPPORT
from tiny import HIDDEN, learnable_pairs, save_backbone, write_rows

from sarm.checkpoints.reward_models.layouts import load_reward_model
from sarm.checkpoints.saes.files import save_sae
from sarm.config.train import RewardTrainingConfig
from sarm.reward.models import SARM
from sarm.sae.model import TopKSAE

BUILT = """
import json, sys
from pathlib import Path
from tiny import job_context
from transformers import AutoModel
from sarm.config.train import RewardTrainingConfig
from sarm.jobs.train.reward import train_reward

built, original = [], AutoModel.from_config
AutoModel.from_config = lambda *args, **kwargs: built.append(1) or original(*args, **kwargs)
folder, inputs, config = Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])
context = job_context(folder, inputs={name: Path(path) for name, path in inputs.items()}, threads=1, zero_stage=3)
train_reward(RewardTrainingConfig(**config), context)
print(len(built))
"""


def made_inputs(folder: Path) -> dict[str, Path]:
    (folder / "sae").mkdir(parents=True)
    sae = TopKSAE.fresh(hidden_size=HIDDEN, n_latents=32, k=4, generator=torch.Generator().manual_seed(0))
    save_sae(folder / "sae", sae, layer=2)
    pairs = write_rows(folder / "preferences", "train.jsonl", learnable_pairs(24))
    return {"backbone": save_backbone(folder / "backbone"), "sae": folder / "sae", "preferences": pairs}


@pytest.mark.slow
def test_the_trained_model_is_saved_and_no_second_one_built_for_it(tmp_path: Path) -> None:
    sizes = {"layer": 2, "batch_pairs": 4, "epochs": 2, "learning_rate": 3e-3, "max_length": 64}
    settings = RewardTrainingConfig.model_validate({**sizes, "selection": "test", "dtype": "bfloat16"}).model_dump_json()
    arguments = [str(tmp_path), json.dumps({name: str(path) for name, path in made_inputs(tmp_path / "inputs").items()}), settings]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    command = [sys.executable, "-c", BUILT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1", "a model in pieces over several processes is gathered, not built again"
    kept = [load_reward_model(tmp_path / "output" / folder, dtype=torch.bfloat16) for folder in ("", "epochs/1")]
    assert all(isinstance(model, SARM) and model.score.weight.shape == (1, 32) for model in kept)
    first, second = (model.state_dict() for model in kept)
    assert not any(torch.equal(first[name], second[name]) for name in ("score.weight", "model.embed_tokens.weight"))
