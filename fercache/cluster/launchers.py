"""The launchers there are, by name."""

from __future__ import annotations

from fercache.cluster.launcher import Launcher
from fercache.cluster.slurm import SlurmLauncher
from fercache.errors import ConfigError

LAUNCHERS: dict[str, type[Launcher]] = {"slurm": SlurmLauncher}


def get_launcher(name: str) -> Launcher:
    """The launcher of that name; ConfigError with the valid names otherwise."""
    if name not in LAUNCHERS:
        raise ConfigError(f"slurm.launcher: found {name!r}, expected one of {', '.join(LAUNCHERS)}")
    return LAUNCHERS[name]()
