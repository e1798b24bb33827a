"""What goes wrong inside containers: safetensors, PyTorch and numpy files, Parquet, archives."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from hostile_values import changed
from safetensors.torch import load_file, save_file

# A program that a pickle would run: it leaves this file, and the campaign looks for it.
CANARY = "executed"


class Bomb:
    """An object whose pickle writes a file where it is loaded."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> Any:
        return Path.touch, (self.where,)


def safetensors_header(path: Path, chance: random.Random) -> str:
    """The header says what is not so: other offsets, shapes, types, lengths."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    if chance.random() < 0.25:
        told = chance.choice((0, 1, size - 1, size + 1, len(data), 2**40, 2**63, 2**64 - 1))
        path.write_bytes(told.to_bytes(8, "little") + data[8:])
        return f"header of {told} bytes"
    text, what = changed(json.loads(data[8 : 8 + size]), chance)
    head = text.encode("utf-8", "replace")
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + size :])
    return f"header: {what}"


def altered(tensors: dict[str, torch.Tensor], chance: random.Random) -> str:
    """Change one tensor of a file in place; gives what was done."""
    name = chance.choice(sorted(tensors))
    value = tensors[name]
    how = chance.choice(
        ("nan", "inf", "missing", "renamed", "added", "shorter", "empty", "more dimensions", "integers", "half", "complex", "huge")
    )
    if how in ("nan", "inf"):
        tensors[name] = value.clone().to(torch.float32) if value.numel() and not value.is_floating_point() else value.clone()
        if value.numel():
            tensors[name].view(-1)[chance.randrange(value.numel())] = float(how)
    elif how == "missing":
        del tensors[name]
    elif how == "renamed":
        tensors[f"module.{name}"] = tensors.pop(name)
    elif how == "added":
        tensors[chance.choice(("lora_A.weight", "extra", "sae.unknown", "model.layers.99.mlp.up_proj.weight"))] = value.clone()
    elif how == "shorter":
        tensors[name] = value[: value.shape[0] // 2].clone() if value.dim() else value.repeat(2)
    elif how == "empty":
        tensors[name] = torch.zeros(0)
    elif how == "more dimensions":
        tensors[name] = value[None].clone()
    elif how == "huge":
        tensors[name] = torch.full_like(value.to(torch.float32), 3e38)
    else:
        tensors[name] = value.to({"integers": torch.int64, "half": torch.float16, "complex": torch.complex64}[how])
    return f"{name}: {how}"


def safetensors_values(path: Path, chance: random.Random) -> str:
    """A well-formed file of which one tensor is not what it should be."""
    tensors = load_file(path)
    told = altered(tensors, chance)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata={"format": "pt"})
    return told


def torch_values(path: Path, chance: random.Random) -> str:
    """A file of PyTorch with another content, or with a program in its pickle."""
    how = chance.choice(("program", "program in a tensor's place", "bare pickle", "list", "number", "tensors", "tensors", "tensors"))
    tensors = dict(torch.load(path, weights_only=True))
    bomb = Bomb(path.parent / CANARY)
    if how == "bare pickle":
        path.write_bytes(pickle.dumps({"encoder.weight": bomb}))
    elif how == "tensors":
        how = altered(tensors, chance)
        torch.save(tensors, path)
    else:
        hidden = {**tensors, next(iter(tensors)): bomb}
        content = {"program": bomb, "program in a tensor's place": hidden, "list": list(tensors.values()), "number": 3}[how]
        torch.save(content, path)
    return how


def numpy_values(path: Path, chance: random.Random) -> str:
    """A numpy archive with other arrays, or with a pickle in one."""
    arrays = dict(np.load(path))
    if chance.random() < 0.3:
        arrays[chance.choice(sorted(arrays))] = np.array([Bomb(path.parent / CANARY)], dtype=object)
        np.savez(path, **arrays)
        return "a pickled object"
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    told = altered(tensors, chance)
    np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    return told


def parquet_values(path: Path, chance: random.Random) -> str:
    """A well-formed Parquet file with other columns."""
    table = pyarrow.parquet.ParquetFile(path).read(use_threads=False)
    name = chance.choice(table.column_names)
    place, rows = table.column_names.index(name), table.num_rows
    wrong = {
        "nulls": pyarrow.nulls(rows),
        "numbers": pyarrow.array(range(rows)),
        "floats": pyarrow.array([float("nan")] * rows),
        "bytes": pyarrow.array([b"\xff\xfe\x00"] * rows),
        "lists": pyarrow.array([["a", None]] * rows),
        "structs": pyarrow.array([{"role": "user", "content": None}] * rows),
        "empty texts": pyarrow.array([""] * rows),
    }
    how = chance.choice((*wrong, "missing", "renamed", "added", "twice", "no rows", "no columns"))
    if how in wrong:
        table = table.set_column(place, name, wrong[how])
    elif how == "missing":
        table = table.drop_columns([name])
    elif how == "renamed":
        table = table.rename_columns([f"{one}_" if one == name else one for one in table.column_names])
    elif how in ("added", "twice"):
        table = table.append_column("system_prompt" if how == "added" else name, table.column(name))
    elif how == "no rows":
        table = table.slice(0, 0)
    else:
        table = table.select([])
    pyarrow.parquet.write_table(table, path)
    return f"{name}: {how}"


def archive_members(path: Path, chance: random.Random) -> str:
    """An archive with a member that is hostile, missing, doubled or damaged."""
    with tarfile.open(path) as tar:
        members = [(one.name, tar.extractfile(one).read()) for one in tar.getmembers()]  # type: ignore[union-attr]
    at = chance.randrange(len(members))
    name, content = members[at]
    manifests = [place for place, (one, _) in enumerate(members) if one.endswith("manifest.json")]
    how = chance.choice(("manifest",) * 3 + ("content", "missing", "doubled", "added", "no manifest", *HOSTILE_MEMBERS, *HOSTILE_MEMBERS))
    extra: list[tarfile.TarInfo] = []
    if how == "manifest":
        at = chance.choice(manifests)
        text, what = changed(json.loads(members[at][1]), chance)
        members[at], how = (members[at][0], text.encode("utf-8", "replace")), f"manifest: {what}"
    elif how == "content":
        members[at] = (name, content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")
    elif how == "missing":
        del members[at]
    elif how == "doubled":
        members.append((name, content + b" "))
    elif how == "added":
        members.append((f"{name.rpartition('/')[0]}/added", b"x"))
    elif how == "no manifest":
        members = [one for place, one in enumerate(members) if place not in manifests]
    else:
        extra = [_member(how, name)]
    _pack(path, members, extra)
    return f"{name}: {how}"


# What a member that is no plain file below its artifact may be: its type, its name, what it points to.
HOSTILE_MEMBERS: dict[str, tuple[bytes, str, str]] = {
    "outside": (tarfile.REGTYPE, "../outside", ""),
    "absolute": (tarfile.REGTYPE, "/tmp/hostile-absolute", ""),
    "far outside": (tarfile.REGTYPE, "{folder}/../../../outside", ""),
    "link outside": (tarfile.SYMTYPE, "{folder}/link", "/etc"),
    "link to a file": (tarfile.SYMTYPE, "{folder}/link", "manifest.json"),
    "hard link": (tarfile.LNKTYPE, "{folder}/hard", "/etc/hostname"),
    "pipe": (tarfile.FIFOTYPE, "{folder}/pipe", ""),
    "device": (tarfile.CHRTYPE, "{folder}/device", ""),
    "strange name": (tarfile.REGTYPE, "{folder}/\x1b[31m\n", ""),
    "empty name": (tarfile.REGTYPE, "", ""),
    "long name": (tarfile.REGTYPE, "{folder}/" + "n" * 300, ""),
    "hidden": (tarfile.REGTYPE, ".staging/{folder}/x", ""),
    "lock": (tarfile.REGTYPE, "revisions.json", ""),
}


def _member(how: str, beside: str) -> tarfile.TarInfo:
    kind, name, target = HOSTILE_MEMBERS[how]
    member = tarfile.TarInfo(name.format(folder=beside.rpartition("/")[0]))
    member.type, member.linkname = kind, target
    return member


def _pack(path: Path, members: list[tuple[str, bytes]], extra: list[tarfile.TarInfo]) -> None:
    with gzip.open(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
