"""All stages on one GPU beside the loops that they replace; six minutes, of which the last parts may lack rounds.

extract: frames/s from JPEG files of 112 px to the cache, at 224 and 112 px, plain and compiled, with the main thread's
time by stage; beside the network alone on data in GPU memory, in the best of several forms, and the paper's loop.
finetune: images/s from JPEG files to new weights, beside a plain AMP loop on data in GPU memory.
temporal: windows/s of GRU training on a cache, beside the CNN at every step; inference: middle outputs/s of a GRU from
a cache, beside whole windows with the embeddings in GPU memory. profile: the GPU's time by kernel in an extraction.

Every side is a fresh process, in turn; a ratio is that of medians. Frames are drawn faces, weights random numbers. What
is known is written after each part (`--out`), so that a call that is cut off has told something. On two cores and
`--device cpu` everything runs in a small form that measures nothing: it shows that the parts work.

python benchmarks/gpu.py [--parts extract finetune temporal inference profile] [--rounds 3] [--minutes 6] [--out FILE]
                         [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import last_line, make_cache

HERE = Path(__file__).parent
PARTS = ("extract", "finetune", "temporal", "inference", "profile")
DRAWN = 400
"""Different faces; more frames are links to their files."""

PRELUDE = f"""
import json, logging, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from fercache import runtime
sys.path.insert(0, {str(HERE)!r})
import rivals
device = runtime.device()
on_gpu = device.type == "cuda"
runtime.configure_torch(None)
dtype = {{"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}}[runtime.resolve_precision("auto")]
def now():
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter()
def peak():
    return torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0
def rate(call, units, calls):
    for _ in range(3):
        call()
    start = now()
    for _ in range(calls):
        call()
    return units * calls / (now() - start)
def time_steps(warm_up, steps):
    '''Tell the rate of the training steps between two of them, without waiting for the device at each.'''
    from fercache.training.engine import Learner
    ends, counts, step = [], [], Learner.step
    def timed(self, *given):
        total = step(self, *given)
        counts.append(len(given[0].index))
        if len(counts) in (warm_up, steps):
            ends.append(now())
        if len(counts) == steps:
            tell(rate=sum(counts[warm_up:]) / (ends[1] - ends[0]))
            sys.exit()
        return total
    Learner.step = timed
def tell(**values):
    print(json.dumps({{**values, "peak_gb": round(peak(), 2)}}))
"""

EXTRACT = """
from fercache.config import ExtractConfig
from fercache.stages.extract.engine import Extractor
from fercache.stages.extract import extract
logging.basicConfig(level=logging.INFO, format="%(message)s")
manifest, cache, size, batch, backend = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), sys.argv[5]
warm_up, ends, run = 10, [], Extractor.run
def timed(self, *given):
    for result in run(self, *given):
        ends.append((time.perf_counter(), len(result.index)))
        if len(ends) == warm_up:
            self.times.restart()
        yield result
    seconds = ends[-1][0] - ends[warm_up - 1][0]
    tell(rate=sum(count for _, count in ends[warm_up:]) / seconds, stages=str(self.times))
Extractor.run = timed
extract(Path(manifest), "none", Path(cache), ExtractConfig(image_size=size, batch_size=batch, backend=backend))
"""

ALONE = """
from fercache.models.backends import fold_batch_norm
form, size, batch, calls = sys.argv[1], *map(int, sys.argv[2:])
network = fold_batch_norm(rivals.resnet50_caffe().eval()).to(device, dtype, memory_format=torch.channels_last)
frames = torch.rand(batch, 3, size, size, device=device).to(dtype, memory_format=torch.channels_last)
forms = {}
with torch.no_grad():
    forms["eager"] = rate(lambda: network(frames), batch, calls)
    torch.backends.cudnn.benchmark = True
    forms["timed_kernels"] = rate(lambda: network(frames), batch, calls)
    if form == "compiled":
        compiled = torch.compile(network, dynamic=False, options={"freezing": True})
        forms["compiled"] = rate(lambda: compiled(frames), batch, calls)
    elif on_gpu:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                network(frames)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            network(frames)
        forms["graph"] = rate(graph.replay, batch, calls)
tell(rate=max(forms.values()), **{name: round(value, 1) for name, value in forms.items()})
"""

PAPER = """
folder, size, workers, most = sys.argv[1], *map(int, sys.argv[2:])
torch.backends.cudnn.allow_tf32 = True  # as torch has it
files = sorted(map(str, Path(folder).rglob("*.jpg")))[:most]
network = rivals.resnet50_caffe().eval().to(device)
with torch.no_grad():
    network(torch.rand(32, 3, size, size, device=device)).cpu()
    loader = torch.utils.data.DataLoader(rivals.JpegFolder(files, size), batch_size=32, num_workers=workers)
    batches, start, rows = iter(loader), None, []
    for number, batch in enumerate(batches):
        rows.append(network(batch.to(device)).cpu().numpy())
        if number == 9:
            start = now()
    np.concatenate(rows)
    tell(rate=(len(files) - 320) / (now() - start))
"""

FINETUNE = """
from fercache.config import load_config
from fercache.stages.finetune import finetune
time_steps(10, int(sys.argv[3]))
config = load_config(str(Path(sys.argv[1]).with_name("empty.yaml")), "finetune", sys.argv[4:])
finetune(Path(sys.argv[1]), Path(sys.argv[2]), config.finetune)
"""

PLAIN_AMP = """
size, batch, calls = map(int, sys.argv[1:])
network = rivals.resnet50_caffe(7).train().to(device, memory_format=torch.channels_last)
optimizer = torch.optim.SGD(network.parameters(), lr=5e-4, momentum=0.9, weight_decay=5e-4)
scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
frames = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
labels = torch.randint(0, 7, (batch,), device=device)
torch.backends.cudnn.benchmark = True
def step():
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        loss = torch.nn.functional.cross_entropy(network(frames).float(), labels)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
tell(rate=rate(step, batch, calls))
"""

TEMPORAL = """
from fercache.config import TrainTemporalConfig
from fercache.stages.train_temporal import train_temporal
manifest, cache, out, batch, steps = *sys.argv[1:4], *map(int, sys.argv[4:])
time_steps(20, steps)
settings = TrainTemporalConfig(head="gru", batch_size=batch, stride=1, epochs=1000)
train_temporal(Path(manifest), Path(cache), Path(out), settings)
"""

CNN_AT_EVERY_STEP = """
size, windows, calls = map(int, sys.argv[1:])
network = rivals.resnet50_caffe().eval().to(device, memory_format=torch.channels_last)
head = rivals.PlainGRU().train().to(device)
optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
frames = torch.rand(windows * 9, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
labels = torch.randint(0, 7, (windows * 9,), device=device)
def step():
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        with torch.no_grad():
            embedding = network(frames)
        logits = head(embedding.view(windows, 9, 2048)).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
tell(rate=rate(step, windows, calls))
"""

INFERENCE = """
from fercache.cache.mapped import MappedRows
from fercache.cache.reader import Cache
from fercache.data.datasets import in_order
from fercache.data.time_line import TimeLine, WindowSet
from fercache.models.heads import get_head
from fercache.models.temporal import MiddleOutput, TemporalNetwork
from fercache.training.sources import CachedRows
from fercache.training.engine import Batch, infer
side, path, batch, calls = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.manual_seed(0)
head, cache = get_head("gru")(7).eval().to(device), Cache(Path(path))
numbers = {video_id: cache.frame(video_id) for video_id in cache.video_ids()}
rows = MappedRows(cache, list(numbers))
line = TimeLine.of(numbers, 9)
windows, network = WindowSet(line, line.position, 9), MiddleOutput(TemporalNetwork(head))
def ours():
    found = CachedRows(rows, device).middle(windows, in_order(range(len(rows)), batch))
    batches = (Batch(torch.as_tensor(chosen), inputs, torch.empty(0)) for chosen, inputs in found)
    infer(network, batches, lambda: runtime.autocast("fp32"), lambda: None)
embedding = rows.gather(np.arange(len(rows))).float().to(device)
@torch.inference_mode()
def plain():
    rivals.plain_windows(head, embedding)
tell(rate=rate({"ours": ours, "plain": plain}[side], len(rows), calls))
"""

PROFILE = """
from torch.profiler import ProfilerActivity, profile
from fercache.config import ExtractConfig
from fercache.stages.extract import extract
kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
with profile(activities=kinds) as profiled:
    extract(Path(sys.argv[1]), "none", Path(sys.argv[2]), ExtractConfig(image_size=int(sys.argv[3])))
by = "self_device_time_total" if on_gpu else "self_cpu_time_total"
print(profiled.key_averages().table(sort_by=by, row_limit=20, max_name_column_width=60), file=sys.stderr)
tell()
"""


@dataclass(frozen=True)
class Sizes:
    """How much work a side is given."""

    frames: int
    few_frames: int
    """For slow sides."""
    cached: int
    """Frames of the cache of random numbers."""
    batch: int
    calls: int
    side_px: tuple[int, ...]


SIZES = {
    "cuda": Sizes(40_000, 6000, 200_000, 128, 30, (224, 112)),
    "cpu": Sizes(400, 352, 2000, 16, 1, (48,)),
}


class Bench:
    """The sides' processes, their results, and the time that is left."""

    def __init__(self, folder: Path, device: str, rounds: int, minutes: float, out: Path | None) -> None:
        self.folder, self.device, self.rounds, self.out = folder, device, rounds, out
        self.sizes, self.end = SIZES[device], time.monotonic() + 60 * minutes
        self.result: dict[str, Any] = {"device": device_name(device)}
        self.number = 0

    def fresh(self, name: str) -> Path:
        """A path that nothing is at yet."""
        self.number += 1
        return self.folder / f"{name}{self.number}"

    def side(self, code: str, *words: object, told: bool = False) -> dict[str, Any]:
        """What a process of its own measured."""
        line, log = last_line(PRELUDE + code, *words)
        if told:
            print(log, flush=True)
        return json.loads(line)

    def compare(
        self,
        name: str,
        sides: dict[str, tuple[object, ...]],
        ratios: tuple[tuple[str, str], ...],
        once: tuple[str, ...] = (),
    ) -> None:
        """Run the sides in turn, each round anew, and keep medians and ratios; a first round is always made.

        After it time may be over, and the sides in `once`, which take long to begin, are not run again.
        """
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(self.rounds):
            for side, (code, *words) in sides.items():
                if number and (side in once or time.monotonic() > self.end):
                    continue
                measured = self.side(str(code), *(word() if callable(word) else word for word in words))
                rates[side].append(measured["rate"])
                self.result[f"{name}_{side}_detail"] = {key: v for key, v in measured.items() if key != "rate"}
                print(f"{name}, {side}: {measured}", flush=True)
        medians = {side: statistics.median(values) for side, values in rates.items()}
        self.result |= {f"{name}_{side}": round(value, 1) for side, value in medians.items()}
        self.result[f"{name}_rounds"] = min(len(values) for side, values in rates.items() if side not in once)
        for one, other in ratios:
            self.result[f"{name}_{one}_of_{other}"] = round(medians[one] / medians[other], 3)
        self.write()

    def write(self) -> None:
        """Keep what is known."""
        if self.out is not None:
            self.out.write_text(json.dumps(self.result, indent=2) + "\n")


def device_name(device: str) -> str:
    """The card, or that there is none."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "cpu: nothing was measured"


def draw(folder: Path, frames: int) -> Path:
    """A manifest of so many labelled training frames, links to a few drawn faces, and a few validation frames."""
    from fercache.data.affwild2 import build_manifest
    from fercache.data.annotations import write_annotation
    from fercache.data.manifest import write_manifest
    from fercache.synth import SynthSettings, synthesise
    from fercache.tasks import TASKS

    task = TASKS["expr"]
    drawn = synthesise(folder / "drawn", SynthSettings(train=2, validation=1, test=0, seconds=DRAWN / 90, fps=30))
    pictures = sorted(drawn.rglob("*.jpg"))
    root, per_video = folder / "faces", 2000
    for start in range(0, frames, per_video):
        write_links(root / "cropped_aligned" / f"v{start}", pictures, min(per_video, frames - start))
    write_links(root / "cropped_aligned" / "validation", pictures, 64)
    for path in (root / "cropped_aligned").iterdir():
        split = "Validation_Set" if path.name == "validation" else "Train_Set"
        target = root / "annotations" / f"{task.track}_Set" / split / f"{path.name}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_annotation(target, task, np.arange(len(list(path.iterdir()))) % len(task.classes))
    write_manifest(folder / "faces.csv", build_manifest(root, task)[0])
    (folder / "empty.yaml").touch()  # so that no fercache.yaml of the current folder changes what is measured
    return folder / "faces.csv"


def write_links(folder: Path, pictures: list[Path], count: int) -> None:
    """Frames 1 to `count`."""
    folder.mkdir(parents=True)
    for number in range(count):
        os.link(pictures[number % len(pictures)], folder / f"{number + 1:05}.jpg")


def extract(bench: Bench, manifest: Path) -> None:
    """Both sizes, plain and compiled."""
    sizes, workers = bench.sizes, min(8, len(os.sched_getaffinity(0)))
    for px in sizes.side_px:
        inputs = (manifest, lambda: bench.fresh("cache"), px, sizes.batch)
        sides: dict[str, tuple[object, ...]] = {
            "ours": (EXTRACT, *inputs, "eager"),
            "alone": (ALONE, "plain", px, sizes.batch, sizes.calls),
            "paper": (PAPER, manifest.parent / "faces", px, workers, sizes.few_frames),
        }
        once = {
            "ours_compiled": (EXTRACT, *inputs, "compile"),
            "alone_compiled": (ALONE, "compiled", px, sizes.batch, sizes.calls),
        }
        ratios = [("ours", "alone"), ("ours", "paper")]
        if bench.device == "cuda":
            ratios += [("ours", "alone_compiled"), ("ours_compiled", "alone_compiled")]
            sides |= once
        bench.compare(f"extract_{px}", sides, tuple(ratios), once=tuple(once))


def finetune(bench: Bench, manifest: Path) -> None:
    """At the larger size."""
    sizes, px = bench.sizes, bench.sizes.side_px[0]
    sets = [f"image_size={px}", f"batch_size={sizes.batch}", "epochs=1", "weights=none"]
    steps = min(60, sizes.frames // sizes.batch)
    sets.append(f"every_nth_frame={max(1, sizes.frames // (steps * sizes.batch))}")
    sides = {
        "ours": (FINETUNE, manifest, lambda: bench.fresh("run"), steps, *sets),
        "plain": (PLAIN_AMP, px, sizes.batch, sizes.calls),
    }
    bench.compare("finetune", sides, (("ours", "plain"),))


def temporal(bench: Bench, manifest: Path, cache: Path) -> None:
    """The training of a GRU."""
    sides = {
        "ours": (
            TEMPORAL,
            manifest,
            cache,
            lambda: bench.fresh("head"),
            4 * bench.sizes.batch,
            10 * bench.sizes.calls + 30,
        ),
        "cnn_every_step": (CNN_AT_EVERY_STEP, bench.sizes.side_px[0], 16, bench.sizes.calls),
    }
    bench.compare("temporal", sides, (("ours", "cnn_every_step"),))


def inference(bench: Bench, cache: Path) -> None:
    """The middle outputs of a GRU."""
    sides = {side: (INFERENCE, side, cache, 1024, 2) for side in ("ours", "plain")}
    bench.compare("inference", sides, (("ours", "plain"),))


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", choices=list(SIZES), default="cuda")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py: torch sees no GPU here, and nothing was measured")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, arguments.device, arguments.rounds, arguments.minutes, arguments.out)
        manifest = draw(folder, bench.sizes.frames)
        if "extract" in arguments.parts:
            extract(bench, manifest)
        if "finetune" in arguments.parts:
            finetune(bench, manifest)
        if {"temporal", "inference"} & set(arguments.parts):
            from fercache.tools.caches import pack_cache

            cached_manifest, files = make_cache(folder / "random", 20, bench.sizes.cached // 20)
            cache = pack_cache(files, folder / "random.h5")
            if "temporal" in arguments.parts:
                temporal(bench, cached_manifest, cache)
            if "inference" in arguments.parts:
                inference(bench, cache)
        if "profile" in arguments.parts:
            bench.side(PROFILE, manifest, bench.fresh("cache"), bench.sizes.side_px[0], told=True)
    for key, value in bench.result.items():
        print(key, value)
    print(
        "wanted: extract_224_ours_of_alone .85, finetune_ours_of_plain .85, temporal_ours 100,000 windows/s with the"
        " embeddings in GPU memory"
    )
    if arguments.json:
        print(json.dumps(bench.result))


if __name__ == "__main__":
    main()
