"""What a weights file contains, which preprocessing its statistics speak for, and a copy of it in fercache's format."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fercache import runtime
from fercache.data.frames import decode
from fercache.data.layouts import FRAMES as DRAWN
from fercache.data.manifest import read_manifest
from fercache.errors import DataError, WeightsError, raise_problems
from fercache.models.formats import AmbiguousFormat
from fercache.models.preprocessing import Preprocessing
from fercache.models.selftest import SelfTest, self_test
from fercache.models.weights import CONVERTED, NONE, FrameWeights, load_weights, save_backbone
from fercache.synth.settings import SynthSettings, plan_videos
from fercache.synth.writer import draw_video

log = logging.getLogger(__name__)

FACES = 256
"""Most faces in a self-test."""
IMAGES = (".jpg", ".jpeg", ".png")
LIMITS = """\
What this cannot show: anything behind the first batch norm (padding, strides, the size and the crop of the faces); a
wrong mean of a few grey levels; nor a difference that faces unlike those of the training hide."""
AMBIGUOUS_FORMATS = {
    "torchvision-imagenet": {"scale": "0-1", "order": "RGB"},
    "torchvision-vggface2": {"scale": "0-255", "order": "RGB"},
    "torchvision-vggface2-bgr": {"scale": "0-255", "order": "BGR"},
}
"""Formats that share torchvision's tensor names, and how each prepares faces."""


@dataclass(frozen=True)
class Inspection:
    """What is known of a weights file."""

    source: str
    weights: FrameWeights
    undecided: tuple[str, ...]
    """The formats that fit the contents, where several do; else ()."""
    test: SelfTest | None
    """None where the network has no batch norm behind its first convolution, or a network that was never trained."""
    faces: str
    """Which faces the self-test used."""


def inspect_weights(
    source: str, *, faces: Path | None = None, form: str | None = None, threads: int | None = None
) -> Inspection:
    """Read a weights file or run folder, and test its preprocessing on faces.

    `faces`: a folder of face crops, at any depth, or a manifest; None draws some. `form`: the file's format where its
    contents do not decide; without it the file is read in the first that fits.
    """
    runtime.configure_torch(threads)
    undecided: tuple[str, ...] = ()
    try:
        weights = load_weights(source, form=form)
    except AmbiguousFormat as error:
        undecided = error.formats
        weights = load_weights(source, form=undecided[0])
    layers = dict(weights.network().backbone.named_modules())
    norm = layers.get(weights.backbone.first_norm or "none")
    if norm is None or not norm.running_mean.any():
        return Inspection(source, weights, undecided, None, "")
    frames = _read_faces(faces) if faces else _drawn_faces()
    test = self_test(layers[weights.backbone.first_conv], norm, frames, weights.preprocessing.image_size)
    drawn = "drawn ones, whose colours are not those of photographs: --faces takes real ones"
    return Inspection(source, weights, undecided, test, str(faces) if faces else drawn)


def convert_weights(source: str | Path, out: Path, *, form: str | None = None) -> Path:
    """Write the backbone of a weights file or run folder, with its preprocessing, in fercache's format; returns `out`.

    The classifier is dropped. WeightsError where `out` exists and is not this conversion.
    """
    source = str(source)
    if source == NONE:
        raise WeightsError("none: random numbers are no weights to convert")
    weights = load_weights(source, form=form)
    if not out.exists():
        save_backbone(out, weights, source)
        return out
    existing = load_weights(str(out))
    same = (existing.backbone_digest, existing.preprocessing) == (weights.backbone_digest, weights.preprocessing)
    if existing.origin.format != CONVERTED or not same:
        raise WeightsError(f"{out}: exists and is no conversion of {source}; remove it, or choose another name")
    log.info("%s: already exists", out)
    return out


def describe_weights(inspection: Inspection) -> str:
    """The inspection as text: every key, then the facts, then the self-test."""
    weights, undecided = inspection.weights, inspection.undecided
    keys, dropped_classes = weights.origin.keys, weights.origin.dropped_classes
    width = max(map(len, keys.values()), default=0)
    lines = [f"{key:<{width}}  -> {name:<44} {tuple(weights.tensors[name].shape)}" for name, key in keys.items()]
    lines += [f"{key:<{width}}  -> dropped" for key in weights.origin.dropped_keys]
    classes = "none" if dropped_classes is None else f"{dropped_classes}, dropped"
    if weights.classifier is not None:
        classes = f"{len(weights.classifier['bias'])} of task {weights.task}"
    facts = {
        "file": inspection.source,
        "format": weights.origin.format,
        "architecture": weights.backbone.name,
        "tensors": f"{len(keys)} of the backbone",
        "classifier": f"classes: {classes}",
        "digest": weights.backbone_digest,
        "preprocessing": _preprocessing(weights.preprocessing),
    }
    if undecided:
        facts |= dict.fromkeys(("architecture", "digest", "preprocessing"), "depends on the format")
        facts["format"] = " or ".join(undecided)
    lines += ["", *(f"{name:<14} {value}" for name, value in facts.items()), ""]
    if inspection.test is not None:
        return "\n".join([*lines, *_test_lines(inspection, inspection.test)])
    why = "were never trained" if weights.backbone.first_norm else "are not kept: the network has no batch norm"
    return "\n".join([*lines, f"No self-test: statistics behind the first convolution {why}."])


