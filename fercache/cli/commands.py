"""All commands: each parses, makes one call, and prints the result."""

from __future__ import annotations

from fercache.cli.cache import cache_group
from fercache.cli.cluster import slurm_group
from fercache.cli.data import manifest_group, synth
from fercache.cli.doctor import doctor
from fercache.cli.pipelines import demo, reproduce
from fercache.cli.results import ensemble, evaluate, export, report
from fercache.cli.runs import extract, finetune, predict, train_temporal
from fercache.cli.weights import weights_group

ALL = (
    synth,
    manifest_group,
    finetune,
    extract,
    train_temporal,
    predict,
    ensemble,
    evaluate,
    export,
    report,
    weights_group,
    cache_group,
    demo,
    reproduce,
    doctor,
    slurm_group,
)
