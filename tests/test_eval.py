"""eval.py on a data set, run by its command line: results.json, resuming, scores."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

import eval as command
from data.config import get_config
from stmask import STMask
from tests.reading import read_results
from tools.parity import REFERENCE, compare_results, load_model
from utils.checkpoint import save_state_dict
from ytvis.results import write_results
from ytvis.score.ap import evaluate_results

ROOT = Path(__file__).parent.parent
SMALL_INPUT = ["--set", "input.size_hw=60,90", "--device", "cpu", "--num_workers", "0"]
LENGTHS = {7: 3, 2: 1, 9: 4, 4: 2, 5: 3, 30: 3, 31: 3, 32: 3}  # video id → frames; the ids are not in order


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A demo model with random weights, but a centerness with which it finds objects."""
    torch.manual_seed(0)
    state = STMask.from_config(get_config("STMask_demo_config")).state_dict()
    for key, value in state.items():
        if "centerness_layer" in key and key.endswith("bias"):
            value += 1
    path = tmp_path_factory.mktemp("weights") / "STMask_demo_1_10.pth"
    save_state_dict(state, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set of eight small videos in two sizes, with category ids that are not 1…8."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    names = get_config("STMask_demo_config").dataset.class_names
    videos = []
    for video_id, length in LENGTHS.items():
        height, width = (48, 64) if video_id % 2 else (45, 80)
        files = [f"clip{video_id}/{frame:05d}.png" for frame in range(length)]
        videos.append({"id": video_id, "width": width, "height": height, "length": length, "file_names": files})
        picture = rng.integers(0, 256, (height, width, 3), np.uint8)
        for frame, name in enumerate(files):
            (root / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "frames" / name), np.roll(picture, 2 * frame, axis=1))
    categories = [{"id": 10 * (label + 1), "name": name} for label, name in enumerate(names)]
    (root / "valid.json").write_text(json.dumps({"videos": videos, "categories": categories}))
    return root


def arguments(checkpoint, data, out, *more):
    return [
        f"--trained_model={checkpoint}",
        f"--ann_file={data / 'valid.json'}",
        f"--image_root={data / 'frames'}",
        f"--mask_det_file={out}",
        *SMALL_INPUT,
        *more,
    ]


def share_of_frames(entry):
    """Of its video, that show the track."""
    return np.mean([rle is not None for rle in entry["segmentations"]])


