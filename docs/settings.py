"""Prints the settings page from the dataclasses: stands in for `fercache config explain --markdown`."""

from __future__ import annotations

import ast
import dataclasses
import inspect

from fercache.config.schema import SECTIONS, Config


def meanings(kind: type) -> dict[str, str]:
    """Field -> the docstring under it."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(inspect.getsource(base)).body
        for field, text in zip(body.body, body.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[field.target.id] = " ".join(text.value.value.split())
    return found


def table(title: str, kind: type) -> None:
    """A section's keys."""
    words = meanings(kind)
    print(f"\n## {title}\n\n{inspect.getdoc(kind)}\n\n| key | default | meaning |\n|---|---|---|")
    for field in dataclasses.fields(kind):
        if not dataclasses.is_dataclass(field.default_factory):
            meaning = words.get(field.name, "").replace("|", "\\|")
            print(f"| `{field.name}` | `{field.default}` | {meaning} |")


print("# Settings\n\nFor everyone who changes how a command works: every key, its default and what it means.")
table("Top level", Config)
for name, section in SECTIONS.items():
    table(f"`{name}`", section)
