"""Stage two beside the loops that it replaces: training, reading, memory, inference.

train: windows/s of `train_temporal` (GRU, 2 layers) on a cache, first steps not counted, beside the paper's step, which
runs the CNN on every frame of every window. Each round is a fresh process a side, in turn.

reads: windows/s of the training's own reading (rows found, and gathered as stored, in float16), fully shuffled, from
100,000 frames in 500 videos: from the packed cache and from a file a video; the third epoch counts.

memory: most anonymous memory (RssAnon) while a GRU trains on a cache of 12 GB, over that on one of 0.1 GB. The pages of
the cache itself are the system's, and are not counted.

inference: middle outputs/s of a head for every frame of a video, in float32 and where the machine has units for it in
bf16, beside whole windows (`rivals.plain_windows`) on the same head; and the largest relative error of an output.

python benchmarks/temporal.py [--parts train reads memory inference] [--rounds 3] [--folder DIR] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from common import last_number, make_cache

from fercache.runtime import resolve_precision

HERE = Path(__file__).parent
THREADS = len(os.sched_getaffinity(0))
DIM = 2048
BATCH = 512
"""Windows a step, in training and reading."""

TRAIN = """
import sys, time
from pathlib import Path
from fercache.config import TrainTemporalConfig
from fercache.stages.train_temporal import train_temporal
from fercache.training.engine import Learner
manifest, cache, out, batch, warm_up, steps = *sys.argv[1:4], *map(int, sys.argv[4:])
ends, counts, step = [], [], Learner.step
def timed(self, *given):
    total = step(self, *given).cpu()
    ends.append(time.perf_counter())
    counts.append(len(given[0].index))
    if len(ends) == steps:
        print(sum(counts[warm_up:]) / (ends[-1] - ends[warm_up - 1]))
        sys.exit()
    return total
Learner.step = timed
train_temporal(Path(manifest), Path(cache), Path(out), TrainTemporalConfig(head="gru", batch_size=batch))
"""

PAPER = """
import sys
sys.path.insert(0, sys.argv[1])
import rivals
print(rivals.paper_temporal_train())
"""

READ = """
import sys, time
from pathlib import Path
from fercache import runtime
from fercache.config import TrainTemporalConfig
from fercache.data.datasets import EpochBatches
from fercache.data.manifest import read_manifest
from fercache.stages.train_temporal.inputs import from_cache
manifest, cache, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
runtime.configure_torch(None)
inputs = from_cache(read_manifest(Path(manifest)), TrainTemporalConfig(head="gru", stride=1), Path(cache))
split = inputs.splits["train"]
order = EpochBatches(len(split.windows), batch, 0)
for epoch in range(3):
    start = time.perf_counter()
    chosen = (split.windows.rows(places)[0] for places in order.start(epoch))
    count = sum(len(split.source.rows.gather(rows)) for rows in chosen)
    rate = count / (time.perf_counter() - start)
assert count == len(split.windows)
print(rate)
"""

MEMORY = """
import sys, threading, time
from pathlib import Path
from fercache.config import TrainTemporalConfig
from fercache.stages.train_temporal import train_temporal
from fercache.training.engine import Learner
manifest, cache, out, batch, steps = *sys.argv[1:4], *map(int, sys.argv[4:])
status, most = Path("/proc/self/status"), [0]
def look():
    while True:
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        most[0] = max(most[0], int(line.split()[1]))
        time.sleep(0.01)
threading.Thread(target=look, daemon=True).start()
taken, step = [], Learner.step
def counted(self, *given):
    taken.append(1)
    if len(taken) > steps:
        print(most[0] / 1024)
        sys.exit()
    return step(self, *given)
Learner.step = counted
train_temporal(Path(manifest), Path(cache), Path(out), TrainTemporalConfig(head="gru", batch_size=batch, epochs=1000))
"""

INFERENCE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np, rivals, torch
from fercache import runtime
from fercache.data.datasets import in_order
from fercache.data.time_line import TimeLine, WindowSet
from fercache.models.heads import get_head
from fercache.models.temporal import IndexedWindows, MiddleOutput, TemporalNetwork
from fercache.training.sources import each_once
from fercache.training.engine import Batch, infer
name, side, precision, frames, batch = *sys.argv[2:5], *map(int, sys.argv[5:])
runtime.configure_torch(None)
torch.manual_seed(0)
head, embedding = get_head(name)(7).eval(), torch.randn(frames, 2048)
line = TimeLine.of({"v": np.arange(1, frames + 1)}, 9)
windows, network = WindowSet(line, line.position, 9), MiddleOutput(TemporalNetwork(head))
def ours():
    def batches():
        for chosen in in_order(range(frames), batch):
            unique, index = each_once(windows.rows(chosen)[0])
            yield Batch(torch.as_tensor(chosen), IndexedWindows(embedding[unique], index), torch.empty(0))
    return torch.from_numpy(infer(network, batches(), lambda: runtime.autocast(precision), lambda: None))
def plain():
    with runtime.autocast(precision):
        return rivals.plain_windows(head, embedding).float()
if side == "error":
    expected = plain()
    print(((ours() - expected).norm(dim=1) / expected.norm(dim=1)).max().item())
else:
    print(rivals.rate(ours if side == "ours" else plain, frames))
"""


