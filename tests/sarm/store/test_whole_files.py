from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from sarm.store.whole_files import sync, sync_folder, whole_file, write_whole


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_flush_a_folder_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    assert sync(tmp_path) is False
    write_whole(tmp_path / "a", "text")
    sync_folder(tmp_path)
    assert (tmp_path / "a").read_text() == "text"


def test_other_errors_of_the_disk_are_raised_and_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "a", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_many_writers_of_one_file_leave_one_whole_text(tmp_path: Path) -> None:
    texts = [str(number) * 50_000 for number in range(8)]

    def write(text: str) -> None:
        for _ in range(5):
            write_whole(tmp_path / "a", text)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts and len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "a") as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, "text")
    assert os.read(reader, 100) == b"text" and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    os.close(reader)


def test_what_a_link_names_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "file")
    for text in ("new", "newer"):
        write_whole(link, text)
        assert link.is_symlink() and (tmp_path / "there" / "file").read_text() == text


def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for place, kind in (("folder", IsADirectoryError), ("none/a", FileNotFoundError), ("file/a", NotADirectoryError)):
        with pytest.raises(kind) as caught:
            write_whole(tmp_path / place, "text")
        assert caught.value.filename == str(tmp_path / place)
    with pytest.raises(PermissionError) as refused, whole_file(tmp_path / "a") as partial:
        raise PermissionError(errno.EACCES, "no", str(partial))
    assert refused.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="full") as full, whole_file(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "full")
    assert full.value.filename == str(tmp_path / "a")
    with pytest.raises(PermissionError) as other, whole_file(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no", "another")
    assert other.value.filename == "another" and sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
