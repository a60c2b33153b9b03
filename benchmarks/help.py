"""Processor time of `--help`, of fercache and of each command and subcommand.

python benchmarks/help.py [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator

import click

from fercache.cli import main as fercache


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a command and of all its subcommands."""
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


def processor_s(words: tuple[str, ...]) -> float:
    """User and system time of one call, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "fercache", *words, "--help"], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time each help and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    medians = {}
    for words in commands(fercache):
        name = " ".join(["fercache", *words])
        medians[name] = statistics.median(processor_s(words) for _ in range(arguments.rounds))
        print(f"{name:<28} {medians[name]:.3f} s")
    print(f"slowest {max(medians.values()):.3f} s of processor time (wanted: 0.3)")
    if arguments.json:
        print(json.dumps({"slowest_help_s": round(max(medians.values()), 3)}))


if __name__ == "__main__":
    main()
