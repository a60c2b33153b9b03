from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.system import needs_mount

from fercache.errors import FercacheError
from fercache.files import is_abandoned, partial_file, read_text, replacing, write_text, write_text_once


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "new" / "x.txt"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"
    assert os.listdir(path.parent) == ["x.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    write_text(path, "before")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x.txt"]


def test_the_first_of_several_writers_stays(tmp_path):
    path = tmp_path / "new" / "x.txt"
    write_text_once(path, "first")
    write_text_once(path, "second")
    assert path.read_text() == "first" and os.listdir(path.parent) == ["x.txt"]


def test_without_links_the_file_is_written_all_the_same(tmp_path, monkeypatch):
    def no_links(_source, _target):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    write_text_once(tmp_path / "x.txt", "text")
    assert (tmp_path / "x.txt").read_text() == "text" and os.listdir(tmp_path) == ["x.txt"]


def test_a_living_process_abandons_nothing(tmp_path):
    with partial_file(tmp_path / "x.txt") as temporary:
        assert temporary.exists() and not is_abandoned(temporary)
    assert not is_abandoned(tmp_path / ".x.txt.00000000-1.01234567.partial")  # another machine's, and gone


def test_what_is_no_file_is_not_written_to(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a named pipe"), (tmp_path, "a folder"), (Path("/dev/null"), "a device")):
        with pytest.raises(FercacheError, match=f"{path}: is {kind}, expected the name of a file to write"):
            write_text(path, "x")
        with pytest.raises(OSError, match=f"is {kind}, expected a regular file"):
            read_text(path)


FULL_DISK = """
import sys
from pathlib import Path
from fercache.errors import FercacheError
from fercache.files import write_text
disk = Path(sys.argv[1])
try:
    write_text(disk / "r.html", "x" * 100_000)
except FercacheError as error:
    print(error, sorted(path.name for path in disk.iterdir()))
"""


@needs_mount
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path):
    script = 'mount -t tmpfs -o size=64k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "bash", "-c", script, "-", str(tmp_path), sys.executable, FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{tmp_path}/r.html: cannot be written: No space left on device []\n"
