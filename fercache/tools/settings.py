"""`fercache config`: the settings in force with their sources, and the meaning of each key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence

import yaml

from fercache.config import Config
from fercache.config.settings import (
    SECTIONS,
    Setting,
    all_settings,
    by_heading,
    get_setting,
    sections_alike,
    settings_of,
)
from fercache.errors import ConfigError
from fercache.tools.names import names_of

Readers = Callable[[Setting], Sequence[str]]
"""The commands that read a setting, in the words of the command line."""

_PAGE_HEAD = """\
# Settings

Every key of the configuration, with its default and meaning. `fercache config explain --markdown` prints this page;
`fercache config explain KEY` prints one key, `fercache config show` the values in force and where each comes from.

One YAML file serves all commands: keys at the top level, and a section for each command. The YAML (`-c FILE`, else
`./fercache.yaml`) overrides defaults, `--set KEY=VALUE` overrides the YAML, and options such as `--seed` override both.
`--set KEY=VALUE` means the command's own section first, then the top level; `--set SECTION.KEY=VALUE` names another.
"""


def show(config: Config, sources: Mapping[str, str], section: str | None = None) -> str:
    """The settings in force as YAML, with the source of each as a comment; of one section where it is named.

    `sources` is what `load_with_sources` returns. Raises ConfigError where there is no such section.
    """
    if section is None:
        return "\n".join(_shown(config, sources, ""))
    name = section.replace("-", "_")
    if name not in SECTIONS:
        raise ConfigError(f"section: found {section!r}, expected one of {', '.join(SECTIONS)}")
    owner: object = config
    lines = []
    for depth, part in enumerate(name.split(".")):
        owner = getattr(owner, part)
        lines.append(f"{'  ' * depth}{part}:")
    return "\n".join([*lines, *_shown(owner, sources, name)])


def _shown(owner: object, sources: Mapping[str, str], section: str) -> Iterator[str]:
    indent = "  " * len(section.split(".")) if section else ""
    for key, setting in settings_of(section).items():
        value = getattr(owner, key)
        source = " ".join(sources.get(setting.name, _default_source(setting)).split())
        yield f"{indent}{key}: {_as_yaml(value)}".ljust(40) + f"  # {source}"
    for name in SECTIONS:
        if name.rpartition(".")[0] == section:
            key = name.rpartition(".")[2]
            yield f"{indent}{key}:"
            yield from _shown(getattr(owner, key), sources, name)


def _default_source(setting: Setting) -> str:
    return "default" if setting.unset is None else f"default: {setting.unset}"


def _as_yaml(value: object) -> str:
    """A value on one line: as the only item of a list, without its brackets."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump([plain], default_flow_style=True, width=float("inf"), allow_unicode=True).strip()[1:-1]


def explain(name: str, readers: Readers) -> str:
    """Meaning, default, values and readers of a key (KEY or SECTION.KEY), or of all keys of a section.

    Raises ConfigError with similar names where there is neither.
    """
    section = name.replace("-", "_")
    if section in SECTIONS:
        head = f"{section}: {_section_meaning(section)}"
        return "\n\n".join([head, *(_explained(setting, readers) for setting in settings_of(section).values())])
    exact = get_setting(name)
    keys = [exact] if exact is not None else [s for s in _distinct_settings() if s.key == name]
    if keys:
        return "\n\n".join(_explained(setting, readers) for setting in keys)
    raise ConfigError(f"{name}: no such setting; {_similar(name)}")


def overview() -> str:
    """The sections with their meaning and keys."""
    lines = [f"top level: {', '.join(settings_of(''))}"]
    for sections in _distinct_sections():
        lines.append(f"{', '.join(sections)}: {_section_meaning(sections[0])}\n  {', '.join(settings_of(sections[0]))}")
    return "\n".join(lines)


def _explained(setting: Setting, readers: Readers) -> str:
    others = [name for name in sections_alike(setting.section) if name != setting.section]
    also = f" (also in {', '.join(others)})" if others else ""
    return (
        f"{setting.name}{also}\n"
        f"  {setting.meaning}\n"
        f"  default: {setting.default_words}\n"
        f"  expected: {_expected(setting)}\n"
        f"  read by: {', '.join(readers(setting))}"
    )


def _expected(setting: Setting) -> str:
    """Type and range, or the names of the registry that the setting chooses from."""
    if setting.choices or not names_of(setting):
        return setting.expected
    return f"one of {', '.join(names_of(setting))}" + (", or null" if setting.is_optional else "")


def _section_meaning(section: str) -> str:
    return (SECTIONS[section].__doc__ or "").partition("\n")[0]


def _similar(name: str) -> str:
    """The settings whose names are near to an unknown one."""
    key = name.rpartition(".")[2]
    by_key: dict[str, list[str]] = {}
    for setting in _distinct_settings():
        by_key.setdefault(setting.key, []).append(setting.name)
    near = difflib.get_close_matches(key, by_key, n=5)
    names = [full_name for match in near for full_name in by_key[match]]
    if not names:
        return f"the sections are {', '.join(SECTIONS)} (`fercache config explain SECTION` lists the keys)"
    return f"similar: {', '.join(names)}"


def _distinct_sections() -> list[list[str]]:
    """The sections, those of the same keys together."""
    return [sections_alike(name) for name in SECTIONS if sections_alike(name)[0] == name]


def _distinct_settings() -> list[Setting]:
    """All settings, once where several sections have the same keys."""
    return [setting for setting in all_settings() if sections_alike(setting.section)[0] == setting.section]


def markdown_page(readers: Readers) -> str:
    """All settings as a page of documentation: for each section a table of key, default, values and meaning."""
    parts = [_PAGE_HEAD, "## Top level\n", *_tables("", readers)]
    for sections in _distinct_sections():
        parts.append(f"## {', '.join(f'`{name}`' for name in sections)}\n")
        parts.append(f"{_section_meaning(sections[0])}\n")
        parts += _tables(sections[0], readers)
    return "\n".join(parts).rstrip("\n")


def _tables(section: str, readers: Readers) -> Iterator[str]:
    """A table for each group of a section's settings. All keys of a section have the same readers."""
    settings = settings_of(section)
    columns = ["key", "default", "values", "meaning"]
    if section:
        yield f"Read by {_reader_list(next(iter(settings.values())), readers)}.\n"
    else:
        columns.append("read by")
    for heading, group in by_heading(settings.values()):
        if heading is not None:
            yield f"### {heading}\n"
        rows = [_cells(setting) + ([] if section else [_reader_list(setting, readers)]) for setting in group]
        yield "\n".join(map(_row, [columns, ["---"] * len(columns), *rows])) + "\n"


def _cells(setting: Setting) -> list[str]:
    default = f"`{setting.default_words}`" if setting.unset is None else setting.unset
    return [f"`{setting.key}`", default, _expected(setting), setting.meaning]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _reader_list(setting: Setting, readers: Readers) -> str:
    """The commands that read a setting, without the option in `fercache finetune (--lr)`."""
    return ", ".join(f"`{words.partition(' (')[0]}`" for words in readers(setting))
