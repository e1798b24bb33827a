"""Files that are there whole or not at all, also after a power cut, and also where several processes write the same one."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems answer that cannot flush a folder (CIFS, some of FUSE): the bytes are written, only their moment is theirs.
CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

# A disk or a quota is full. These and a file system's own limit are what a write to an open file answers, without its name.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
CANNOT_GROW = NO_ROOM | {errno.EFBIG}


def sync(path: Path) -> bool:
    """Flush a file or folder to the disk. False where the file system cannot do that to this path; other errors are raised."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def sync_folder(folder: Path) -> None:
    """Flush every file and folder below a folder, and the folder itself, so that a rename of it publishes what was written."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            if not (Path(parent) / name).is_symlink():
                sync(Path(parent) / name)
        sync(Path(parent))


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A name of one's own to write to; when the block ends well, the file is flushed and takes the name `path`.

    Nothing is left of it when the block raises. Several processes may do this with one `path` at once: the last one stays.
    What a link names is written, the link stays. A device or pipe (`/dev/stdout`) is written to as it is: a rename would take its place.
    Raises OSError that names `path`, never the name of one's own: IsADirectoryError, before the block runs, where a folder has that name.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    try:
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    except OSError as error:
        raise _named(error, path) from error
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        sync(partial)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.filename == name or (error.filename is None and error.errno in CANNOT_GROW)):
            raise _named(error, path) from error
        raise
    sync(path.parent)


def _named(error: OSError, path: Path) -> OSError:
    """The same error, of the file that somebody asked for."""
    return OSError(error.errno, error.strerror, str(path))


def write_whole(path: Path, text: str) -> None:
    """Write a text file (UTF-8, line ends as they are) so that it is there with all of its text or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode("utf-8"))
