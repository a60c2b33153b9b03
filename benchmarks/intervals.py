"""How often the 95 % intervals hold the true value, and how often a difference is called a gain, on simulated data.

Each design draws recordings from a population whose true score is known: frames of a recording are alike, since few
classes occur in one and a model's skill differs from recording to recording. Beside the intervals that fercache reports
stand the percentiles of a bootstrap over recordings. The coverage curve is looked at where half of the frames are kept.

python benchmarks/intervals.py [--sets 400] [--designs unbalanced,au] [--recordings 10,20,40,70] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from fercache.scoring.intervals import draws, interval
from fercache.tasks import TASKS, Task
from fercache.tasks.classification import Tally

POPULATION = 6000
BOOTSTRAP_DRAWS = 500
UNIT_RATES = np.array([0.15, 0.08, 0.2, 0.3, 0.35, 0.4, 0.02, 0.03, 0.02, 0.5, 0.1, 0.12])
"""How often each action unit is present."""


@dataclass(frozen=True)
class Design:
    """A kind of data set."""

    task: str
    shares: tuple[float, ...] = ()
    """Of the classes."""
    classes: int = 2
    """That occur in a recording."""
    longest: int = 400
    """Frames of a recording: from 50 on; many short and few long ones where it is above 1000."""


UNBALANCED = (0.4, 0.1, 0.07, 0.05, 0.2, 0.12, 0.06)
DESIGNS = {
    "unbalanced": Design("expr", UNBALANCED),
    "one class a recording": Design("expr", UNBALANCED, classes=1),
    "many classes a recording": Design("expr", (1 / 7,) * 7, classes=5),
    "a rare class": Design("expr", (0.3, 0.18, 0.15, 0.02, 0.15, 0.1, 0.1), classes=2),
    "few long recordings": Design("expr", UNBALANCED, longest=4000),
    "eight classes": Design("expr8", (0.3, 0.05, 0.04, 0.05, 0.15, 0.1, 0.06, 0.25)),
    "au": Design("au"),
}
GAINS = {"no gain": 0.0, "a gain": 0.05}
"""What a second model adds to a recording's skill."""
DIFFERENCES = [f"difference, {name}" for name in GAINS]
CALLED = [f"called a gain, {name}" for name in GAINS]


