"""What a weights file is, and a safe copy of it.

Legend: N faces, H x W pixels.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fercache import runtime
from fercache.data.annotations import labelled
from fercache.data.frames import decode
from fercache.data.manifest import read_manifest
from fercache.errors import DataError, WeightsError, raise_problems
from fercache.models.formats import AmbiguousFormat
from fercache.models.preprocessing import Preprocessing
from fercache.models.selftest import SelfTest, self_test
from fercache.models.weights import CONVERTED, NONE, FrameWeights, load_weights, save_backbone
from fercache.synth.settings import SynthSettings, plan_videos
from fercache.synth.writer import FRAMES as DRAWN
from fercache.synth.writer import write_video

log = logging.getLogger(__name__)

FACES = 256
"""Faces the self-test looks at, at most."""
IMAGES = (".jpg", ".jpeg", ".png")
CANNOT = """\
What this cannot show: anything behind the first batch norm (padding, strides, the size and the crop of the faces); a
wrong mean of a few grey levels; nor a difference that faces unlike those of the training hide."""


@dataclass(frozen=True)
class Inspection:
    """What is known of a weights file."""

    source: str
    weights: FrameWeights
    undecided: tuple[str, ...]
    """Formats among which the contents do not decide; () where they do."""
    test: SelfTest | None
    """None where the first convolution has no batch norm, or one that was never trained."""
    faces: str
    """Which faces the self-test looked at."""


def inspect_weights(
    source: str, *, faces: Path | None = None, form: str | None = None, threads: int | None = None
) -> Inspection:
    """Read a weights file or run folder, and test its preprocessing on faces.

    `faces`: a folder of face crops, at any depth, or a manifest; None draws some. `form`: the file's
    format where its contents do not decide; without it such a file is inspected as it is.
    """
    runtime.configure_torch(threads)
    undecided: tuple[str, ...] = ()
    try:
        weights = load_weights(source, form=form)
    except AmbiguousFormat as error:
        undecided = error.formats
        weights = load_weights(source, form=undecided[0])
    backbone = weights.backbone
    layers = dict(weights.network().backbone.named_modules())
    conv, norm = layers[backbone.first_conv], layers.get(backbone.first_norm or "no such layer")
    if norm is None or not norm.running_mean.any():
        return Inspection(source, weights, undecided, None, "")
    frames, words = _read_faces(faces) if faces else _drawn_faces()
    test = self_test(conv, norm, frames, weights.preprocessing.image_size)
    return Inspection(source, weights, undecided, test, words)


def convert_weights(source: str | Path, out: Path, *, form: str | None = None) -> Path:
    """Write the backbone of a weights file or run folder as a file of fercache's own, with its record; returns `out`.

    A classifier is left out. WeightsError where `out` holds something else already.
    """
    source = str(source)
    if source == NONE:
        raise WeightsError("none: random numbers are no weights to convert")
    weights = load_weights(source, form=form)
    if out.exists():
        there = load_weights(str(out))
        found, wanted = ((one.backbone_digest, one.preprocessing) for one in (there, weights))
        if there.origin.format != CONVERTED or found != wanted:
            raise WeightsError(f"{out}: exists and is no conversion of {source}; remove it, or choose another name")
        log.info("%s: already exists", out)
        return out
    save_backbone(out, weights, source)
    return out


def describe(inspection: Inspection) -> str:
    """The inspection as text: every key, then the facts, then the self-test."""
    weights = inspection.weights
    keys = weights.origin.keys
    width = max(map(len, keys.values()), default=0)
    lines = [f"{key:<{width}}  -> {name:<44} {tuple(weights.tensors[name].shape)}" for name, key in keys.items()]
    lines += [f"{key:<{width}}  -> dropped" for key in weights.origin.dropped_keys]
    dropped = weights.origin.dropped_classes
    classes = "none" if dropped is None else f"{dropped}, dropped"
    if weights.classifier is not None:
        classes = f"{len(weights.classifier['bias'])} of task {weights.task}"
    facts = {
        "file": inspection.source,
        "format": " or ".join(inspection.undecided) or weights.origin.format,
        "architecture": "depends on the format" if inspection.undecided else weights.backbone.name,
        "tensors": f"{len(keys)} of the backbone",
        "classifier": f"classes: {classes}",
        "digest": "depends on the format" if inspection.undecided else weights.backbone_digest,
        "preprocessing": "depends on the format" if inspection.undecided else _preprocessing(weights.preprocessing),
    }
    lines += ["", *(f"{name:<14} {value}" for name, value in facts.items()), ""]
    if inspection.test is None:
        why = "were never trained" if weights.backbone.first_norm else "are not kept: the network has no batch norm"
        lines.append(f"No self-test: statistics behind the first convolution {why}.")
    else:
        lines += _test_lines(inspection, inspection.test)
    return "\n".join(lines)


def _test_lines(inspection: Inspection, test: SelfTest) -> list[str]:
    """The candidates, what they tell, and what they cannot."""
    lines = [f"Self-test on {test.faces} faces ({inspection.faces}): statistics behind the first convolution", ""]
    lines.append(f"  {'prepared as':<36}  distance (nats a channel)")
    lines += [f"  {one!s:<36}  {d:9.4f}" for one, d in zip(test.candidates, test.distances, strict=True)]
    lines += ["", f"Best-fitting: {test.candidates[0]}; the next is {test.margin:.4f} worse. What that tells:"]
    expected = None if inspection.undecided else _axes(inspection.weights.preprocessing)
    for choice in test.axes:
        verdict = "told" if choice.conclusive else "not told by these faces"
        line = (
            f"  {choice.axis:<5} {choice.best:<22} {choice.rival} is {choice.margin:.4f} worse,"
            f" in {choice.share:.0%} of resamples: {verdict}"
        )
        if expected and choice.conclusive and expected[choice.axis] != choice.best:
            line += f"; the record says {expected[choice.axis]}: DO NOT TRUST THIS FILE before you know why"
        lines.append(line)
    if inspection.undecided:
        lines.append(_speaks_for(test))
    return [*lines, "", CANNOT]


def _axes(record: Preprocessing) -> dict[str, str]:
    """A record in the words of the candidates."""
    plain = "minus mean" if any(record.mean) else "no mean"
    mean = plain if record.std == (1.0, 1.0, 1.0) else "ImageNet mean and std"
    return {"order": record.channels, "scale": "0-255" if record.range == 255 else "0-1", "mean": mean}


def _speaks_for(test: SelfTest) -> str:
    """Which formats under torchvision's names fit what the statistics tell; what they do not tell stays open."""
    told = {choice.axis: choice.best for choice in test.axes if choice.conclusive}
    formats = {"torchvision-imagenet": ("0-1", "RGB"), "torchvision-vggface2": ("0-255", "RGB")}
    formats["torchvision-vggface2-bgr"] = ("0-255", "BGR")
    fit = [
        name
        for name, (scale, order) in formats.items()
        if told.get("scale", scale) == scale and told.get("order", order) == order
    ]
    advice = "" if len(fit) == 1 else "; faces like those of its training (--faces) may tell more"
    return f"These statistics fit --format {' or '.join(fit) or 'none of them'}{advice}."


