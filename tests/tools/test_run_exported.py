"""tools/run_exported.py: videos are tracked without torch as torch tracks them."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from data.config import get_config
from data.dataset import YTVISDataset, read_frames
from data.synthetic import generate
from data.transforms import FrameTransform
from inference.tracker import VideoTracker
from inference.videos import collect_tracks, track_videos
from layers.postprocess import postprocess
from stmask import STMask
from tests.reading import read_results
from tools.export import export
from utils.structures import FrameMeta
from ytvis.masks import decode_mask
from ytvis.pictures import read_picture
from ytvis.results import VideoResultBuilder, write_results

run_exported = pytest.importorskip("tools.run_exported")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = None  # importing them fails
from tools.run_exported import main
sys.exit(main(sys.argv[1:]))
"""
WITHOUT_FUSION = ["temporal_fusion.enabled=False", "quirks.binary_masks_without_fusion=False"]
SETTINGS = {
    "temporal fusion": [],
    "constant velocity": [*WITHOUT_FUSION, "tracking.motion=0.3", "tracking.max_hidden_age=3"],
    "per class": [*WITHOUT_FUSION, "detection.cross_class_nms=False"],
    "memory": ["tracking.memory=3"],
}
SOFT = 1e-5  # the most by which soft masks differ; pixels closer to 0.5 are ties


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The folder of three drawn videos."""
    return generate(tmp_path_factory.mktemp("shapes") / "ShapesVIS", train_videos=0, valid_videos=3, workers=1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """{kind of settings: (the demo model on small frames with padding, the folder of its export)}, when asked for."""
    made = {}

    def make(kind):
        if kind not in made:
            config = get_config("STMask_demo_config", ["input.size_hw=90,160", *SETTINGS[kind]])
            model = STMask.from_pretrained(ROOT / "weights" / "STMask_demo.pth", config, device="cpu")
            folder = tmp_path_factory.mktemp("exported")
            export(model, folder, (96, 160))
            made[kind] = model, folder
        return made[kind]

    return make


def assert_same_results(found, expected):
    """Two results files have the same tracks, but for rounding: of scores, and of a few pixels of all masks."""
    found, expected = read_results(found), read_results(expected)
    assert len(found) == len(expected) > 3
    num_different = 0
    for ours, theirs in zip(found, expected, strict=True):
        masks, others = ours.pop("segmentations"), theirs.pop("segmentations")
        assert abs(ours.pop("score") - theirs.pop("score")) < 1e-5
        assert ours == theirs and len(ours) == 3
        for mask, other in zip(masks, others, strict=True):
            assert (mask is None) == (other is None)
            if mask != other:
                num_different += int((decode_mask(mask) != decode_mask(other)).sum())
    assert num_different <= 4


def test_a_data_set_is_tracked_without_torch_as_with_it(exported, shapes, tmp_path):
    model, folder = exported("temporal fusion")
    places = {"--ann_file": shapes / "annotations" / "valid.json", "--images": shapes / "valid" / "JPEGImages"}
    arguments = [*map(str, chain.from_iterable(places.items())), "--output", str(tmp_path / "found.json")]
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder), *arguments, "--threads=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'found.json'}: 3 videos, " in done.stdout

    dataset = YTVISDataset(*places.values(), model.config.dataset.class_names)
    frames = read_frames(dataset, FrameTransform.from_config(model.config), num_workers=0)
    power = model.config.postprocess.length_power
    videos = collect_tracks(track_videos(model, frames), dataset.videos, dataset.category_ids, length_power=power)
    write_results(chain.from_iterable(tracks for _, tracks, _ in videos), tmp_path / "expected.json")
    assert_same_results(tmp_path / "found.json", tmp_path / "expected.json")


def test_a_folder_is_tracked_as_a_stream(exported, shapes, tmp_path, capsys):
    model, folder = exported("temporal fusion")
    pictures = sorted((shapes / "valid" / "JPEGImages").iterdir())[0]
    output = tmp_path / "found.json"
    arguments = [str(folder), "--video", str(pictures), "--output", str(output), "--threads=1"]
    assert run_exported.main(arguments) == 0
    frames = list(model.stream(pictures))
    assert f"{output}: 1 videos, {len(frames)} frames, " in capsys.readouterr().out
    builder = VideoResultBuilder(1, len(frames), frames[0].frame.shape[:2], range(1, 9))
    for frame in frames:
        builder.add(frame.index, frame.objects)
    write_results(builder.finish(), tmp_path / "expected.json")
    assert_same_results(output, tmp_path / "expected.json")


@pytest.mark.parametrize(
    ("kind", "max_track_age"),
    [
        ("temporal fusion", 2),
        pytest.param("constant velocity", None, marks=pytest.mark.slow),
        pytest.param("per class", 1, marks=pytest.mark.slow),
        pytest.param("memory", None, marks=pytest.mark.slow),
    ],
)
def test_each_frame_has_the_objects_of_the_tracker(exported, shapes, kind, max_track_age):
    model, folder = exported(kind)
    tracker = VideoTracker(model, max_track_age=max_track_age)
    runner = run_exported.OnnxTracker(folder, max_track_age, threads=1)
    transform = FrameTransform.from_config(model.config)
    limits = model.config.postprocess
    num_objects = 0
    for pictures in sorted((shapes / "valid" / "JPEGImages").iterdir())[:2]:
        tracker.reset()
        runner.reset()
        for path in sorted(pictures.iterdir())[::3]:  # large steps: objects are lost and others found
            frame = read_picture(path)
            image, *sizes = transform(frame)
            meta = FrameMeta(1, 0, frame.shape[:2], *sizes)
            tracks = tracker.step(image)
            least, expected, most = (
                postprocess(
                    replace(tracks, masks=tracks.masks + change),
                    meta,
                    limits.score_threshold,
                    limits.top_k,
                    limits.one_sided_clamps,
                )
                for change in (-SOFT, 0, SOFT)
            )
            found = runner.step(frame)
            for name, value in vars(expected).items():
                if name == "scores":
                    np.testing.assert_allclose(found.scores, value, atol=1e-5)
                elif name == "masks":
                    assert found.masks[least.masks.numpy()].all() and most.masks.numpy()[found.masks].all()
                elif name == "boxes_px":
                    assert np.abs(found.boxes_px - value.numpy()).max(initial=0) <= 1  # rounded to whole pixels
                else:
                    assert np.array_equal(getattr(found, name), value), name
            num_objects += len(found.scores)
    assert num_objects > 20


ENTRY = {"network.onnx": {}, "tracker.onnx": {}}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "is not of python -m tools.export"),
        ({"files": {"network.pt2": {}}}, "has no ONNX files; export with --format onnx"),
        ({"files": {"network.onnx": {}}, "tracking": {"joint": True}}, "assigns objects on the host"),
        ({"files": {"network.onnx": {}}, "tracking": {"joint": False}}, "export the checkpoint again"),
        ({"files": {"network.onnx": {}}}, "export the checkpoint again"),
        ({"files": ENTRY, "input": {"whole_pixels": False}}, "needs torch"),
        ({"files": ENTRY, "input": []}, "lacks input.size_hw: an older version exported it"),
    ],
)
def test_an_export_that_cannot_be_run_is_refused_in_one_line(content, problem, tmp_path, capsys):
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert run_exported.main([str(tmp_path), "--video", "in.mp4", "--output", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("part", "key"), [(part, key) for part, keys in run_exported.READ_KEYS.items() for key in keys]
)
def test_an_export_of_an_older_version_that_lacks_a_key_is_refused(part, key, tmp_path, capsys):
    config = get_config("STMask_demo_config")
    content = {"files": ENTRY} | {name: getattr(config, name) for name in run_exported.READ_KEYS}
    content = {name: value if name == "files" else asdict(value) for name, value in content.items()}
    content["tracking"]["stream_max_track_age"] = 60
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert run_exported.read_description(tmp_path) == json.loads(json.dumps(content))
    del content[part][key]
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert run_exported.main([str(tmp_path), "--video", "in.mp4", "--output", str(tmp_path / "out.json")]) == 2
    assert f"model.json: lacks {part}.{key}: an older version exported it" in capsys.readouterr().err


def test_a_damaged_file_and_missing_options_are_named(exported, tmp_path, capsys):
    _, folder = exported("temporal fusion")
    (tmp_path / "model.json").write_bytes((folder / "model.json").read_bytes())
    (tmp_path / "network.onnx").write_bytes(b"no network")
    output = ["--output", str(tmp_path / "out.json")]
    for arguments, problem in (
        ([str(tmp_path), "--video", "in.mp4"], "network.onnx: onnxruntime cannot read it"),
        ([str(folder), "--video", "missing.mp4"], "missing.mp4: not a file"),
        ([str(folder), "--ann_file", "truth.json"], "--ann_file and --images need each other"),
        ([str(tmp_path / "nowhere"), "--video", "in.mp4"], "nowhere"),
    ):
        assert run_exported.main([*arguments, *output]) == 2
        error = capsys.readouterr().err
        assert problem in error and error.count("\n") == 1
