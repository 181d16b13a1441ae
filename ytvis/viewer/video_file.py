"""The frames of a video file as pictures, which is what a page can show one by one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

from ytvis.files import InputError

JPEG_QUALITY = 92
_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT, which older versions do not name


def extract_frames(path: str | os.PathLike, folder: Path) -> list[str]:
    """Writes every frame of a video file into the empty `folder`, upright as players show them; returns their names.

    A file that is damaged gives the frames before the damage.

    Raises:
        InputError: it cannot be read as a video, or the folder cannot be written.
    """
    names = []
    with _quiet():
        capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG)
        while (found := capture.read())[0]:
            _, encoded = cv2.imencode(".jpg", found[1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            names.append(f"{len(names):06d}.jpg")
            try:
                (folder / names[-1]).write_bytes(encoded)
            except OSError as error:
                raise InputError(f"{folder}: cannot be written: {error.strerror}; name another with TMPDIR") from None
        capture.release()
    if not names:
        raise InputError(f"{path}: cannot be read as a video; name a video file, or a folder of frames")
    return names


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV and FFmpeg print nothing about damaged files: our own message says it."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    levels = getattr(cv2.utils, "logging", cv2)  # before OpenCV 4.13 they are at the top
    level = levels.setLogLevel(_SILENT)
    try:
        yield
    finally:
        levels.setLogLevel(level)
