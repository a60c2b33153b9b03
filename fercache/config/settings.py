"""The settings as data: name, type, default and meaning of each key, for help, options, messages and documentation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fercache.config.coerce import choices, type_words, without_none
from fercache.config.fields import field_types
from fercache.config.schema import Config


def join(section: str, key: str) -> str:
    """The full name of a key: finetune.lr, or seed at the top level, whose section is empty."""
    return f"{section}.{key}" if section else key


def _walk(name: str, owner: type) -> Iterator[tuple[str, type]]:
    for key, kind in field_types(owner).items():
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield join(name, key), kind
            yield from _walk(join(name, key), kind)


SECTIONS: dict[str, type] = dict(_walk("", Config))
"""The sections' dataclasses by full name, as in finetune, or slurm.extract for a section within a section."""


@dataclass(frozen=True)
class Setting:
    """One key of the configuration, as its dataclass describes it."""

    section: str
    """Empty at the top level."""
    key: str
    kind: Any
    """The type, as in int | None."""
    default: Any
    meaning: str
    rule: str | None
    """The range in words, where there is one."""
    unset: str | None
    """What applies where the default is None or empty."""
    metavar: str | None
    heading: str | None
    """The group of settings that begins here."""

    @property
    def name(self) -> str:
        """With its section, as in finetune.lr."""
        return join(self.section, self.key)

    @property
    def takes_text(self) -> bool:
        """Whether a value on the command line is taken as it is, instead of being read as YAML."""
        return without_none(self.kind) is str or bool(self.choices)

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false."""
        return self.kind is bool

    @property
    def is_optional(self) -> bool:
        """Whether it may be null."""
        return without_none(self.kind) is not self.kind

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of a choice; empty for others."""
        return choices(self.kind)

    @property
    def expected(self) -> str:
        """Type and range, as in "a whole number from 1 to 10"."""
        words = type_words(self.kind)
        if self.rule is not None and not self.choices:
            is_range = self.rule.startswith(("from ", "above ")) and not words.startswith("a list")
            words += (" " if is_range else ": ") + self.rule
        return words + (", or null" if self.is_optional else "")

    @property
    def default_words(self) -> str:
        """The default as YAML writes it, or what applies where none is set."""
        return value_words(self.default) if self.unset is None else self.unset


def value_words(value: object) -> str:
    """A setting's value in the form that YAML and `--set` take."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(value_words, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


@functools.cache
def settings_of(section: str) -> dict[str, Setting]:
    """The settings of a section, or of the top level (""), by key in order, without those of sections within it."""
    owner = SECTIONS[section] if section else Config
    kinds = field_types(owner)
    return {
        field.name: Setting(section, field.name, kinds[field.name], field.default, **_description(field.metadata))
        for field in dataclasses.fields(owner)
        if not dataclasses.is_dataclass(kinds[field.name])
    }


def _description(metadata: Any) -> dict[str, Any]:  # noqa: ANN401 - the mapping of a field
    return {key: metadata[key] for key in ("meaning", "rule", "unset", "metavar", "heading")}


def by_heading(settings: Iterable[Setting]) -> list[tuple[str | None, list[Setting]]]:
    """The settings in groups, each with its heading; the first group may have none."""
    groups: list[tuple[str | None, list[Setting]]] = []
    for setting in settings:
        if setting.heading or not groups:
            groups.append((setting.heading, []))
        groups[-1][1].append(setting)
    return groups


def all_settings() -> Iterator[Setting]:
    """Every setting of every section, the top level first."""
    for section in ("", *SECTIONS):
        yield from settings_of(section).values()


def get_setting(name: str) -> Setting | None:
    """The setting of a full name, such as finetune.lr; None where there is none."""
    section, dot, key = name.rpartition(".")
    return None if dot and section not in SECTIONS else settings_of(section).get(key)


def sections_alike(section: str) -> list[str]:
    """The sections with the same keys, such as those of the stages within slurm, in order; itself included."""
    return [name for name, owner in SECTIONS.items() if owner is SECTIONS.get(section)] or [section]
