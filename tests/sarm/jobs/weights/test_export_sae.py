"""`replicate store export-sae`: an SAE of ours leaves in another library's layout, by key or by folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from folders import ROOT
from tiny import HIDDEN

from sarm.checkpoints.saes.files import save_sae
from sarm.checkpoints.saes.foreign import read_foreign_sae
from sarm.sae.model import TopKSAE


def export(store: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replication.cli", "store", "export-sae", *arguments, "--store", str(store)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=250)


def test_a_word_that_is_no_sae_is_refused_in_one_line(tmp_path: Path) -> None:
    done = export(tmp_path / "store", "nothing", "--layout", "sparsify", "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "no key of an SAE; see: replicate store list" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_folder_is_exported_once_and_never_over_another(tmp_path: Path) -> None:
    sae = TopKSAE(hidden_size=HIDDEN, n_latents=32, k=4)
    sae.reset(torch.Generator().manual_seed(0))
    (tmp_path / "sae").mkdir()
    save_sae(tmp_path / "sae", sae, layer=3)
    arguments = (str(tmp_path / "sae"), "--layout", "sparsify", "--out", str(tmp_path / "out"))
    done = export(tmp_path / "store", *arguments)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cfg.json", "sae.safetensors"]
    assert "hand it hidden states after 'standardize'" in done.stderr
    x = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(1))
    prepared = sae.prepare(x)
    torch.testing.assert_close(read_foreign_sae(tmp_path / "out").sae.encode(prepared).latents, sae.encode(prepared).latents.relu())
    again = export(tmp_path / "store", *arguments)
    assert again.returncode == 2 and "exists; name a folder that does not" in again.stderr
    lens = export(tmp_path / "store", str(tmp_path / "sae"), "--layout", "sae-lens", "--out", str(tmp_path / "lens"))
    settings = json.loads((tmp_path / "lens" / "cfg.json").read_text())
    assert lens.returncode == 0 and settings["metadata"]["hook_name"] == "blocks.2.hook_resid_post"