@pytest.fixture(scope="module")
def whole_run(checkpoint, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "results.json"
    assert command.main(arguments(checkpoint, data, out)) == 0
    return out


# ------------------------------------------------------------------------------------------------ faithful


def test_the_recorded_data_set_last_frame_included(tmp_path, capsys):
    recorded = REFERENCE / "dataset_eval"
    path = tmp_path / "STMask_r50_FCA+TF.pth"
    save_state_dict(load_model("STMask_plus_resnet50").state_dict(), path)
    out = tmp_path / "results.json"
    code = command.main(
        [
            f"--trained_model={path}",
            f"--mask_det_file={out}",
            f"--ann_file={recorded / 'instances.json'}",
            f"--image_root={recorded / 'JPEGImages'}",
            "--set=input.size_hw=90,160",
            "--device=cpu",
        ]
    )
    assert code == 0
    pixels, score = compare_results(read_results(out), json.loads((recorded / "results_all_frames.json").read_text()))
    assert max(pixels) <= 2 and score < 2e-4
    # The published results lack the last frame of the data set.
    original = json.loads((recorded / "results_original.json").read_text())
    assert {len(entry["segmentations"]) for entry in original if entry["video_id"] == 8} == {2}
    last = [entry["segmentations"][2] for entry in read_results(out) if entry["video_id"] == 8]
    assert any(last)
    printed = capsys.readouterr().out
    assert "2 videos, 8 frames, 51 tracks" in printed
    assert "AP50" in printed  # the set is annotated, so the run ends with its scores


# ------------------------------------------------------------------------------------------------ results.json


def test_results_are_in_the_official_format(whole_run):
    results = read_results(whole_run)
    assert list(dict.fromkeys(entry["video_id"] for entry in results)) == list(LENGTHS)  # the file's order
    for entry in results:
        assert entry["category_id"] in range(10, 90, 10)
        assert 0.05 / LENGTHS[entry["video_id"]] ** 0.5 < entry["score"] <= 1
        assert len(entry["segmentations"]) == LENGTHS[entry["video_id"]]
        size = [48, 64] if entry["video_id"] % 2 else [45, 80]
        assert all(rle is None or (rle["size"] == size and isinstance(rle["counts"], str))
                   for rle in entry["segmentations"])  # fmt: skip
        assert any(entry["segmentations"])
    assert not whole_run.with_name("results.json.partial").exists()


def test_a_killed_run_goes_on_to_the_identical_file(checkpoint, data, whole_run, tmp_path):
    out = tmp_path / "results.json"
    partial = tmp_path / "results.json.partial"
    line = [sys.executable, str(ROOT / "eval.py"), *arguments(checkpoint, data, out)]
    # Sums depend on the number of threads in their last bits: the killed run has as many as this process.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(line, env={**os.environ, **threads}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") >= 3:  # the header and two videos
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    done = partial.read_bytes().count(b"\n") - 1
    assert 2 <= done < len(LENGTHS)

    assert command.main(arguments(checkpoint, data, out)) == 2  # an unfinished run is not overwritten
    assert command.main(arguments(checkpoint, data, out, "--resume", "--top_k=3")) == 2  # other settings
    assert command.main(arguments(checkpoint, data, out, "--resume")) == 0
    assert out.read_bytes() == whole_run.read_bytes()
    assert not partial.exists()


def test_details_are_added_to_the_same_results(checkpoint, data, whole_run, tmp_path):
    out = tmp_path / "results.json"
    assert command.main(arguments(checkpoint, data, out, "--save_details")) == 0
    results = read_results(out)
    flags = []
    for entry in results:
        scores, shifted = entry.pop("scores"), entry.pop("shifted")
        assert [score is not None for score in scores] == [rle is not None for rle in entry["segmentations"]]
        seen = [score for score in scores if score is not None]
        assert np.mean(seen) * share_of_frames(entry) ** 0.5 == pytest.approx(entry["score"], abs=1e-4)
        assert all(score == round(score, 4) for score in seen)
        assert [is_shifted for is_shifted in shifted if is_shifted] == [True] * sum(shifted)
        assert all(score is not None for score, is_shifted in zip(scores, shifted, strict=True) if is_shifted)
        flags += shifted
    assert 0 < sum(flags) < len(flags)
    write_results(results, out)
    assert out.read_bytes() == whole_run.read_bytes()


def test_a_short_track_scores_less_as_the_config_says(checkpoint, data, whole_run, tmp_path):
    plain, reduced = tmp_path / "plain.json", tmp_path / "reduced.json"
    assert command.main(arguments(checkpoint, data, plain, "--set=postprocess.length_power=0")) == 0
    assert command.main(arguments(checkpoint, data, reduced, "--set=postprocess.length_power=2")) == 0
    shares = set()
    for entry, mean, other in zip(*map(read_results, (whole_run, plain, reduced)), strict=True):
        share = share_of_frames(entry)
        assert entry["score"] == pytest.approx(mean["score"] * share**0.5)  # the demo's own power
        assert other["score"] == pytest.approx(mean["score"] * share**2)
        shares.add(share)
    assert len(shares) > 2


def test_workers_change_nothing(checkpoint, data, whole_run, tmp_path):
    out = tmp_path / "results.json"
    assert command.main(arguments(checkpoint, data, out, "--num_workers=2")) == 0
    assert out.read_bytes() == whole_run.read_bytes()


def test_max_videos_score_threshold_and_top_k(checkpoint, data, whole_run, tmp_path):
    results, whole = {}, read_results(whole_run)
    scores = sorted(entry["score"] / share_of_frames(entry) ** 0.5 for entry in whole)  # means over frames
    threshold = f"--score_threshold={scores[len(scores) // 2]}"
    for option in ("--max_videos=2", threshold, "--top_k=2", "--cross_class_nms=False"):
        out = tmp_path / "results.json"
        assert command.main(arguments(checkpoint, data, out, option)) == 0
        results[option] = read_results(out)
    assert results["--max_videos=2"] == [entry for entry in whole if entry["video_id"] in (7, 2)]
    assert 0 < len(results[threshold]) < len(whole)
    for video_id, length in LENGTHS.items():
        tracks = [entry["segmentations"] for entry in results["--top_k=2"] if entry["video_id"] == video_id]
        assert all(sum(masks[frame] is not None for masks in tracks) <= 2 for frame in range(length))
    assert results["--cross_class_nms=False"] != whole


def test_a_folder_for_results_is_refused_before_anything_runs(checkpoint, data, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_model", lambda *_: pytest.fail("loaded"))
    assert command.main(arguments(checkpoint, data, tmp_path)) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_folder_for_overlays_is_bad_input(checkpoint, data, tmp_path, capsys):
    (tmp_path / "r_display").touch()
    assert command.main(arguments(checkpoint, data, tmp_path / "r.json", "--display")) == 2
    assert "r_display: cannot be made a folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ pictures, timings


def test_display_draws_every_frame(checkpoint, data, tmp_path, whole_run):
    out = tmp_path / "results.json"
    drawing = ("--display", "--display_png", "--max_videos=2")
    shown = ("--display_score_threshold=0", "--frame_rate=2.5")
    assert command.main(arguments(checkpoint, data, out, *drawing, *shown)) == 0
    folder = tmp_path / "results_display"
    assert sorted(path.name for path in folder.glob("*.mp4")) == ["2.mp4", "7.mp4"]
    with av.open(str(folder / "7.mp4")) as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].average_rate == 2.5
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 3 and frames[0].shape == (48, 64, 3)
    drawn = [cv2.imread(str(folder / "7" / f"{index:05d}.png")) for index in range(3)]
    plain = cv2.imread(str(data / "frames" / "clip7" / "00000.png"))
    assert drawn[0].shape == plain.shape and (drawn[0] != plain).any()
    for option in ("--display_png", "--frame_rate=3", "--display_score_threshold=0"):
        assert command.main(arguments(checkpoint, data, out, option)) == 2
    assert max(entry["score"] for entry in json.loads(out.read_text())) < 0.3
    assert command.main(arguments(checkpoint, data, out, *drawing)) == 0  # what is under 0.3 is not drawn
    assert np.array_equal(cv2.imread(str(folder / "7" / "00000.png")), plain)
    with av.open(str(folder / "7.mp4")) as video:
        assert video.streams.video[0].average_rate == 6


def test_tracks_have_ids_from_0_in_each_video(whole_run):
    entries = json.loads(whole_run.read_text())
    ids = {}
    for entry in entries:
        ids.setdefault(entry["video_id"], []).append(entry["track_id"])
    assert len(ids) > 1 and all(len(set(own)) == len(own) for own in ids.values())
    assert [ids[7][0], min(min(own) for own in ids.values())] == [
        0,
        0,
    ]  # those of a class that the file lacks are missing


def test_benchmark_names_the_stages_and_the_device(checkpoint, data, tmp_path, capsys):
    assert command.main(arguments(checkpoint, data, tmp_path / "r.json", "--benchmark", "--max_videos=1")) == 0
    printed = capsys.readouterr().out
    for stage in ("read", "network", "detect", "track", "write", "total", "wall"):
        assert re.search(rf"^{stage}, ms +[\d.]+ \(p95 [\d.]+\)$", printed, re.MULTILINE), stage
    assert "cpu" in printed and re.search(r"peak memory \d+ MiB", printed)


def test_frames_in_batches_are_tracked_as_one_by_one(checkpoint, data, whole_run, tmp_path):
    out = tmp_path / "r.json"
    assert command.main(arguments(checkpoint, data, out, "--eval_batch_size=4", "--benchmark")) == 0
    ours, alone = (json.loads(path.read_text()) for path in (out, whole_run))
    for a, b in zip(ours, alone, strict=True):
        assert (a["video_id"], a["category_id"]) == (b["video_id"], b["category_id"])
        assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        assert [mask is None for mask in a["segmentations"]] == [mask is None for mask in b["segmentations"]]
    run = json.loads((tmp_path / "r_benchmark.json").read_text())["runs"]["this run"]
    assert run["batch_size"] == 4 and run["frames"] == sum(LENGTHS.values())


def test_the_baseline_is_measured_beside_the_run_and_changes_no_result(checkpoint, data, whole_run, tmp_path, capsys):
    out = tmp_path / "r.json"
    assert command.main(arguments(checkpoint, data, out, "--benchmark", "--baseline", "--no_overlap")) == 0
    assert json.loads(out.read_text()) == json.loads(whole_run.read_text())
    printed = capsys.readouterr().out
    assert re.search(r"^ +this run +baseline$", printed, re.MULTILINE)
    found = json.loads((tmp_path / "r_benchmark.json").read_text())
    runs = found["runs"]
    assert list(runs) == ["this run", "baseline"]
    assert [run["frames"] for run in runs.values()] == [sum(LENGTHS.values())] * 2
    assert (runs["baseline"]["fused"], runs["baseline"]["deform_backend"]) == (False, "torchvision")
    assert not runs["this run"]["overlap"]
    assert 0 < runs["this run"]["gflop"] < runs["baseline"]["gflop"]  # which makes whole maps of coefficients
    assert found["peaks_gflops"]["fp32"] > 0 and found["machine"]["threads"] >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision=fp16"], "fp16 needs a GPU"),
        (["--deform_backend=mmcv"], "no deformable convolution called mmcv"),
        (["--baseline"], "--baseline needs --benchmark"),
        (["--mask_det_file=/"], "/: is a folder; set --mask_det_file to the file to write"),
    ],
)
def test_what_cannot_be_run_is_bad_input(checkpoint, data, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setattr("layers.deform_conv.available_backends", lambda: ("torchvision",))
    assert command.main(arguments(checkpoint, data, tmp_path / "r.json", *options)) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_random_weights_say_so(data, tmp_path, capsys):
    line = arguments("random", data, tmp_path / "r.json", "--config=STMask_demo_config", "--max_videos=1")
    assert command.main(line) == 0
    assert "weights are random" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ scores


def test_the_results_of_an_annotated_set_are_scored_and_can_be_scored_again(capsys):
    recorded = REFERENCE / "dataset_eval"
    results = recorded / "results_all_frames.json"
    line = ["--only_calc_metrics", f"--ann_file={recorded / 'instances.json'}", f"--mask_det_file={results}"]
    assert command.main(line) == 0
    table = capsys.readouterr().out
    expected = evaluate_results(str(recorded / "instances.json"), str(results)).stats
    header, scores = table.splitlines()[:2]
    assert "AP50" in header and f"{100 * expected[0]:.1f}" in scores
    assert command.main(line[:1]) == 2
    assert "--ann_file" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ bad input


@pytest.fixture
def broken_data(data, tmp_path):
    """The data set with one frame missing and one that does not decode."""
    root = tmp_path / "broken"
    for path in data.rglob("*.*"):
        copy = root / path.relative_to(data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "frames/clip9/00001.png").unlink()
    (root / "frames/clip5/00002.png").write_bytes(b"no picture")
    return root


def test_a_bad_frame_stops_the_run_and_nothing_is_lost(checkpoint, broken_data, whole_run, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert command.main(arguments(checkpoint, broken_data, out)) == 2
    error = capsys.readouterr().err
    assert "clip9/00001.png" in error and "--skip_bad_frames" in error
    assert not out.exists()
    assert command.main(arguments(checkpoint, broken_data, out, "--resume", "--skip_bad_frames", "--display")) == 0
    printed = capsys.readouterr().out
    assert "2 frames skipped" in printed and "clip9/00001.png" in printed and "clip5/00002.png" in printed
    assert f"{len(LENGTHS)} videos" in printed
    results, whole = read_results(out), read_results(whole_run)
    assert all(entry["segmentations"][1] is None for entry in results if entry["video_id"] == 9)
    assert all(entry["segmentations"][2] is None for entry in results if entry["video_id"] == 5)
    untouched = [entry for entry in whole if entry["video_id"] not in (5, 9)]
    assert [entry for entry in results if entry["video_id"] not in (5, 9)] == untouched


def test_a_run_goes_on_with_details_only_if_it_began_with_them(checkpoint, broken_data, tmp_path, capsys):
    out = tmp_path / "results.json"
    assert command.main(arguments(checkpoint, broken_data, out, "--save_details")) == 2
    resume = ("--resume", "--skip_bad_frames")
    assert command.main(arguments(checkpoint, broken_data, out, *resume)) == 2
    assert "save_details" in capsys.readouterr().err
    assert command.main(arguments(checkpoint, broken_data, out, *resume, "--save_details")) == 0
    results = read_results(out)
    assert {entry["video_id"] for entry in results} == set(LENGTHS)
    assert all(len(entry["scores"]) == len(entry["shifted"]) == LENGTHS[entry["video_id"]] for entry in results)
    assert all(entry["scores"][1] is None for entry in results if entry["video_id"] == 9)  # the frame that is missing


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "--trained_model"),
        (["--trained_model=random"], "--config"),
        (["--config=STMask_demo_config"], "--trained_model"),
        (["--config=STMask_dem", "--print_config"], "STMask_demo_config"),
        (["--trained_model=weights/mine.pth"], "no such file"),
        (["--trained_model=none/STMask_r101_ada.pth", "--ann_file=x.json", "--image_root=."], "x.json"),
        (["--trained_model=random", "--config=STMask_plus_base_config"], "data/YouTube_VIS2019"),
        (["--trained_model=random", "--config=STMask_demo_config", "--device=tpu"], "--device"),
        (["--config=STMask_demo_config", "--print_config", "--set", "tracking.max_hiden=3"], "tracking.max_hidden_age"),
        (["--config=STMask_demo_config", "--print_config", "--cross_class_nms=maybe"], "true or false"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(line, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main(line) == 2
    error = capsys.readouterr().err
    assert error.startswith("eval.py: error: ") and words in error
    assert "Traceback" not in error


def test_the_published_command_finds_its_config_and_asks_for_the_file(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["--trained_model=weights/STMask_r101_FCA+TF.pth", "--mask_det_file=weights/results.json"]
    assert command.main(line) == 2
    assert "YouTube_VIS2019" in capsys.readouterr().err
    line += [f"--ann_file={data / 'valid.json'}", f"--image_root={data / 'frames'}"]
    assert command.main(line) == 2
    assert "categories" in capsys.readouterr().err  # the demo's classes are not YouTube-VIS's


def test_print_config_needs_no_model_and_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["--trained_model=weights/STMask_r101_ada.pth", "--print_config", "--top_k=7", "--cross_class_nms=False"]
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    assert "name = 'STMask_plus_base_ada_config'" in printed
    assert "postprocess.top_k = 7" in printed and "detection.cross_class_nms = False" in printed
