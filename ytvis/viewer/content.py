"""What the page shows, as JSON can hold it: one answer for the whole, and one a video."""

import os
from pathlib import Path
from typing import Any

from ytvis.annotations import frame_path
from ytvis.drawing import track_colour
from ytvis.files import InputError, image_folder
from ytvis.results import read_entries
from ytvis.viewer.matching import Track, link_tracks, match_frames
from ytvis.viewer.reading import (
    PICTURE_TYPES,
    Tracks,
    Video,
    one_video,
    read_predictions,
    read_truth,
)


class Content:
    """The videos of the page, with the tracks of one or two result files and the truth where it is known.

    `index` and `video` give what JSON can hold; `frame_path` finds the pictures. A video is told by its place in
    `videos`, from 0.
    """

    def __init__(
        self,
        results: str | os.PathLike,
        images: str | os.PathLike,
        ann_file: str | os.PathLike | None = None,
        compare: str | os.PathLike | None = None,
    ):
        """Reads the files. Without `ann_file`, `images` holds the frames of one video, in natural order of their names.

        Raises:
            InputError: a file cannot be read or used, or does not belong to the others.
        """
        self.image_root = image_folder(images).resolve()
        found = {
            kind: list(read_entries(path)) for kind, path in (("prediction", results), ("compare", compare)) if path
        }
        truth = None
        self.categories: dict[int, str] = {}
        if ann_file:
            annotations, truth = read_truth(ann_file)  # none where the truth is withheld
            self.videos = tuple(annotations.videos.values())
            self.categories = dict(annotations.categories)
        else:
            self.videos = (one_video(found["prediction"], Path(images), results),)

        videos = {video.video_id: video for video in self.videos}
        self._layers: dict[str, tuple[str, Tracks]] = {}
        for kind, path in (("prediction", results), ("truth", ann_file), ("compare", compare)):
            if kind in found:
                self._layers[kind] = (Path(path).name, read_predictions(found[kind], videos, path))
            elif kind == "truth" and truth is not None:
                self._layers[kind] = (Path(path).name, truth)

    def index(self) -> dict[str, Any]:
        """What is known before a video is opened: layers, class names, and the videos with their number of tracks."""
        _, predictions = self._layers["prediction"]
        return {
            "layers": [{"kind": kind, "file": name} for kind, (name, _) in self._layers.items()],
            "categories": {str(category_id): name for category_id, name in self.categories.items()},
            "videos": [
                {
                    "id": video.video_id,
                    "name": _video_name(video),
                    "length": len(video),
                    "tracks": len(predictions[video.video_id]),
                }
                for video in self.videos
            ],
        }

    def video(self, place: int) -> dict[str, Any]:
        """The frames and tracks of a video, and where they are wrong. IndexError if there is no such video.

        Every track has a `group`: one number, and one of the `colours`, for all that show the same object.
        """
        video = self.videos[place]
        layers = {kind: tracks[video.video_id] for kind, (_, tracks) in self._layers.items()}
        groups, count = _group_tracks(layers, len(video))
        paths = [self.frame_path(place, frame) for frame in range(len(video))]
        return {
            "width": video.width,
            "height": video.height,
            "names": [Path(name).name for name in video.file_names],
            "frames": [path and f"frames/{place}/{frame}{path.suffix.lower()}" for frame, path in enumerate(paths)],
            "colours": ["#{:02x}{:02x}{:02x}".format(*track_colour(group)) for group in range(count)],
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
        name = self.videos[place].file_names[frame]
        try:
            path = frame_path(self.image_root, name).resolve()
            is_inside = path.is_relative_to(self.image_root) and path.is_file()
        except (InputError, OSError, RuntimeError, ValueError):  # too long, links in a circle, a null byte
            return None
        return path if is_inside and path.suffix.lower() in PICTURE_TYPES else None


def _as_dict(track: Track, group: int) -> dict[str, Any]:
    return {
        "group": group,
        "category": track.category_id,
        "score": track.score,
        "crowd": track.is_crowd,
        "shifted": list(track.shifted),
        "scores": list(track.scores),
        "masks": list(track.masks),
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


def _video_name(video: Video) -> str:
    """The folder of the first frame, as people know the video; its id where there is no folder."""
    return Path(video.file_names[0]).parent.name or f"video {video.video_id}"
