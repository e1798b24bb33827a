"""Named tensors of a checkpoint folder or file: safetensors, or a `.pt` that holds nothing but tensors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sarm.job import EnvironmentProblem, UsageProblem

INDEX = "model.safetensors.index.json"


class TensorFolder:
    """Tensors by name, read one by one from a single safetensors file or from the shards of an index."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file_of = self._names(folder)

    @staticmethod
    def _names(folder: Path) -> dict[str, Path]:
        if not folder.is_dir():
            raise EnvironmentProblem(f"{folder.name}: no such model folder; give an existing folder or run `replicate fetch`")
        index = folder / INDEX
        if index.exists():
            return {name: folder / file for name, file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items()}
        single = folder / "model.safetensors"
        if single.exists():
            try:
                with safe_open(single, framework="pt") as tensors:
                    return dict.fromkeys(tensors.keys(), single)
            except SafetensorError as error:
                raise UsageProblem(f"{folder.name}/{single.name}: not a safetensors file ({error}); fetch it again") from error
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise UsageProblem(f"{folder.name}: only pickled weights ({pickles[0]}); convert them to safetensors, pickles are not loaded")
        raise UsageProblem(f"{folder.name}: no model.safetensors and no {INDEX}; this is not a model folder")

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._file_of)

    def read(self, wanted: Iterable[tuple[str, str]], take: Callable[[str, Tensor], None]) -> None:
        """Call `take(ours, tensor)` for each (ours, theirs) pair, one file open at a time."""
        by_file: dict[Path, list[tuple[str, str]]] = {}
        for ours, theirs in wanted:
            by_file.setdefault(self._file_of[theirs], []).append((ours, theirs))
        for file, names in by_file.items():
            if not file.exists():
                raise EnvironmentProblem(f"{self._folder.name}/{file.name}: the index names it but it is missing; fetch the model again")
            try:
                with safe_open(file, framework="pt") as tensors:
                    for ours, theirs in names:
                        take(ours, tensors.get_tensor(theirs))
            except SafetensorError as error:
                raise UsageProblem(f"{self._folder.name}/{file.name}: damaged safetensors file ({error}); fetch it again") from error


def fill(module: nn.Module, source: TensorFolder, names: dict[str, str], *, what: str) -> None:
    """Copy tensors into a module: `names` maps the module's names to the folder's.

    Raises UsageProblem that names a missing or wrongly shaped tensor.
    """
    state = module.state_dict()
    missing = [theirs for theirs in names.values() if theirs not in source.names]
    if missing:
        raise UsageProblem(f"{what}: tensor {missing[0]!r} is missing ({len(missing)} in all); is this the right model?")

    def take(ours: str, tensor: Tensor) -> None:
        if state[ours].shape != tensor.shape:
            expected = list(state[ours].shape)
            raise UsageProblem(f"{what}: tensor {names[ours]!r} has shape {list(tensor.shape)}, the config asks for {expected}")
        state[ours].copy_(tensor)

    with torch.no_grad():
        source.read(names.items(), take)


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
        except SafetensorError as error:
            raise UsageProblem(f"{path.name}: damaged safetensors file ({error}); make or fetch it again") from error
    refusal = f"{path.name}: not a file of plain tensors; convert it to safetensors, pickles are not loaded"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UsageProblem(refusal) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UsageProblem(refusal)
    return dict(loaded)
