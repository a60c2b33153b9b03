"""How many frames or windows a second this machine gets through in each stage, by a few batches of the real work."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fercache.config import Config
from fercache.data.manifest import read_manifest
from fercache.models.heads import head_entry
from fercache.pipeline.steps import CNN
from fercache.stages.extract import plan_extraction
from fercache.stages.finetune import measure_finetune
from fercache.stages.train_temporal import measure_head

log = logging.getLogger(__name__)


def probe(config: Config, heads: tuple[str, ...]) -> dict[str, float]:
    """Frames (heads: windows) a second of one process on this machine, by stage; of several heads the slowest.

    Frames are read, prepared and computed; nothing is kept. Before fine-tuning is done, extraction is measured with the
    weights that it starts from.
    """
    manifest, tuned = Path(str(config.manifest)), Path(str(config.out), CNN, "best.pt")
    common: dict[str, Any] = {"task": config.task, "seed": config.seed, "threads": config.threads}
    log.info("measuring finetune")
    rates = {"finetune": measure_finetune(manifest, config.finetune, **common)}
    log.info("measuring extract")
    weights, settings = str(tuned), config.extract
    if not tuned.exists():
        start = config.finetune
        weights = start.weights
        settings = replace(settings, image_size=start.image_size, weights_format=start.weights_format)
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_extraction(manifest, weights, Path(folder) / "cache", settings, **common)
    if plan.frames_per_s:
        rates["extract"] = plan.frames_per_s
    task = read_manifest(manifest, config.task, files=False).task.name
    head_rates = []
    for head in heads:
        if not head_entry(head).learns:
            continue
        log.info("measuring train-temporal, head %s", head)
        embedding_dim = plan.setup.shape.embedding_dim
        head_rates.append(measure_head(head, config.train_temporal, task, embedding_dim, threads=config.threads))
    return rates | ({"train_temporal": min(head_rates)} if head_rates else {})
