"""Keeps the objects of a stream's frames on disk while it runs, and writes results.json of a run that was killed.

python -m inference.frame_journal out.json.partial         # writes out.json, and removes the journal
"""

import json
import logging
import os
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

from inference.object_rows import ObjectRow, frame_file_name
from ytvis.annotations import Track, write_content
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError, open_input, put_aside
from ytvis.journal import Journal, json_line, parse_line
from ytvis.results import majority_label, track_result, write_results

logger = logging.getLogger(__name__)

ENDING = ".partial"  # after the name of the results file that a journal is for
MAX_FRAMES = 2**24  # in a journal: six days at 30 frames a second; results have an entry for each

_ROW_KEYS = tuple(f.name for f in fields(ObjectRow))


class FrameJournal(Journal):
    """The rows of frame after frame, a line each, and after those of a frame a line that counts the frames.

    A row has the place of the row before it of its track, so that only the place of a track's last row is kept in
    memory. Lines outlive the process, but `append` does not wait until they are on disk. With `details: true` in the
    header the results have details. `video` and `categories` in it, as in an annotation file, say which video the rows
    are of; `file_names` may be null, for frames without names. The categories are in the order of the labels.
    """

    def __init__(self, path: Path, header: Mapping[str, Any]):
        super().__init__(path, header)
        self.num_frames = 0
        self._last_places: dict[int, int] = {}  # by track, in the order of first appearance

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any]) -> Self:
        """Returns a new, empty journal; an existing one is kept under another name."""
        _keep_other_run(Path(path))
        return super().create(path, header)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Opens the journal of a run that has ended, with any header.

        Raises:
            InputError: it is not found, or is damaged before its last line.
        """
        with open_input(path) as file:
            header = parse_line(file.readline())
        if header is None or "rows_of" not in header:
            raise InputError(f"{path}: not the journal of a tracked video")
        return cls.resume(path, header)

    def append(self, rows: Iterable[ObjectRow], num_frames: int) -> None:
        """Appends the rows of the next frame, the last of `num_frames` so far."""
        text, places = bytearray(), {}
        for row in rows:
            places[row.track_id] = self._end + len(text)
            line = {key: getattr(row, key) for key in _ROW_KEYS}
            text += json_line({**line, "before": self._last_places.get(row.track_id)})
        text += json_line({"num_frames": num_frames})
        self._append(bytes(text), durable=False)
        self._last_places |= places
        self.num_frames = num_frames

    @property
    def track_ids(self) -> list[int]:
        """The rows of all tracks, in the order of first appearance."""
        return list(self._last_places)

    def rows(self) -> Iterator[ObjectRow]:
        """All rows, in the order they were appended."""
        with open(self.path, "rb") as file:
            next(file)
            for line in file:
                content = json.loads(line)
                if "before" in content:
                    yield _row(content)

    def results(self, num_frames: int | None = None) -> Iterator[Track]:
        """The entries of results.json for a video of `num_frames` (default: those appended), in the order in which
        tracks first appear; see `ytvis.results.track_result`. One track is in memory at a time."""
        num_frames = self.num_frames if num_frames is None else num_frames
        details = self.header.get("details", False)
        categories = {label: entry["id"] for label, entry in enumerate(self.header.get("categories", ()), start=1)}
        for place in self._last_places.values():
            rows = [_row(line) for line in self._lines(self._places_of_track(place))]
            label = majority_label(rows)
            yield track_result(rows, num_frames, 1, details, category_id=categories.get(label, label))

    def write_description(self, results_path: Path, num_frames: int | None = None) -> Path | None:
        """Writes beside the results which video they are of, NAME_video.json: an annotation file without annotations,
        from which the viewer has the classes, and the names and the rate of the frames.

        Returns its path, None for a journal that does not know, of an earlier version.
        """
        if "video" not in self.header:
            return None
        length = self.num_frames if num_frames is None else num_frames
        video = dict(self.header["video"])
        names = video.pop("file_names") or map(frame_file_name, range(length))
        video |= {"length": length, "file_names": list(names)[:length]}
        path = results_path.with_name(f"{results_path.stem}_video.json")
        write_content({"videos": [video], "categories": self.header["categories"]}, path)
        return path

    def _places_of_track(self, place: int | None) -> Iterator[int]:
        """The places of a track's rows, the last of which is at `place`, by rising frame."""
        places = array("q")
        while place is not None:
            places.append(place)
            (line,) = self._lines([place])
            place = line["before"]
        return reversed(places)

    def _take(self, content: dict) -> bool:
        if "before" in content:
            is_usable = _is_row(content) and content["frame"] < MAX_FRAMES
            if not is_usable or content["before"] != self._last_places.get(content["track_id"]):
                return False
            self._last_places[content["track_id"]] = self._end
            self.num_frames = max(self.num_frames, content["frame"] + 1)
            return True
        num_frames = content.get("num_frames")
        if type(num_frames) is not int or not self.num_frames <= num_frames <= MAX_FRAMES:
            return False
        self.num_frames = num_frames
        return True


def _is_row(line: dict) -> bool:
    """Whether a line has the values for `_row` and results, with the right types; `shifted` may be missing."""
    for column in fields(ObjectRow):
        value = line.get(column.name, column.default)
        if type(value) is not column.type and not (column.type is float and type(value) is int):
            return False
    return line["frame"] >= 0


def _row(line: dict) -> ObjectRow:
    return ObjectRow(**{key: line[key] for key in _ROW_KEYS if key in line})


def _keep_other_run(path: Path) -> None:
    """Renames the journal of another run, if it exists, so that its results can still be written."""
    if os.path.isfile(path):
        kept = put_aside(path, ENDING)
        logger.warning("%s is of another run; python -m inference.frame_journal %s writes its results", path, kept)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m inference.frame_journal`: writes the results of a killed run; returns the exit code."""
    parser = Parser("python -m inference.frame_journal", __doc__)
    parser.add_argument("journal", type=Path, help=f"journal of eval.py --video, a file that ends with .json{ENDING}")
    options = parser.parse_args(arguments)
    return run_command("inference.frame_journal", lambda: finish(options.journal))


def finish(path: Path) -> None:
    """Writes the results of the journal at `path`, and removes it.

    Raises:
        InputError: it is not such a journal, or the results cannot be written.
    """
    target = path.with_name(path.name.removesuffix(ENDING))
    if target == path:
        raise InputError(f"{path}: must end with {ENDING}")
    journal = FrameJournal.open(path)
    write_results(journal.results(), target)
    journal.write_description(target)
    journal.remove()
    print(f"{journal.num_frames} frames: {target}")


if __name__ == "__main__":
    sys.exit(main())
