"""What an ensemble search found, in words."""

from __future__ import annotations

from fercache.results.ensemble_file import EnsembleFile
from fercache.results.wording import about_intervals, span
from fercache.scoring.cross_validation import Estimate
from fercache.scoring.search import Weighting


def describe_search(ensemble: EnsembleFile) -> str:
    """What a search chose and how good that is, as text."""
    width = max(len(name) for name in [*(m.predictions for m in ensemble.models), *(w.value for w in Weighting)])
    fusion = ensemble.fusion
    lines = [f"{'':<{width}}  weight  temperature  its own score"]
    for model, weight, scale in zip(ensemble.models, fusion.weights, fusion.temperatures, strict=True):
        lines.append(f"{model.predictions:<{width}}  {weight:.4f}       {scale:.4f}         {model.score:.4f}")
    if fusion.half_width:
        lines.append(f"smoothed over {fusion.half_width} frames to either side")
    if fusion.thresholds is not None:
        units = zip(ensemble.task.classes, fusion.thresholds, strict=True)
        lines.append("thresholds: " + ", ".join(f"{name} {value:.3f}" for name, value in units))
    for title, table in (
        ("chosen and scored on the same frames", ensemble.in_sample),
        ("across folds", ensemble.across_folds),
    ):
        if table:
            first = max(width, len(title))
            lines += ["", f"{title:<{first}}      F1  accuracy       E  E, 95 % over recordings"]
            lines += [
                f"{weighting.value:<{first}}  {row.f1:.4f}    {row.accuracy:.4f}  {row.score.value:.4f}"
                f"  {span(row.score.low, row.score.high)}"
                for weighting, row in table.items()
            ]
    return "\n".join([*lines, "", *ensemble.notes])


def notes(ensemble: EnsembleFile) -> tuple[str, ...]:
    """What a reader must know of the numbers."""
    searched = ensemble.in_sample[Weighting.SEARCHED].score.value
    if ensemble.across_folds:
        across = ensemble.across_folds[Weighting.SEARCHED].score.value
        looks = f"looks {searched - across:.4f} better than" if searched > across else "looks no better than"
        sentences = [
            f"Scored on the frames that it was chosen on, the searched ensemble {looks} across folds ({searched:.4f},"
            f" {across:.4f}): report the latter.",
            *(_gain(weighting, gain) for weighting, gain in ensemble.gains["across_folds"].items()),
        ]
    else:
        sentences = [
            f"No folds: {searched:.4f} is of the frames that the weights were chosen on, an upper bound, no estimate."
        ]
    if len(ensemble.folds) < ensemble.settings["folds"]:
        sentences.append(fewer_folds(ensemble.settings["folds"], len(ensemble.folds)) + ".")
    if ensemble.absent:
        names = ", ".join(ensemble.absent)
        sentences.append(f"Nothing could be chosen for a class that is in one fold alone: {names}")
    sentences.append(about_intervals(ensemble.recordings))
    if ensemble.select != "last" and ensemble.split == "validation":
        sentences.append(
            "The models' epochs were chosen on these videos too (select: best), so that all these numbers are too high."
        )
    return tuple(sentences)


def fewer_folds(wanted: int, made: int) -> str:
    """A sentence on folds that there were too few recordings for."""
    return f"The recordings suffice for {made or 'no'} folds, not for {wanted}"


def _gain(weighting: Weighting, gain: Estimate) -> str:
    if gain.low > 0:
        verdict = "a gain"
    elif gain.high < 0:
        verdict = "a loss"
    else:
        verdict = "which is not distinguishable from zero"
    return f"Against {weighting.value}: {gain.value:+.4f} (95 % from {gain.low:+.4f} to {gain.high:+.4f}), {verdict}."
