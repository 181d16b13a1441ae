"""A page with the scores and mistakes of a results file: see docs/report.md.

The flow of the data: `inputs` reads the files → `scores` measures, with `groups` and `mistakes` → `videos` and
`pictures` show the worst → `rendering` and `chart` build the page from the templates in page/.
"""

import json
import os
from pathlib import Path

from ytvis.files import atomic_writes
from ytvis.report.inputs import ReportInput
from ytvis.report.pictures import draw_pictures
from ytvis.report.rendering import markdown_text, page_text
from ytvis.report.scores import measure
from ytvis.report.videos import describe_video
from ytvis.score.tracking import SCORE_THRESHOLD
from ytvis.score.ytvos import Results, Truth

MOST_VIDEOS = 8


def write_report(
    annotations: Truth,
    results: Results,
    folder: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    seed: int = 0,
    score_threshold: float = SCORE_THRESHOLD,
) -> Path:
    """Writes `folder`/report.html and returns its path; metrics.json and metrics.md beside it have the same numbers.

    The page is one file that needs no network. `image_root` is the folder of the frames; without it the worst videos
    are shown as masks on grey. `seed` is that of the intervals: the same input and seed give the same files.
    HOTA, IDF1 and switches use the tracks with a score of at least `score_threshold`.

    Raises:
        InputError: a file cannot be read or used, there are no true objects, or `image_root` is not a folder.
    """
    inputs = ReportInput.read(annotations, results, image_root)
    numbers = measure(inputs, seed, score_threshold)
    videos = [
        describe_video(inputs, entry["id"], entry["quality"], numbers["cut"])
        for entry in numbers["video_qualities"][:MOST_VIDEOS]
        if entry["quality"] < 1
    ]
    pictures = [(video, draw_pictures(inputs, video)) for video in videos]
    texts = {
        "metrics.json": json.dumps(numbers, indent=1) + "\n",
        "metrics.md": markdown_text(numbers),
        "report.html": page_text(numbers, inputs.truth.category_names(), pictures),
    }
    with atomic_writes([Path(folder, name) for name in texts]) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text)
    return Path(folder, "report.html")
