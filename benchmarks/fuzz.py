"""Files with changed bits, cuts and swapped blocks: whether anything uses them in silence, or ends in a traceback.

A small project is made of drawn faces; then one of its files at a time is changed and read as the stages read it, in a
process of its own. Wanted: the same values, a sentence that refuses the file, or, for files that may be edited by hand
(manifest, annotations), a warning. Anything else is printed, and the exit status is 1.

python benchmarks/fuzz.py [--changes 2000] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import logging
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fercache.cache.journal import Journal, journals
from fercache.cache.mapped import MappedRows
from fercache.cache.predictions import read_predictions
from fercache.cache.reader import Cache
from fercache.cache.rows import Shape
from fercache.cache.verify import check_before_use
from fercache.data.manifest import read_manifest
from fercache.errors import FercacheError
from fercache.models.checkpoint import digest, load_run
from fercache.models.temporal import network_of
from fercache.results.ensemble_file import read_ensemble
from fercache.rundir import RunDir

PATIENCE_S = 30
DIM = 64
WANTED = ("same", "refused", "warned of")

MAKE = f"""
import sys
from dataclasses import asdict
from pathlib import Path
import numpy as np
from fercache.cache.journal import Journal
from fercache.cache.pack import pack
from fercache.cache.provenance import CacheRecord, Provenance, begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.config import EnsembleConfig, TrainTemporalConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.manifest import read_manifest, write_manifest
from fercache.synth import SynthSettings, synthesise
from fercache.stages.ensemble import search_ensemble
from fercache.stages.predict import predict
from fercache.stages.train_temporal import train_temporal
from fercache.tasks import TASKS
folder = Path(sys.argv[1])
synthesise(folder / "faces", SynthSettings(train=4, validation=3, test=1, seconds=3, fps=8, image_size=48))
write_manifest(folder / "m.csv", build_manifest(folder / "faces", TASKS["expr"])[0])
preprocessing = dict(channels="RGB", range=255.0, mean=[0, 0, 0], std=[1, 1, 1], image_size=48, resize="bilinear")
made_by = Provenance("w" * 64, "c" * 64, "expr", "resnet50-vggface2", preprocessing, "fp32", "float16")
begin_record(folder / "cache", CacheRecord(made_by, {{"backend": "eager", "batch_size": 8}}))
cache, shape, random = Cache(folder / "cache"), Shape({DIM}, "float16", 7), np.random.default_rng(0)
for video in read_manifest(folder / "m.csv").videos:
    number = video.frames().frame
    rows = np.arange(len(number), dtype=np.int32)
    embedding, logits = random.normal(size=(len(rows), {DIM})), random.normal(size=(len(rows), 7))
    part = Part(rows, embedding.astype("f2"), logits.astype("f4"))
    write_video(cache.file(video.video_id), made_by, shape, number, np.ones(len(rows), bool), [part], source="s" * 64)
pack(cache, cache.video_ids(), folder / "cache.h5")
for name in ("gru", "linear"):
    settings = TrainTemporalConfig(head=name, epochs=1, batch_size=8, precision="fp32")
    run = train_temporal(folder / "m.csv", folder / "cache", folder / name, settings, threads=1)
    predict(folder / "m.csv", run, folder / "cache", folder / f"{{name}}.h5", threads=1)
files = [folder / "gru.h5", folder / "linear.h5"]
search_ensemble(folder / "m.csv", files, folder / "ensemble", EnsembleConfig(step=0.1))
(folder / "begun").mkdir()
journal = Journal.begin(folder / "begun" / "v.h5", made_by, shape, np.arange(1, 41), "s" * 64)
for start in range(0, 40, 8):
    rows = np.arange(start, start + 8, dtype=np.int32)
    journal.append(Part(rows, np.full((8, {DIM}), start, "f2"), np.full((8, 7), start, "f4")))
journal.close()
"""


def digest_of(*values: object) -> str:
    """SHA-256 over plain values and arrays."""
    total = hashlib.sha256()
    for value in values:
        total.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return total.hexdigest()


def read_cache(path: Path) -> str:
    """All that training and prediction take from a cache."""
    cache = Cache(path)
    videos = sorted(cache.check(cache.video_ids()))
    frames = [cache.frame(video) for video in videos]
    check_before_use(cache, videos, embedding=True)
    rows = [MappedRows(cache, videos, name) for name in ("embedding", "logits")]
    return digest_of(videos, *frames, *(one.gather(np.arange(len(one))).numpy() for one in rows), cache.provenance)


def read_journal(folder: Path) -> str:
    """The rows that a new process takes over; fewer are no fault, since they are computed again."""
    cache = Cache(folder.parent / "cache")
    shape = Shape(DIM, "float16", 7)
    journal = Journal.begin(folder / "v.h5", cache.provenance, shape, np.arange(1, 41), "s" * 64)
    for part in journal.parts():
        start = part.rows // 8 * 8
        if not ((part.embedding == start[:, None]).all() and (part.logits == start[:, None]).all()):
            return "other rows"
    return "rows as they were"


def read_model(run: Path) -> str:
    """A head as it is applied."""
    checkpoint = load_run(run)
    network = network_of(run, checkpoint)
    rest = {key: value for key, value in checkpoint.items() if key not in ("model", "history")}
    return digest_of(digest(network.state_dict()), rest)


def read_labels(manifest: Path) -> str:
    """A manifest with its labels."""
    data = read_manifest(manifest, frames=True)
    return digest_of(data.task.name, *((str(video), video.labels(data.task)) for video in data.videos))


def read_all_predictions(path: Path) -> str:
    """Everything in a predictions file."""
    file = read_predictions(path)
    videos = [(name, video.frame, video.logits) for name, video in sorted(file.videos.items())]
    header = (file.task.name, file.split, file.model, file.cache, file.select, file.train_prior, file.thresholds)
    return digest_of(*header, *(value for video in videos for value in video))


@dataclass(frozen=True)
class Target:
    """A kind of file, and how it is read."""

    file: Callable[[Path, random.Random], Path]
    read: Callable[[Path], str]


def any_of(pattern: str) -> Callable[[Path, random.Random], Path]:
    """One of the project's files that a pattern names."""
    return lambda folder, chance: chance.choice(sorted(folder.glob(pattern)))


