"""The configuration: one YAML for all commands, read into frozen dataclasses that hold every default."""

from fercache.config.cluster import JobConfig, SlurmConfig
from fercache.config.load import load_config, shipped_configs
from fercache.config.schema import (
    Config,
    EnsembleConfig,
    ExtractConfig,
    PredictConfig,
    ReproduceConfig,
    SynthConfig,
    as_plain,
)
from fercache.config.training import FinetuneConfig, TrainingConfig, TrainTemporalConfig

__all__ = [
    "Config",
    "EnsembleConfig",
    "ExtractConfig",
    "FinetuneConfig",
    "JobConfig",
    "PredictConfig",
    "ReproduceConfig",
    "SlurmConfig",
    "SynthConfig",
    "TrainTemporalConfig",
    "TrainingConfig",
    "as_plain",
    "load_config",
    "shipped_configs",
]
