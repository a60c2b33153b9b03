"""Errors keep each problem, however many there are and whoever collects them."""

from __future__ import annotations

import pytest

from fercache.errors import CacheError, DataError, FercacheError, collect_errors, raise_problems


def test_the_message_shows_some_problems_and_the_error_keeps_all():
    with pytest.raises(DataError) as caught:
        raise_problems([f"file {number}: is empty" for number in range(23)], DataError, most=2)
    assert str(caught.value) == "file 0: is empty\nfile 1: is empty\n... and 21 more"
    assert len(caught.value.problems) == 23


def test_no_problems_raise_nothing():
    assert raise_problems([], DataError) is None


def fail(error: FercacheError) -> None:
    raise error


def test_the_problems_of_several_calls_come_at_once():
    first, second = DataError("a: line 1:\ntwo lines are one problem", "b"), CacheError("c")
    with pytest.raises(FercacheError) as caught:
        collect_errors(lambda: fail(first), lambda: 1, lambda: fail(second))
    assert caught.value.problems == ("a: line 1:\ntwo lines are one problem", "b", "c")


def test_the_error_of_one_call_keeps_its_kind():
    error = CacheError("c")
    with pytest.raises(CacheError) as caught:
        collect_errors(lambda: fail(error), lambda: 1)
    assert caught.value is error


def test_without_errors_the_results_come_in_order():
    assert collect_errors(lambda: 1, lambda: "two") == [1, "two"]
