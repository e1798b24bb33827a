"""Weights brought in from a folder or the hub, and tokenizers made usable, without touching the originals."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import DATA, ROOT, SUPPORT
from safetensors.torch import load_file, save_file
from tiny import causal_lm, edit_json, job_context, llama_config, save_backbone
from transformers import AutoModelForCausalLM

from sarm.checkpoints.backbones import load_tokenizer, load_truncated_backbone
from sarm.config.weights import WeightsConfig
from sarm.data.preferences import Message
from sarm.data.tokens import ConversationTokenizer
from sarm.job import EnvironmentProblem, UsageProblem
from sarm.jobs.weights.fetch import fetch_weights

STORIES = DATA / "models" / "stories260K"
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}\n{% endfor %}"
TALK = [Message(role="user", content="Tell a story."), Message(role="assistant", content="Once upon a time.")]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def fetch(source: Path, target: Path, **settings: Any) -> Path:
    """Run the job on a folder; returns its output."""
    context = job_context(target, locations={"source": source})
    fetch_weights(WeightsConfig(origin="folder", revision="0" * 64, **settings), context)
    return context.output


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A backbone like stories260K: no chat template, pad is the end of text."""
    folder = save_backbone(tmp_path / "bare")
    (folder / "chat_template.jinja").unlink()
    edit_json(folder / "tokenizer_config.json", eos_token="<|end_of_text|>", pad_token="<|end_of_text|>")
    return folder


def test_folder_is_taken_as_it_is(tmp_path: Path, bare: Path) -> None:
    (bare / "pytorch_model.bin").write_bytes(b"a pickle beside it")
    (bare / "README.md").write_text("not needed")
    before = digests(bare)
    output = fetch(bare, tmp_path / "job")
    assert digests(output) == {name: digest for name, digest in before.items() if name not in ("pytorch_model.bin", "README.md")}


def test_missing_folder_names_the_key_to_correct(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=r"gone: no model folder with a config\.json there; correct backbones\.<slot>\.source"):
        fetch(tmp_path / "gone", tmp_path / "job")


def test_folder_with_pickles_only_is_refused(tmp_path: Path, bare: Path) -> None:
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(UsageProblem, match=r"bare: no safetensors file, only pytorch_model\.bin; pickles are not loaded"):
        fetch(bare, tmp_path / "job")


def test_overrides_make_a_tokenizer_usable_and_leave_the_originals_alone(tmp_path: Path, bare: Path) -> None:
    before = digests(bare)
    settings = {"chat_template": TEMPLATE, "add_tokens": ("<|turn|>",), "pad_token": "<|filler|>", "end_of_turn": "<|turn|>"}
    output = fetch(bare, tmp_path / "job", **settings)
    assert digests(bare) == before
    tokenizer, raw = load_tokenizer(output), json.loads((output / "config.json").read_text())
    rows = llama_config().vocab_size
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == ("<|turn|>", "<|filler|>", TEMPLATE)
    assert {tokenizer.eos_token_id, tokenizer.pad_token_id} == {rows, rows + 1}
    assert (raw["eos_token_id"], raw["pad_token_id"], raw["vocab_size"]) == (tokenizer.eos_token_id, tokenizer.pad_token_id, rows + 2)
    encoded = ConversationTokenizer(tokenizer).encode(TALK, max_length=99)
    assert encoded.ids[-1] == tokenizer.eos_token_id
    assert (
        load_truncated_backbone(output, layer=1, dtype=torch.float32)(input_ids=torch.tensor([encoded.ids]))
        .last_hidden_state.isfinite()
        .all()
    )


