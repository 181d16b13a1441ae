"""The input of a report, read once: annotations, predictions, and the folder of the frames."""

import os
from dataclasses import dataclass
from pathlib import Path

from ytvis.annotations import video_name
from ytvis.files import InputError, image_folder
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair


@dataclass(frozen=True)
class ReportInput:
    """`truth` with annotations, `results` of its videos, both in the official interface, and the folder of frames.

    `image_root` is absolute and without links, None without frames. Tracks of categories and videos that the annotation
    file lacks are left out.
    """

    truth: YTVOS
    results: YTVOS
    image_root: Path | None

    @classmethod
    def read(
        cls,
        annotations: Truth,
        results: Results,
        image_root: str | os.PathLike | None,
    ) -> "ReportInput":
        """Reads the files that are not loaded yet.

        Raises:
            InputError: a file cannot be read or used, there are no true objects, or `image_root` is not a folder.
        """
        truth, found = load_pair(annotations, results)
        if not truth.dataset["annotations"]:
            raise InputError(f"{truth.source}: has no annotations to compare with; name a file with the truth")
        folder = None if image_root is None else image_folder(image_root).resolve()
        known = [
            part.with_tracks(
                track
                for track in part.dataset["annotations"]
                if track["category_id"] in truth.cats and track["video_id"] in truth.vids
            )
            for part in (truth, found)
        ]
        return cls(*known, folder)

    @property
    def predictions(self) -> list[dict]:
        return self.results.dataset["annotations"]

    def video_name(self, video_id: int) -> str:
        """The name of the video."""
        return video_name(self.truth.vids[video_id].get("file_names") or [], video_id)
