"""What a report is made of: the annotations and the predictions, read once."""

import os
from dataclasses import dataclass
from pathlib import Path

from ytvis.files import InputError
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair


@dataclass(frozen=True)
class Material:
    """`truth` with annotations, `results` on its videos, both under the official query interface, and where the frames
    are; `image_root` None if they are not at hand. Tracks of categories and videos that the file lacks are left out."""

    truth: YTVOS
    results: YTVOS
    image_root: Path | None

    @classmethod
    def read(
        cls,
        annotations: Truth,
        results: Results,
        image_root: str | os.PathLike | None,
    ) -> "Material":
        """Reads what is not loaded yet.

        Raises:
            InputError: a file cannot be read or used, there are no true objects, or `image_root` is no folder.
        """
        truth, found = load_pair(annotations, results)
        if not truth.dataset["annotations"]:
            raise InputError(f"{truth.source}: has no annotations to compare with; give a file that holds the truth")
        if image_root is not None and not Path(image_root).is_dir():
            raise InputError(f"{image_root}: no such folder of frames")
        known = [
            part.with_tracks(
                track
                for track in part.dataset["annotations"]
                if track["category_id"] in truth.cats and track["video_id"] in truth.vids
            )
            for part in (truth, found)
        ]
        return cls(*known, None if image_root is None else Path(image_root).resolve())

    @property
    def predictions(self) -> list[dict]:
        return self.results.dataset["annotations"]

    def video_name(self, video_id: int) -> str:
        """The folder of the video's frames, which is what people call it by; its id where there is none."""
        names = self.truth.vids[video_id].get("file_names") or [""]
        return os.path.dirname(str(names[0])) or f"video {video_id}"
