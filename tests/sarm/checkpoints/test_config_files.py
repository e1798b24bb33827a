"""JSON files beside weights: what is wrong with them is said in one line, whichever reader meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import save_backbone, save_word_tokenizer

from sarm.checkpoints.backbones import load_config, load_tokenizer
from sarm.checkpoints.config_files import checked_settings, read_settings
from sarm.checkpoints.saes.files import SAEGeometry, load_sae
from sarm.job import UsageProblem


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        *((content, "not JSON") for content in (b"", b"{", b"\xff\xfe{}", b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}')),
        *((content, "a JSON object is expected") for content in (b"[1]", b"3")),
    ],
)
def test_a_file_that_is_no_json_object_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "lm")
    for name, read in (("config.json", load_config), ("config.json", load_tokenizer), ("sae.json", load_sae)):
        (folder / name).write_bytes(content)
        with pytest.raises(UsageProblem, match=rf"lm/{name}: {complaint}.*; fetch it again"):
            read(folder)
    assert read_settings(folder / "tokenizer_config.json")["eos_token"] == "<|eot_id|>"


@pytest.mark.parametrize("inside", [False, True])
def test_labels_without_an_end_are_refused_before_their_names_fill_the_memory(inside: bool, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "lm")
    raw = read_settings(folder / "config.json")
    many = {"text_config": {"num_labels": 10**30}} if inside else {"num_labels": 10**8}
    (folder / "config.json").write_text(json.dumps({**raw, **many}))
    for read in (load_config, load_tokenizer):
        with pytest.raises(UsageProblem, match=r"lm/config\.json: num_labels has \d+ digits"):
            read(folder)


def test_a_key_that_is_wrong_is_named(tmp_path: Path) -> None:
    (tmp_path / "sae.json").write_text('{"layer": 1, "hidden_size": 8, "n_latents": "many", "k": 2}')
    with pytest.raises(UsageProblem, match=r"sae\.json: n_latents: Input should be a valid integer.*; make or fetch it again"):
        checked_settings(tmp_path / "sae.json", SAEGeometry)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", '{"eos_token": 5}'])
def test_a_tokenizer_that_cannot_be_read_is_named(name: str, content: str, tmp_path: Path) -> None:
    save_word_tokenizer(tmp_path / "words")
    (tmp_path / "words" / name).write_text(content)
    with pytest.raises(UsageProblem, match=r"words: the tokenizer's files cannot be read \(.+\); fetch them again"):
        load_tokenizer(tmp_path / "words")
