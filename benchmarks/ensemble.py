"""The ensemble's search beside the obvious one, and whether the gains that it calls real are.

search: seconds for the whole simplex of three models in steps of .01 (5,151 points), 300,000 frames of 7 classes whose
winners agree on 80 to 90 % of frames, beside `rivals.obvious_search` (extrapolated from 200 points). Fresh processes in
turn; peak memory is that of the whole process, the probabilities (50 MB) included.

brute: the confusion matrices of every point against argmax at every point, on random and realistic cases.

honesty: 70 videos of 300 frames, 5 folds, for each of so many seeds. exchangeable: three models with the same signal
and independent noise of one size, so that equal weights are the best there are. one better: the first model has
`EXTRA` more on the right class's logit. Real is a gain of searched over equal weights across folds whose paired 95 %
interval over recordings lies above zero. All weightings choose smoothing (0 or 5 frames) and temperatures, too.

python benchmarks/ensemble.py [--parts search brute honesty] [--rounds 3] [--seeds 50] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from common import last_number

HERE = Path(__file__).parent
FRAMES, CLASSES, MODELS, STEPS = 300_000, 7, 3, 100
VIDEOS, LENGTH, FOLDS, HALF_WIDTHS = 70, 300, 5, (0, 5)
EXTRA = 0.5

CASE = """
import sys, time, resource
sys.path.insert(0, sys.argv[1])
import numpy as np
from ensemble import probabilities_and_labels
p, y = probabilities_and_labels(0)
"""
OURS = (
    CASE
    + """
