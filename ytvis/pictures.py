"""Picture files → pixels: the one reader of frames and of label pictures, and the listing of a folder of frames.

Rules for frames: pixels are turned upright by the EXIF tag; alpha is dropped; grey, 1-bit, palette and CMYK pictures
become RGB; of 16 bits per channel the high byte is taken. What is cut off, or holds several pictures, is refused.
"""

from __future__ import annotations

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np

from ytvis.files import InputError, list_folder, natural_key, read_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
MAX_PIXELS = 2**27  # a picture that declares more is refused before it is decoded: 134 million, 400 MB

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000")
_JPEG = ("JPEG", "MPO")  # Pillow's names; MPO is a phone's JPEG with further pictures after the first
# EXIF's Orientation → (swap rows and columns, step along the rows, step along the columns), done in this order.
_TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
# Of 16 bits per channel that use the lowest 12 at most, nothing but black would be left.
_LEAST_BRIGHT = 2**12

# In coded data FF stands before 00; any other byte after it but RST0…RST7 begins what is no coded data.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_JPEG_END = b"\xd9"
_PNG_END = b"IEND\xaeB`\x82"  # the type and the check sum of the last chunk, which is empty
_JPEG_ALONE = (b"\x01", b"\xd8")  # markers that no length follows
_JPEG_FILL = 128  # the grey of blocks without data
_STRAY = bytes(range(1, 255))  # no marker; read as coded data it makes a pattern

# Pillow's warnings repeat our messages. The filters that silence them belong to the whole process.
_filters = threading.Lock()


_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT, which older versions do not name


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """In it OpenCV and FFmpeg print nothing about damaged videos and missing cameras: our own message says it."""
    import cv2

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    levels = getattr(cv2.utils, "logging", cv2)  # before OpenCV 4.13 they are at the top
    level = levels.setLogLevel(_SILENT)
    try:
        yield
    finally:
        levels.setLogLevel(level)


class WrongSize(InputError):
    """A picture differs in size from its annotations."""


def read_picture(path: str | os.PathLike, size_hw: tuple[int, int] | None = None) -> np.ndarray:
    """Reads the picture [h,w,3] uint8 RGB in a file, by the rules above; of `size_hw` (height, width) if given.

    Raises:
        InputError: it is missing, is cut off, holds several pictures, or cannot be decoded.
        WrongSize: it is not of `size_hw`; that is seen before anything is decoded.
    """
    content = read_bytes(path)
    with _opened(content, path) as picture:
        is_deep = any(";16" in str(tile[3]) for tile in picture.tile)  # read first: it is lost later
        height, width = _upright_size(picture)
        if size_hw is not None and (height, width) != tuple(size_hw):
            turned = " (turned as its EXIF tag says)" if _turn(picture)[0] else ""
            raise WrongSize(
                f"{path}: the picture is {width}×{height} pixels{turned}, "
                f"the annotation file says {size_hw[1]}×{size_hw[0]}"
            )
        swapped, down, right = _turn(picture)
        pixels = _decode_jpeg(picture, content, path) if picture.format in _JPEG else _decode(picture, is_deep, path)
        if swapped:
            pixels = pixels.transpose(1, 0, 2)
        return np.ascontiguousarray(pixels[::down, ::right])


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """(height, width) in pixels of the picture in a file, upright; only a TIFF has to be decoded for it.

    Raises:
        InputError: it is missing, holds several pictures, is none, or is a JPEG or PNG without its end; what is cut
            out before the end only `read_picture` sees.
    """
    content = read_bytes(path)
    with _opened(content, path) as picture:
        if (picture.format in _JPEG and _jpeg_end(content) is None) or (
            picture.format == "PNG" and _PNG_END not in content
        ):
            raise InputError(f"{path}: cannot be decoded as a picture: its end is missing")
        return _upright_size(picture)


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """The raw numbers [h,w] of a label picture: palette indices or grey values as uint8 (of one bit 0 and 1), 16-bit
    values as uint16.

    Raises:
        InputError: it is missing, is cut off, is a picture of colours, or cannot be decoded.
    """
    return decode_labels(read_bytes(path), path)


def decode_labels(content: bytes, where: str | os.PathLike) -> np.ndarray:
    """As `read_labels`, for a file's content; messages begin with `where`."""
    with _opened(content, where) as picture:
        if picture.mode in ("P", "L"):
            return np.asarray(picture)
        if picture.mode == "1":
            return np.asarray(picture).astype(np.uint8)
        if picture.mode.startswith("I"):
            return _sixteen_bits(picture, where)
        raise InputError(f"{where}: is a picture of colours ({picture.mode}), not of object numbers")


def list_pictures(folder: str | os.PathLike) -> list[str]:
    """The names of the pictures in a folder, in natural order; [] if it has none or does not exist.

    Hidden files are skipped, among them the "._NAME" that macOS leaves beside NAME.

    Raises:
        InputError: the folder cannot be read.
    """
    names = (
        name
        for name in (list_folder(folder) if os.path.isdir(folder) else ())
        if os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES
        and not name.startswith(".")
        and not os.path.isdir(os.path.join(folder, name))
    )
    return sorted(names, key=natural_key)


