import csv
import json
import os
import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from data.video import FrameIterable, ImageFiles, VideoFile, VideoWriter, open_source
from inference import frame_journal
from inference.object_rows import object_rows
from inference.output_files import OutputFiles, default_target, write_picture
from tests.reading import read_results
from utils.structures import FrameObjects
from ytvis.files import InputError
from ytvis.pictures import read_picture

CLASS_NAMES = ("circle", "ring")


def rows(index, count=1, size_hw=(24, 32)):
    """`count` objects in frame `index`, tracks 0, 1, …, four rows of pixels each."""
    masks = torch.zeros(count, *size_hw, dtype=torch.bool)
    for track, mask in enumerate(masks):
        mask[4 * track : 4 * track + 4] = True
    objects = FrameObjects(
        boxes_px=torch.tensor([[0, 4 * track, size_hw[1], 4 * track + 4] for track in range(count)]).reshape(-1, 4),
        scores=torch.full((count,), 0.5),
        labels=torch.full((count,), 2),
        track_ids=torch.arange(count),
        masks=masks,
        shifted=torch.arange(count) % 2 > 0,
    )
    return object_rows(objects, index, index / 10, CLASS_NAMES)


def pictures(count, size_hw=(24, 32)):
    return [np.full((*size_hw, 3), 20 * (index + 1), np.uint8) for index in range(count)]


@pytest.fixture
def folder(tmp_path):
    """A folder of three pictures, b10.png last."""
    (tmp_path / "frames").mkdir()
    for name, picture in zip(("b1.png", "b2.png", "b10.png"), pictures(3), strict=True):
        write_picture(picture, tmp_path / "frames" / name)
    return tmp_path / "frames"


def test_default_targets(folder):
    assert default_target(open_source(folder), "images").as_posix() == "results/frames"
    assert default_target(open_source(folder), "video").as_posix() == "results/frames.mp4"
    assert default_target(open_source(folder / "b1.png"), "image").as_posix() == "results/b1.png"
    assert default_target(open_source(str(folder / "b*.png")), "images").as_posix() == "results/b"
    assert default_target(open_source("3"), "video").as_posix() == "results/camera_3.mp4"


# ------------------------------------------------------------------------------------------------ what is written


def test_a_video_keeps_its_times_and_has_its_results_beside_it(tmp_path):
    times = (0.0, 0.1, 0.9)
    with VideoWriter(tmp_path / "in.mp4", 10, (24, 32)) as writer:
        for picture, time_s in zip(pictures(3), times, strict=True):
            writer.write(picture, time_s)
    source = VideoFile(tmp_path / "in.mp4")
    with OutputFiles(source, "video", tmp_path / "new" / "out.mp4", CLASS_NAMES, csv=True, mots=True) as files:
        for index, item in enumerate(source):
            files.add(rows(index, count=index), item.frame, index, item.time_s)
    names = ["out.csv", "out.json", "out.mp4", "out_mots", "out_video.json"]
    assert sorted(os.listdir(tmp_path / "new")) == names == sorted(path.name for path in files.written)
    assert [item.time_s for item in VideoFile(tmp_path / "new" / "out.mp4")] == pytest.approx(times, abs=1e-4)
    results = read_results(tmp_path / "new" / "out.json")
    assert [(entry["video_id"], entry["category_id"]) for entry in results] == [(1, 2), (1, 2)]
    assert [[rle is not None for rle in entry["segmentations"]] for entry in results] == [
        [False, True, True], [False, False, True],
    ]  # fmt: skip
    with open(tmp_path / "new" / "out.csv", newline="") as file:
        assert [line["frame"] for line in csv.DictReader(file)] == ["1", "2", "2"]
    assert sorted(os.listdir(tmp_path / "new" / "out_mots")) == ["labels.txt", "out.txt"]


def held_mib(path, *frames):
    """MiB of Python's memory held when each of `frames` has been written into one video."""
    held = []
    tracemalloc.start()
    try:
        with OutputFiles(FrameIterable([]), "video", path, CLASS_NAMES) as files:
            for index in range(frames[-1]):
                files.add(rows(index, count=6), pictures(1)[0], index, index / 10)
                if index + 1 in frames:
                    held.append(tracemalloc.get_traced_memory()[0] / 2**20)
    finally:
        tracemalloc.stop()
    return held


def test_memory_does_not_grow_with_the_frames(tmp_path):
    first, last = held_mib(tmp_path / "out.mp4", 50, 250)
    assert last - first < 0.2
    assert len(read_results(tmp_path / "out.json")[0]["segmentations"]) == 250


@pytest.mark.slow
def test_memory_does_not_grow_with_five_thousand_frames(tmp_path):
    first, last = held_mib(tmp_path / "out.mp4", 1000, 5000)
    assert last - first < 0.5


