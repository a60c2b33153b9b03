"""All commands: each parses, makes one call, and prints the result."""

from __future__ import annotations

import click

from fercache.cli.cache import cache_group
from fercache.cli.cluster import slurm_group
from fercache.cli.data import manifest_group, synth
from fercache.cli.doctor import doctor
from fercache.cli.pipelines import demo, reproduce
from fercache.cli.results import ensemble, evaluate, export, report
from fercache.cli.runs import extract, finetune, predict, train_temporal
from fercache.cli.settings import config_group
from fercache.cli.weights import weights_group

GROUPS: dict[str, tuple[click.Command, ...]] = {
    "Data": (manifest_group, synth),
    "Pipeline": (finetune, extract, train_temporal, predict, ensemble),
    "Results": (evaluate, export, report),
    "Full pipeline": (demo, reproduce, slurm_group),
    "Inspection": (config_group, cache_group, weights_group, doctor),
}
"""The commands by topic, as `fercache --help` lists them."""

ALL = tuple(command for group in GROUPS.values() for command in group)
