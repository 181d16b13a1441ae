"""Writes the page as files that need neither a server nor a network."""

import json
import os
import shutil
import tempfile
from pathlib import Path

from ytvis.files import InputError, make_folder, remove_folder
from ytvis.viewer.content import Content
from ytvis.viewer.server import PAGE_TYPES, page_file


def export_page(content: Content, folder: str | os.PathLike) -> Path:
    """Writes a new folder that shows `content`, pictures included, whole or not at all; returns its index.html.

    A page opened from a file may not read other files, but may run scripts beside it: so its data are scripts.

    Raises:
        InputError: there is something at `folder` already, or it cannot be written.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise InputError(f"{folder}: is there already; delete it, or choose another place")
    try:
        make_folder(folder.parent)
        temporary = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.")
        try:
            _write(content, Path(temporary, "page"))
            Path(temporary, "page").rename(folder)
        finally:
            remove_folder(temporary)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder / "index.html"


def _write(content: Content, folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    for name in PAGE_TYPES:
        (folder / name).write_bytes(page_file(name))
    page = page_file("index.html").decode("utf-8").replace('<html lang="en">', '<html lang="en" data-static>')
    (folder / "index.html").write_text(page, "utf-8")
    _write_script(folder, "index", content.index())
    for place in range(len(content.videos)):
        video = content.video(place)
        _write_script(folder, f"video-{place}", video)
        (folder / "frames" / str(place)).mkdir(parents=True)
        for frame, url in enumerate(video["frames"]):
            picture = content.frame_path(place, frame)
            if url and picture:
                shutil.copyfile(picture, folder / url)


def _write_script(folder: Path, name: str, data: dict) -> None:
    text = json.dumps(data, separators=(",", ":"))  # ASCII only, and so a JavaScript literal
    (folder / "data" / f"{name}.js").write_text(f'receiveData("{name}", {text});\n', "ascii")