def test_new_embedding_rows_are_the_mean_of_the_old_ones(tmp_path: Path, bare: Path) -> None:
    output = fetch(bare, tmp_path / "job", pad_token="<|filler|>")
    old, new = load_file(bare / "model.safetensors"), load_file(output / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(new[name][:-1], old[name]) and len(new[name]) == len(old[name]) + 1
        torch.testing.assert_close(new[name][-1], old[name].mean(dim=0))
    assert torch.equal(new["model.norm.weight"], old["model.norm.weight"])
    assert AutoModelForCausalLM.from_pretrained(output).get_input_embeddings().num_embeddings == llama_config().vocab_size + 1


def test_token_that_fits_into_a_padded_vocabulary_grows_nothing(tmp_path: Path) -> None:
    source = save_backbone(tmp_path / "wide", vocab_size=100)
    output = fetch(source, tmp_path / "job", pad_token="<|filler|>")
    assert json.loads((output / "config.json").read_text())["vocab_size"] == 100
    assert (output / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def test_embeddings_in_a_shard_grow_there(tmp_path: Path, bare: Path) -> None:
    tensors = load_file(bare / "model.safetensors")
    names = {name: f"model-0000{1 + ('layers' in name)}-of-00002.safetensors" for name in tensors}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, bare / file)
    (bare / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    (bare / "model.safetensors").unlink()
    output = fetch(bare, tmp_path / "job", pad_token="<|filler|>")
    cut = load_truncated_backbone(output, layer=2, dtype=torch.float32)
    assert cut.embed_tokens.weight.shape[0] == llama_config().vocab_size + 1
    untouched = "model-00002-of-00002.safetensors"
    assert (output / untouched).read_bytes() == (bare / untouched).read_bytes()
    assert not (output / untouched).samefile(bare / untouched)


def test_an_artifact_stays_as_it_is_when_its_source_is_edited_in_place(tmp_path: Path, bare: Path) -> None:
    output = fetch(bare, tmp_path / "job")
    before = digests(output)
    for path in bare.iterdir():
        with path.open("r+b") as file:
            file.write(b"?")
    assert digests(output) == before and digests(bare) != before


@pytest.mark.parametrize("refusal", [OSError(errno.EXDEV, "another file system"), AttributeError("not on this system"), 0])
def test_files_are_copied_whole_where_the_kernel_does_not_help(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception | int
) -> None:
    def refused(*arguments: object) -> int:
        if isinstance(refusal, Exception):
            raise refusal
        return refusal

    monkeypatch.setattr(os, "copy_file_range", refused)
    assert digests(fetch(bare, tmp_path / "job"))["model.safetensors"] == digests(bare)["model.safetensors"]


def test_grown_weights_have_the_bytes_that_the_library_would_write(tmp_path: Path, bare: Path) -> None:
    output = fetch(bare, tmp_path / "job", pad_token="<|filler|>")
    tensors = load_file(output / "model.safetensors")
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()
    assert sorted(path.suffix for path in output.iterdir() if "partial" in path.name) == []


GROWTH = """
import sys
from pathlib import Path
sys.path.insert(0, "benchmarks")
from interleaved import peak_from_now, status
from tiny import job_context
from sarm.config.weights import WeightsConfig
from sarm.jobs.weights.fetch import fetch_weights
for source, target in (sys.argv[1:3], sys.argv[3:5]):
    before = peak_from_now()
    context = job_context(Path(target), locations={"source": Path(source)})
    fetch_weights(WeightsConfig(origin="folder", revision="0" * 64, pad_token="<|filler|>"), context)
print("none" if before is None else status("VmHWM") - before)
"""


def test_growing_the_embeddings_reads_nothing_else(tmp_path: Path, bare: Path) -> None:
    shape = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8, "num_hidden_layers": 8}
    source = save_backbone(tmp_path / "large", **shape)
    assert (source / "model.safetensors").stat().st_size > 100_000_000
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SUPPORT)])}
    arguments = [str(bare), str(tmp_path / "first"), str(source), str(tmp_path / "second")]
    command = [sys.executable, "-c", GROWTH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1]
    if told == "none":
        pytest.skip("the kernel does not let a process forget its peak")
    assert int(told) < 50_000_000, "half of the file; all of it in memory was the old way"


def test_unknown_end_of_turn_is_refused(tmp_path: Path, bare: Path) -> None:
    with pytest.raises(
        UsageProblem, match="the tokenizer has no token '<|im_end|>' for eos_token; name it in add_tokens".replace("|", r"\|")
    ):
        fetch(bare, tmp_path / "job", end_of_turn="<|im_end|>")


def test_job_that_was_killed_half_way_runs_again_in_the_same_folder(tmp_path: Path, bare: Path) -> None:
    settings = {"chat_template": TEMPLATE, "pad_token": "<|filler|>"}
    once = fetch(bare, tmp_path / "one", **settings)
    fetch(bare, tmp_path / "two")
    twice = fetch(bare, tmp_path / "two", **settings)
    assert digests(once) == digests(twice)
    assert digests(fetch(bare, tmp_path / "two", **settings)) == digests(once)


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"no stories260K in {STORIES}; set SARM_DATA")
def test_stories260k_becomes_a_conversation_model(tmp_path: Path) -> None:
    output = fetch(STORIES, tmp_path / "job", chat_template=TEMPLATE, pad_token="<pad>")
    tokenizer, pieces = load_tokenizer(output), len(load_tokenizer(STORIES))
    assert (tokenizer.pad_token, len(tokenizer)) == ("<pad>", pieces + 1)
    ids = ConversationTokenizer(tokenizer).encode(TALK, max_length=99).ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    cut = load_truncated_backbone(output, layer=2, dtype=torch.float32)
    assert cut.embed_tokens.weight.shape[0] == pieces + 1


def test_weights_without_embeddings_are_refused_when_tokens_are_added(tmp_path: Path, bare: Path) -> None:
    state = {f"decoder.{name}": value for name, value in causal_lm(llama_config()).state_dict().items() if "layers.0" in name}
    save_file(state, bare / "model.safetensors")
    with pytest.raises(UsageProblem, match=r"the weights have no embed_tokens\.weight; is this a decoder"):
        fetch(bare, tmp_path / "job", pad_token="<|filler|>")
