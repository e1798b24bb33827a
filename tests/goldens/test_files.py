"""No golden file and no part of one is left unread."""

from __future__ import annotations

import pytest
from folders import GOLDENS, ROOT
from golden_files import each, needs, read

# The file that reads each golden file, below `tests/`.
READERS = {
    "rewardbench2/cases.json": "goldens/test_rewardbench2.py",
    "rmbench/cases.json": "goldens/test_rmbench.py",
    "sarm/assistant_masks.json": "goldens/test_assistant_masks.py",
    "sarm/baseline_encoder.safetensors": "goldens/test_forward.py",
    "sarm/config.json": "goldens/test_forward.py",
    "sarm/context_collection.json": "goldens/test_contexts.py",
    "sarm/contexts.json": "goldens/test_contexts.py",
    "sarm/eval_scores.json": "goldens/test_released_scores.py",
    "sarm/forward.safetensors": "goldens/test_forward.py",
    "sarm/grads.safetensors": "goldens/test_training.py",
    "sarm/meta.json": "support/golden_model.py",
    "sarm/model.safetensors": "goldens/test_forward.py",
    "sarm/numerics.safetensors": "goldens/test_numerics.py",
    "sarm/sae_pretrain.json": "goldens/test_sae_pretraining.py",
    "sarm/steering.json": "goldens/test_steering.py",
    "sarm/train.json": "goldens/test_training.py",
}
# Parts of the files that are no list of cases. A reader looks up each case and each tensor by its name, so none of them goes unread.
PARTS = {
    "rewardbench2/cases.json": {"reference", "environment", "seed", "cases"},
    "rmbench/cases.json": {"reference", "environment", "seed", "cases"},
    "sarm/context_collection.json": {
        *("vocab", "sentence_enders", "sentence_ender_ids", "batch_size", "input_ids", "attention_mask", "runs"),
    },
    "sarm/contexts.json": {"merge", "parse_response", "prompt"},
    "sarm/meta.json": {"token_ids", "versions"},
    "sarm/sae_pretrain.json": {"run", "lr_schedule"},
    "sarm/train.json": {"cases", "baseline"},
}


@needs(".")
def test_no_golden_file_is_left_unread() -> None:
    present = {path.relative_to(GOLDENS).as_posix() for path in GOLDENS.rglob("*") if path.is_file()}
    unread = {name for name in present - READERS.keys() if not name.endswith("README.md")}
    assert not unread, f"golden files that nothing compares: {sorted(unread)}"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_names_the_golden_file_that_it_reads(name: str) -> None:
    assert f'"{name}"' in (ROOT / "tests" / READERS[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [entry for file in PARTS for entry in each(file, lambda file: [file])])
def test_no_part_of_a_golden_file_is_left_unread(name: str) -> None:
    unread = read(name).keys() - PARTS[name]
    assert not unread, f"parts of {name} that nothing compares: {sorted(unread)}"
