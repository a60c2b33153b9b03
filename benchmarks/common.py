"""What the benchmarks share: sides that run in fresh processes."""

from __future__ import annotations

import subprocess
import sys


def last_number(code: str, *words: object) -> tuple[float, str]:
    """What the code prints in its last line, run in a process of its own, and what it said on standard error."""
    answer = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    return float(answer.stdout.splitlines()[-1]), answer.stderr
