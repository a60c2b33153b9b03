"""Elements of HTML and SVG; what they hold is text, and escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

import numpy as np
from PIL import Image

Element = ElementTree.Element
Child = Element | str


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """An element; `_` in attributes' names stands for `-`, and at their end for nothing (`class_`)."""
    made = Element(tag, {name.rstrip("_").replace("_", "-"): _text(value) for name, value in attributes.items()})
    return extend(made, children)


def extend(parent: Element, children: Iterable[Child]) -> Element:
    """Put children, elements and text, behind what an element holds."""
    for child in children:
        if not isinstance(child, str):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        else:
            parent.text = (parent.text or "") + child
    return parent


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def table(caption: str, columns: Sequence[Child], rows: Iterable[Sequence[Child]], **attributes: object) -> Element:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row names it."""
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [
        element("tr", element("th", first, scope="row"), *(_cell(cell) for cell in cells)) for first, *cells in rows
    ]
    whole = element("table", element("caption", caption), element("thead", head), element("tbody", *body), **attributes)
    return element("div", whole, class_="scroll", tabindex=0)


def _cell(content: Child) -> Element:
    return content if isinstance(content, Element) and content.tag == "td" else element("td", content)


def svg(width: int, height: int, description: str, *children: Child, **attributes: object) -> Element:
    """A picture that takes the width it is given, with a text alternative."""
    return element("svg", *children, viewBox=f"0 0 {width} {height}", role="img", aria_label=description, **attributes)


def figure(picture: Element, caption: str, **attributes: object) -> Element:
    """A picture with what is said of it."""
    return element("figure", picture, element("figcaption", caption), **attributes)


def image(pixels: np.ndarray, description: str, kind: str = "png", **attributes: object) -> Element:
    """An image, uint8 (H, W, 3), that stands in the page itself."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind.upper(), **({"optimize": True} if kind == "png" else {"quality": 80}))
    source = f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
    return element("img", src=source, alt=description, **attributes)


def document(title: str, style: str, *body: Child) -> str:
    """A whole page that asks the network for nothing, and may not."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; img-src data:; style-src 'unsafe-inline'",
        ),
        element("title", title),
        element("style", style),
    )
    page = element("html", head, element("body", element("main", *body)), lang="en")
    return "<!doctype html>\n" + ElementTree.tostring(page, encoding="unicode", method="html") + "\n"
