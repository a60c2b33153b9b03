"""The journal of a video that is not finished."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import numpy as np
import pytest
from support.caches import MADE_BY, SHAPE

from fercache.cache import journal
from fercache.cache.journal import HEAD, Journal, begun_videos, header_of, journals_of, remove_useless, saved_rows
from fercache.cache.rows import Part, Shape
from fercache.files import DAY_S, partial_path

NUMBER = np.array([1, 2, 4, 5, 9])
DEAD = 2**22 + 1
"""No process has this number: Linux's end there."""


def part(*rows, scale=1.0):
    embedding = np.array([[row * scale] * 4 for row in rows], np.float16).reshape(-1, 4)
    return Part(np.array(rows, np.int32), embedding, np.array([[row] * 7 for row in rows], np.float32).reshape(-1, 7))


def begin(folder, video="v", made_by=MADE_BY, number=NUMBER, source="s", shape=SHAPE):
    return Journal.begin(folder / f"{video}.h5", made_by, shape, number, source)


def left_by_a_kill(folder, *parts, **given):
    """A journal whose process is gone."""
    journal = begin(folder, **given)
    for rows in parts:
        journal.append(rows)
    journal.close()
    return journal.path.rename(folder / journal.path.name.replace(f"-{os.getpid()}.", f"-{DEAD}."))


def saved(folder, video="v"):
    path = folder / f"{video}.h5"
    header = header_of(path, MADE_BY, SHAPE, NUMBER, "s")
    return np.flatnonzero(saved_rows(journals_of(path), header, SHAPE, len(NUMBER))).tolist()


def rows_of(journal):
    return {
        int(r): (e.tolist(), z.tolist())
        for p in journal.parts()
        for r, e, z in zip(p.rows, p.embedding, p.logits, strict=True)
    }


def test_rows_come_back_and_a_later_process_goes_on(tmp_path):
    before = left_by_a_kill(tmp_path, part(0, 1), part(4))
    journal = begin(tmp_path)
    assert journal.saved.tolist() == [True, True, False, False, True]
    journal.append(part(2, 3))
    assert rows_of(journal) == {row: ([row] * 4, [row] * 7) for row in range(5)}
    assert not before.exists() and journals_of(tmp_path / "v.h5") == [journal.path]
    journal.remove()
    assert os.listdir(tmp_path) == []


def test_without_logits(tmp_path):
    shape = Shape(4, "float32", None)
    journal = begin(tmp_path, shape=shape)
    journal.append(Part(np.array([2]), np.full((1, 4), 0.1, np.float32), None))
    (found,) = journal.parts()
    assert found.logits is None and found.embedding.dtype == np.float32 and found.embedding[0, 0] == np.float32(0.1)


@pytest.mark.parametrize("cut", ["head", "content", "changed", "length"])
def test_only_whole_parts_before_the_first_torn_one_are_taken(tmp_path, cut):
    path = left_by_a_kill(tmp_path, part(0), part(1), part(2))
    content = bytearray(path.read_bytes())
    size = HEAD.size + 4 + 4 + 4 * 2 + 7 * 4
    if cut == "changed":
        content[-size - 3] ^= 1  # in the second part
    if cut == "length":
        content[-2 * size : -2 * size + 8] = b"\xff" * 8
    path.write_bytes(content[: {"head": -size + 5, "content": -3}.get(cut)])
    taken = {"head": [0, 1], "content": [0, 1], "changed": [0], "length": [0]}[cut]
    assert np.flatnonzero(begin(tmp_path).saved).tolist() == taken


@pytest.mark.parametrize(
    "given",
    [
        {"made_by": replace(MADE_BY, precision="bf16")},
        {"number": NUMBER + 1},
        {"source": "another first frame"},
        {"shape": Shape(4, "float16", 6)},
    ],
)
def test_rows_of_something_else_are_not_taken(tmp_path, given):
    path = left_by_a_kill(tmp_path, part(0, 1))
    assert not begin(tmp_path, **given).saved.any()
    assert not path.exists()


