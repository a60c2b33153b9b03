"""Image files: the only place that decodes one. Nothing in a file is executed, whatever its name says.

Legend: H x W pixels.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fercache.errors import DataError
from fercache.files import open_regular

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
"""Decoders that are tried. Pillow has many more, and that of PostScript calls a program."""
MOST_PIXELS = 40_000_000
"""More than a frame of 8K video has (7680 x 4320)."""
EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
"""Modes of Pillow that convert to RGB by their meaning; transparency is dropped."""
SIXTEEN_BIT_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}
"""Grey from 0 to 65535."""
EXIF_KEYS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
"""Of `Image.info`, in which an orientation can be; to parse EXIF where there is none takes a tenth of the decoding."""
ORIENTATION = 0x0112
"""Tag of EXIF: 1 is upright, 2 to 8 are mirrored or rotated."""
MOST_FOLDERS = 10
"""That a warning names."""


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image."""

    pixels: np.ndarray
    """uint8 (H, W, 3), RGB, 0-255."""
    reoriented: bool
    """Whether EXIF says that the stored pixels are mirrored or rotated, which was undone."""


def read_image(path: str) -> DecodedImage:
    """Decode a JPEG, PNG, BMP or WebP file; DataError naming the file where it is no whole image of these.

    16-bit grey is scaled to 8 bits, alpha is dropped, and the orientation that EXIF gives is applied. Any failure of
    a decoder is a DataError, so that one file of a million cannot end a run.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(f"{path}: has {image.width} x {image.height} pixels, the limit is {MOST_PIXELS}")
                image.load()
                reoriented = _is_reoriented(image)
                upright = ImageOps.exif_transpose(image) if reoriented else image
                return DecodedImage(_as_rgb(path, upright), reoriented)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        kind = "is empty" if size == 0 else "is not an image in JPEG, PNG, BMP or WebP"
        raise DataError(f"{path}: {kind} ({size} bytes)") from error
    except OSError as error:
        if error.errno:  # the system's, not a decoder's
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        raise DataError(f"{path}: is not a whole image: {error}") from error
    except Exception as error:
        raise DataError(f"{path}: is not a whole image: {error or type(error).__name__}") from error


def _is_reoriented(image: Image.Image) -> bool:
    return not EXIF_KEYS.isdisjoint(image.info) and image.getexif().get(ORIENTATION, 1) in range(2, 9)


def _as_rgb(path: str, image: Image.Image) -> np.ndarray:
    """Uint8 (H, W, 3), contiguous."""
    if image.mode in EIGHT_BIT_MODES:
        return np.array(image.convert("RGB"))
    # Older versions of Pillow give 16-bit PNG as 32-bit integers.
    if image.mode in SIXTEEN_BIT_MODES or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    raise DataError(f"{path}: has pixels of mode {image.mode}, expected 8-bit colour or 8- or 16-bit grey")


class ImageSurvey:
    """What is unusual about the images of each folder: several sizes, orientations to be undone; reported once."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._counted = np.zeros(len(paths), bool)
        self._sizes: defaultdict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
        """Folder -> how many images there are of each width and height."""
        self._reoriented: Counter[str] = Counter()
        self._reported = False

    def add(self, index: int, width: int, height: int, reoriented: bool) -> None:
        """Count an image, by its index in the paths; it is counted once."""
        if self._counted[index]:
            return
        self._counted[index] = True
        folder = os.path.dirname(self._paths[index])
        self._sizes[folder][width, height] += 1
        self._reoriented[folder] += reoriented

    def report(self) -> None:
        """Log what was seen, the first time that there is something."""
        mixed = {folder: sizes for folder, sizes in self._sizes.items() if len(sizes) > 1}
        turned = {folder: count for folder, count in self._reoriented.items() if count}
        if self._reported or not (mixed or turned):
            return
        self._reported = True
        _warn("frames of different sizes", {folder: _listed(sizes) for folder, sizes in mixed.items()})
        _warn(
            "frames rotated or mirrored as their EXIF orientation says",
            {folder: str(count) for folder, count in turned.items()},
        )


def _listed(sizes: Counter[tuple[int, int]]) -> str:
    return ", ".join(f"{width} x {height} ({count})" for (width, height), count in sizes.most_common())


def _warn(what: str, folders: Mapping[str, str]) -> None:
    if folders:
        lines = _shortened([f"{folder}: {words}" for folder, words in folders.items()])
        log.warning("%s, in %d folders:\n%s", what, len(folders), lines)


def _shortened(lines: Sequence[str]) -> str:
    rest = [f"... and {len(lines) - MOST_FOLDERS} more"] if len(lines) > MOST_FOLDERS else []
    return "\n".join([*lines[:MOST_FOLDERS], *rest])
