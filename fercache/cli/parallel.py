"""Commands that can run as several processes, one per GPU."""

from __future__ import annotations

from typing import Any

import click

from fercache.cli.command import ConfigCommand
from fercache.errors import ConfigError
from fercache.runtime import gpu_count, launch

TYPED_WORDS = "fercache.typed_words"


class ParallelCommand(ConfigCommand):
    """A command with `--gpus`, which starts the command once per GPU and waits."""

    def __init__(self, *args: Any, one_job: bool, conflicts: tuple[str, ...] = (), **attributes: Any) -> None:  # noqa: ANN401 - as in click
        """With `one_job` the processes train one network; `conflicts` are parameters that `--gpus` excludes."""
        super().__init__(*args, **attributes)
        self.one_job, self.conflicts = one_job, conflicts
        words = "Run one process per GPU, on N or all GPUs of this machine.  [default: this process alone]"
        self.params.append(click.Option(["--gpus"], metavar="N|all", help=words))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and keep the words as they were typed."""
        ctx.meta[TYPED_WORDS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Run the command here, or start it several times."""
        wanted = ctx.params.pop("gpus")
        count = 1 if wanted is None else parse_gpus(wanted, gpu_count())
        if count == 1:
            return super().invoke(ctx)
        excluded = [f"--{name}" for name in self.conflicts if ctx.params[name]]
        if excluded:
            raise ConfigError(f"--gpus: cannot be combined with {', '.join(excluded)}")
        launch([str(ctx.info_name), *without_gpus(ctx.meta[TYPED_WORDS])], count, one_job=self.one_job)
        return None


def parse_gpus(text: str, present: int) -> int:
    """The number of GPUs that `--gpus` means on a machine with `present` of them."""
    if text != "all" and not (text.isdigit() and int(text) >= 1):
        raise ConfigError(f"--gpus: found {text!r}, expected a number from 1, or all")
    count = present if text == "all" else int(text)
    if not present or count > present:
        raise ConfigError(f"--gpus: found {text}, but this machine has {present or 'no'} GPU{'s' * (present != 1)}")
    return count


def without_gpus(words: list[str]) -> list[str]:
    """The words of a command without `--gpus` and its value."""
    if "--gpus" in words:
        index = words.index("--gpus")
        return words[:index] + words[index + 2 :]
    return [word for word in words if not word.startswith("--gpus=")]