TARGETS = {
    "cache": Target(any_of("cache/*.h5"), lambda folder: read_cache(folder / "cache")),
    "provenance": Target(any_of("cache/provenance.json"), lambda folder: read_cache(folder / "cache")),
    "packed cache": Target(any_of("cache.h5"), lambda folder: read_cache(folder / "cache.h5")),
    "journal": Target(lambda folder, _: journals(folder / "begun")[0], lambda folder: read_journal(folder / "begun")),
    "predictions": Target(any_of("gru.h5"), lambda folder: read_all_predictions(folder / "gru.h5")),
    "ensemble file": Target(
        any_of("ensemble/ensemble.json"),
        lambda folder: digest_of(read_ensemble(folder / "ensemble/ensemble.json")),
    ),
    "checkpoint": Target(any_of("gru/best.pt"), lambda folder: read_model(folder / "gru")),
    "run record": Target(
        any_of("gru/config.yaml"),
        lambda folder: digest_of(read_model(folder / "gru"), RunDir(folder / "gru").recorded()),
    ),
    "manifest": Target(any_of("m.csv"), lambda folder: read_labels(folder / "m.csv")),
    "annotations": Target(any_of("faces/annotations/EXPR_Set/*/*.txt"), lambda folder: read_labels(folder / "m.csv")),
}


def changed(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """What was done, and the bytes after it: a bit, a cut, or two blocks in each other's place."""
    kind = chance.choice(["bit", "bit", "cut", "swap"])
    if kind == "bit":
        where, bit = chance.randrange(len(data)), chance.randrange(8)
        return f"bit {bit} of byte {where}", data[:where] + bytes([data[where] ^ 1 << bit]) + data[where + 1 :]
    if kind == "cut":
        where = chance.randrange(len(data))
        return f"cut at {where}", data[:where]
    size = chance.choice([1, 4, 16, 64])
    first, second = sorted(chance.sample(range(max(2, len(data) - size)), 2))
    second = max(second, first + size)
    parts = data[:first], data[first : first + size], data[first + size : second], data[second : second + size]
    return f"{size} bytes at {first} and {second} swapped", b"".join(
        [*parts[:1], parts[3], parts[2], parts[1], data[second + size :]]
    )


def outcome(read: Callable[[Path], str], folder: Path, expected: str) -> str:
    """What reading the project comes to, in a process of its own."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        os.write(sender, pickle.dumps(_outcome(read, folder, expected)))
        os._exit(0)
    os.close(sender)
    ready, _, _ = select.select([receiver], [], [], PATIENCE_S)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(receiver, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    if not ready:
        return "HANG"
    return pickle.loads(answer) if answer else f"CRASH by signal {os.waitstatus_to_exitcode(status)}"


def _outcome(read: Callable[[Path], str], folder: Path, expected: str) -> str:
    warnings: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = warnings.append  # type: ignore[method-assign]
    logger = logging.getLogger("fercache")
    logger.handlers, logger.propagate = [handler], False
    try:
        if read(folder) == expected:
            return "same"
        return "warned of" if warnings else "SILENT DIFFERENCE"
    except FercacheError:
        return "refused"
    except BaseException:
        return "TRACEBACK " + traceback.format_exc()


def main() -> None:
    """Make the project, change its files, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a process that forks has no other threads
    chance, began = random.Random(arguments.seed), time.monotonic()
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in TARGETS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made = subprocess.run([sys.executable, "-c", MAKE, temporary], capture_output=True, text=True, check=False)
        if made.returncode:
            sys.exit(made.stderr)
        expected = {name: target.read(folder) for name, target in TARGETS.items() if name != "journal"}
        expected["journal"] = "rows as they were"
        for number in range(arguments.changes):
            name = list(TARGETS)[number % len(TARGETS)]
            path = TARGETS[name].file(folder, chance)
            whole = path.read_bytes()
            words, data = changed(whole, chance)
            path.write_bytes(data)
            result = outcome(TARGETS[name].read, folder, expected[name])
            if name == "journal":
                for other in journals(folder / "begun"):
                    other.unlink()
            path.write_bytes(whole)
            counts[name][result.split(" ")[0] if result.startswith("TRACEBACK") else result] += 1
            if result not in WANTED:
                print(f"{path.relative_to(folder)}: {words}: {result}")
    for name, count in counts.items():
        print(f"{name:<14} " + ", ".join(f"{result} {times}" for result, times in count.most_common()))
    bad = sum(times for count in counts.values() for result, times in count.items() if result not in WANTED)
    print(
        f"{arguments.changes} changes in {time.monotonic() - began:.0f} s: {bad} silent, tracebacks, crashes or hangs"
    )
    if arguments.json:
        print(
            json.dumps(
                {"changes": arguments.changes, "bad": bad, **{name: dict(count) for name, count in counts.items()}}
            )
        )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
