"""Images a second in fine-tuning, from JPEG files to new weights, beside the paper's loop on data in memory.

Each round is a fresh process, ours and the rival's in turn. Ours is the stage itself, with decoding, crops, mirror
and all that a run does between two steps; the first steps are not counted.

python benchmarks/finetune.py [--rounds 3] [--image-size 224] [--batch-size 16] [--set KEY=VALUE] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from common import last_number

STEPS, WARM_UP = 12, 3

OURS = f"""
import sys, time
from pathlib import Path
from fercache.config import load_config
from fercache.stages.finetune import finetune
from fercache.training.engine import Learner
ends, step = [], Learner.step
def timed(self, *given):
    total = step(self, *given).cpu()
    ends.append(time.perf_counter())
    return total
Learner.step = timed
config = load_config(str(Path(sys.argv[1]).with_name("empty.yaml")), "finetune", sys.argv[3:])
finetune(Path(sys.argv[1]), Path(sys.argv[2]), config.finetune, threads=config.threads)
print((len(ends) - {WARM_UP}) / (ends[-1] - ends[{WARM_UP} - 1]))
"""

PAPER = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import rivals
print(rivals.paper_finetune(int(sys.argv[2]), int(sys.argv[3])))
"""


def draw(folder: Path, frames: int) -> Path:
    """A manifest of drawn faces with exactly so many labelled training frames, and a few for validation."""
    import numpy as np

    from fercache.data.affwild2 import build_manifest
    from fercache.data.annotations import read_annotation, write_annotation
    from fercache.data.manifest import write_manifest
    from fercache.synth import SynthSettings, synthesise
    from fercache.tasks import TASKS

    task = TASKS["expr"]
    root = synthesise(folder / "faces", SynthSettings(train=8, validation=1, test=0, seconds=4, fps=30))
    manifest, _ = build_manifest(root, task)
    left = {"train": frames, "validation": 16}
    for video in manifest.videos:
        labels, numbers = read_annotation(video.labels_path, task), video.frames().frame
        kept = np.zeros(len(labels), bool)
        kept[numbers[labels[numbers - 1] >= 0][: left[video.split]] - 1] = True
        left[video.split] -= int(kept.sum())
        write_annotation(video.labels_path, task, np.where(kept, labels, task.invalid))
    if any(left.values()):
        sys.exit(f"too few labelled frames were drawn: {left} are missing")
    # So that no fercache.yaml of the current folder changes what is measured.
    (folder / "empty.yaml").touch()
    write_manifest(folder / "faces.csv", manifest)
    return folder / "faces.csv"


def main() -> None:
    """Time the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size, batch = arguments.image_size, arguments.batch_size
    sets = [f"image_size={size}", f"batch_size={batch}", "epochs=1", "weights=none", *arguments.set]
    ours, paper = [], []
    with tempfile.TemporaryDirectory() as folder:
        manifest = draw(Path(folder), STEPS * batch)
        for number in range(arguments.rounds):
            ours.append(batch * last_number(OURS, manifest, Path(folder) / f"run{number}", *sets)[0])
            paper.append(last_number(PAPER, Path(__file__).parent, size, batch)[0])
            print(f"ours {ours[-1]:.2f} images/s, the paper's step {paper[-1]:.2f} images/s", flush=True)
    ours_rate, paper_rate = statistics.median(ours), statistics.median(paper)
    ratio = ours_rate / paper_rate
    print(
        f"median at {size} px, batch {batch}: {ours_rate:.2f} against {paper_rate:.2f}, ratio {ratio:.2f} (wanted: 2.3)"
    )
    if arguments.json:
        result = {"ours_img_s": round(ours_rate, 2), "paper_img_s": round(paper_rate, 2), "ratio": round(ratio, 3)}
        print(json.dumps(result))


if __name__ == "__main__":
    main()
