"""Every stage whose frames are decoded by worker processes, when these are killed or have no room."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.frames import write_video
from support.system import fill_shared_memory
from torch.utils.data import get_worker_info

from fercache.cache.reader import Cache
from fercache.config import ExtractConfig, FinetuneConfig, TrainTemporalConfig
from fercache.data import loader
from fercache.data.affwild2 import build_manifest
from fercache.data.images import read_image
from fercache.data.manifest import write_manifest
from fercache.errors import RunError
from fercache.stages.extract import extract, plan_extraction
from fercache.stages.finetune import finetune
from fercache.stages.train_temporal import train_temporal
from fercache.tasks import TASKS

TRAINING = {"epochs": 1, "batch_size": 4, "workers": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_video(folder / "set", "a", range(1, 9), [0, 1, 2, 3] * 2)
    write_video(folder / "set", "v", range(1, 5), [0, 1, 2, 3], "Validation_Set")
    write_manifest(folder / "m.csv", build_manifest(folder / "set", TASKS["expr"])[0])
    finetune(folder / "m.csv", folder / "cnn", FinetuneConfig(image_size=48, **{**TRAINING, "workers": 0}))
    return folder


def stages(project: Path, out: Path) -> dict[str, partial]:
    """The stages that open frames, as calls that write to `out`."""
    manifest, cnn = project / "m.csv", str(project / "cnn")
    extraction = ExtractConfig(backend="eager", precision="fp32", batch_size=4, workers=1)
    end_to_end = TrainTemporalConfig(head="gru", end_to_end=True, weights=cnn, **TRAINING)
    return {
        "finetune": partial(finetune, manifest, out, FinetuneConfig(image_size=48, **TRAINING)),
        "extract": partial(extract, manifest, cnn, out, extraction),
        "plan": partial(plan_extraction, manifest, cnn, out, extraction),
        "train_temporal": partial(train_temporal, manifest, None, out, end_to_end),
    }


@pytest.mark.parametrize("stage", ["finetune", "extract", "plan", "train_temporal"])
def test_a_worker_that_is_killed_ends_the_stage_with_the_reason(project, tmp_path, monkeypatch, stage):
    def dying(path):
        if path.endswith("00003.jpg") and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path)

    monkeypatch.setattr(loader, "read_image", dying)
    call = stages(project, tmp_path / "out")[stage]
    with pytest.raises(RunError, match="a process that decodes frames was killed by SIGKILL"):
        call()
    monkeypatch.undo()
    call()  # the same call goes on where it ended


@pytest.mark.parametrize("stage", ["finetune", "train_temporal"])
def test_training_without_shared_memory_gives_the_same_bits(project, tmp_path, monkeypatch, stage):
    stages(project, tmp_path / "plenty")[stage]()
    fill_shared_memory(monkeypatch)
    stages(project, tmp_path / "none")[stage]()
    runs = [torch.load(tmp_path / name / "best.pt", weights_only=True)["model"] for name in ("plenty", "none")]
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())


def test_extraction_without_shared_memory_gives_the_same_bits(project, tmp_path, monkeypatch):
    stages(project, tmp_path / "plenty")["extract"]()
    fill_shared_memory(monkeypatch)
    stages(project, tmp_path / "none")["extract"]()
    rows = [Cache(tmp_path / name).read("a").embedding for name in ("plenty", "none")]
    np.testing.assert_array_equal(*rows)
