"""A project folder: its `fercache.yaml` lets every fercache command run in it without options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fercache.config import Config, as_plain
from fercache.config.load import DEFAULT_FILE, load_config
from fercache.errors import RunError
from fercache.files import refuse_other_contents, write_text
from fercache.pipeline.staleness import config_differences
from fercache.rundir import describe_differences


def check_project(folder: Path, config: Config) -> None:
    """Raise RunError where the folder contains anything but a project of this config, with the settings that differ."""
    file = folder / DEFAULT_FILE
    if not file.exists():
        refuse_other_contents(folder, f"a project ({DEFAULT_FILE})", RunError)
        return
    differences = list(config_differences(as_plain(load_config(str(file))), as_plain(config)))
    if differences:
        raise RunError(
            f"{folder}: was begun with different settings: {describe_differences(differences)}; choose another folder,"
            " or remove this one"
        )


def write_project(folder: Path, config: Config) -> None:
    """Make the folder with its config; RunError as `check_project`."""
    check_project(folder, config)
    if not (folder / DEFAULT_FILE).exists():
        write_text(folder / DEFAULT_FILE, config_as_yaml(config))


def config_as_yaml(config: Config) -> str:
    """A config as the text of a file, without what is not set."""
    return yaml.safe_dump(_set_values(as_plain(config), as_plain(Config())), sort_keys=False, allow_unicode=True)


def _set_values(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Plain values without those that are empty both here and by default."""
    kept = {k: _set_values(v, defaults[k]) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: v for k, v in kept.items() if v != {} and not (v in (None, []) and v == defaults[k])}