def test_pictures_keep_their_names(folder, tmp_path):
    source = open_source(folder)
    with OutputFiles(source, "images", tmp_path / "drawn.v1", CLASS_NAMES) as files:
        for item in source:
            files.add(rows(item.index), 255 - item.frame, item.index, item.time_s, item.name)
    assert sorted(os.listdir(tmp_path / "drawn.v1")) == ["b1.png", "b10.png", "b2.png"]
    assert (read_picture(tmp_path / "drawn.v1" / "b10.png") == 255 - 60).all()
    assert len(read_results(tmp_path / "drawn.v1.json")[0]["segmentations"]) == 3


def test_results_have_an_entry_for_every_picture_readable_or_not(folder, tmp_path):
    (folder / "b10.png").write_bytes(b"no picture")
    source = open_source(folder)
    with OutputFiles(source, "images", tmp_path / "drawn", CLASS_NAMES) as files, pytest.raises(InputError):
        for item in source:
            files.add(rows(item.index), item.frame, item.index, item.time_s, item.name)
    (entry,) = read_results(tmp_path / "drawn.json")
    assert [rle is not None for rle in entry["segmentations"]] == [True, True, False]


def test_one_picture(folder, tmp_path):
    source = open_source(folder / "b1.png")
    with OutputFiles(source, "image", tmp_path / "out.jpg", CLASS_NAMES) as files:
        for item in source:
            files.add(rows(0), item.frame, item.index, item.time_s, item.name)
    assert cv2.imread(str(tmp_path / "out.jpg")).shape == (24, 32, 3)
    assert json.loads((tmp_path / "out.json").read_text())[0]["video_id"] == 1


def test_a_video_file_becomes_pictures_with_numbers(tmp_path):
    source = FrameIterable(pictures(2))
    with OutputFiles(source, "images", tmp_path / "out", CLASS_NAMES) as files:
        for item in source:
            files.add([], item.frame, item.index, item.time_s, item.name)
    assert sorted(os.listdir(tmp_path / "out")) == ["000000.png", "000001.png"]
    assert read_results(tmp_path / "out.json") == []


def test_an_exception_leaves_no_video_and_no_results_but_what_results_can_be_made_of(tmp_path, caplog):
    with (
        pytest.raises(RuntimeError),
        OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files,
    ):
        files.add(rows(0), pictures(1)[0], 0, 0.0)
        files.add(rows(1, count=2), pictures(1)[0], 1, 0.1)
        raise RuntimeError
    assert os.listdir(tmp_path) == ["out.json.partial"] and files.written == []
    assert f"python -m inference.frame_journal {tmp_path / 'out.json.partial'}" in caplog.text
    assert frame_journal.main([str(tmp_path / "out.json.partial")]) == 0
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out_video.json"]
    found = [entry["segmentations"] for entry in read_results(tmp_path / "out.json")]
    assert found == [[rows(0)[0].rle, rows(1)[0].rle], [None, rows(1, count=2)[1].rle]]


def test_what_cannot_be_written_at_the_end_is_kept(tmp_path):
    (tmp_path / "out.json").mkdir()
    with (
        pytest.raises(InputError, match="out.json: cannot be written"),
        OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files,
    ):
        files.add(rows(0), pictures(1)[0], 0, 0.0)
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.json.partial", "out.mp4"]


def test_a_file_in_the_place_of_the_folder_for_mots_is_bad_input(tmp_path):
    (tmp_path / "out_mots").touch()
    with (
        pytest.raises(InputError, match="out_mots: cannot be made a folder"),
        OutputFiles(FrameIterable([]), "images", tmp_path / "out", CLASS_NAMES, mots=True) as files,
    ):
        files.add(rows(0), pictures(1)[0], 0, 0.0)
    assert (tmp_path / "out.json.partial").exists()


def test_the_tracks_of_each_class_are_counted(tmp_path):
    with OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files:
        for index in range(3):
            files.add(rows(index, count=2), pictures(1)[0], index, index / 10)
    assert files.tracks == {"ring": 2} and not (tmp_path / "out.json.partial").exists()


def test_without_a_frame_nothing_is_written(tmp_path):
    with OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files:
        pass
    assert list(tmp_path.iterdir()) == [] and files.written == []


def test_a_video_of_two_sizes_is_refused(tmp_path):
    with OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files:
        files.add([], pictures(1)[0], 0, 0.0, "a.png")
        with pytest.raises(InputError, match=r"b\.png: is 48×20, the frames before it 32×24"):
            files.add([], pictures(1, (20, 48))[0], 1, 0.1, "b.png")
    assert len(list(VideoFile(tmp_path / "out.mp4"))) == 1