# ---------------------------------------------------------------------------------------------------- heads


@contextmanager
def _opened(content: bytes, where: str | os.PathLike) -> Iterator[Image]:
    """Opens the picture of a file's content and checks its header; an error in the block becomes an InputError."""
    from PIL import Image

    try:
        with _filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=_FORMATS)
        with picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if getattr(picture, "is_animated", False) and picture.format not in _JPEG:
                raise InputError(
                    f"{where}: holds several pictures, as an animation does; write each to a file of its own, "
                    "or convert it to a video such as mp4"
                )
            yield picture
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{where}: declares more than {MAX_PIXELS // 10**6} million pixels; make it smaller") from None
    except Exception as error:  # Pillow raises whatever its parsers do
        reason = "its end is missing" if "truncated" in str(error) else "it is damaged, or in no known format"
        raise InputError(f"{where}: cannot be decoded as a picture: {reason}") from None


# ---------------------------------------------------------------------------------------------------- pixels


def _upright_size(picture: Image) -> tuple[int, int]:
    """(height, width) after turning."""
    if picture.format == "TIFF":
        picture.load()  # which turns it
    return (picture.width, picture.height) if _turn(picture)[0] else (picture.height, picture.width)


def _turn(picture: Image) -> tuple[bool, int, int]:
    """The entry of `_TURNS` of the EXIF tag; a tag that cannot be read is ignored."""
    from PIL import ExifTags, Image

    exif = Image.Exif()
    if picture.format != "TIFF" and "exif" in picture.info:
        with _filters, warnings.catch_warnings(), suppress(Exception):  # Pillow raises whatever its parsers do
            warnings.simplefilter("ignore")
            exif.load(picture.info["exif"])
    return _TURNS.get(exif.get(ExifTags.Base.Orientation, 1), _TURNS[1])


def _decode_jpeg(picture: Image, content: bytes, path: str | os.PathLike) -> np.ndarray:
    """The pixels [h,w,3] of a JPEG. OpenCV is faster than Pillow, but fills with grey what is cut off."""
    import cv2

    end = _jpeg_end(content)
    if end is None:
        raise InputError(f"{path}: cannot be decoded as a picture: its end is missing")
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise InputError(f"{path}: cannot be decoded as a picture: it is damaged")
    # A picture of one scan that is cut ends in the grey. The others, which are rare, are decoded twice more, coarsely:
    # a progressive one of 1280×720 takes 65 ms instead of 25.
    if (decoded[-1, -1] == _JPEG_FILL).all() or picture.mode == "CMYK" or "progressive" in picture.info:
        as_it_is, with_stray = (_coarse_pixels(content[:end] + stray) for stray in (b"", _STRAY))
        if as_it_is != with_stray:
            raise InputError(f"{path}: cannot be decoded as a picture: data before its end is missing")
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _coarse_pixels(coded: bytes) -> bytes:
    """The pixels of a JPEG that ends with `coded` data, at a quarter of its size.

    libjpeg warns where data ends too early, but neither OpenCV nor Pillow passes that on. Whether it does is seen when
    other bytes follow: they change the picture only if the decoder gets to them.
    """
    from PIL import Image

    with Image.open(io.BytesIO(coded + b"\xff" + _JPEG_END), formats=["JPEG"]) as picture:
        picture.draft(None, (picture.width // 4, picture.height // 4))
        return picture.tobytes()


def _jpeg_end(content: bytes) -> int | None:
    """The place of the end marker after segments and coded data; None if it is missing."""
    place = 0
    while found := _JPEG_MARKER.search(content, place):
        marker, place = found[1], found.end()
        if marker == _JPEG_END:
            return found.start()
        if marker not in _JPEG_ALONE:
            place += int.from_bytes(content[place : place + 2], "big")
    return None


def _decode(picture: Image, is_deep: bool, path: str | os.PathLike) -> np.ndarray:
    """The pixels [h,w,3] of any other picture; of one that `is_deep`, 16 bits per channel, the high bytes."""
    picture.info.pop("transparency", None)  # alpha, about which Pillow would warn
    if picture.mode.startswith("I"):
        values = _sixteen_bits(picture, path)
        brightest = int(values.max(initial=0))
        pixels = np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    elif picture.mode == "F":
        raise InputError(f"{path}: holds floating-point values; write it with 8 bits per channel")
    else:
        pixels = np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
        brightest = 256 * int(pixels.max(initial=0)) if is_deep else _LEAST_BRIGHT
    if 0 < brightest < _LEAST_BRIGHT:
        raise InputError(
            f"{path}: has 16 bits per channel, of which it uses the lowest 12 at most, so that it would be black; "
            "write it with 8 bits per channel"
        )
    return pixels


def _sixteen_bits(picture: Image, where: str | os.PathLike) -> np.ndarray:
    """The values [h,w] uint16 of a grey picture; Pillow's mode for them depends on its version and the format."""
    values = np.asarray(picture)
    if values.size and (values.min() < 0 or values.max() >= 2**16):
        raise InputError(f"{where}: holds values of more than 16 bits; write it with 8 or 16 bits per channel")
    return values.astype(np.uint16)
