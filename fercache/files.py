"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fercache.errors import FercacheError

PARTIAL = ".partial"
"""Ending of files that are being written; one that a kill left behind is never read as whole."""
OWNER = r"(?P<machine>[0-9a-f]{8})-(?P<process>[0-9]+)\.[0-9a-f]{8}"
"""In the name of a partial file, before its ending: the process that writes it."""
DAY_S = 24 * 60 * 60
MOST_TEXT_BYTES = 1 << 28
"""Of a text file that is read whole."""
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""What the system answers where a disk takes no more bytes."""


def check_regular(path: Path | str) -> None:
    """Raise OSError for anything but a regular file, links followed.

    Reading a pipe or a socket may wait forever, and a device may have no end.
    """
    if kind := _other_kind(path):
        raise OSError(errno.EINVAL, f"is {kind}, expected a regular file", str(path))


def _other_kind(path: Path | str) -> str | None:
    """What a file is in words, links followed; None for a regular one."""
    mode = os.stat(path).st_mode
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "a special file")


def open_regular(path: Path | str) -> BinaryIO:
    """A regular file, opened for reading; OSError where it is another kind of file, or cannot be opened."""
    check_regular(path)
    return open(path, "rb")


def read_bytes(path: Path) -> bytes:
    """A regular file of at most `MOST_TEXT_BYTES`; OSError where it is larger, of another kind, or cannot be read."""
    with open_regular(path) as file:
        content = file.read(MOST_TEXT_BYTES + 1)
    if len(content) > MOST_TEXT_BYTES:
        raise OSError(errno.EFBIG, f"has more than {MOST_TEXT_BYTES} bytes", str(path))
    return content


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """The text of a regular file, newlines as they are; OSError as `read_bytes`, UnicodeDecodeError."""
    return read_bytes(path).decode(encoding)


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a regular file's bytes, read in pieces; OSError as `open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is synced to disk and takes `path`'s place.

    The temporary name is this call's own, so that two processes may write the same file: the last
    one to finish wins, and what is read is always one of them, whole. On an exception the
    temporary file is removed and `path` is as it was. FercacheError where `path` cannot be written.
    """
    with partial_file(path) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)


def write_text_once(path: Path, text: str) -> None:
    """Write a text file where none of that name is there; of several processes that try, the first one's stays."""
    with partial_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
        sync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            os.replace(temporary, path)
        sync(path.parent)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path` for the time of the block."""
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = partial_path(path)
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise FercacheError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        yield temporary
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise FercacheError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def partial_path(path: Path, ending: str = PARTIAL) -> Path:
    """A new name beside `path` that says which process it belongs to."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}.{secrets.token_hex(4)}{ending}")


def is_abandoned(partial: Path, ending: str = PARTIAL) -> bool:
    """Whether the process that was writing a partial file is gone.

    On another machine that cannot be seen: there a file that was not touched for a day counts as left behind.
    """
    owner = re.search(rf"\.{OWNER}{re.escape(ending)}$", partial.name)
    if owner and owner["machine"] == _machine():
        return not _runs(int(owner["process"]))
    try:
        return time.time() - partial.stat().st_mtime > DAY_S
    except FileNotFoundError:
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return True
    return True


def _machine() -> str:
    return hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]


def check_target(path: Path) -> None:
    """Raise FercacheError where `path` cannot be a file: it is a folder, a pipe or a device, or lies under a file."""
    if path.exists() and (kind := _other_kind(path)):
        raise FercacheError(f"{path}: is {kind}, expected the name of a file to write")
    check_folder_target(path.parent)


def check_folder_target(folder: Path) -> None:
    """Raise FercacheError where `folder` cannot be a folder: it, or one above it, is a file."""
    file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
    if file is not None:
        raise FercacheError(f"{file}: is a file, expected a folder")


def nearest(folder: Path) -> Path:
    """The folder, or the one above it that exists already: on whose disk it is or will be."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def contents(folder: Path) -> list[str]:
    """Names in `folder`, [] where it does not exist; what a kill left half written does not count."""
    check_folder_target(folder)
    if not folder.exists():
        return []
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(PARTIAL))


def refuse_other_contents(folder: Path, expected: str, error: type[FercacheError]) -> None:
    """Raise `error` where a folder that is to be written to has anything in it, saying what it has and how to go on."""
    names = contents(folder)
    if names:
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        wanted = f"{expected} or an empty folder"
        raise error(f"{folder}: contains {listed}, expected {wanted}; choose another folder, or remove this one")


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, newlines as given) whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; FercacheError where the disk does not take it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some disks say only here that they are full
        raise FercacheError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        os.close(handle)