def train(folder: Path, rounds: int) -> dict[str, float]:
    """Ours and the paper's step in turn."""
    manifest, cache = make_cache(folder / "train", 120, 500)
    ours, paper = [], []
    for number in range(rounds):
        ours.append(last_number(TRAIN, manifest, cache, folder / f"run{number}", BATCH, 3, 18)[0])
        paper.append(last_number(PAPER, HERE)[0])
        print(f"train: ours {ours[-1]:.0f} windows/s (batch {BATCH}), the paper's step {paper[-1]:.2f}", flush=True)
    shutil.rmtree(folder / "train")
    rates = {"train_per_s": statistics.median(ours), "paper_train_per_s": statistics.median(paper)}
    return rates | {"train_ratio": rates["train_per_s"] / rates["paper_train_per_s"]}


def reads(folder: Path, rounds: int) -> dict[str, float]:
    """The packed cache and the files in turn."""
    from fercache.tools.caches import pack_cache

    manifest, cache = make_cache(folder / "reads", 500, 200)
    sides = {"packed": pack_cache(cache, folder / "reads.h5"), "files": cache}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, path in sides.items():
            found[side].append(last_number(READ, manifest, path, BATCH)[0])
        print(f"reads: packed {found['packed'][-1]:.0f} windows/s, files {found['files'][-1]:.0f}", flush=True)
    shutil.rmtree(folder / "reads")
    return {f"reads_{side}_per_s": statistics.median(values) for side, values in found.items()}


def memory(folder: Path, rounds: int) -> dict[str, float]:
    """A cache of 12 GB and one of 0.1 GB in turn."""
    most: dict[float, list[float]] = {}
    sizes = (0.1, 12)
    made = {size: make_cache(folder / f"{size}", 500, int(size * 1e9 / 500 / DIM / 2)) for size in sizes}
    for number in range(rounds):
        for gigabytes, (manifest, cache) in made.items():
            used = last_number(MEMORY, manifest, cache, folder / f"m{number}_{gigabytes}", BATCH, 20)[0]
            most.setdefault(gigabytes, []).append(used)
            print(f"memory: {gigabytes} GB of cache, {used:.0f} MiB of anonymous memory", flush=True)
    small, large = (statistics.median(values) for values in most.values())
    return {"anon_small_mib": small, "anon_large_mib": large, "anon_memory_ratio": large / small}


def inference(rounds: int, best: str) -> dict[str, float]:
    """Both heads, ours and whole windows in turn, in float32 and in the machine's `best` precision."""
    result, errors = {}, []
    for head in ("gru", "transformer"):
        errors.append(last_number(INFERENCE, HERE, head, "error", "fp32", 4096, BATCH)[0])
        for precision in dict.fromkeys(("fp32", best)):
            found: dict[str, list[float]] = {"ours": [], "plain": []}
            for _ in range(rounds):
                for side, values in found.items():
                    values.append(last_number(INFERENCE, HERE, head, side, precision, 4096, BATCH)[0])
            ours, plain = (statistics.median(values) for values in found.values())
            print(f"inference: {head} {precision}: ours {ours:.0f} frames/s, whole windows {plain:.0f}", flush=True)
            result[f"{head}_ratio" if precision == "fp32" else f"{head}_{precision}_ratio"] = ours / plain
    return result | {"max_rel_err": max(errors)}


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["train", "reads", "memory", "inference"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where 13 GB are written and removed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    precision = resolve_precision("auto")
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        if "train" in arguments.parts:
            result |= train(folder, arguments.rounds)
        if "reads" in arguments.parts:
            result |= reads(folder, arguments.rounds)
        if "memory" in arguments.parts:
            result |= memory(folder, arguments.rounds)
        if "inference" in arguments.parts:
            result |= inference(arguments.rounds, precision)
    print(
        f"on {THREADS} threads, trained in {precision}; wanted: train_ratio 600, reads 150000 packed and 80000 files,"
        " anon_memory_ratio 0.9 to 1.1, gru_ratio 2.0, transformer_ratio 1.5, max_rel_err 1e-5"
    )
    for key, value in result.items():
        print(f"{key} {value:.4g}")
    if arguments.json:
        print(json.dumps({key: float(f"{value:.4g}") for key, value in result.items()}))


if __name__ == "__main__":
    main()
