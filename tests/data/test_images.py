"""Image files of all kinds: what they mean, and what is refused by name."""

from __future__ import annotations

import io
import logging
import os
import socket

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from fercache.data.frames import decode, list_frames
from fercache.data.images import MOST_PIXELS, ORIENTATION, ImageSurvey, read_image
from fercache.data.loader import FrameLoader
from fercache.errors import DataError

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 112 112\n%%EndComments\nshowpage\n%%EOF\n"


def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(wide).save(tmp_path / "1.png")
    pixels = decode(str(tmp_path / "1.png"))
    assert pixels.shape == (256, 256, 3) and (pixels[..., 0] == pixels[..., 2]).all()
    assert np.array_equal(pixels[..., 1], np.rint(wide / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_modes_of_8_bits_mean_the_same_as_in_colour(tmp_path, mode):
    colour = Image.fromarray(np.full((9, 7, 3), 255 if mode == "1" else 90, np.uint8))
    colour.convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "1.png")
    assert (decode(str(tmp_path / "1.png")) == np.asarray(colour)).all()


def test_cmyk_becomes_colour(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "1.jpg", quality=100)
    assert np.abs(decode(str(tmp_path / "1.jpg")).mean(axis=(0, 1)) - (0, 255, 255)).max() < 3


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "PNG", "JPEG"])
def test_frames_in_each_format_whatever_the_name(tmp_path, kind):
    Image.new("RGB", (8, 8), (10, 200, 30)).save(tmp_path / "1.jpg", kind, quality=100)
    assert np.abs(decode(str(tmp_path / "1.jpg")).mean(axis=(0, 1)) - (10, 200, 30)).max() < 4
    for name in ("2.bmp", "3.webp"):
        (tmp_path / name).touch()
    assert list_frames(tmp_path).frame.tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["1.jpg", "1.png"])
def test_no_other_decoder_is_called(tmp_path, monkeypatch, name):
    """Pillow hands PostScript to Ghostscript, which is a program."""
    called = tmp_path / "called"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {called}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / name).write_bytes(POSTSCRIPT)
    with pytest.raises(DataError, match=rf"{name}: is not an image in JPEG, PNG, BMP or WebP"):
        decode(str(tmp_path / name))
    assert not called.exists()


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PPM", "ICNS", "TGA"])
def test_other_formats_are_refused(tmp_path, kind):
    Image.new("RGB", (16, 16)).save(tmp_path / "1.jpg", kind)
    with pytest.raises(DataError, match=r"1\.jpg: is not an image in"):
        decode(str(tmp_path / "1.jpg"))


def test_more_pixels_than_a_frame_has_are_refused_before_they_are_decoded(tmp_path):
    side = int(MOST_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=f"has {side} x {side} pixels, the limit is {MOST_PIXELS}"):
        decode(str(tmp_path / "1.png"))


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to("/dev/zero")
    (tmp_path / "3.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "4.jpg"))
        for number, kind in ((1, "a named pipe"), (2, "a device"), (3, "a folder"), (4, "a socket")):
            with pytest.raises(DataError, match=f"{number}.jpg: cannot be read: is {kind}, expected a regular file"):
                decode(str(tmp_path / f"{number}.jpg"))
        frames = list_frames(tmp_path)
        assert [frames.digest(row) for row in range(4)] == [""] * 4
    (tmp_path / "5.jpg").symlink_to(tmp_path / "real.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "real.jpg")
    assert decode(str(tmp_path / "5.jpg")).shape == (8, 8, 3)


def test_any_exception_of_a_decoder_is_a_frame_that_cannot_be_decoded(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "1.jpg")

    def fail(*_):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", fail)
    with pytest.raises(DataError, match=r"1\.jpg: is not a whole image: by zero"):
        decode(str(tmp_path / "1.jpg"))


def quadrants(size=16) -> np.ndarray:
    """Upper left white, upper right grey, the rest black."""
    pixels = np.zeros((size, 2 * size, 3), np.uint8)
    pixels[: size // 2, :size], pixels[: size // 2, size:] = 255, 128
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_undone(tmp_path, orientation):
    upright = quadrants()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / "1.png", exif=exif)
    image = read_image(str(tmp_path / "1.png"))
    assert np.array_equal(image.pixels, upright) and image.reoriented == (orientation != 1)


def test_a_damaged_colour_profile_or_exif_is_no_reason_to_fail(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(
        tmp_path / "1.jpg", icc_profile=profile[:50], exif=b"Exif\0\0MM\0*\0\0\0\xff"
    )
    assert (decode(str(tmp_path / "1.jpg")) == 9).all()


def test_every_cut_and_changed_byte_of_a_file_is_an_image_or_a_sentence(tmp_path):
    random = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "BMP", "WEBP"):
        whole = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8)).save(whole, kind)
        for _ in range(60):
            data = bytearray(whole.getvalue())
            data[random.integers(len(data))] ^= 1 << random.integers(8)
            path = tmp_path / "1.jpg"
            path.write_bytes(data[: random.integers(1, len(data) + 1)])
            try:
                assert decode(str(path)).dtype == np.uint8
            except DataError as error:
                assert str(error).startswith(f"{path}: ")


def test_sizes_and_orientations_of_a_video_are_counted_and_reported_once(tmp_path, caplog):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for number, size in enumerate([(20, 30), (20, 30), (40, 30)], start=1):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / f"mixed/{number}.jpg", exif=exif if number == 3 else b"")
    (tmp_path / "even").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "even/1.jpg")
    paths = [str(tmp_path / name) for name in ("mixed/1.jpg", "mixed/2.jpg", "mixed/3.jpg", "even/1.jpg")]
    survey = ImageSurvey(paths)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            list(FrameLoader(paths, [[0, 3], [1, 2]], 0, survey=survey))
    # The orientation is a quarter turn: 40 x 30 is stored, 30 x 40 is seen.
    assert caplog.messages == [
        f"frames of different sizes, in 1 folders:\n{tmp_path}/mixed: 20 x 30 (2), 30 x 40 (1)",
        f"frames rotated or mirrored as their EXIF orientation says, in 1 folders:\n{tmp_path}/mixed: 1",
    ]
