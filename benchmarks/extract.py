"""Extraction beside the paper's loop and OpenVINO alone: rates, the main thread's time by stage, memory, and kills.

Rates: each round is a fresh process a side, in turn. Ours is the stage from JPEG files to the cache's last file, the
first batches not counted; the paper's is its loop from JPEG files to an array on disk, its network warmed up;
OpenVINO's is the network alone on data in memory, in bf16. Frames are drawn faces of 112 px.

Kills: the command is killed (SIGKILL) at moments drawn uniformly over its undisturbed duration, then run to its end;
the cache must verify and each dataset must equal the undisturbed run's.

python benchmarks/extract.py [--parts rates memory kills] [--rounds 3] [--kills 50] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import last_number

HERE = Path(__file__).parent
BATCHES, WARM_UP = 40, 3
BATCH = {224: 32, 112: 64}
"""Of all sides: frames a pass."""
THREADS = len(os.sched_getaffinity(0))

OURS = f"""
import sys, time, logging
from pathlib import Path
from fercache.config import ExtractConfig
from fercache.stages.extract.engine import Extractor
from fercache.stages.extract import extract
logging.basicConfig(level=logging.INFO, format="%(message)s")
ends, run = [], Extractor.run
def timed(self, *given):
    for result in run(self, *given):
        ends.append((time.perf_counter(), len(result.index)))
        yield result
Extractor.run = timed
manifest, cache, size, batch, backend = sys.argv[1:]
settings = ExtractConfig(image_size=int(size), batch_size=int(batch), backend=backend, precision="bf16")
extract(Path(manifest), "none", Path(cache), settings)
done = time.perf_counter()
# A batch's results are fetched when the next one has been computed.
print(sum(count for _, count in ends[{WARM_UP} + 1:]) / (done - ends[{WARM_UP} - 1][0]))
"""

PAPER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import rivals
files = sorted(map(str, Path(sys.argv[2]).rglob("*.jpg")))[:int(sys.argv[4])]
print(rivals.paper_extract(files, int(sys.argv[3]), workers=2))
"""

OPENVINO = """
import sys, warnings
sys.modules["openvino_telemetry"] = None
warnings.simplefilter("ignore")
import openvino, torch
sys.path.insert(0, sys.argv[1])
import rivals
size, batch, threads = map(int, sys.argv[2:])
network = rivals.resnet50_caffe().eval()
model = openvino.convert_model(network, example_input=torch.rand(1, 3, size, size), input=[batch, 3, size, size])
asked = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
compiled = openvino.Core().compile_model(model, "CPU", asked)
frames = torch.rand(batch, 3, size, size).numpy()
print(rivals.rate(lambda: compiled([frames]), batch, calls=15, warm_up=3))
"""

MEMORY = """
import resource, sys
from pathlib import Path
from fercache.config import ExtractConfig
from fercache.stages.extract import extract
settings = ExtractConfig(image_size=48, precision="bf16", backend=sys.argv[3])
extract(Path(sys.argv[1]), "none", Path(sys.argv[2]), settings)
print(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024)
"""


