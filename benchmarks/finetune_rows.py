"""The shipped recipes on data that can be had: trained, stopped by a signal within an epoch, gone on, scored.

Each row is the command of the shipped config with what small sets and random weights need; the table says all of it.
Times are of this machine. Without --realfaces (a folder in the Aff-Wild2 layout) only the drawn faces are run.

python benchmarks/finetune_rows.py [--realfaces DIR] [--epochs 10] [-o benchmarks/results/finetune_rows.md]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

FROM_NOTHING = "--weights none --set crop_scale=[0.9,1] --set batch_size=32"
DRAWN = f"{FROM_NOTHING} --set image_size=64 --set lr=0.005 --set zero_init_residual=true"


@dataclass(frozen=True)
class Row:
    """One run."""

    data: str
    task: str
    options: str

    def command(self, epochs: int) -> str:
        """What is typed."""
        manifest = f"{self.data}_{self.task}.csv"
        return (
            f"fercache finetune -c abaw2021_{self.task} --manifest {manifest} --out {self.data}_{self.task}"
            f" {self.options} --set epochs={epochs}"
        )


ROWS = (
    Row("realfaces", "expr", f"{FROM_NOTHING} --set image_size=112 --set lr=0.01 --set milestones=[6,8]"),
    Row("drawn", "expr", DRAWN),
    Row("drawn", "au", f"{DRAWN} --set positive_weights=true"),
)


def call(command: str, folder: Path, stop_after_s: float | None = None) -> int:
    """Run a command in the folder, with TERM after a while; its exit status."""
    print(f"$ {command}", flush=True)
    words = [sys.executable, "-m", *shlex.split(command)]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    if stop_after_s is not None:
        time.sleep(stop_after_s)
        process.send_signal(signal.SIGTERM)
    return process.wait()


def run(row: Row, folder: Path, epochs: int) -> str:
    """A row of the table."""
    command, out = row.command(epochs), folder / f"{row.data}_{row.task}"
    # Long enough to be within an epoch, too short to be at the end.
    stopped = call(command, folder, stop_after_s=45)
    checkpoint = torch.load(out / "last.pt", weights_only=True)
    where = f"after epoch {len(checkpoint['history'])}, at step {checkpoint['place']['step']}"
    finished = call(command, folder)
    if (stopped, finished) != (75, 0):
        sys.exit(f"{command}: ended with {stopped}, then {finished}, expected 75, then 0")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(lines, key=lambda line: line["score"])
    cells = [row.data, row.task.upper(), where, best["epoch"]]
    cells += [f"{best[key]:.4f}" for key in ("f1", "f1_occurring", "accuracy", "score")]
    cells += [f"{lines[0]['loss']:.3f} to {lines[-1]['loss']:.3f}", f"{sum(line['seconds'] for line in lines):.0f}"]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Make the data, run the rows, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--realfaces", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "results" / "finetune_rows.md")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if row.data != "realfaces" or arguments.realfaces]
    lines = [
        "| data | task | stopped | best epoch | F1 | F1 occurring | accuracy | E | loss, first to last epoch | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = ["fercache synth drawn --set train=42 --set validation=16 --set test=0 --set seconds=6 --set fps=12"]
        roots = {"drawn": "drawn", "realfaces": str(arguments.realfaces and arguments.realfaces.resolve())}
        made += [f"fercache manifest affwild2 {roots[r.data]} --task {r.task} -o {r.data}_{r.task}.csv" for r in rows]
        for command in made:
            if call(command, folder):
                sys.exit(f"{command}: failed")
        lines += [run(row, folder, arguments.epochs) for row in rows]
    shown = [command.replace(roots["realfaces"], "REALFACES") for command in made]
    commands = "\n".join([*shown, *(row.command(arguments.epochs) for row in rows)])
    text = (
        "# Fine-tuning by the shipped recipes\n\n"
        f"Made by `python benchmarks/finetune_rows.py --realfaces DIR`, with {len(os.sched_getaffinity(0))} cores."
        " Each run was stopped by TERM within an epoch (exit 75) and went on by the same command. All from random"
        " weights, which the recipe's learning rate does not fit; no number of the paper's is claimed.\n\n"
        f"```console\n{commands}\n```\n\n" + "\n".join(lines) + "\n"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
