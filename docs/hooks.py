"""What the site takes from outside docs/: the settings and the measured results; and a check of every page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ["-m", "fercache", "config", "explain", "--markdown"]
"""Arguments of Python that print the settings page."""
ASSET = re.compile(r"<(?:link|script|img|iframe|source|object|embed)\b[^>]*?\s(?:src|href|data)=[\"']?(?:https?:)?//")
"""Something that a browser would load from a network."""


def on_files(files: Files, config: Any) -> Files:  # noqa: ANN401 - MkDocs' own configuration
    """Add the pages that are generated."""
    printed = subprocess.run([sys.executable, *SETTINGS], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    files.append(File.generated(config, "reference/settings.md", content=printed.stdout))
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        files.append(File.generated(config, f"measured/{path.name}", content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401 - what MkDocs passes
    """Pages link to the measured results where they lie in the repository; on the site they are pages of their own."""
    return re.sub(r"\]\(((?:\.\./)*)\.\./benchmarks/results/(\w+\.md)", r"](\1measured/\2", markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:  # noqa: ANN401 - what MkDocs passes
    """PluginError where a page would ask a network for something."""
    if asset := ASSET.search(output):
        raise PluginError(f"{page.file.src_uri}: loads {asset[0]}..., expected nothing from a network")
    return output
