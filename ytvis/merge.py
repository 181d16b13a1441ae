"""Joins data sets: merges annotation files into one, and classes of the same name into one class.

    python -m ytvis merge a.json b.json all.json
    python -m ytvis merge a.json b.json all.json --prefixes a b

Class names are compared without regard to case, spaces, hyphens and underscores. The first file keeps all its ids;
those of the others continue after them. If two files name the same frame, give with --prefixes the folders of their
frames below the common one. COCO files are joined to a COCO file; a COCO file and a YouTube-VIS file to a YouTube-VIS
file, in which an image is a video of one frame.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any

from ytvis.annotations import MAX_ID, AnnotationFile, as_content, kind_of, normalised_name, read_checked, write_content
from ytvis.files import InputError
from ytvis.messages import LONGEST_LINE, excerpt, short_name


def merge_files(paths: Sequence[str | os.PathLike], prefixes: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns the joined content of the annotation files `paths`, at least two.

    `prefixes`, one per file, are put before its file names, as folders. Other content, such as `info`, is that of the
    first file.

    Raises:
        InputError: a file has faults, or they contradict each other: they name the same frame, some have annotations
            and some not, or a file has two classes of one name.
    """
    files = [read_checked(path) for path in paths]
    contents = [content for content, _ in files]
    if len({annotations.is_static for _, annotations in files}) > 1:
        contents = [as_content(content, path) for content, path in zip(contents, paths, strict=True)]
        contents = [{key: value for key, value in content.items() if key != "images"} for content in contents]
    has_truth = [annotations.tracks is not None for _, annotations in files]
    if any(has_truth) and not all(has_truth):
        raise InputError(f"{paths[has_truth.index(False)]}: has no annotations, and {paths[has_truth.index(True)]} has")
    merged = _Merged(contents[0])
    for index, (content, path) in enumerate(zip(contents, paths, strict=True)):
        merged.add(content, files[index][1], path, prefixes[index] if prefixes else "")
    return merged.content


class _Merged:
    """The joined content of several files, which are added one after another."""

    def __init__(self, first: dict[str, Any]):
        """`first` is the content of the first file to be added."""
        self._kind = kind_of(first)
        self.content = {**first, self._kind: [], "categories": []}
        if first.get("annotations") is not None:
            self.content["annotations"] = []
        self._categories: dict[str, int] = {}  # ids by normalised name
        self._frames: dict[str, str | os.PathLike] = {}  # the file that names each

    def add(self, content: dict[str, Any], annotations: AnnotationFile, path: str | os.PathLike, prefix: str) -> None:
        """Adds the content of the file `path`, whose frames are in the folder `prefix`."""
        category_ids = self._add_categories(content, path)
        video_ids = _numbers_after(self.content[self._kind], list(annotations.videos))
        for video in content[self._kind]:
            key, names = (
                ("file_names", video["file_names"]) if "file_names" in video else ("file_name", [video["file_name"]])
            )
            names = [f"{prefix.rstrip('/')}/{name}" if prefix else name for name in names]
            self._claim(names, path)
            changed = names if key == "file_names" else names[0]
            self.content[self._kind].append({**video, "id": video_ids[video["id"]], key: changed})
        if content.get("annotations") is not None:
            self._add_annotations(content["annotations"], video_ids, category_ids)

    def _add_annotations(
        self, entries: list[dict | None], video_ids: dict[int, int], category_ids: dict[int, int]
    ) -> None:
        """Adds annotations with the new ids of their videos and categories."""
        entries = [entry for entry in entries if entry is not None]
        ids = _numbers_after(self.content["annotations"], [entry["id"] for entry in entries])
        key = "video_id" if self._kind == "videos" else "image_id"
        self.content["annotations"] += [
            {
                **entry,
                "id": ids[entry["id"]],
                key: video_ids[entry[key]],
                "category_id": category_ids[entry["category_id"]],
            }
            for entry in entries
        ]

    def _add_categories(self, content: dict[str, Any], path: str | os.PathLike) -> dict[int, int]:
        """The new id of each category of a file; new classes are added."""
        known = dict(self._categories)
        new = [category for category in content["categories"] if normalised_name(category["name"]) not in known]
        numbers = _numbers_after(self.content["categories"], [category["id"] for category in new])
        seen: set[str] = set()
        ids = {}
        for category in content["categories"]:
            name = normalised_name(category["name"])
            if name in seen:
                raise InputError(f"{path}: two categories have the name {category['name']!r}; give each its own")
            seen.add(name)
            if name not in known:
                self._categories[name] = numbers[category["id"]]
                self.content["categories"].append({**category, "id": numbers[category["id"]]})
            ids[category["id"]] = self._categories[name]
        return ids

    def _claim(self, names: Sequence[str], path: str | os.PathLike) -> None:
        """Records that the file `path` names these frames."""
        for name in names:
            other = self._frames.setdefault(name, path)
            if other != path:
                raise InputError(
                    f"{path}: names the frame {name}, and so does {other}; name the folder of each file's frames with "
                    "--prefixes, or leave one of the files out"
                )


def _numbers_after(entries: Sequence[dict], ids: Sequence[int]) -> dict[int, int]:
    """New ids for `ids`: unchanged if `entries` is empty, else continued after those of `entries`."""
    last = max((entry["id"] for entry in entries), default=None)
    if last is None:
        return {old: old for old in ids}
    if last > MAX_ID - len(ids):
        raise InputError(f"the id {last} leaves no numbers after it; name its file last")
    return {old: last + number for number, old in enumerate(ids, start=1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("files", nargs="+", metavar="FILE.json", help="two or more annotation files, and OUT.json")
    parser.add_argument(
        "--prefixes",
        nargs="+",
        type=str,
        metavar="FOLDER",
        help="a folder for each file, put before its file names; '' is none",
    )


def run(options: argparse.Namespace) -> int:
    """Writes the joined file; returns the exit code."""
    *paths, target = options.files
    if len(paths) < 2:
        raise InputError("name two files to join, and the file to write: merge A.json B.json OUT.json")
    if options.prefixes and len(options.prefixes) != len(paths):
        raise InputError(f"--prefixes needs a folder for each of the {len(paths)} files, not {len(options.prefixes)}")
    resolved = [os.path.realpath(path) for path in options.files]
    if len(set(resolved)) < len(resolved):
        raise InputError("the files to join and the file to write must be different")
    content = merge_files(paths, options.prefixes)
    write_content(content, target)
    kind = kind_of(content)
    counts = f"{len(content[kind])} {kind}, {len(content.get('annotations') or ())} annotations"
    names = ", ".join(short_name(category["name"]) for category in content["categories"])
    print(f"{target}: {counts}, classes: {excerpt(names, LONGEST_LINE)}")
    return 0
