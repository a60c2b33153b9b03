"""How fast this machine goes through each stage, by a few batches of the real work."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from fercache.config import Config
from fercache.data.manifest import read_manifest
from fercache.models.heads import head_entry
from fercache.pipeline import project
from fercache.stages.extract import plan_extraction
from fercache.stages.finetune import measure_finetune
from fercache.stages.train_temporal import measure_head

log = logging.getLogger(__name__)


def probe(config: Config, heads: tuple[str, ...]) -> dict[str, float]:
    """Frames (heads: windows) a second of one process here, by stage; of several heads the slowest.

    Frames are read, prepared and computed; nothing is kept. Where fine-tuning is not done, extraction is measured with
    the weights it starts from.
    """
    manifest, tuned = Path(str(config.manifest)), Path(str(config.out), project.CNN, "best.pt")
    given = {"task": config.task, "seed": config.seed, "threads": config.threads}
    log.info("measuring finetune")
    found = {"finetune": measure_finetune(manifest, config.finetune, **given)}
    log.info("measuring extract")
    chosen, settings = str(tuned), config.extract
    if not tuned.exists():
        chosen = config.finetune.weights
        settings = replace(
            settings, image_size=config.finetune.image_size, weights_format=config.finetune.weights_format
        )
    with tempfile.TemporaryDirectory() as nowhere:
        plan = plan_extraction(manifest, chosen, Path(nowhere) / "cache", settings, **given)
    if plan.frames_per_s:
        found["extract"] = plan.frames_per_s
    task = read_manifest(manifest, config.task, files=False).task.name
    rates = []
    for head in heads:
        if head_entry(head).learns:
            log.info("measuring train-temporal, head %s", head)
            rates.append(
                measure_head(head, config.train_temporal, task, plan.setup.shape.embedding_dim, threads=config.threads)
            )
    return found | ({"train_temporal": min(rates)} if rates else {})
