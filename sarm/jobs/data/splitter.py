"""The English tables of nltk's Punkt splitter, from a zip of known content or a local folder. Nothing in them is run.

Writes the four English tables of nltk's `punkt_tab`, plain text.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import urllib.error
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

from huggingface_hub import constants

from sarm.config.data import SplitterConfig
from sarm.data.preferences import DataError
from sarm.data.splitters import TABLES, read_tables
from sarm.job import EnvironmentProblem, IntegrityProblem, JobContext, UsageProblem

LANGUAGE = "english"
TIMEOUT_SECONDS = 60
# The archive holds 19 languages in 4.3 MB.
LARGEST_BYTES = 64 * 2**20
# From what nltk calls a data folder down to the tables themselves.
FOLDERS = (f"tokenizers/punkt_tab/{LANGUAGE}", f"punkt_tab/{LANGUAGE}", LANGUAGE, ".")


def fetch_splitter(config: SplitterConfig, context: JobContext) -> None:
    """Write the four tables. Location `source` for a folder: nltk's data folder, or any folder between it and the tables.

    Raises EnvironmentProblem when the address cannot be reached or the folder is missing, IntegrityProblem for another zip than
    the one that is named, UsageProblem for one without the tables.
    """
    if config.origin == "url":
        _unpack(_downloaded(config), context.output)
    else:
        _copy(Path(context.locations["source"]), context.output)
    try:
        tables = read_tables(context.output)
    except DataError as error:
        raise UsageProblem(str(error)) from error
    context.log(f"{len(tables.abbreviations)} abbreviations, {len(tables.collocations)} collocations, {len(tables.contexts)} words")


def _downloaded(config: SplitterConfig) -> bytes:
    offline = "bring it with `replicate fetch` where there is a network, or name a local copy in the profile's [splitter]"
    if constants.HF_HUB_OFFLINE:
        raise EnvironmentProblem(f"the data of nltk's Punkt are not in the store, and this run is offline; {offline}")
    try:
        with urllib.request.urlopen(config.url, timeout=TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(LARGEST_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise EnvironmentProblem(f"{config.url} cannot be downloaded ({type(error).__name__}: {error}); {offline}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != config.revision:
        raise IntegrityProblem(f"{config.url}: SHA-256 {found[:12]}..., expected {config.revision[:12]}...; another version lies there now")
    return content


def _unpack(content: bytes, output: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # By name alone, so that no path in the archive leads out of the folder.
            wanted = {PurePosixPath(name).name: name for name in archive.namelist() if PurePosixPath(name).parent.name == LANGUAGE}
            for name in TABLES:
                if name in wanted:
                    (output / name).write_bytes(archive.read(wanted[name]))
    except zipfile.BadZipFile as error:
        raise UsageProblem(f"the download is not a zip ({error}); name the zip of nltk's punkt_tab in the profile's [splitter]") from error


def _copy(source: Path, output: Path) -> None:
    folders = [source / folder for folder in FOLDERS]
    found = next((folder for folder in folders if (folder / TABLES[0]).is_file()), None)
    if found is None:
        raise EnvironmentProblem(f"{source.name}: no tables of nltk's punkt_tab there (looked for {TABLES[0]} in {', '.join(FOLDERS)})")
    for name in TABLES:
        if (found / name).is_file():
            shutil.copyfile(found / name, output / name)
