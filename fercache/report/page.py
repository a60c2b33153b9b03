"""The page: its sections in their order, each a function of what was collected that fills in a template."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from fercache.report.charts import curves, intervals, reliability, simplex_map
from fercache.report.findings import Ensemble, Findings
from fercache.report.rendering import render
from fercache.report.time_lines import time_line
from fercache.scoring.cross_validation import Estimate
from fercache.scoring.search import Weighting


def page(findings: Findings) -> str:
    """The whole document."""
    contents = {heading: section(findings) for heading, section in SECTIONS.items()}
    return render(
        "page.html",
        title=f"fercache: {findings.folder.resolve().name}, {findings.task.track} on {findings.split}",
        task=findings.task,
        evaluations=findings.evaluations,
        recordings=min(e.recordings for e in findings.evaluations),
        sections={heading: content for heading, content in contents.items() if content is not None},
    )


def scores(findings: Findings) -> Markup:
    """Scores of predictions and ensembles with their intervals, and what is to be known of them."""
    values = {e.name: Estimate(e.scores.score, *e.interval) for e in findings.evaluations}
    for ensemble in findings.ensembles:
        across = ensemble.file.across_folds.get(Weighting.SEARCHED)
        if across:
            values[f"{ensemble.name}, across folds"] = across.score
    cautions: dict[str, list[str]] = {}
    for e in findings.evaluations:
        if e.caution:
            cautions.setdefault(e.caution, []).append(e.name)
    return render(
        "scores.html",
        evaluations=findings.evaluations,
        picture=intervals("E", values),
        cautions=cautions,
        ensembles=[_ensemble(ensemble) for ensemble in findings.ensembles],
    )


def _ensemble(ensemble: Ensemble) -> dict[str, object]:
    """What an ensemble chose, and its scores on the frames it was chosen on and across folds."""
    file, fusion = ensemble.file, ensemble.file.fusion
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(ensemble.models, fusion.weights, strict=True))
    return {
        "caption": f"{ensemble.name}: weights {weights}; smoothed by {fusion.half_width} frames to either side",
        "rows": [
            (f"{weighting.value}, {where}", row)
            for table, where in ((file.in_sample, "in sample"), (file.across_folds, "across folds"))
            for weighting, row in table.items()
        ],
        "notes": file.notes,
    }


def weights(findings: Findings) -> Markup | None:
    """The score over all weights of three models; None where no ensemble has three."""
    surface = findings.surface
    if surface is None:
        return None
    chosen = surface.ensemble.file.fusion
    corners = surface.points.argmax(axis=0)
    marks = {
        "chosen": chosen.weights,
        "equal weights": np.full(3, 1 / 3),
        f"{Weighting.BEST_SINGLE.value} on this picture": np.eye(3)[surface.scores[corners].argmax()],
    }
    picture = simplex_map(surface.ensemble.models, surface.points, surface.scores, marks)
    return render("weights.html", picture=picture, thresholds=chosen.thresholds is not None)


def training(findings: Findings) -> Markup | None:
    """Loss and score of every run over its epochs; None where no run measured any."""
    pictures = []
    for key, name, caption in (
        ("loss", "Training loss", "Loss of the training frames or windows."),
        ("score", "Validation score", "E on the validation split after each epoch."),
    ):
        lines = {run: [epoch[key] for epoch in epochs if key in epoch] for run, epochs in findings.runs.items()}
        lines = {run: line for run, line in lines.items() if any(map(math.isfinite, line))}
        if lines:
            pictures.append((curves(name, lines), caption))
    return render("training.html", pictures=pictures) if pictures else None


def confusion(findings: Findings) -> Markup:
    """F1 of each class, and the confusion matrix of each predictions file whose task has one."""
    return render("confusion.html", classes=findings.task.classes, evaluations=findings.evaluations)


def calibration(findings: Findings) -> Markup:
    """Reliability diagrams, and the accuracy on the surest part of the frames."""
    pictures = [(e, reliability(e.name, e.calibration)) for e in findings.evaluations]
    return render("calibration.html", evaluations=findings.evaluations, pictures=pictures)


def videos(findings: Findings) -> Markup:
    """Time lines of some videos."""
    time_lines = [time_line(findings.task, timeline) for timeline in findings.timelines]
    return render("videos.html", time_lines=time_lines)


SECTIONS: dict[str, Callable[[Findings], Markup | None]] = {
    "Scores": scores,
    "Weights": weights,
    "Training": training,
    "Confusion": confusion,
    "Calibration": calibration,
    "Videos": videos,
}
"""Heading -> what makes the section's HTML, None where there is nothing to show; in the order of the page."""