def test_mots_text_of_two_sizes_is_refused_and_pictures_of_two_are_not(tmp_path):
    first, second = pictures(1)[0], pictures(1, (20, 48))[0]
    with OutputFiles(FrameIterable([]), "images", tmp_path / "out", CLASS_NAMES, mots=True) as files:
        files.add(rows(0), first, 0, 0.0, "a.png")
        with pytest.raises(InputError, match=r"b\.png: is 48×20, the frames before it 32×24: MOTS text has one size"):
            files.add(rows(1, size_hw=(20, 48)), second, 1, 0.1, "b.png")
    assert os.listdir(tmp_path / "out") == ["a.png"]
    assert len(read_results(tmp_path / "out.json")[0]["segmentations"]) == 1
    assert sorted(os.listdir(tmp_path / "out_mots")) == ["labels.txt", "out.txt"]
    with OutputFiles(FrameIterable([]), "images", tmp_path / "both", CLASS_NAMES) as files:
        files.add(rows(0), first, 0, 0.0, "a.png")
        files.add(rows(1, size_hw=(20, 48)), second, 1, 0.1, "b.png")
    assert sorted(os.listdir(tmp_path / "both")) == ["a.png", "b.png"]


def test_the_journal_of_a_killed_run_outlives_the_same_command(tmp_path, caplog):
    def write():
        with OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES) as files:
            files.add(rows(0), pictures(1)[0], 0, 0.0)

    killed = frame_journal.FrameJournal.create(tmp_path / "out.json.partial", {"rows_of": "in.mp4"})
    killed.append(rows(0, count=2), 1)
    content = killed.path.read_bytes()
    write()
    (record,) = [record for record in caplog.records if record.name == "inference.frame_journal"]
    assert f"python -m inference.frame_journal {tmp_path / 'out.1.json.partial'}" in record.getMessage()
    assert sorted(os.listdir(tmp_path)) == ["out.1.json.partial", "out.json", "out.mp4", "out_video.json"]
    assert (tmp_path / "out.1.json.partial").read_bytes() == content
    assert frame_journal.main([str(tmp_path / "out.1.json.partial")]) == 0
    assert len(read_results(tmp_path / "out.1.json")) == 2
    killed.path.write_bytes(content)
    write()  # the first run has results
    assert sorted(os.listdir(tmp_path)) == ["out.1.json", "out.2.json.partial", "out.json", "out.mp4", "out_video.json"]


@pytest.mark.parametrize(
    ("kind", "source", "target", "message"),
    [
        ("video", "b1.png", "out.avi", r"must end in \.mp4"),
        ("image", "b1.png", "out.mp4", r"must end in \.bmp or \.jpeg or"),
        ("image", "", "out.png", "is not one picture"),
        ("image", "b1.png", "frames/b1.png", "would replace the input"),
        ("images", "", "frames", "would replace the input"),
        ("images", "b*.png", "frames", "would replace the input"),
        ("images", "", "frames/b1.png", "is no folder"),
    ],
)
def test_targets_that_cannot_be_are_refused(folder, tmp_path, kind, source, target, message):
    with pytest.raises(InputError, match=message):
        OutputFiles(open_source(folder / source), kind, tmp_path / target, CLASS_NAMES)


def test_a_folder_is_no_target_for_a_video(folder, tmp_path):
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        OutputFiles(open_source(folder), "video", tmp_path / "out.mp4", CLASS_NAMES)


def test_pictures_of_the_same_name_from_two_folders_are_refused(folder, tmp_path):
    (tmp_path / "more").mkdir()
    write_picture(pictures(1)[0], tmp_path / "more" / "b1.png")
    with pytest.raises(InputError, match="have the same name"):
        OutputFiles(open_source(tmp_path / "*" / "b1.png"), "images", tmp_path / "out", CLASS_NAMES)


def test_pictures_of_no_format_are_refused(tmp_path):
    for name in ("a.xyz", "a"):
        with pytest.raises(InputError, match="cannot be written as"):
            write_picture(pictures(1)[0], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_links_in_a_circle_are_no_pictures_and_no_targets(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).symlink_to(tmp_path / ("b.png" if name == "a.png" else "a.png"))
    files = OutputFiles(FrameIterable([]), "video", tmp_path / "out.mp4", CLASS_NAMES)
    assert files.target == tmp_path / "out.mp4"
    source = ImageFiles("pictures", [tmp_path / "a.png"])
    OutputFiles(source, "images", tmp_path / "out", CLASS_NAMES)
    with pytest.raises(InputError, match="would replace the input"):
        OutputFiles(source, "image", tmp_path / "a.png", CLASS_NAMES)
