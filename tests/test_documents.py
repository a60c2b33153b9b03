"""YAML and JSON from anywhere: plain values within limits, or a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fercache.documents import MOST_CHARACTERS, MOST_DEPTH, DocumentError, parse_json, parse_yaml, read_json, read_yaml

BILLION = "a: &a [x, x]\n" + "\n".join(f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


def test_plain_values_come_as_they_are():
    text = "a: 1\nb: [1.5, true, null, off]\nc: {d: x, 2: 2020-01-01}\n"
    assert parse_yaml(text) == {"a": 1, "b": [1.5, True, None, False], "c": {"d": "x", 2: "2020-01-01"}}
    assert parse_yaml("!!str 1") == "1" and parse_yaml("!!bool yes") is True and parse_yaml("") is None
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BILLION, r"line 2: has an alias \(\*a\)"),
        ("[" * 900 + "]" * 900, f"nested more than {MOST_DEPTH} deep"),
        ("{a: " * 60 + "1" + "}" * 60, f"nested more than {MOST_DEPTH} deep"),
        ("!!bool x", "found 'x', expected true or false"),
        ("!!bool [x]", "is not valid YAML"),
        ("!!timestamp x", "has the tag tag:yaml.org,2002:timestamp"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "line 2: has the tag"),
        ("!!binary eA==", "has the tag"),
        ("!!set {a}", "has the tag"),
        ("!!int x", "is not valid YAML"),
        ("!!float x", "is not valid YAML"),
        ("!!map x", "is not valid YAML"),
        ("!!map [x]", "is not valid YAML"),
        ("!!seq x", "is not valid YAML"),
        ("!!str [x]", "is not valid YAML"),
        ("{[1]: 2}", "line 1: has a key that is not a plain value"),
        ("a: 1\nb: 2\na: 3", "line 1: duplicate key a"),
        ("a: [", "is not valid YAML"),
        ("a: 1\n--- \nb: 2", "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
        ("x" * (MOST_CHARACTERS + 1), f"has {MOST_CHARACTERS + 1} characters"),
    ],
)
def test_other_yaml_is_refused_in_words(text, words):
    with pytest.raises(DocumentError, match=words):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deep"),
        ("{", "is no JSON"),
        ("1" * 5000, "is no JSON"),
        (b"\xff", "is no JSON"),
        (" " * (MOST_CHARACTERS + 1), "characters"),
    ],
)
def test_other_json_is_refused_in_words(text, words):
    with pytest.raises(DocumentError, match=words):
        parse_json(text)


@given(st.text(alphabet=st.sampled_from("ab:-!*&?|>%@`'\"#{}[], \n\t<1.~\\x00"), max_size=40))
def test_any_text_is_values_or_a_sentence(text):
    for parse in (parse_yaml, parse_json):
        try:
            parse(text)
        except DocumentError as error:
            assert str(error)


def test_files_of_another_kind_are_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"a: \xff")
    for read in (read_yaml, read_json):
        with pytest.raises(DocumentError, match="is not text"):
            read(tmp_path / "x")
        with pytest.raises(OSError, match="is a folder"):
            read(tmp_path)
