"""What reaches the terminal: names and values from files are shown, never obeyed."""

from __future__ import annotations

import subprocess
import sys

from fercache.cli.text import printable


def test_control_characters_appear_as_escapes():
    assert printable("plain, ünïcode 表情") == "plain, ünïcode 表情"
    assert printable("two\nlines\tand a tab") == "two\nlines\tand a tab"
    assert printable("\x1b[2J\r\x07\x00\x9b31m\u202e") == "\\x1b[2J\\r\\x07\\x00\\x9b31m\\u202e"
    assert printable("\udcff") == "\\udcff"


def test_a_manifest_cannot_send_commands_to_the_terminal(tmp_path):
    (tmp_path / "m.csv").write_text("\x1b]0;owned\x07\n")
    (tmp_path / "c.yaml").write_text('"\\e[31mred": 1\n')
    for words in (["finetune", "--manifest", "m.csv", "--out", "x"], ["finetune", "-c", "c.yaml"]):
        answer = subprocess.run(
            [sys.executable, "-m", "fercache", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 1 and "\x1b" not in answer.stderr + answer.stdout
        assert "x1b" in answer.stderr
