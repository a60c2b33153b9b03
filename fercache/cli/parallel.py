"""Commands that can run as several processes, one a GPU."""

from __future__ import annotations

from typing import Any

import click

from fercache.errors import ConfigError
from fercache.runtime import gpu_count, launch

ARGUMENTS = "fercache.arguments"


class ParallelCommand(click.Command):
    """A command with `--gpus`: it then starts itself once for each GPU, and waits."""

    def __init__(self, *args: Any, one_job: bool, conflicts: tuple[str, ...] = (), **attributes: Any) -> None:  # noqa: ANN401 - as in click
        """With `one_job` the processes work as one; `conflicts`: options that `--gpus` takes the place of."""
        super().__init__(*args, **attributes)
        self.one_job, self.conflicts = one_job, conflicts
        words = "Run as one process a GPU, on so many GPUs of this machine, or on all; default: in this process alone."
        self.params.append(click.Option(["--gpus"], metavar="N|all", help=words))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words as they were given."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as in click
        """Call the command here, or start it several times."""
        wanted = ctx.params.pop("gpus")
        count = 1 if wanted is None else parse_gpus(wanted, gpu_count())
        if count == 1:
            return super().invoke(ctx)
        given = [f"--{name}" for name in self.conflicts if ctx.params[name]]
        if given:
            raise ConfigError(f"--gpus: cannot be combined with {', '.join(given)}")
        launch([str(ctx.info_name), *without_gpus(ctx.meta[ARGUMENTS])], count, one_job=self.one_job)
        return None


def parse_gpus(text: str, present: int) -> int:
    """The number of GPUs that `--gpus` means, where so many are `present`."""
    if text != "all" and not (text.isdigit() and int(text) >= 1):
        raise ConfigError(f"--gpus: found {text!r}, expected a number from 1, or all")
    count = present if text == "all" else int(text)
    if not present or count > present:
        raise ConfigError(f"--gpus: found {text}, but this machine has {present or 'no'} GPU{'s' * (present != 1)}")
    return count


def without_gpus(words: list[str]) -> list[str]:
    """The words of a command without `--gpus` and its value."""
    if "--gpus" in words:
        at = words.index("--gpus")
        return words[:at] + words[at + 2 :]
    return [word for word in words if not word.startswith("--gpus=")]
