"""Named tensors of a checkpoint folder or file: safetensors, or a `.pt` that holds nothing but tensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sarm.job import EnvironmentProblem, UsageProblem
from sarm.store.json_files import place_of, read_object

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Of a safetensors file: what its header says beside the tensors.
METADATA = "__metadata__"
PIECE = 1 << 24
# Takes a tensor under our name for it; False where its bytes were read and are not needed any more.
Take = Callable[[str, Tensor], bool | None]


class TensorSource(Protocol):
    """Tensors by name, read one by one."""

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""

    def tensor(self, name: str) -> Tensor:
        """One tensor."""

    def file_of(self, name: str) -> str:
        """The name of the file in which a tensor stands; empty where that is not known."""

    def read(self, wanted: Iterable[tuple[str, str]], take: Take) -> None:
        """Call `take(ours, tensor)` for each (ours, theirs) pair."""


class HeldTensors:
    """Tensors that are in memory already."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._tensors)

    def tensor(self, name: str) -> Tensor:
        """One tensor."""
        return self._tensors[name]

    def file_of(self, name: str) -> str:
        """Not known."""
        return ""

    def read(self, wanted: Iterable[tuple[str, str]], take: Take) -> None:
        """See TensorSource."""
        for ours, theirs in wanted:
            take(ours, self._tensors[theirs])


class TensorFolder:
    """Tensors of a single safetensors file or of the shards of an index; mapped, so that only what is touched is read."""

    def __init__(self, folder: Path) -> None:
        """`folder` may be a file. Raises EnvironmentProblem where nothing is there, UsageProblem for anything but safetensors."""
        self._folder = folder
        if folder.is_file():
            self._file_of = self._in_file(folder, f"{folder.name}: damaged safetensors file", "make or fetch it again")
        else:
            self._file_of = self._names(folder)

    @staticmethod
    def _names(folder: Path) -> dict[str, Path]:
        if not folder.is_dir():
            raise EnvironmentProblem(f"{folder.name}: no such model folder; give an existing folder or run `replicate fetch`")
        index = folder / INDEX
        if index.exists():
            return TensorFolder._in_index(index)
        single = folder / SINGLE
        if single.exists():
            return TensorFolder._in_file(single, f"{folder.name}/{single.name}: not a safetensors file", "fetch it again")
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise UsageProblem(f"{folder.name}: only pickled weights ({pickles[0]}); convert them to safetensors, pickles are not loaded")
        raise UsageProblem(f"{folder.name}: no model.safetensors and no {INDEX}; this is not a model folder")

    @staticmethod
    def _in_index(index: Path) -> dict[str, Path]:
        folder, where = index.parent, place_of(index)
        files = read_object(index).get("weight_map")
        if not isinstance(files, dict) or not files or not all(isinstance(file, str) for file in files.values()):
            raise UsageProblem(f"{where}: weight_map: an object of tensors and their files is expected; fetch it again")
        odd = next((file for file in files.values() if Path(file).name != file or not file.endswith(".safetensors")), None)
        if odd is not None:
            raise UsageProblem(f"{where}: weight_map: {odd!r} is no safetensors file of this folder; fetch it again")
        if (folder / SINGLE).exists() and SINGLE not in files.values():
            raise UsageProblem(f"{folder.name}: weights in {SINGLE} and in the files of {INDEX}, two sets; remove one of them")
        return {name: folder / file for name, file in files.items()}

    @staticmethod
    def _in_file(path: Path, refusal: str, cure: str) -> dict[str, Path]:
        try:
            with safe_open(path, framework="pt") as tensors:
                return dict.fromkeys(tensors.keys(), path)
        except SafetensorError as error:
            raise UsageProblem(f"{refusal} ({error}); {cure}") from error
        except OSError as error:
            raise EnvironmentProblem(f"{place_of(path)}: cannot be read ({error.strerror or error}); {cure}") from error

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file_of)

    def tensor(self, name: str) -> Tensor:
        """One tensor; its shape costs nothing."""
        found: dict[str, Tensor] = {}
        self.read([(name, name)], found.__setitem__)
        return found[name]

    def file_of(self, name: str) -> str:
        """See TensorSource."""
        return self._file_of[name].name

    def read(self, wanted: Iterable[tuple[str, str]], take: Take) -> None:
        """See TensorSource. One file is open at a time.

        Raises UsageProblem for a damaged file and for a tensor in it that the index does not name, EnvironmentProblem for a missing file.
        """
        by_file: dict[Path, list[tuple[str, str]]] = {}
        for ours, theirs in wanted:
            by_file.setdefault(self._file_of[theirs], []).append((ours, theirs))
        for file, names in by_file.items():
            if not file.is_file():
                told = "is no file" if file.exists() else "is missing"
                raise EnvironmentProblem(f"{self._folder.name}/{file.name}: the index names it but it {told}; fetch the model again")
            try:
                self._refuse_unnamed(file)
                _read_file(file, names, take)
            except SafetensorError as error:
                raise UsageProblem(f"{self._folder.name}/{file.name}: damaged safetensors file ({error}); fetch it again") from error

    def _refuse_unnamed(self, file: Path) -> None:
        with safe_open(file, framework="pt") as tensors:
            unnamed = sorted(name for name in tensors.keys() if self._file_of.get(name) != file)  # noqa: SIM118
        if unnamed:
            where = f"{self._folder.name}/{file.name}"
            raise UsageProblem(f"{where}: holds tensor {unnamed[0]!r}, for which {INDEX} does not name this file; fetch the model again")


