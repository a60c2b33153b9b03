"""A head and a backbone from outside the package, used as the built-in ones are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.frames import write_video as write_frames
from torch import nn

from fercache.cache.predictions import read_predictions
from fercache.cache.provenance import CacheRecord, Provenance, begin_record
from fercache.cache.reader import Cache
from fercache.cache.rows import Part, Shape
from fercache.cache.writer import write_video
from fercache.cli import main
from fercache.config import ExtractConfig, TrainTemporalConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.annotations import write_annotation
from fercache.data.frames import decode
from fercache.data.manifest import Manifest, Video, write_manifest
from fercache.models.backbone import Backbone
from fercache.models.backbones import BACKBONES, BackboneEntry, archs
from fercache.models.checkpoint import load_checkpoint
from fercache.models.formats import WeightFormat
from fercache.models.head import Head
from fercache.models.heads import HEADS, HeadEntry
from fercache.models.preprocessing import Preprocessing, prepare
from fercache.models.temporal import network_of
from fercache.models.weights import load_weights
from fercache.stages.extract import extract
from fercache.stages.predict import predict
from fercache.stages.train_temporal import train_temporal
from fercache.tasks import TASKS

WIDTH, FRAMES = 6, 12


class MaxHead(Head):
    """A classifier on the largest value of each dimension over the window."""

    def __init__(self, classes: int, embedding_dim: int = 2048) -> None:
        super().__init__()
        self.classifier = nn.Linear(embedding_dim, classes)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.classifier(windows.amax(dim=1, keepdim=True).expand_as(windows))


@pytest.fixture
def cached(tmp_path: Path) -> tuple[Path, Path]:
    """A manifest of two videos, and their cache."""
    rng, task, videos = np.random.default_rng(0), TASKS["expr"], []
    made_by = Provenance("w" * 64, None, None, "resnet50-vggface2", {"image_size": 48}, "fp32", "float16")
    begin_record(tmp_path / "cache", CacheRecord(made_by, {}))
    for video_id, split in (("a", "train"), ("b", "validation")):
        labels = tmp_path / "labels" / f"{video_id}.txt"
        write_annotation(labels, task, rng.integers(0, 7, FRAMES))
        videos.append(Video(video_id, split, None, labels, FRAMES, video_id))
        part = Part(np.arange(FRAMES), rng.normal(size=(FRAMES, WIDTH)).astype(np.float16), None)
        write_video(
            Cache(tmp_path / "cache").file(video_id),
            made_by,
            Shape(WIDTH, "float16", None),
            np.arange(1, FRAMES + 1),
            np.ones(FRAMES, bool),
            [part],
        )
    write_manifest(tmp_path / "m.csv", Manifest(task, tmp_path, tuple(videos)))
    return tmp_path / "m.csv", tmp_path / "cache"


def test_a_head_from_outside_is_trained_and_predicts(cached, tmp_path, monkeypatch):
    monkeypatch.setitem(HEADS, "max", HeadEntry("Maximum", lambda: MaxHead))
    assert "gru|transformer|linear|mean|max" in CliRunner().invoke(main, ["train-temporal", "--help"]).output
    settings = TrainTemporalConfig(head="max", epochs=2, batch_size=3, precision="fp32")
    run = train_temporal(*cached, tmp_path / "run", settings)
    predictions = read_predictions(predict(cached[0], run, cached[1], tmp_path / "p.h5"))
    network = network_of(run, load_checkpoint(run / "best.pt")).eval()
    embeddings = torch.from_numpy(Cache(cached[1]).read("b").embedding).float()
    index = (torch.arange(FRAMES)[:, None] + torch.arange(-4, 5)).clamp(0, FRAMES - 1)
    with torch.inference_mode():
        expected = network(embeddings[index])[:, 4]
    np.testing.assert_allclose(predictions.videos["b"].logits, expected, atol=1e-6)


class Small(nn.Sequential):
    """One convolution and the mean over its maps: (B, 3, S, S) -> (B, 5)."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


SMALL = Backbone(
    "small-faces",
    Small,
    Preprocessing("RGB", 1.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 48),
    formats=(
        WeightFormat(
            "small-file",
            marker="stem.weight",
            classifier="out",
            file_key=lambda name: name.replace("0.", "stem."),
        ),
    ),
    first_conv="0",
)


def test_a_backbone_from_outside_is_loaded_and_extracts(tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, "small-faces", BackboneEntry("small", lambda: SMALL))
    assert archs()[-1] == "small" and load_weights("none", arch="small").backbone.embedding_dim == 5
    network = Small()
    content = {f"stem.{name}": tensor for name, tensor in network[0].state_dict().items()}
    torch.save({**content, "out.weight": torch.zeros(2, 5), "out.bias": torch.zeros(2)}, tmp_path / "small.pth")
    write_frames(tmp_path / "set", "a", range(1, 4))
    manifest, _ = build_manifest(tmp_path / "set", TASKS["expr"], allow_unlabelled=True)
    write_manifest(tmp_path / "m.csv", manifest)
    settings = ExtractConfig(backend="eager", precision="fp32", dtype="float32", workers=0)
    cache = Cache(extract(tmp_path / "m.csv", str(tmp_path / "small.pth"), tmp_path / "cache", settings))
    (video,) = manifest.videos
    frames = [torch.from_numpy(decode(path).copy()).permute(2, 0, 1) for path in video.frames().paths]
    with torch.inference_mode():
        expected = network(prepare(frames, SMALL.preprocessing))
    np.testing.assert_allclose(cache.read("a").embedding, expected, atol=1e-5)
    assert cache.provenance.architecture == "small-faces"
