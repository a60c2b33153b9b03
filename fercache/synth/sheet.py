"""A contact sheet: what the expressions look like on different people."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

from fercache.files import replacing
from fercache.synth.face import Face
from fercache.synth.person import Person, sample_person
from fercache.synth.settings import SynthSettings, plan_videos, seed_of
from fercache.synth.shapes import WIDTH
from fercache.synth.transitions import PAIRS
from fercache.synth.units import PROTOTYPES, unit_vector

_CAPTION_PX = 14


def contact_sheet(path: Path, settings: SynthSettings, people: int = 6) -> Path:
    """Write a PNG with one row a person and one column an expression (a pair, in "transitions") at its peak.

    The people are the first of the training split, or of the next split that has any.
    """
    side = settings.image_size
    columns = _columns(settings)
    rows = _first_people(settings, people)
    sheet = Image.new("RGB", (side * len(columns), _CAPTION_PX + side * len(rows)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        draw.text((column * side + 4, 1), name, fill=(235, 235, 235))
    for row, person in enumerate(rows):
        face = Face(person)
        for column, variants in enumerate(columns.values()):
            image, mask = face.draw(unit_vector(variants[row % len(variants)]), (0.0, 0.0), 0.0)
            picture = Image.new("RGB", image.size, person.background[0])
            picture.paste(image, (0, 0), mask)
            picture = picture.crop((0, 0, WIDTH, WIDTH)).resize((side, side), Image.Resampling.BOX)
            sheet.paste(picture, (column * side, _CAPTION_PX + row * side))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


def _columns(settings: SynthSettings) -> dict[str, tuple[dict[str, float], ...]]:
    """Captions and, for each, the intensities that its rows go through in turn."""
    if settings.setting == "transitions":
        return {"Neutral": ({},), **{f"{rise[:5]}>{fall[:6]}": (units,) for rise, fall, units in PAIRS.values()}}
    return PROTOTYPES


def _first_people(settings: SynthSettings, most: int) -> list[Person]:
    people = dict.fromkeys((video.split, video.person, video.side) for video in plan_videos(settings))
    return [sample_person(seed_of(settings, "person", *person)) for person in list(people)[:most]]