def _read_file(file: Path, names: Iterable[tuple[str, str]], take: Take) -> None:
    tensors = None
    for ours, theirs in names:
        tensors = safe_open(file, framework="pt") if tensors is None else tensors
        if take(ours, tensors.get_tensor(theirs)) is False:
            # Pages that were read through a mapping count as this process's memory until the mapping goes.
            tensors = None


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors; those that lie on the CPU, each in one piece, are not copied."""
    # Under another name first: some of them may be mapped from the very file that is to be replaced.
    partial = path.with_name(f"{path.name}.partial")
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(whole, partial, metadata=None if metadata is None else dict(metadata))
    partial.replace(path)


def rewrite_tensor_file(source: Path, target: Path, changed: Mapping[str, Tensor]) -> None:
    """Write a safetensors file again with some of its tensors exchanged, each in its old precision.

    The other tensors' bytes pass through piece by piece, so that this needs no memory for them. `target` may be `source`.
    Raises UsageProblem for a file that is none.
    """
    TensorFolder(source)
    partial = target.with_name(f"{target.name}.partial")
    with source.open("rb") as old, partial.open("wb") as new:
        length = int.from_bytes(old.read(8), "little")
        header: dict[str, Any] = json.loads(old.read(length))
        text = json.dumps(_exchanged(header, changed), separators=(",", ":"), ensure_ascii=False).encode()
        # The data begin at a multiple of 8.
        text += b" " * (-len(text) % 8)
        new.write(len(text).to_bytes(8, "little") + text)
        for name in _in_order(header):
            if name in changed:
                new.write(changed[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
                continue
            first, last = header[name]["data_offsets"]
            old.seek(8 + length + first)
            for start in range(first, last, PIECE):
                new.write(old.read(min(PIECE, last - start)))
    partial.replace(target)


def _in_order(header: Mapping[str, Any]) -> list[str]:
    return sorted(header.keys() - {METADATA}, key=lambda name: header[name]["data_offsets"])


def _exchanged(header: Mapping[str, Any], changed: Mapping[str, Tensor]) -> dict[str, Any]:
    written = {METADATA: header[METADATA]} if METADATA in header else {}
    end = 0
    for name in _in_order(header):
        (first, last), shape = header[name]["data_offsets"], header[name]["shape"]
        size = last - first
        if name in changed:
            size, shape = changed[name].nbytes, list(changed[name].shape)
        begin, end = end, end + size
        written[name] = {"dtype": header[name]["dtype"], "shape": shape, "data_offsets": [begin, end]}
    return written


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a `.pt` that `weights_only=True` accepts and that holds only tensors.

    Raises UsageProblem for anything else: a pickle can run code.
    """
    if not path.exists():
        raise EnvironmentProblem(f"{path.name}: no such file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as tensors:
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UsageProblem(f"{path.name}: damaged safetensors file ({error}); make or fetch it again") from error
    refusal = f"{path.name}: not a file of plain tensors; convert it to safetensors, pickles are not loaded"
    try:
        # Mapped where the format allows: torch's older one, which is no archive, is read whole.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # Of a torn file it raises whatever its archive, its pickle or the system say.
        raise UsageProblem(refusal) from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()):
        raise UsageProblem(refusal)
    return dict(loaded)
