"""Filling in the templates of this room: every value is escaped, and no page refers to anything outside itself."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from fercache.report import colours
from fercache.results.wording import about_intervals, counts, span

LINE_PX = 15
"""Height of a line of text in a chart."""


def render(template: str, **values: object) -> Markup:
    """Fill in `templates/<template>`; floats that it prints without a filter are rounded to .01, enough for pixels."""
    return Markup(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fercache.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: f"{value:.2f}" if isinstance(value, float) else value,
    )
    environment.globals.update(colours=colours, line_px=LINE_PX, zip=zip)
    environment.globals.update(about_intervals=about_intervals, counts=counts, span=span)
    environment.tests["finite"] = math.isfinite
    environment.filters.update(
        score="{:.4f}".format, share="{:.0%}".format, png=png, jpeg=jpeg, polyline=polyline, wrapped=wrapped
    )
    return environment


def png(pixels: np.ndarray) -> str:
    """An image, uint8 (H, W, 3), as a data URI."""
    return _data_uri(pixels, "png", optimize=True)


def jpeg(pixels: np.ndarray) -> str:
    """A photograph, uint8 (H, W, 3), as a data URI."""
    return _data_uri(pixels, "jpeg", quality=80)


def _data_uri(pixels: np.ndarray, kind: str, **options: object) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def polyline(points: np.ndarray) -> str:
    """Points (N, 2) as SVG's attribute `points` takes them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` letters."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [text]