def _preprocessing(record: Preprocessing) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (record.mean, record.std))
    return f"{record.channels}, 0-{record.range:g}, minus ({mean}), over ({std}), {record.image_size} px"


def _test_lines(inspection: Inspection, test: SelfTest) -> list[str]:
    """The candidates, what the statistics decide, and what they cannot show."""
    lines = [f"Self-test on {test.faces} faces ({inspection.faces}): statistics behind the first convolution", ""]
    lines.append(f"  {'prepared as':<36}  distance (nats a channel)")
    lines += [f"  {one!s:<36}  {d:9.4f}" for one, d in zip(test.candidates, test.distances, strict=True)]
    lines += ["", f"Best-fitting: {test.candidates[0]}; the next is {test.margin:.4f} worse. Of each part:"]
    expected = {} if inspection.undecided else _axes(inspection.weights.preprocessing)
    for choice in test.axes:
        verdict = "conclusive" if choice.conclusive else "not conclusive with these faces"
        rival = f"{choice.rival} is {choice.margin:.4f} worse, in {choice.share:.0%} of resamples"
        line = f"  {choice.axis:<5} {choice.best:<22} {rival}: {verdict}"
        if choice.conclusive and expected.get(choice.axis, choice.best) != choice.best:
            line += f"; the record says {expected[choice.axis]}: DO NOT TRUST THIS FILE before you know why"
        lines.append(line)
    return [*lines, *([_fitting_formats(test)] if inspection.undecided else []), "", LIMITS]


def _axes(record: Preprocessing) -> dict[str, str]:
    """A record in the words of the candidates."""
    plain = "minus mean" if any(record.mean) else "no mean"
    mean = plain if record.std == (1.0, 1.0, 1.0) else "ImageNet mean and std"
    return {"order": record.channels, "scale": "0-255" if record.range == 255 else "0-1", "mean": mean}


def _fitting_formats(test: SelfTest) -> str:
    """Which formats with torchvision's names agree with all that the statistics decide."""
    conclusive = {choice.axis: choice.best for choice in test.axes if choice.conclusive}
    fitting = [
        name
        for name, axes in AMBIGUOUS_FORMATS.items()
        if all(conclusive.get(axis, value) == value for axis, value in axes.items())
    ]
    advice = "" if len(fitting) == 1 else "; faces like those of its training (--faces) may decide"
    return f"These statistics fit --format {' or '.join(fitting) or 'none of them'}{advice}."


def _read_faces(source: Path) -> list[torch.Tensor]:
    """Faces of a folder or a manifest; DataError with all that cannot be decoded."""
    paths = _images(source) if source.is_dir() else _manifest_faces(source)
    if len(paths) < 2:
        raise DataError(f"{source}: has {len(paths)} images, expected at least 2 faces")
    return _decode(paths)


def _images(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in IMAGES)


def _manifest_faces(source: Path) -> list[str]:
    """The labelled frames of a manifest, which a network is trained on; all of them where none is labelled."""
    data = read_manifest(source, frames=True)
    paths: list[str] = []
    labelled_paths: list[str] = []
    for video in data.videos:
        frames = video.frames()
        counts = data.task.labelled(video.labels(data.task))[frames.frame - 1]
        paths += frames.paths
        labelled_paths += [path for path, counted in zip(frames.paths, counts, strict=True) if counted]
    return labelled_paths or paths


def _drawn_faces() -> list[torch.Tensor]:
    settings = SynthSettings(train=-(-FACES // 5), validation=0, test=0, seconds=1, fps=5)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / DRAWN).mkdir()
        for video in plan_videos(settings):
            draw_video(Path(folder), settings, video)
        return _decode(_images(Path(folder)))


def _decode(paths: Sequence[str]) -> list[torch.Tensor]:
    """At most `FACES` of the images, spread evenly, as uint8 (3, H, W)."""
    frames: list[torch.Tensor] = []
    problems: list[str] = []
    for index in np.linspace(0, len(paths) - 1, min(FACES, len(paths))).round().astype(int):
        try:
            frames.append(torch.from_numpy(decode(paths[index]).copy()).permute(2, 0, 1))
        except DataError as error:
            problems += error.problems
    raise_problems(problems, DataError)
    return frames
