"""A command that reads the configuration: its options and its help are made from the settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from fercache.config import Config, load_config
from fercache.config.settings import SECTIONS, Setting, by_heading, get_setting, join, settings_of
from fercache.tools.names import names_of

ALIASES = {"weights_format": "--format"}
"""Shorter names of options than those of their settings."""
STAGES = ("finetune", "extract", "train_temporal", "predict", "ensemble")
"""The sections that commands which run the full pipeline read."""
TYPED_CONFIG = "fercache.typed_config"
"""Key of `-c` and `--set`, as they were typed, in the `meta` of click's context."""
_CONFIG_HELP = "A YAML file, or the name of a shipped config.  [default: {}]"
_SET_HELP = "A setting of this command's section, or of the top level; may be repeated."


class SettingOption(click.Option):
    """The option of a setting, as `--batch-size` of `batch_size`; its value is read and checked as that of `--set`."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        name = setting.key.replace("_", "-")
        flags = f"--{name}/--no-{name}" if setting.is_flag else f"--{name}"
        aliases = [ALIASES[setting.key]] if setting.key in ALIASES else []
        super().__init__([setting.key, *aliases, flags], is_flag=setting.is_flag, default=None, metavar=setting.metavar)


class ConfigCommand(click.Command):
    """A command that takes `-c`, `--set` and options for some settings; its callback gets the Config as `config`."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - as in click
        section: str | None = None,
        reads: Sequence[str] = (),
        options: Sequence[str] = (),
        default_config: str | None = None,
        examples: Sequence[str] = (),
        **attributes: Any,  # noqa: ANN401 - as in click
    ) -> None:
        """`section` is the command's own; `reads` are the top-level keys and further sections that it uses.

        `options` are the keys, of its section or the top level, that are options of their own. `default_config` is
        the shipped config that applies without `-c`.
        """
        super().__init__(*args, **attributes)
        self.section, self.default_config, self.examples = section, default_config, examples
        self.reads = {section, *reads}
        for key in options:
            setting = get_setting(join(section or "", key)) or get_setting(key)
            assert setting is not None, key
            self.params.append(SettingOption(setting))
        config_help = _CONFIG_HELP.format(default_config or "./fercache.yaml, where it exists")
        self.params += [
            click.Option(["-c", "--config"], metavar="FILE|NAME", help=config_help),
            click.Option(["--set", "sets"], metavar="KEY=VALUE", multiple=True, help=_SET_HELP),
        ]

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Read the config, and call the command with it."""
        options = {o.setting.key: ctx.params.pop(o.name) for o in self.params if isinstance(o, SettingOption)}
        source, sets = ctx.params.pop("config"), ctx.params.pop("sets")
        ctx.meta[TYPED_CONFIG] = source, sets
        ctx.params["config"] = self.read_config(source or self.default_config, sets, options)
        return super().invoke(ctx)

    def read_config(self, source: str | None, sets: Sequence[str], options: dict[str, Any]) -> Config:
        """What the callback gets."""
        return load_config(source, self.section, sets, options)

    def reads_setting(self, setting: Setting) -> bool:
        """Whether the setting has an effect on this command."""
        return (setting.section.partition(".")[0] or setting.key) in self.reads

    def option_of(self, setting: Setting) -> str | None:
        """The option of a setting, as in --epochs; None where it has none here."""
        matches = (o for o in self.params if isinstance(o, SettingOption) and o.setting == setting)
        return next((option.opts[0] for option in matches), None)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The docstring, then the examples."""
        super().format_help_text(ctx, formatter)
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own options, then the settings it reads, with their options."""
        options = (p for p in self.get_params(ctx) if not isinstance(p, (SettingOption, click.Argument)))
        rows = [option.get_help_record(ctx) for option in options]
        with formatter.section("Options"):
            formatter.write_dl([row for row in rows if row is not None])
        self._format_settings(formatter, "", "Settings shared by commands (in the YAML, or --set KEY=VALUE)")
        if self.section is not None:
            self._format_settings(
                formatter, self.section, f"Settings of {self.section} (in this section of the YAML, or --set KEY=VALUE)"
            )
        others = [name for name in SECTIONS if name in self.reads and name != self.section]
        if others:
            with formatter.section("Further settings"):
                formatter.write_text(
                    f"Those of the sections {', '.join(others)}: see `fercache config explain SECTION`."
                )

    def _format_settings(self, formatter: click.HelpFormatter, section: str, title: str) -> None:
        settings = [setting for setting in settings_of(section).values() if self.reads_setting(setting)]
        if not settings:
            return
        with formatter.section(title):
            for heading, group in by_heading(settings):
                rows = [self._setting_row(setting) for setting in group]
                if heading is None:
                    formatter.write_dl(rows)
                else:
                    with formatter.section(heading):
                        formatter.write_dl(rows)
        if inner := [name for name in SECTIONS if section and name.startswith(f"{section}.")]:
            names = ", ".join(name.rpartition(".")[2] for name in inner)
            with formatter.section(f"What the jobs of a STAGE request ({names})"):
                formatter.write_dl([self._setting_row(s, "STAGE.") for s in settings_of(inner[0]).values()])

    def _setting_row(self, setting: Setting, prefix: str = "") -> tuple[str, str]:
        """Its names (option and key), and its meaning with choices and default, as a row of the help."""
        option = self.option_of(setting)
        names = [*([option] if option else []), prefix + setting.key]
        values = "|".join(names_of(setting)) or setting.metavar
        notes = [*([values] if values else []), f"default: {setting.default_words}"]
        return ", ".join(names), f"{setting.meaning}  [{'; '.join(notes)}]"
