"""The page: what is on it, in what order, and its style."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fercache.report.charts import curves, intervals, reliability, simplex_map
from fercache.report.colours import UNKNOWN, css, ink, shade
from fercache.report.findings import Ensemble, Findings, Surface
from fercache.report.markup import Child, Element, document, element, figure, table
from fercache.report.time_lines import time_line
from fercache.results.evaluation import Evaluation
from fercache.results.wording import about_intervals, counts, digits, span
from fercache.scoring.cross_validation import Estimate
from fercache.scoring.search import Weighting

STYLE = """
:root { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
body { margin: 0; overflow-wrap: anywhere; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, h4 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 2px solid #0072b2; }
h4 { margin: .6rem 0 .1rem; grid-column: 1 / -1; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; max-width: calc(100vw - 2rem); }
th, td { padding: .2rem .6rem; text-align: right; white-space: nowrap; }
th[scope=row], th:first-child { text-align: left; font-weight: 500; }
@media (max-width: 40rem) { th[scope=row] { white-space: normal; min-width: 7rem; } }
thead th { border-bottom: 1px solid #666; }
.gallery { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; flex: 1 1 17rem; max-width: 26rem; }
figure.small { max-width: 19rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: #1a1a1a; }
.grid { stroke: #ddd; } .axis { stroke: #444; } .even { stroke: #888; stroke-dasharray: 4 4; }
.note { border-left: 4px solid #e69f00; padding: .1rem .8rem; margin: .5rem 0; }
.story { margin-bottom: 2.5rem; }
.panel { display: grid; grid-template-columns: 5.2rem 1fr; column-gap: .4rem; }
.names { display: flex; flex-direction: column; font-size: .68rem; text-align: right; }
.names span { height: .85rem; line-height: .85rem; overflow: hidden; }
.strips { min-width: 0; }
.strip { display: block; width: 100%; image-rendering: pixelated; outline: 1px solid #999; }
.verdict { height: .75rem; margin-top: .1rem; }
.ticks { display: flex; justify-content: space-between; font-size: .75rem; }
.thumbnails { display: flex; gap: 2px; }
.thumbnails > * { flex: 1 1 0; min-width: 0; max-width: 7rem; }
.thumbnails img { width: 100%; height: auto; }
.nobody { background: #e4e4e4; font-size: .68rem; display: grid; place-items: center; aspect-ratio: 1; }
.entry { display: inline-block; white-space: nowrap; }
.key { display: inline-block; width: 1rem; height: .8rem; margin: 0 .3rem 0 .8rem; border: 1px solid #777; }
"""


def page(found: Findings) -> str:
    """The whole document."""
    title = f"fercache: {found.folder.resolve().name}, {found.task.track} on {found.split}"
    sections = [
        ("Scores", _scores(found)),
        ("Training", _training(found.runs)),
        ("What is confused", _confusion(found)),
        ("Calibration", _calibration(found.evaluations)),
        ("Videos", _videos(found)),
    ]
    if found.surface is not None:
        sections.insert(1, ("Weights", _weights(found.surface)))
    body = [element("h1", title), element("p", _facts(found))]
    for heading, content in sections:
        if content:
            body.append(element("section", element("h2", heading), *content))
    return document(title, STYLE, *body)


def _facts(found: Findings) -> str:
    frames = counts([e.scores.frames for e in found.evaluations])
    videos = counts([len(e.videos) for e in found.evaluations])
    intervals_over = about_intervals(min(e.recordings for e in found.evaluations))
    return (
        f"{frames} labelled frames of {videos} videos, task {found.task.name}:"
        f" E = {found.task.measure_in_words}. {intervals_over}"
    )


def _scores(found: Findings) -> list[Element]:
    rows = [
        (e.name, *digits(e.scores.f1, e.scores.accuracy, e.scores.score), span(*e.interval), e.select)
        for e in found.evaluations
    ]
    columns = ("predictions", "F1", "accuracy", "E", "95 %", "epoch")
    parts: list[Element] = [table("Scores of the predictions in the folder", columns, rows)]
    own = {e.name: Estimate(e.scores.score, *e.interval) for e in found.evaluations}
    across = {f"{one.name}, across folds": value for one in found.ensembles for value in _across(one)}
    caption = "E with its interval. What is said across folds was chosen on other recordings than it is scored on."
    parts.append(figure(intervals({**own, **across}, "E"), caption))
    cautions: dict[str, list[str]] = {}
    for e in found.evaluations:
        if e.caution:
            cautions.setdefault(e.caution, []).append(e.name)
    parts += [_note(f"{', '.join(names)}: {caution}.") for caution, names in cautions.items()]
    for one in found.ensembles:
        parts += _ensemble(one)
    return parts


def _across(one: Ensemble) -> list[Estimate]:
    """The searched weights' score on folds that they were not chosen on; [] without folds."""
    return [row.score for w, row in one.file.across_folds.items() if w is Weighting.SEARCHED]


def _ensemble(one: Ensemble) -> list[Element]:
    """What an ensemble chose, and what it is worth."""
    file, rows = one.file, []
    for table_of, title in ((file.in_sample, "on the frames chosen on"), (file.across_folds, "across folds")):
        for weighting, s in table_of.items():
            numbers = digits(s.f1, s.accuracy, s.score.value)
            rows.append((f"{weighting.value}, {title}", *numbers, span(s.score.low, s.score.high)))
    chosen = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(one.models, file.fusion.weights, strict=True))
    caption = f"{one.name}: weights {chosen}; smoothed by {file.fusion.half_width} frames to either side"
    return [
        table(caption, ("ensemble", "F1", "accuracy", "E", "95 %"), rows),
        *(_note(note) for note in file.notes),
    ]


def _weights(found: Surface) -> list[Element]:
    chosen = found.ensemble.file.fusion
    alone = np.eye(3)[int(found.scores[[_corner(found.points, place) for place in range(3)]].argmax())]
    marks = {
        "chosen": chosen.weights,
        "equal weights": np.full(3, 1 / 3),
        f"{Weighting.BEST_SINGLE.value} on this picture": alone,
    }
    picture = simplex_map(found.ensemble.models, found.points, found.scores, marks)
    caption = (
        "E at all weights of the three models, on the frames that the weights were chosen on. Each corner is a model"
        " alone. Where shades hardly differ, the choice of weights hardly matters."
    )
    if chosen.thresholds is not None:
        caption += " Thresholds are the best at each of the weights."
    return [figure(picture, caption)]


def _corner(points: np.ndarray, place: int) -> int:
    return int(points[:, place].argmax())


def _training(runs: Mapping[str, list[dict[str, Any]]]) -> list[Element]:
    pictures = []
    for key, name, words in (
        ("loss", "Training loss", "Loss of the training frames or windows."),
        ("score", "Validation score", "E on the validation split after each epoch."),
    ):
        lines = {run: [epoch[key] for epoch in epochs if key in epoch] for run, epochs in runs.items()}
        lines = {run: line for run, line in lines.items() if any(map(math.isfinite, line))}
        if lines:
            pictures.append(figure(curves(name, lines), words))
    return [element("div", *pictures, class_="gallery")] if pictures else []


def _confusion(found: Findings) -> list[Element]:
    classes, evaluations = found.task.classes, found.evaluations
    rows = [
        (
            name,
            counts([e.scores.count_per_class[place] for e in evaluations]),
            *digits(*(e.scores.f1_per_class[place] for e in evaluations)),
        )
        for place, name in enumerate(classes)
    ]
    columns = ("class", "labelled", *(e.name for e in found.evaluations))
    parts: list[Element] = [table("F1 by class", columns, rows)]
    for e in found.evaluations:
        if e.scores.confusion is not None:
            parts.append(_matrix(e.name, classes, e.scores.confusion))
    return parts


def _matrix(name: str, classes: tuple[str, ...], confusion: np.ndarray) -> Element:
    """Counts, shaded by their share of the row."""
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    rows: list[list[Child]] = []
    for label, of_label, row in zip(classes, confusion, shares, strict=True):
        cells = [
            element(
                "td", str(count), style=f"background: {css(shade(share))}; color: {ink(share)}", title=f"{share:.1%}"
            )
            for count, share in zip(of_label, row, strict=True)
        ]
        rows.append([label, *cells])
    return table(f"{name}: labels by row, decisions by column", ("", *classes), rows)


def _calibration(evaluations: Iterable[Evaluation]) -> list[Element]:
    evaluations = list(evaluations)
    pictures = [
        figure(reliability(e.name, e.calibration), f"{e.name}: ECE {e.calibration.ece:.4f}", class_="small")
        for e in evaluations
    ]
    words = (
        "How often it was so, over how likely it was said to be: what lies on the dashed line means what it says. The"
        " larger a dot, the more frames. ECE is the mean distance from the line."
    )
    shares = list(evaluations[0].coverage)
    rows = [(e.name, *(f"{e.coverage[share][0]:.4f}" for share in shares)) for e in evaluations]
    columns = ("predictions", *(f"{share:.0%}" for share in shares))
    return [
        element("p", words),
        element("div", *pictures, class_="gallery"),
        table("Accuracy on the surest share of what is labelled", columns, rows),
    ]


def _videos(found: Findings) -> list[Element]:
    keys = [
        ("background: #fff", "0"),
        (f"background: {css(shade(np.array(0.5)))}", ".5"),
        (f"background: {css(shade(np.array(1.0)))}", "1"),
        ("background: repeating-conic-gradient(#bebebe 0 25%, #e4e4e4 0 50%) 0 0 / 4px 4px", "no face"),
        ("background: #0072b2", "right"),
        ("background: #e69f00", "wrong"),
        (f"background: {css(np.array(UNKNOWN))}", "not labelled"),
    ]
    legend = [
        element("span", element("span", class_="key", style=style), words, class_="entry") for style, words in keys
    ]
    words = "A row for each class over the frames of the video; the darker, the likelier."
    return [element("p", words, *legend), *(time_line(found.task, story) for story in found.stories)]


def _note(text: str) -> Element:
    return element("p", text, class_="note")
