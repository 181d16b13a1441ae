"""The frames of a video file as pictures, which is what a page can show one by one."""

import math
import os
from pathlib import Path

import cv2

from ytvis.files import InputError
from ytvis.pictures import quiet_opencv

JPEG_QUALITY = 92


def extract_frames(path: str | os.PathLike, folder: Path, most: int | None = None) -> tuple[list[str], float | None]:
    """Writes the frames of a video file, at most the first `most`, into the empty `folder`, upright as players show
    them; returns their names, and the frames per second, None if the file does not say.

    A file that is damaged gives the frames before the damage.

    Raises:
        InputError: it cannot be read as a video, or the folder cannot be written.
    """
    names = []
    with quiet_opencv():
        capture = cv2.VideoCapture(os.fspath(path), cv2.CAP_FFMPEG)
        rate = capture.get(cv2.CAP_PROP_FPS)
        while len(names) != most and (found := capture.read())[0]:
            _, encoded = cv2.imencode(".jpg", found[1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            names.append(f"{len(names):06d}.jpg")
            try:
                (folder / names[-1]).write_bytes(encoded)
            except OSError as error:
                raise InputError(f"{folder}: cannot be written: {error.strerror}; name another with TMPDIR") from None
        capture.release()
    if not names:
        raise InputError(f"{path}: cannot be read as a video; name a video file, or a folder of frames")
    return names, rate if rate > 0 and math.isfinite(rate) else None
