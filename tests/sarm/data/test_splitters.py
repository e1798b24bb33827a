"""Sentence splitters: nupunkt, nltk's Punkt on tables in nltk's own layout, and how those tables are brought."""

from __future__ import annotations

import hashlib
import http.server
import io
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import job_context, save_backbone, write_corpus

from sarm.config.data import SplitterConfig
from sarm.config.train import SAETrainingConfig
from sarm.data.preferences import DataError
from sarm.data.splitters import TABLES, read_tables, splitter
from sarm.job import EnvironmentProblem, IntegrityProblem, UsageProblem
from sarm.jobs.data.splitter import fetch_splitter
from sarm.jobs.train.sae import train_sae

# Small tables written by hand: "abbr" is an abbreviation, "mr b" a collocation, "the" starts sentences and is seen in lower case.
CONTENT = {
    "abbrev_types.txt": "abbr\nmr",
    "sent_starters.txt": "the\nthen",
    "collocations.tab": "##number##\tx\nmr\tb",
    "ortho_context.tab": "the\t46\nsmith\t14\ncat\t36",
}
TEXT = "An abbr. the cat saw. It met Mr. B. Then it ran! Was that 3. X of Y? the end."


def write_tables(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in CONTENT.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def zipped(*, without: str = "") -> bytes:
    """As nltk publishes it: several languages below one folder."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in CONTENT.items():
            if name != without:
                archive.writestr(f"punkt_tab/english/{name}", text)
            archive.writestr(f"punkt_tab/czech/{name}", "jin\tjin")
        archive.writestr("punkt_tab/README", "how it was made")
    return stream.getvalue()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """A local server of a folder `site`; its address."""
    (tmp_path / "site").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "site"), **kwargs)  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def from_url(url: str, content: bytes, where: Path) -> Path:
    context = job_context(where)
    fetch_splitter(SplitterConfig(origin="url", url=url, revision=hashlib.sha256(content).hexdigest()), context)
    return context.output


def from_folder(source: Path, where: Path) -> Path:
    context = job_context(where, locations={"source": source})
    fetch_splitter(SplitterConfig(origin="folder", revision="0" * 64), context)
    return context.output


def test_the_tables_come_from_a_zip_of_known_content(site: str, tmp_path: Path) -> None:
    (tmp_path / "site" / "punkt_tab.zip").write_bytes(zipped())
    output = from_url(f"{site}/punkt_tab.zip", zipped(), tmp_path / "job")
    assert {path.name: path.read_text() for path in output.iterdir()} == CONTENT


def test_another_zip_than_the_named_one_is_refused(site: str, tmp_path: Path) -> None:
    (tmp_path / "site" / "punkt_tab.zip").write_bytes(zipped() + b"more")
    with pytest.raises(IntegrityProblem, match="another version lies there now"):
        from_url(f"{site}/punkt_tab.zip", zipped(), tmp_path / "job")


def test_an_address_that_cannot_be_reached_says_what_to_do(site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"{site}/none.zip", "http://127.0.0.1:9/punkt_tab.zip", "no address"):
        with pytest.raises(EnvironmentProblem, match=r"cannot be downloaded .*replicate fetch"):
            from_url(url, zipped(), tmp_path / "job")
    monkeypatch.setattr("sarm.jobs.data.splitter.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EnvironmentProblem, match=r"this run is offline; .*replicate fetch"):
        from_url(f"{site}/none.zip", zipped(), tmp_path / "job")


@pytest.mark.parametrize(("lacking", "problem"), [("the archive", "not a zip"), ("collocations.tab", r"collocations\.tab missing")])
def test_a_zip_without_the_tables_is_refused(site: str, tmp_path: Path, lacking: str, problem: str) -> None:
    # Made here and not in the list above: the bytes of a zip hold the time, which must not enter the name of a test.
    content = zipped(without=lacking) if lacking.endswith(".tab") else b"no zip"
    (tmp_path / "site" / "a.zip").write_bytes(content)
    with pytest.raises(UsageProblem, match=problem):
        from_url(f"{site}/a.zip", content, tmp_path / "job")


@pytest.mark.parametrize("place", [".", "english", "punkt_tab/english", "tokenizers/punkt_tab/english"])
def test_a_local_folder_may_be_any_from_nltks_data_folder_down(tmp_path: Path, place: str) -> None:
    write_tables(tmp_path / "data" / place)
    output = from_folder(tmp_path / "data", tmp_path / "job")
    assert sorted(path.name for path in output.iterdir()) == sorted(TABLES)


def test_a_folder_without_tables_or_with_broken_ones_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="no tables of nltk's punkt_tab there"):
        from_folder(tmp_path, tmp_path / "job")
    write_tables(tmp_path / "data")
    for line, problem in (("the\tmany", "ortho_context.tab:1: 'many' is no number"), ("the", "ortho_context.tab:1: expected two fields")):
        (tmp_path / "data" / "ortho_context.tab").write_text(line)
        with pytest.raises(UsageProblem, match=problem):
            from_folder(tmp_path / "data", tmp_path / "broken")
    (tmp_path / "data" / "abbrev_types.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "data" / "ortho_context.tab").write_text("")
    with pytest.raises(DataError, match=r"abbrev_types\.txt: not UTF-8"):
        read_tables(tmp_path / "data")


def test_punkt_splits_as_nltk_itself_does_on_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk")
    from nltk.tokenize.punkt import PunktTokenizer

    tables = write_tables(tmp_path / "tokenizers" / "punkt_tab" / "english")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    ours, theirs = splitter("nltk-punkt", tables)(TEXT), PunktTokenizer("english").tokenize(TEXT)
    assert list(ours) == theirs
    # The abbreviation and both collocations hold their sentences together.
    assert list(ours) == ["An abbr. the cat saw.", "It met Mr. B. Then it ran!", "Was that 3. X of Y?", "the end."]


def test_without_nltk_the_error_names_the_extra_and_the_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.tokenize.punkt", None)
    with pytest.raises(EnvironmentProblem, match=r"replicate-sarm\[punkt\].*replicate fetch"):
        splitter("nltk-punkt", write_tables(tmp_path))


def test_an_sae_is_trained_on_the_sentences_of_its_splitter(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    backbone = save_backbone(tmp_path / "backbone")
    # nupunkt knows no abbreviation "cat"; the tables written here do.
    corpus = write_corpus(tmp_path / "corpus", ["The cat. the dog ran on and on. Then it sat." for _ in range(30)])
    tables = write_tables(tmp_path / "tables")
    (tables / "abbrev_types.txt").write_text("cat")
    config = SAETrainingConfig(
        layer=1, n_latents=8, k=2, vectors=40, batch_vectors=10, buffer_vectors=20, held_out_vectors=8, splitter="nltk-punkt"
    )
    saved = {}
    for name, one in {"nltk": config, "nupunkt": config.model_copy(update={"splitter": "nupunkt"})}.items():
        context = job_context(tmp_path / name, inputs={"backbone": backbone, "corpus": corpus, "splitter": tables})
        train_sae(one, context)
        saved[name] = (context.output / "sae.safetensors").read_bytes()
    assert saved["nltk"] != saved["nupunkt"]
