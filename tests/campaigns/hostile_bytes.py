"""What goes wrong with a file as such, whatever is in it: cut, flipped, empty, in another encoding, a folder in its place."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Callable
from pathlib import Path

Change = Callable[[Path, random.Random], str]


def empty(path: Path, chance: random.Random) -> str:
    """No byte."""
    path.write_bytes(b"")
    return "empty"


def cut(path: Path, chance: random.Random) -> str:
    """The end is missing."""
    data = path.read_bytes()
    at = chance.randrange(max(1, len(data)))
    path.write_bytes(data[:at])
    return f"cut after {at} of {len(data)} bytes"


def flipped(path: Path, chance: random.Random) -> str:
    """Some bits are others."""
    data = bytearray(path.read_bytes())
    places = [chance.randrange(len(data)) for _ in range(chance.choice((1, 1, 4, 16)))] if data else []
    for place in places:
        data[place] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))
    return f"bits flipped at {places}"


def noise(path: Path, chance: random.Random) -> str:
    """Bytes that mean nothing."""
    size = chance.choice((1, 7, 8, 100, 5000))
    path.write_bytes(chance.randbytes(size))
    return f"{size} random bytes"


def with_nul(path: Path, chance: random.Random) -> str:
    """NUL bytes in the middle, as file systems leave them after a crash."""
    data = path.read_bytes()
    at = chance.randrange(len(data) + 1)
    path.write_bytes(data[:at] + bytes(chance.choice((1, 64))) + data[at:])
    return f"NUL at {at}"


def zeroed(path: Path, chance: random.Random) -> str:
    """As long as it was, and all zero."""
    path.write_bytes(bytes(path.stat().st_size))
    return "all bytes zero"


def gzipped(path: Path, chance: random.Random) -> str:
    """Packed, under the name of what is not."""
    path.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    return "gzip"


def doubled(path: Path, chance: random.Random) -> str:
    """Written twice, one behind the other."""
    path.write_bytes(path.read_bytes() * 2)
    return "content twice"


def web_page(path: Path, chance: random.Random) -> str:
    """What a proxy gives in place of a file."""
    path.write_bytes(b"<!DOCTYPE html><html><body>403 Forbidden</body></html>\n")
    return "a web page"


def lfs_pointer(path: Path, chance: random.Random) -> str:
    """What a clone without git-lfs has in place of a large file."""
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n", encoding="utf-8")
    return "a git-lfs pointer"


def folder_instead(path: Path, chance: random.Random) -> str:
    """A folder of that name."""
    path.unlink()
    path.mkdir()
    return "a folder in its place"


def link_to_nowhere(path: Path, chance: random.Random) -> str:
    """A link whose target is gone, as half of a moved hub cache."""
    path.unlink()
    path.symlink_to(path.with_name("nowhere") / "blob")
    return "a link to nowhere"


def link_to_itself(path: Path, chance: random.Random) -> str:
    """A link that never ends."""
    path.unlink()
    path.symlink_to(path.name)
    return "a link to itself"


def missing(path: Path, chance: random.Random) -> str:
    """Not there."""
    path.unlink()
    return "missing"


def other_encoding(path: Path, chance: random.Random) -> str:
    """The same text in UTF-16 or UTF-32, or with bytes that no UTF-8 has."""
    data = path.read_bytes()
    name = chance.choice(("utf-16", "utf-32", "utf-16-le", "latin-1"))
    if name == "latin-1":
        at = chance.randrange(len(data) + 1)
        path.write_bytes(data[:at] + b"\xe9\xff" + data[at:])
    else:
        path.write_bytes(data.decode("utf-8").encode(name))
    return f"encoding {name}"


def swapped(path: Path, chance: random.Random) -> str:
    """The content of another file of the folder."""
    others = sorted(one for one in path.parent.iterdir() if one.is_file() and one != path)
    if not others:
        return empty(path, chance)
    other = chance.choice(others)
    shutil.copyfile(other, path)
    return f"the content of {other.name}"


ANY: tuple[Change, ...] = (
    *(empty, cut, cut, flipped, flipped, noise, with_nul, zeroed, gzipped, doubled, web_page),
    *(lfs_pointer, folder_instead, link_to_nowhere, link_to_itself, missing, swapped),
)
TEXT: tuple[Change, ...] = (*ANY, other_encoding, other_encoding)
