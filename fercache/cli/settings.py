"""`fercache config`: the settings in force, and what each means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from fercache.cli.command import ConfigCommand
from fercache.cli.text import echo
from fercache.config.load import load_with_sources
from fercache.config.settings import Setting


@click.group("config")
def config_group() -> None:
    """Show the settings in force, or explain one."""


class ShowCommand(ConfigCommand):
    """Reads the config as a command with the section SECTION would, and keeps where each value comes from."""

    def read_config(self, source: str | None, sets: Sequence[str], options: dict[str, Any]) -> Any:  # noqa: ANN401 - a pair
        """The Config and its sources."""
        section = click.get_current_context().params["section"]
        return load_with_sources(source, section and section.replace("-", "_"), sets, options)


@config_group.command(
    "show",
    cls=ShowCommand,
    reads=("task", "seed", "threads", "manifest", "cache", "out"),
    options=("seed", "threads", "manifest", "cache"),
    examples=("fercache config show", "fercache config show finetune -c abaw2021_expr --set epochs=3"),
)
@click.argument("section", required=False)
def show(section: str | None, config: Any) -> None:  # noqa: ANN401 - a pair
    """Print the settings in force, and where each comes from.

    The output is YAML, which -c reads again; a comment names the source of each value: default, file, --set or option.
    With SECTION, only the settings of one section; --set KEY=VALUE then means its keys first.
    """
    from fercache.tools.settings import show as settings_in_force

    values, sources = config
    echo(settings_in_force(values, sources, section))


@config_group.command("explain")
@click.argument("key", required=False)
@click.option("--markdown", is_flag=True, help="Print all settings as a page of documentation.")
@click.pass_context
def explain(ctx: click.Context, key: str | None, markdown: bool) -> None:
    """Print what a setting means.

    KEY is a key, SECTION.KEY, or a section: its meaning, default, values and the commands that read it. Without KEY,
    the sections and their keys.
    """
    from fercache.tools import settings

    commands = dict(_config_commands(ctx.find_root().command, "fercache"))
    del commands["fercache config show"]  # It prints settings and does not act on them.

    def readers(setting: Setting) -> list[str]:
        words = []
        for name, command in commands.items():
            if command.reads_setting(setting):
                option = command.option_of(setting)
                words.append(f"{name} ({option})" if option else name)
        return words

    if markdown:
        echo(settings.markdown_page(readers))
    else:
        echo(settings.overview() if key is None else settings.explain(key, readers))


def _config_commands(command: click.Command, name: str) -> Iterator[tuple[str, ConfigCommand]]:
    """Every command that reads the config, by its words."""
    if isinstance(command, ConfigCommand):
        yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from _config_commands(inner, f"{name} {word}")