def draw(folder: Path, frames: int) -> Path:
    """A manifest of drawn faces with that many frames at least."""
    from fercache.data.affwild2 import build_manifest
    from fercache.data.manifest import write_manifest
    from fercache.synth import SynthSettings, synthesise
    from fercache.tasks import TASKS

    root = synthesise(folder / "faces", SynthSettings(train=frames // 200 + 2, validation=1, test=0, seconds=8))
    manifest, _ = build_manifest(root, TASKS["expr"])
    write_manifest(folder / "faces.csv", manifest)
    return folder / "faces.csv"


def first_videos(manifest: Path, frames: int) -> Path:
    """A manifest of the first videos that have so many frames together."""
    from fercache.data.manifest import Manifest, read_manifest, write_manifest

    every, chosen, count = read_manifest(manifest), [], 0
    for video in every.videos:
        if count < frames:
            chosen.append(video)
            count += len(video.frames().paths)
    path = manifest.with_name(f"faces_{frames}.csv")
    write_manifest(path, Manifest(every.task, every.root, tuple(chosen)))
    return path


def rates(folder: Path, rounds: int) -> dict[str, float]:
    """Frames a second of every side, at both sizes."""
    manifest = draw(folder, BATCHES * BATCH[112])
    result = {}
    for size, batch in BATCH.items():
        some = first_videos(manifest, BATCHES * batch)
        found: dict[str, list[float]] = {"ours": [], "ours_no_extra": [], "paper": [], "openvino": []}
        for number in range(rounds):
            for name, backend in (("ours", "openvino"), ("ours_no_extra", "compile")):
                rate, log = last_number(OURS, some, folder / f"{name}{size}_{number}", size, batch, backend)
                found[name].append(rate)
                print(f"{size} px, {name}: {rate:.1f} frames/s; {stages(log)}", flush=True)
                shutil.rmtree(folder / f"{name}{size}_{number}")
            found["paper"].append(last_number(PAPER, HERE, folder / "faces", size, 32 * (10 if size == 224 else 30))[0])
            found["openvino"].append(last_number(OPENVINO, HERE, size, batch, THREADS)[0])
            print(f"{size} px, paper {found['paper'][-1]:.1f}, OpenVINO alone {found['openvino'][-1]:.1f}", flush=True)
        medians = {name: statistics.median(values) for name, values in found.items()}
        result |= {f"{name}_{size}": value for name, value in medians.items()}
        result[f"ratio_paper_{size}"] = medians["ours"] / medians["paper"]
        result[f"ratio_openvino_{size}"] = medians["ours"] / medians["openvino"]
        result[f"ratio_paper_no_extra_{size}"] = medians["ours_no_extra"] / medians["paper"]
    print(
        "wanted at 224 px: paper 4.8, OpenVINO .90, without the extra 4.0;"
        " at 112 px: OpenVINO .85, paper 3.0; outside the network below 8 %"
    )
    return result


def stages(said: str) -> str:
    """The share of the time that was not the network's, and all shares."""
    line = next(line for line in said.splitlines() if " a second: " in line)
    network = float(re.search(r"network ([0-9.]+)%", line)[1])
    return f"outside the network {100 - network:.1f} %: {line.split(' a second: ')[1]}"


def memory(folder: Path) -> dict[str, float]:
    """Peak resident memory for a video of 50,000 frames over that for one of 5,000."""
    from PIL import Image

    peaks, backend = {}, "openvino" if importlib.util.find_spec("openvino") else "eager"
    for frames in (5000, 50_000):
        images = folder / f"memory{frames}" / "v"
        images.mkdir(parents=True)
        Image.effect_noise((48, 48), 60).convert("RGB").save(folder / "noise.jpg")
        for number in range(1, frames + 1):
            os.link(folder / "noise.jpg", images / f"{number:05}.jpg") if number % 30_000 else shutil.copy(
                folder / "noise.jpg", images / f"{number:05}.jpg"
            )
        manifest = folder / f"memory{frames}.csv"
        columns = "video_id,split,frames_dir,labels_path,num_frames,group"
        manifest.write_text(
            f"# fercache-manifest 1\n# task: expr\n# root: memory{frames}\n{columns}\nv,train,v,,{frames},v\n"
        )
        peaks[frames], _ = last_number(MEMORY, manifest, folder / f"memory_cache{frames}", backend)
        print(f"{frames} frames: {peaks[frames]:.0f} MiB at most, workers included", flush=True)
    return {"rss_ratio": peaks[50_000] / peaks[5000]}


def kills(folder: Path, count: int, seed: int) -> dict[str, float]:
    """Kill the command `count` times, let it go on, and compare."""
    from fercache.data.affwild2 import build_manifest
    from fercache.data.manifest import write_manifest
    from fercache.synth import SynthSettings, synthesise
    from fercache.tasks import TASKS
    from fercache.tools.caches import verify_cache

    settings = SynthSettings(train=14, validation=4, test=0, seconds=7, image_size=48, seed=seed)
    root = synthesise(folder / "kill_faces", settings)
    built, _ = build_manifest(root, TASKS["expr"])
    write_manifest(folder / "kill.csv", built)

    def command(cache: Path) -> list[str]:
        words = ["extract", "--manifest", folder / "kill.csv", "--weights", "none", "--cache", cache]
        words += ["--set", "image_size=48", "--backend", "eager", "--batch-size", "32"]
        return [sys.executable, "-m", "fercache", *map(str, words)]

    def finish(cache: Path) -> None:
        subprocess.run(command(cache), check=True, capture_output=True)

    expected, start = folder / "undisturbed", time.perf_counter()
    running = subprocess.Popen(command(expected), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not any(expected.glob("*.h5")) and running.poll() is None:
        time.sleep(0.01)
    first = time.perf_counter() - start
    if running.wait():
        sys.exit("the undisturbed run failed")
    duration = time.perf_counter() - start
    # Uniform over the duration, one in each of `count` equal parts of it.
    moments = [duration * (number + random.Random(f"{seed} {number}").random()) / count for number in range(count)]
    late = sum(moment > first for moment in moments)
    print(
        f"undisturbed: first video after {first:.1f} s, all after {duration:.1f} s; {late} of {count} kills later",
        flush=True,
    )
    if 2 * late < count:
        sys.exit("less than half of the kills come after the first video: draw more frames")
    equal = 0
    for number, moment in enumerate(moments):
        cache = folder / f"killed{number}"
        running = subprocess.Popen(command(cache), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(moment)
        running.send_signal(signal.SIGKILL)
        running.wait()
        broken = verify_cache(cache).findings if (cache / "provenance.json").exists() else {}
        done = len(list(cache.glob("*.h5")))
        finish(cache)
        clean = verify_cache(cache, folder / "kill.csv").clean
        same = not broken and clean and sorted(os.listdir(cache)) == sorted(os.listdir(expected))
        same = same and all(datasets(cache / path.name) == datasets(path) for path in expected.glob("*.h5"))
        equal += same
        print(f"killed after {moment:.2f} s with {done} videos done: {'equal' if same else 'DIFFERENT'}", flush=True)
        if same:
            shutil.rmtree(cache)
    return {"kills": count, "kills_equal": equal}


def datasets(path: Path) -> dict[str, bytes]:
    """Every dataset of a file, as it lies there."""
    import h5py

    with h5py.File(path) as file:
        return {name: f"{data.dtype}{data.shape}".encode() + data[:].tobytes() for name, data in file.items()}


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--parts", nargs="+", choices=["rates", "memory", "kills"], default=["rates", "memory", "kills"]
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "rates" in arguments.parts:
            result |= rates(folder, arguments.rounds)
        if "memory" in arguments.parts:
            result |= memory(folder)
        if "kills" in arguments.parts:
            result |= kills(folder, arguments.kills, arguments.seed)
    for key, value in result.items():
        print(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}")
    if arguments.json:
        print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
