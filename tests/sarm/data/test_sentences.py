"""Running text as token sequences: which tokens, which positions, which order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import TEXTS, save_word_tokenizer, write_corpus

from sarm.checkpoints.backbones import load_tokenizer
from sarm.data.preferences import DataError
from sarm.data.sentences import Corpus, Cursor, SentenceStream, SequenceRules
from sarm.data.splitters import splitter

BOS = 0
NUPUNKT = splitter("nupunkt")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("words")
    save_word_tokenizer(folder)
    return load_tokenizer(folder)


def rules(**changes: Any) -> SequenceRules:
    values = {"tokens": "last", "context": "sentence", "min_tokens": 1, "max_tokens": 96, "latin1_only": False, **changes}
    return SequenceRules(**values)


def sequences(folder: Path, words: Any, texts: list[str], **changes: Any) -> list[Any]:
    """All sequences of one pass, in the order of the documents."""
    stream = SentenceStream(Corpus(write_corpus(folder, texts) / "corpus.jsonl"), words, rules(**changes), split=NUPUNKT, seed=0)
    taken, _ = stream.take(Cursor(0, 0), 1)
    return sorted(taken, key=lambda sequence: sequence.document)


def test_a_sentence_alone_stands_after_bos_and_keeps_its_last_token(tmp_path: Path, words: Any) -> None:
    found = sequences(tmp_path, words, ["The cat sat. The dog ran."])
    assert [words.decode(sequence.ids) for sequence in found] == ["<|begin_of_text|> The cat sat.", "<|begin_of_text|> The dog ran."]
    assert [sequence.kept for sequence in found] == [[4], [4]]


def test_inner_punctuation_is_kept_beside_the_last_token(tmp_path: Path, words: Any) -> None:
    (found,) = sequences(tmp_path, words, ["the cat, the dog -- ran."], tokens="last-and-inner")
    assert [words.decode([found.ids[position]]) for position in found.kept] == [",", "--", "."]


def test_every_token_can_be_kept(tmp_path: Path, words: Any) -> None:
    (found,) = sequences(tmp_path, words, ["the cat sat."], tokens="all")
    assert found.kept == [0, 1, 2, 3, 4]


def test_documents_are_packed_up_to_max_tokens_and_never_mixed(tmp_path: Path, words: Any) -> None:
    texts = ["The cat sat. The dog ran. A cat ran.", "Tell me about a dog."]
    found = sequences(tmp_path, words, texts, context="document", max_tokens=10)
    assert [sequence.document for sequence in found] == [0, 0, 1]
    assert [words.decode(sequence.ids, skip_special_tokens=True) for sequence in found] == [
        "The cat sat. The dog ran.",
        "A cat ran.",
        "Tell me about a dog.",
    ]
    assert [sequence.kept for sequence in found] == [[4, 8], [4], [6]]
    assert all(sequence.ids[0] == BOS and BOS not in sequence.ids[1:] for sequence in found)


def test_long_sentences_are_cut_on_the_right(tmp_path: Path, words: Any) -> None:
    for context in ("sentence", "document"):
        (found,) = sequences(tmp_path, words, ["the cat sat on the mat and then ran home."], max_tokens=5, context=context)
        assert len(found.ids) == 5 and found.kept == [4]


def test_short_sentences_are_left_out(tmp_path: Path, words: Any) -> None:
    found = sequences(tmp_path, words, ["The cat sat on the mat. A dog ran."], min_tokens=6)
    assert [words.decode(sequence.ids, skip_special_tokens=True) for sequence in found] == ["The cat sat on the mat."]


def test_sentences_beyond_latin1_are_left_out_on_request(tmp_path: Path, words: Any) -> None:
    texts = ["The caf\u00e9 is good. The \u4f60 is fine."]
    assert len(sequences(tmp_path, words, texts)) == 2
    (found,) = sequences(tmp_path, words, texts, latin1_only=True)
    assert "caf\u00e9" in words.decode(found.ids)


def test_passes_differ_in_order_but_not_in_content_and_any_cursor_can_be_returned_to(tmp_path: Path, words: Any) -> None:
    corpus = Corpus(write_corpus(tmp_path, TEXTS, times=40) / "corpus.jsonl")
    stream = SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=3)
    first, middle = stream.take(Cursor(0, 0), 100)
    second, end = stream.take(middle, 200)
    assert middle.position % 64 == 0 and len(first) >= 100
    again, same_end = SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=3).take(middle, 200)
    assert (again, same_end) == (second, end)
    one = SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=3)
    passes = [sorted(s.document for s in one.take(Cursor(epoch, 0), 400)[0][:400]) for epoch in (0, 1)]
    assert len(set(passes[0])) > 100
    orders = [[s.document for s in one.take(Cursor(epoch, 0), 50)[0]] for epoch in (0, 1)]
    assert orders[0] != orders[1]
    other = SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=4)
    assert [s.document for s in other.take(Cursor(0, 0), 50)[0]] != orders[0]


def test_held_out_documents_are_never_taken(tmp_path: Path, words: Any) -> None:
    corpus = Corpus(write_corpus(tmp_path, TEXTS, times=5) / "corpus.jsonl")
    stream = SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=0, held_out=4)
    held_out = {sequence.document for sequence in stream.held_out_sequences()}
    taken, cursor = stream.take(Cursor(0, 0), 100)
    assert len(held_out) == 4
    assert held_out.isdisjoint(sequence.document for sequence in taken)
    assert cursor.epoch >= 1, "a small corpus is repeated"


def test_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("")
    with pytest.raises(DataError, match=r"corpus\.jsonl: the corpus is empty"):
        Corpus(tmp_path / "corpus.jsonl")


def test_corpus_without_a_usable_sentence_is_refused_instead_of_repeated_for_ever(tmp_path: Path, words: Any) -> None:
    with pytest.raises(DataError, match="no sentence of the corpus passes min_tokens"):
        sequences(tmp_path, words, ["the cat sat."], min_tokens=50)
    with pytest.raises(DataError, match="no sentence of the corpus passes"):
        sequences(tmp_path, words, ["  ", ""])


def test_corpus_that_is_all_held_out_is_refused(tmp_path: Path, words: Any) -> None:
    corpus = Corpus(write_corpus(tmp_path) / "corpus.jsonl")
    with pytest.raises(DataError, match="4 documents, all of them held out"):
        SentenceStream(corpus, words, rules(), split=NUPUNKT, seed=0, held_out=4)


@pytest.mark.parametrize("line", ["not json", json.dumps({"words": "x"}), json.dumps(["text"])])
def test_line_that_is_no_document_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"text": "fine."}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=r"corpus\.jsonl:2: no JSON object with a key 'text'; mend or remove the line"):
        Corpus(tmp_path / "corpus.jsonl").texts([0, 1])
