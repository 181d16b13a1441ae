"""Tracks videos with an exported network by onnxruntime, without torch; writes results.json.

    python -m tools.run_exported exported --video in.mp4 --output out.json
    python -m tools.run_exported exported --ann_file annotations/valid.json --images JPEGImages --output results.json

`exported` is a folder of ONNX files by `python -m tools.export`. Frames are read, prepared, reported and written by the
same code as in eval.py.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from data.video import open_source, read_ahead
from ytvis.annotations import Track, frame_path, match_categories, read_annotations
from ytvis.command_line import Parser, not_negative, run_command
from ytvis.files import InputError, image_folder, read_json
from ytvis.optional import import_extra
from ytvis.pictures import read_picture
from ytvis.pixels import FrameMeta, FramePixels, PixelObjects, TrackArrays, to_pixels
from ytvis.results import VideoResultBuilder, write_results

# What is read of a description, by its part.
READ_KEYS = {
    "input": ("size_hw", "mean", "std", "size_divisor", "whole_pixels"),
    "tracking": ("joint", "max_track_age", "stream_max_track_age"),
    "postprocess": ("score_threshold", "top_k", "one_sided_clamps", "length_power"),
}


class OnnxTracker:
    """Follows the objects of one video at a time with the exported networks in `folder`.

    An object that has not been seen for more than `max_track_age` frames is forgotten, by default as the config says;
    with 0 it never is. onnxruntime uses `threads` threads, with 0 as many as there are cores.

    Raises:
        InputError: onnxruntime is not installed, or the folder lacks a file or holds others.
    """

    def __init__(self, folder: Path, max_track_age: int | None = None, threads: int = 0):
        self.description = read_description(folder)
        self._sessions = {
            name.removesuffix(".onnx"): open_session(folder / name, threads)
            for name in self.description["files"]
            if name.startswith(("network.", "temporal.", "tracker."))
        }
        settings = self.description["input"]
        self._pixels = FramePixels(settings["size_hw"], settings["mean"], settings["std"], settings["size_divisor"])
        age = self.description["tracking"]["max_track_age"] if max_track_age is None else max_track_age
        self._max_track_age = np.array(age or np.iinfo(np.int32).max, np.int64)  # of tools.export, too
        self.reset()

    def reset(self) -> None:
        """Forgets the video: the next frame is a first frame."""
        inputs = self.description["files"]["tracker.onnx"]["inputs"]
        self._state = {
            # One row for no objects: an exported network takes no empty arrays.
            name: np.zeros([1 if size == "objects" else size for size in entry["shape"]], entry["dtype"])
            for name, entry in inputs.items()
            if name.startswith("known_") or name in ("num_known", "next_id")
        }
        self._last: dict[str, np.ndarray] = {}  # of the network for the frame before, for the temporal net

    def step(self, frame: np.ndarray) -> PixelObjects:
        """The reported objects of the next `frame` [h,w,3] uint8 RGB."""
        predictions = self._run("network", {"images": self._pixels(frame)[None]})
        values = {**self._state, **predictions, "max_track_age": self._max_track_age}
        if "temporal" in self._sessions:
            values |= self._changes(predictions)
        results = self._run("tracker", values)
        rows, num_reported = max(int(results["new_num_known"]), 1), int(results["num_reported"])
        new = {name: results[f"new_{name}"] for name in self._state}
        self._state = {name: value[:rows] if value.ndim else value for name, value in new.items()}
        self._last = {f"last_{name}": value for name, value in predictions.items()}
        names = [f.name for f in fields(TrackArrays) if f"reported_{f.name}" in results]
        tracks = TrackArrays(**{name: results[f"reported_{name}"][:num_reported] for name in names})
        meta = FrameMeta(0, 0, frame.shape[:2], self._pixels.size_hw, self._pixels.padded_hw)
        limits = self.description["postprocess"]
        return to_pixels(tracks, meta, limits["score_threshold"], limits["top_k"], limits["one_sided_clamps"])

    def _changes(self, predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The temporal net's result for the known objects, by the names that the tracker gives it."""
        boxes, coeffs = self._state["known_boxes"], self._state["known_mask_coeffs"]
        if not self._state["num_known"]:
            return {"changes_box_deltas": np.zeros_like(boxes), "changes_coeffs": np.zeros_like(coeffs)}
        changes = self._run("temporal", {**predictions, **self._last, "boxes": boxes})
        return {"changes_box_deltas": changes["box_deltas"], "changes_coeffs": changes["coeff_changes"]}

    def _run(self, name: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of a network by name; `values` has its inputs, and may have others."""
        session = self._sessions[name]
        results = session.run(None, {port.name: values[port.name] for port in session.get_inputs()})
        return dict(zip((port.name for port in session.get_outputs()), results, strict=True))


def read_description(folder: Path) -> dict[str, Any]:
    """The content of model.json in `folder`.

    Raises:
        InputError: it cannot be read, or the export has no tracker that runs here.
    """
    path = folder / "model.json"
    description = read_json(path)
    if not isinstance(description, dict) or not isinstance(description.get("files"), dict):
        raise InputError(f"{path}: is not of python -m tools.export; export the checkpoint again")
    parts = {name: part if isinstance(part := description.get(name), dict) else {} for name in READ_KEYS}
    files = description["files"]
    if "network.onnx" not in files:
        raise InputError(f"{path}: has no ONNX files; export with --format onnx")
    if "tracker.onnx" not in files:
        reason = "its config assigns objects on the host (tracking.joint)"
        if not parts["tracking"].get("joint"):
            reason = "an older version exported it; export the checkpoint again"
        raise InputError(f"{path}: has no tracker.onnx: {reason}")
    if parts["input"].get("whole_pixels") is False:
        raise InputError(f"{path}: frames are resized in float (input.whole_pixels off), which needs torch")
    for name, keys in READ_KEYS.items():
        if missing := [key for key in keys if key not in parts[name]]:
            raise InputError(
                f"{path}: lacks {name}.{missing[0]}: an older version exported it; export the checkpoint again"
            )
    return description


def open_session(path: Path, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` of an ONNX file, on the CPU.

    Raises:
        InputError: onnxruntime is not installed, or cannot read the file.
    """
    runtime = import_extra("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types, which it does not export
        raise InputError(f"{path}: onnxruntime cannot read it ({error})") from None


def track_video(tracker: OnnxTracker, source_name: str, totals: list[int]) -> Iterator[Track]:
    """The tracks of a video file or a folder of pictures, as video 1; appends the number of its frames to `totals`."""
    source = open_source(source_name)
    category_ids = tracker.description.get("category_ids") or range(1, len(tracker.description["class_names"]) + 1)
    builder, num_frames = None, 0
    tracker.reset()
    with closing(read_ahead(iter(source)) if source.reads_ahead else iter(source)) as items:
        for item in items:
            size_hw = item.frame.shape[:2]
            if builder is None:
                builder = VideoResultBuilder(1, None, size_hw, category_ids)
            elif size_hw != builder.original_hw:
                raise InputError(f"{source.name}: frame {item.index} is of another size than the first")
            builder.add(item.index, tracker.step(item.frame))
            num_frames = item.index + 1
    if builder is None:
        raise InputError(f"{source.name}: has no frames")
    builder.num_frames = num_frames
    totals.append(num_frames)
    yield from builder.finish()


def track_data_set(tracker: OnnxTracker, ann_file: Path, images: Path, totals: list[int]) -> Iterator[Track]:
    """The tracks of all videos of an annotation file, whose frames are in `images`; appends the number of frames of
    each video to `totals`."""
    description = tracker.description
    content = read_annotations(ann_file)
    if content.is_static:
        raise InputError(f"{ann_file}: has images, and this program tracks videos")
    image_root = image_folder(images)
    labels = match_categories(content.categories, description["class_names"], ann_file)
    by_label = {label: category_id for category_id, label in labels.items()}
    category_ids = [by_label.get(label) for label in range(1, len(description["class_names"]) + 1)]
    power = description["postprocess"]["length_power"]
    for video in content.videos.values():
        size_hw = (video.height, video.width)
        builder = VideoResultBuilder(video.video_id, len(video), size_hw, category_ids, length_power=power)
        tracker.reset()
        for index, name in enumerate(video.file_names):
            builder.add(index, tracker.step(read_picture(frame_path(image_root, name), size_hw)))
        totals.append(len(video))
        yield from builder.finish()


def make_parser() -> argparse.ArgumentParser:
    parser = Parser("python -m tools.run_exported", __doc__)
    parser.add_argument("exported", type=Path, metavar="DIR", help="folder of python -m tools.export")
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--video", metavar="IN", help="a video file, or a folder of pictures")
    sources.add_argument("--ann_file", type=Path, metavar="FILE", help="annotation file whose videos are tracked")
    parser.add_argument("--images", type=Path, metavar="DIR", help="with --ann_file: folder of the frames")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="results.json to write")
    parser.add_argument("--threads", type=not_negative, default=0, help="of onnxruntime (default: one for each core)")
    return parser


def run(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    if (options.ann_file is None) != (options.images is None):
        raise InputError("--ann_file and --images need each other")
    begin = time.monotonic()
    totals: list[int] = []
    if options.video is not None:
        max_track_age = read_description(options.exported)["tracking"]["stream_max_track_age"]  # as eval.py --video
        tracker = OnnxTracker(options.exported, max_track_age, options.threads)
        tracks = track_video(tracker, options.video, totals)
    else:
        tracker = OnnxTracker(options.exported, threads=options.threads)
        tracks = track_data_set(tracker, options.ann_file, options.images, totals)
    write_results(tracks, options.output)
    rate = sum(totals) / (time.monotonic() - begin)
    print(f"{options.output}: {len(totals)} videos, {sum(totals)} frames, {rate:.1f} frames per second")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tools.run_exported`; returns the exit code."""
    return run_command("tools.run_exported", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
