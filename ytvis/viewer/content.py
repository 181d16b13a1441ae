"""What the page shows, as JSON can hold it: one answer for the whole, and one per video."""

import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from ytvis.annotations import Track, resolve_frame
from ytvis.drawing import css_colour, track_colour
from ytvis.files import InputError, image_folder, make_folder, remove_folder
from ytvis.results import read_entries, track_numbers
from ytvis.viewer.matching import link_tracks, match_frames
from ytvis.viewer.reading import (
    PICTURE_TYPES,
    Tracks,
    frame_names,
    one_of,
    one_video,
    read_predictions,
    read_truth,
    video_description,
    with_frames,
)
from ytvis.viewer.video_file import extract_frames


class Content:
    """The videos of the page, with the tracks of one or two result files and the truth where it is known.

    `index` and `video` give what JSON can hold; `frame_path` finds the pictures. A video is named by its place in
    `videos`, from 0.
    """

    def __init__(
        self,
        results: str | os.PathLike,
        images: str | os.PathLike,
        ann_file: str | os.PathLike | None = None,
        compare: str | os.PathLike | None = None,
    ):
        """Reads the files. `images` is the folder of the frames, or the file of the one video that the results are of.

        Without `ann_file` it is the file that `eval.py --video` leaves beside the results, `video_description`. Without
        that too the results must be of one video, and the folder holds its frames in the natural order of their names.
        The frames of a file are pictures in a temporary folder as long as this object lives.

        Raises:
            InputError: a file cannot be read or used, or does not belong to the others.
        """
        given = {"prediction": results, "compare": compare}
        found = {kind: list(read_entries(path)) for kind, path in given.items() if path is not None}
        described = video_description(results) if ann_file is None else None
        ann_file = described or ann_file
        annotations, truth = (None, None) if ann_file is None else read_truth(ann_file)
        most = len(one_of(annotations.videos, images, ann_file)) if described and os.path.isfile(images) else None
        names, frame_rate = self._find_frames(images, most)
        self.categories: dict[int, str] = {}
        if annotations is not None:
            self.videos = tuple(annotations.videos.values())
            if described and names is None and not any(self.frame_path(0, n) for n in range(len(self.videos[0]))):
                names = frame_names(self.image_root)  # pictures that were made of the video
            if names is not None:
                self.videos = (with_frames(one_of(annotations.videos, images, ann_file), names, images, ann_file),)
            self.categories = dict(annotations.categories)
        else:
            names = names or frame_names(self.image_root)
            self.videos = (one_video(found["prediction"], self.image_root, names, results),)
        self._frame_rate = frame_rate

        videos = {video.video_id: video for video in self.videos}
        self._layers: dict[str, tuple[str, Tracks]] = {}
        for kind, path in (("prediction", results), ("truth", ann_file), ("compare", compare)):
            if kind in found:
                self._layers[kind] = (Path(path).name, read_predictions(found[kind], videos, path))
            elif kind == "truth" and truth is not None:
                self._layers[kind] = (Path(path).name, truth)

    def _find_frames(self, images: str | os.PathLike, most: int | None) -> tuple[list[str] | None, float | None]:
        """Sets `image_root`; (the names of the frames below it, their rate) for a video file, of at most the first
        `most` frames, and None, None for a folder."""
        if not os.path.isfile(images):
            self.image_root = image_folder(images).resolve()
            return None, None
        self.image_root = Path(tempfile.mkdtemp(prefix="ytvis-view-")).resolve()
        weakref.finalize(self, _remove, self.image_root)
        folder = make_folder(self.image_root / Path(images).stem)
        names, frame_rate = extract_frames(images, folder, most)
        return [f"{folder.name}/{name}" for name in names], frame_rate

    def index(self) -> dict[str, Any]:
        """What is known before a video is opened: layers, names of the classes that tracks have, and the videos."""
        _, predictions = self._layers["prediction"]
        tracks = (track for _, layer in self._layers.values() for own in layer.values() for track in own)
        used = {track.category_id for track in tracks} & self.categories.keys()
        return {
            "layers": [{"kind": kind, "file": name} for kind, (name, _) in self._layers.items()],
            "categories": {str(category_id): self.categories[category_id] for category_id in sorted(used)},
            "videos": [
                {
                    "id": video.video_id,
                    "name": video.name,
                    "length": len(video),
                    "tracks": len(predictions[video.video_id]),
                }
                for video in self.videos
            ],
        }

    def video(self, place: int) -> dict[str, Any]:
        """The frames and tracks of a video, and where they are wrong. IndexError if there is no such video.

        Every track has a `group`: all that show the same object have one, with one of the `numbers` and `colours`. The
        numbers are the track ids of the results, or with `has_ids` false the places in their file.
        """
        video = self.videos[place]
        layers = {kind: tracks[video.video_id] for kind, (_, tracks) in self._layers.items()}
        groups, count = _group_tracks(layers, len(video))
        numbers, has_ids = track_numbers([track.track_id for track in layers["prediction"]])
        first_free = max(numbers, default=-1) + 1
        numbers += range(first_free, first_free + count - len(numbers))
        paths = [self.frame_path(place, frame) for frame in range(len(video))]
        return {
            "width": video.width,
            "height": video.height,
            "frame_rate": video.frame_rate or self._frame_rate,
            "names": [Path(name).name for name in video.file_names],
            "frames": [path and f"frames/{place}/{frame}{path.suffix.lower()}" for frame, path in enumerate(paths)],
            "has_ids": has_ids or not layers["prediction"],
            "numbers": numbers,
            "colours": [css_colour(track_colour(number)) for number in numbers],
            "layers": [
                {
                    "kind": kind,
                    "tracks": [_as_dict(track, group) for track, group in zip(tracks, groups[kind], strict=True)],
                    "matches": None
                    if kind == "truth" or "truth" not in layers
                    else [frame.as_dict() for frame in match_frames(tracks, layers["truth"], len(video))],
                }
                for kind, tracks in layers.items()
            ],
        }

    def frame_path(self, place: int, frame: int) -> Path | None:
        """The picture of a frame; None if it is missing, no picture, or not inside the folder of frames.

        Links are followed before that is decided. IndexError if there is no such video or frame.
        """
        try:
            path = resolve_frame(self.image_root, self.videos[place].file_names[frame])
        except InputError:
            return None
        return path if path.suffix.lower() in PICTURE_TYPES and os.path.isfile(path) else None


def _remove(folder: Path) -> None:
    """Removes the pictures of a video; Python would print an interrupt, which cannot leave a finalizer."""
    with suppress(KeyboardInterrupt):
        remove_folder(folder)


def _as_dict(track: Track, group: int) -> dict[str, Any]:
    return {
        "group": group,
        "category": track.category_id,
        "score": track.score,
        "crowd": track.iscrowd,
        "shifted": [frame for frame, flag in enumerate(track.shifted or ()) if flag],
        "scores": list(track.scores or ()),
        "masks": list(track.segmentations),
    }


def _group_tracks(layers: dict[str, list[Track]], length: int) -> tuple[dict[str, list[int]], int]:
    """The group of each track of each layer, and the number of groups.

    Predicted tracks are groups of their own; those of another layer join the one they share the most frames with.
    """
    count = len(layers["prediction"])
    groups = {"prediction": list(range(count))}
    for kind, tracks in layers.items():
        if kind == "prediction":
            continue
        links = link_tracks(layers["prediction"], tracks, length)
        joined = {other: group for group, other in links.items()}
        groups[kind] = []
        for place in range(len(tracks)):
            if place not in joined:
                joined[place], count = count, count + 1
            groups[kind].append(joined[place])
    return groups, count