def recording(
    design: Design, task: Task, random: np.random.Generator, gain: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels of one recording, and the decisions of two models."""
    longest = int(np.exp(random.uniform(4, np.log(design.longest)))) + 51 if design.longest > 1000 else design.longest
    frames, skill = int(random.integers(50, longest)), random.beta(2, 1.2)
    if design.task != "au":
        shares = np.array(design.shares) / sum(design.shares)
        labels = random.choice(random.choice(len(shares), size=design.classes, p=shares), size=frames)
        guesses = [random.choice(len(shares), size=frames, p=shares) for _ in range(2)]
    else:
        rates = random.beta(0.6, 0.6 * (1 - UNIT_RATES) / UNIT_RATES)
        labels = (random.random((frames, len(rates))) < rates).astype(np.int64)
        guesses = [(random.random(labels.shape) < UNIT_RATES).astype(np.int64) for _ in range(2)]
    skills = (skill, min(1.0, skill + gain))
    return labels, [
        np.where(random.random(labels.shape) < able, labels, guess) for able, guess in zip(skills, guesses, strict=True)
    ]


@dataclass(frozen=True)
class Population:
    """Recordings as counts: those of two models, and of the first one where it is surest."""

    models: tuple[Tally, Tally]
    right: np.ndarray
    """(G,): right decisions among the kept half, and the frames of it."""
    kept: np.ndarray


def population(design: Design, gain: float, seed: int) -> Population:
    """Many recordings of a design."""
    random, task = np.random.default_rng(seed), TASKS[design.task]
    parts: tuple[list[Tally], list[Tally]] = ([], [])
    right, kept = np.empty(POPULATION), np.empty(POPULATION)
    for number in range(POPULATION):
        labels, decisions = recording(design, task, random, gain)
        for part, decided in zip(parts, decisions, strict=True):
            part.append(task.tally(decided, labels, np.zeros(len(labels), int)))
        # Surer where right, as a model that knows something is.
        correct = decisions[0] == labels
        sure = correct + random.normal(0, 1, correct.shape) > 0.5
        right[number], kept[number] = (correct & sure).sum(), sure.sum()
    return Population((joined(parts[0]), joined(parts[1])), right, kept)


def joined(parts: list[Tally]) -> Tally:
    """The recordings of several tallies."""
    return Tally(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Tally)))


def chosen(counts: Tally, index: np.ndarray) -> Tally:
    """Some recordings of a tally."""
    return Tally(*(getattr(counts, field.name)[index] for field in fields(Tally)))


def bootstrap(recordings: int, random: np.random.Generator) -> np.ndarray:
    """Recordings drawn again, (R, G)."""
    return random.multinomial(recordings, np.full(recordings, 1 / recordings), BOOTSTRAP_DRAWS).astype(float)


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """What was reported before: 95 % of the drawn values lie in it."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def simulate(design: Design, recordings: int, sets: int, populations: dict[str, Population]) -> dict[str, float]:
    """Shares of data sets in which each interval holds the true value, and in which a difference is called a gain."""
    task, random = TASKS[design.task], np.random.default_rng(recordings)
    truth = {
        name: [task.score_tally(model, np.ones((1, POPULATION)))[0] for model in one.models]
        for name, one in populations.items()
    }
    base = populations["no gain"]
    accuracy = base.right.sum() / base.kept.sum()
    hits: dict[str, list[bool]] = {}
    off = []

    def note(name: str, held: bool) -> None:
        hits.setdefault(name, []).append(bool(held))

    for number in range(sets):
        index = random.choice(POPULATION, recordings, replace=False)
        weights: dict[str, np.ndarray] = {
            "jackknife": draws(recordings, number),
            "percentile": bootstrap(recordings, random),
        }
        for method, weight in weights.items():
            bounds: Callable[..., tuple[float, float]] = interval if method == "jackknife" else percentiles
            for name, one in populations.items():
                first, second = (chosen(model, index) for model in one.models)
                values = task.score_tally(first, weight), task.score_tally(second, weight)
                low, high = bounds(values[1] - values[0])
                difference = truth[name][1] - truth[name][0]
                note(f"{method}: difference, {name}", low <= difference <= high)
                note(f"{method}: called a gain, {name}", low > 0)
                if name == "no gain":
                    unknown = (task.unknown_share(first),) if method == "jackknife" else ()
                    low, high = bounds(values[0], *unknown)
                    note(f"{method}: score", low <= truth[name][0] <= high)
            right, kept = weight @ base.right[index], weight @ base.kept[index]
            low, high = bounds(right / np.maximum(1, kept))
            note(f"{method}: coverage curve", low <= accuracy <= high)
        first = chosen(base.models[0], index)
        off.append(task.score_tally(first, np.ones((1, recordings)))[0] - truth["no gain"][0])
    return {name: float(np.mean(held)) for name, held in hits.items()} | {"score is off by": float(np.mean(off))}


def main() -> None:
    """Simulate all designs and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--designs", default=",".join(DESIGNS))
    parser.add_argument("--recordings", default="10,20,40,70")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name in arguments.designs.split(","):
        populations = {what: population(DESIGNS[name], gain, seed=1) for what, gain in GAINS.items()}
        for recordings in map(int, arguments.recordings.split(",")):
            shares = simulate(DESIGNS[name], recordings, arguments.sets, populations)
            result.setdefault(name, {})[str(recordings)] = shares
            print(f"{name}, {recordings} recordings (the score is off by {shares['score is off by']:+.3f} on average)")
            rows = {f"holds the {what}": what for what in ("score", *DIFFERENCES, "coverage curve")}
            rows |= {what: what for what in CALLED}
            for words, what in rows.items():
                ours, before = shares[f"jackknife: {what}"], shares[f"percentile: {what}"]
                print(f"  {words:<32} {ours:.3f}  (percentiles {before:.3f})")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