def test_an_empty_or_foreign_file_is_thrown_away(tmp_path):
    for content in (b"", b"x" * 30, b"no journal at all " * 10):
        path = partial_path(tmp_path / "v.h5", ".rows.partial")
        path = path.with_name(path.name.replace(f"-{os.getpid()}.", f"-{DEAD}."))
        path.write_bytes(content)
        assert saved(tmp_path) == []
        journal = begin(tmp_path)
        assert not journal.saved.any() and not path.exists()
        journal.remove()


def test_two_processes_on_one_video_do_not_disturb_each_other(tmp_path):
    first = begin(tmp_path)
    first.append(part(0, 1))
    second = begin(tmp_path)
    first.append(part(2))
    second.append(part(2, scale=1))
    assert rows_of(first) == rows_of(second) == {row: ([row] * 4, [row] * 7) for row in range(3)}
    # Whichever is stopped, its rows are there for the next.
    first.append(part(3))
    second.close()
    first.close()
    assert np.flatnonzero(begin(tmp_path).saved).tolist() == [0, 1, 2, 3]
    # Whichever finishes the video removes what nobody needs any more.
    third = begin(tmp_path)
    third.remove()
    assert journals_of(tmp_path / "v.h5") == []


def test_journals_of_several_kills_are_put_together(tmp_path):
    one = partial_path(tmp_path / "v.h5", ".rows.partial")
    left_by_a_kill(tmp_path, part(0, 1)).rename(one)
    other = tmp_path / "other"
    other.mkdir()
    left_by_a_kill(other, part(1, 3)).rename(partial_path(tmp_path / "v.h5", ".rows.partial"))
    assert saved(tmp_path) == [0, 1, 3]
    assert np.flatnonzero(begin(tmp_path).saved).tolist() == [0, 1, 3]


def test_a_journal_that_another_process_takes_over_meanwhile_loses_no_row(tmp_path, monkeypatch):
    """It is listed, and before it is opened its rows are in the other's journal, and it is gone."""
    old = left_by_a_kill(tmp_path, part(0, 1), part(4))
    listed = journals_of(tmp_path / "v.h5")
    copied = old.rename(partial_path(tmp_path / "v.h5", ".rows.partial"))
    answers = [listed]
    monkeypatch.setattr(journal, "journals_of", lambda video: answers.pop() if answers else journals_of(video))
    assert np.flatnonzero(begin(tmp_path).saved).tolist() == [0, 1, 4]
    assert copied.exists() and not answers


def test_videos_with_alike_names_keep_their_own_journals(tmp_path):
    left_by_a_kill(tmp_path, part(0), video="v")
    left_by_a_kill(tmp_path, part(1), video="v.h5")
    assert np.flatnonzero(begin(tmp_path, video="v").saved).tolist() == [0]
    assert set(begun_videos(tmp_path)) == {"v.h5", "v.h5.h5"}
    assert np.flatnonzero(begin(tmp_path, video="v.h5").saved).tolist() == [1]


def test_what_nobody_can_use_is_removed(tmp_path):
    mine = partial_path(tmp_path / "v.h5")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{DEAD}."))
    other_machine = tmp_path / ".v.h5.00000000-1.0123abcd.partial"
    long_ago = tmp_path / ".v.h5.00000000-2.0123abcd.partial"
    for path in (mine, dead, other_machine, long_ago):
        path.touch()
    os.utime(long_ago, (time.time() - 2 * DAY_S,) * 2)
    going_on, over = left_by_a_kill(tmp_path, part(0)), left_by_a_kill(tmp_path, part(0), video="done")
    (tmp_path / "done.h5").touch()
    remove_useless(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, other_machine.name, going_on.name, "done.h5"}
    assert not over.exists()


def test_saved_rows_counts_whole_parts(tmp_path):
    path = left_by_a_kill(tmp_path, part(0, 1), part(2))
    assert saved(tmp_path) == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:-1])
    assert saved(tmp_path) == [0, 1] and saved(tmp_path, "other") == []
    begin(tmp_path, source="another", video="w").append(part(0))
    assert saved(tmp_path, "w") == []
