"""Faces a second that `fercache synth` draws, encodes and writes on one core, each round in a fresh process.

python benchmarks/synth.py [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

ROUND = """
import json, tempfile, time
from pathlib import Path
from fercache.synth import SynthSettings, synthesise
with tempfile.TemporaryDirectory() as folder:
    start = time.perf_counter(), time.process_time()
    out = synthesise(Path(folder) / "out", SynthSettings(train=6, validation=2, test=1), workers=1)
    wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    faces = sum(1 for _ in out.glob("cropped_aligned/*/*.jpg"))
print(json.dumps([faces, wall, processor]))
"""


def main() -> None:
    """Time the rounds and print the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = []
    for _ in range(arguments.rounds):
        answer = subprocess.run([sys.executable, "-c", ROUND], capture_output=True, text=True, check=True)
        faces, wall, processor = json.loads(answer.stdout)
        rates.append((faces / wall, faces / processor))
        print(f"{faces} faces in {wall:.2f} s: {faces / wall:.0f}/s, {faces / processor:.0f}/s of processor time")
    wall, processor = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"median {wall:.0f} faces/s, {processor:.0f} faces/s of processor time (wanted: 300)")
    if arguments.json:
        print(json.dumps({"faces_per_s": round(wall, 1), "faces_per_processor_s": round(processor, 1)}))


if __name__ == "__main__":
    main()