def _preprocessing(record: Preprocessing) -> str:
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (record.mean, record.std))
    return f"{record.channels}, 0-{record.range:g}, minus ({mean}), over ({std}), {record.image_size} px"


def _read_faces(source: Path) -> tuple[list[torch.Tensor], str]:
    """Faces spread evenly over a folder or a manifest; DataError with all that cannot be decoded."""
    found = _images(source) if source.is_dir() else _manifest_faces(source)
    if len(found) < 2:
        raise DataError(f"{source}: has {len(found)} images, expected at least 2 faces")
    return _decode(found), str(source)


def _images(folder: Path) -> list[str]:
    places = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return sorted(place for place in places if place.lower().endswith(IMAGES))


def _manifest_faces(source: Path) -> list[str]:
    """The labelled frames of a manifest, which a network is trained on; all of them where none is labelled."""
    data = read_manifest(source, frames=True)
    every, chosen = [], []
    for video in data.videos:
        frames = video.frames()
        counts = labelled(video.labels(data.task), data.task)[frames.number - 1]
        every += frames.path
        chosen += [path for path, counted in zip(frames.path, counts, strict=True) if counted]
    return chosen or every


def _drawn_faces() -> tuple[list[torch.Tensor], str]:
    with tempfile.TemporaryDirectory() as folder:
        settings = SynthSettings(train=-(-FACES // 5), validation=0, test=0, seconds=1, fps=5)
        (Path(folder) / DRAWN).mkdir()
        for video in plan_videos(settings):
            write_video(Path(folder), settings, video)
        frames = _decode(_images(Path(folder)))
    return frames, "drawn ones, whose colours are not those of photographs: --faces takes real ones"


def _decode(paths: Sequence[str]) -> list[torch.Tensor]:
    """At most `FACES` of the images, spread evenly, as uint8 (3, H, W)."""
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, min(FACES, len(paths))).round().astype(int)]
    frames, problems = [], []
    for path in chosen:
        try:
            frames.append(torch.from_numpy(decode(path).copy()).permute(2, 0, 1))
        except DataError as error:
            problems.append(str(error))
    raise_problems(problems, DataError)
    return frames