from fercache.scoring.objectives import objective
from fercache.tasks import TASKS
start = time.perf_counter()
scores = objective(TASKS["expr"], p, y, thresholds=False).grid(100)
seconds = time.perf_counter() - start
winners = p.argmax(axis=2)
print((winners == winners[0]).all(axis=0).mean(), file=sys.stderr)
print(scores.max(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
print(seconds)
"""
)
OBVIOUS = CASE + "import rivals\nprint(rivals.obvious_search(p.astype(np.float32), y, most_points=200)[2])\n"


def logits_and_labels(seed: int, videos: int, length: int, extra: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (3, F, 7) of models that share most of their errors, and labels int (F,) that last a second."""
    random, count = np.random.default_rng(seed), videos * length
    share = np.array([0.35, 0.08, 0.07, 0.06, 0.22, 0.12, 0.10])
    labels = np.repeat(random.choice(CLASSES, count // 30, p=share), 30)
    is_class = np.eye(CLASSES)[labels]
    of_video = np.repeat(random.normal(size=(videos, CLASSES)), length, axis=0)
    common = 2.0 * is_class + 0.8 * of_video + random.normal(size=(count, CLASSES))
    own = 0.12 * np.repeat(random.normal(size=(MODELS, videos, CLASSES)), length, axis=1)
    logits = common + own + 0.16 * random.normal(size=(MODELS, count, CLASSES))
    logits[0] += extra * is_class
    return logits.astype(np.float32), labels


def probabilities_and_labels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 (3, 300000, 7), and labels."""
    from fercache.scoring.metrics import probabilities
    from fercache.tasks import TASKS

    logits, labels = logits_and_labels(seed, FRAMES // LENGTH, LENGTH)
    return np.stack([probabilities(TASKS["expr"], one) for one in logits]), labels


def search(rounds: int) -> dict[str, float]:
    """Both searches in turn."""
    ours, obvious, peaks = [], [], []
    for _ in range(rounds):
        seconds, said = last_number(OURS, HERE)
        agree, (_, peak) = said.splitlines()[0], said.splitlines()[1].split()
        ours.append(seconds)
        peaks.append(float(peak))
        obvious.append(last_number(OBVIOUS, HERE)[0])
        print(
            f"search: ours {seconds:.2f} s, {float(peak):.0f} MB; obvious {obvious[-1]:.0f} s"
            f" (winners agree on {float(agree):.1%})",
            flush=True,
        )
    seconds, other = statistics.median(ours), statistics.median(obvious)
    return {"ours_s": seconds, "obvious_s": other, "ratio": other / seconds, "peak_mb": max(peaks)}


def brute() -> dict[str, bool]:
    """Every point of many grids by argmax."""
    from fercache.scoring.grid import fuse, grid_confusions, simplex

    random, equal = np.random.default_rng(1), 0
    cases = 0
    for models, steps in [(2, 100), (3, 100), (3, 20), (4, 12)] * 6:
        classes, frames = int(random.integers(3, 9)), int(random.integers(20, 300))
        p = np.exp(random.normal(size=(models, frames, classes)) * random.choice([0.2, 1, 5]))
        p /= p.sum(axis=2, keepdims=True)
        labels = random.integers(0, classes, frames)
        for case in (p, np.round(p, 1), np.eye(classes)[p.argmax(axis=2)], p.astype(np.float16).astype(float)):
            cases += 1
            pairs = (labels * classes + fuse(weights, case).argmax(axis=1) for weights in simplex(models, steps))
            expected = np.stack([np.bincount(pair, minlength=classes**2) for pair in pairs])
            found = grid_confusions(case, labels, steps)
            equal += np.array_equal(found, expected.reshape(found.shape))
    p, labels = probabilities_and_labels(2)
    some = slice(0, 20_000)
    found = grid_confusions(p[:, some], labels[some], STEPS)
    for weights, matrix in zip(simplex(MODELS, STEPS), found, strict=True):
        pair = labels[some] * CLASSES + fuse(weights, p[:, some]).argmax(axis=1)
        if not np.array_equal(matrix, np.bincount(pair, minlength=CLASSES**2).reshape(matrix.shape)):
            break
    else:
        equal += 1
    print(f"brute: {equal} of {cases + 1} cases are equal at every point", flush=True)
    return {"equal_to_brute_force": equal == cases + 1}


def gain(seed: int, extra: float) -> tuple[float, float, float]:
    """Of searched over equal weights across folds: the value and its interval."""
    from fercache.scoring.choice import EQUAL_WEIGHTS, SEARCHED, Recipe, across_folds
    from fercache.scoring.folds import folds
    from fercache.scoring.honest import results
    from fercache.scoring.outputs import LabelledOutputs
    from fercache.tasks import TASKS

    logits, labels = logits_and_labels(1000 + seed, VIDEOS, LENGTH, extra)
    first, frame = np.arange(VIDEOS + 1) * LENGTH, np.tile(np.arange(1, LENGTH + 1), VIDEOS)
    recording = np.repeat(np.arange(VIDEOS), LENGTH)
    outputs = LabelledOutputs(TASKS["expr"], logits, first, frame, labels, recording)
    fold = folds(outputs.task, labels, recording, FOLDS, seed)
    across = across_folds(outputs, fold, Recipe(STEPS, HALF_WIDTHS, temperatures=True))
    found = results(outputs, across.decisions, seed)
    difference = found[SEARCHED].less(found[EQUAL_WEIGHTS])
    return difference.value, difference.low, difference.high


def honesty(seeds: int) -> dict[str, float]:
    """How often a gain is called real where there is none, and where there is one."""
    rates = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for name, title, extra in (
            ("false_gain_rate", "exchangeable", 0.0),
            ("power", f"one better by {EXTRA:g}", EXTRA),
        ):
            found = np.array(list(pool.map(gain, range(seeds), [extra] * seeds)))
            rates[name] = float((found[:, 1] > 0).mean())
            mean, least, most = found[:, 0].mean(), found[:, 0].min(), found[:, 0].max()
            print(
                f"honesty: {title}: gain {mean:+.4f} on average ({least:+.4f} to {most:+.4f}), real in"
                f" {rates[name]:.0%} of {seeds} seeds, a loss in {(found[:, 2] < 0).mean():.0%}",
                flush=True,
            )
    return rates


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["search", "brute", "honesty"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, float | bool] = {}
    if "search" in arguments.parts:
        result |= search(arguments.rounds)
    if "brute" in arguments.parts:
        result |= brute()
    if "honesty" in arguments.parts:
        result |= honesty(arguments.seeds)
    print("wanted: ratio 50, equal_to_brute_force, false_gain_rate at most .1, power at least .8")
    for key, value in result.items():
        print(f"{key} {value if isinstance(value, bool) else f'{value:.4g}'}")
    if arguments.json:
        print(
            json.dumps(
                {key: value if isinstance(value, bool) else float(f"{value:.4g}") for key, value in result.items()}
            )
        )


if __name__ == "__main__":
    main()
