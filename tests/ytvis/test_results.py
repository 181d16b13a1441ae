import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from utils.structures import FrameObjects
from ytvis.files import InputError
from ytvis.masks import decode_mask, encode_mask, encode_masks
from ytvis.results import (
    ResultsJournal,
    VideoResult,
    VideoResultBuilder,
    read_results,
    write_results,
)

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"


def frame_objects(rows, masks, shifted=None):
    """`FrameObjects` of rows (track id, label, score) and masks [h,w]; by default none is shifted."""
    ids, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return FrameObjects(
        boxes_px=torch.zeros(len(rows), 4, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
        track_ids=torch.tensor(ids, dtype=torch.int64),
        masks=torch.stack(masks) if masks else torch.zeros(0, 4, 6, dtype=torch.bool),
        shifted=torch.tensor([False] * len(rows) if shifted is None else shifted, dtype=torch.bool),
    )


def as_dicts(results):
    return [
        {
            "video_id": result.video_id,
            "score": result.score,
            "category_id": result.category_id,
            "segmentations": list(result.segmentations),
        }
        for result in results
    ]


def one_pixel(place=0):
    """A mask [4,6] with a single pixel, the `place`-th down the columns."""
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask.view(-1)[place] = True
    return mask.T


# ---------------------------------------------------------------------------------------------------- one video


def test_builder_gives_the_recorded_list():
    recorded = json.loads((REFERENCE / "unit" / "results_json.json").read_text())
    texts = sorted({item["counts"] for frame in recorded["input"] for item in frame["objects"]})
    masks = {text: one_pixel(place) for place, text in enumerate(texts)}  # the recorded texts are only labels
    rles = {text: encode_mask(mask.numpy()) for text, mask in masks.items()}

    results = []
    for video_id in (5, 9):
        frames = [frame for frame in recorded["input"] if frame["video_id"] == video_id]
        builder = VideoResultBuilder(video_id, len(frames), (4, 6), range(1, 41))
        for frame in frames:
            items = frame["objects"]
            rows = [(item["id"], item["label"], item["score"]) for item in items]
            builder.add(frame["frame_id"], frame_objects(rows, [masks[item["counts"]] for item in items]))
        results += builder.finish()

    expected = recorded["output"]
    for entry in expected:
        entry["segmentations"] = [rle and rles[rle["counts"]] for rle in entry["segmentations"]]
    assert as_dicts(results) == expected


@pytest.mark.parametrize("folder", ["STMask_plus_resnet50", "STMask_plus_resnet50_ada"])
@pytest.mark.parametrize("nms", ["cc", "pc"])
def test_builder_gives_the_recorded_results_of_whole_videos(folder, nms):
    tracking = np.load(REFERENCE / folder / f"tracking_{nms}.npz")
    expected = json.loads((REFERENCE / folder / f"results_{nms}.json").read_text())
    ends = np.cumsum(tracking["post_n"])
    # The recording holds each mask in its results only: they are taken from there, track by track in that order.
    tracks_seen = []
    results = []
    for video_id in sorted(set(tracking["video"].tolist())):
        frames = np.flatnonzero(tracking["video"] == video_id)
        builder = VideoResultBuilder(video_id, len(frames), (180, 320), range(1, 41))
        for frame_index, frame in enumerate(frames):
            rows, masks = [], []
            for row in range(ends[frame] - tracking["post_n"][frame], ends[frame]):
                track = (video_id, int(tracking["post_ids"][row]))
                if track not in tracks_seen:
                    tracks_seen.append(track)
                rle = expected[tracks_seen.index(track)]["segmentations"][frame_index]
                masks.append(torch.from_numpy(decode_mask(rle)))
                rows.append((track[1], int(tracking["post_class"][row]), tracking["post_score"][row]))
            builder.add(frame_index, frame_objects(rows, masks))
        results += builder.finish()
    assert as_dicts(results) == expected  # order, categories, scores and texts, all exactly


def test_majority_vote_takes_the_smallest_label_on_a_tie_and_maps_it():
    builder = VideoResultBuilder(1, 4, (4, 6), [90, 17, 5])
    for frame_index, label in enumerate([3, 2, 2, 3]):
        builder.add(frame_index, frame_objects([(0, label, 0.5)], [one_pixel()]))
    (result,) = builder.finish()
    assert result.category_id == 17  # label 2, though 5 would be the smallest id


def test_a_track_of_a_class_the_file_lacks_is_left_out_and_counted():
    builder = VideoResultBuilder(1, 2, (4, 6), [None, 7])
    builder.add(1, frame_objects([(4, 1, 0.5), (2, 2, 0.25)], [one_pixel(), one_pixel(3)]))
    (result,) = builder.finish()
    assert result == VideoResult(1, 7, 0.25, (None, encode_mask(one_pixel(3).numpy())))
    assert builder.left_out == 1


@pytest.mark.parametrize(("length_power", "expected"), [(0, 0.5), (0.5, 0.25), (1, 0.125)])
def test_the_score_falls_with_the_frames_that_do_not_show_the_track(length_power, expected):
    builder = VideoResultBuilder(1, 8, (4, 6), [1], length_power=length_power)
    for frame, score in ((2, 0.25), (5, 0.75)):
        builder.add(frame, frame_objects([(0, 1, score)], [one_pixel()]))
    assert builder.finish()[0].score == expected


@pytest.mark.parametrize("details", [True, False])
def test_details_are_the_score_of_each_frame_and_where_it_is_shifted(tmp_path, details):
    builder = VideoResultBuilder(1, 4, (4, 6), [1, 2], details)
    builder.add(0, frame_objects([(5, 1, 0.75), (3, 2, 0.5)], [one_pixel(), one_pixel(1)], [False, True]))
    builder.add(2, frame_objects([(3, 2, 0.25), (5, 1, 2 / 3)], [one_pixel(), one_pixel(1)], [False, True]))
    write_results(builder.finish(), tmp_path / "results.json")
    first, second = read_results(tmp_path / "results.json")
    assert first["score"] == pytest.approx((0.75 + 2 / 3) / 2, abs=1e-7)  # of the scores as they are, not rounded
    if details:
        assert first["scores"] == [0.75, None, 0.6667, None] and first["shifted"] == [False, False, True, False]
        assert second["scores"] == [0.5, None, 0.25, None] and second["shifted"] == [True, False, False, False]
    else:
        assert list(first) == list(second) == ["video_id", "score", "category_id", "segmentations"]


def test_an_empty_mask_counts_as_a_frame():
    builder = VideoResultBuilder(1, 2, (4, 6), [1])
    builder.add(0, frame_objects([(0, 1, 1.0)], [torch.zeros(4, 6, dtype=torch.bool)]))
    builder.add(1, frame_objects([(0, 1, 0.5)], [one_pixel()]))
    (result,) = builder.finish()
    assert result.score == 0.75
    assert not decode_mask(result.segmentations[0]).any()


def test_a_video_without_objects_has_no_results():
    builder = VideoResultBuilder(1, 2, (4, 6), [1])
    builder.add(0, frame_objects([], []))
    assert builder.finish() == []


def test_builder_refuses_a_frame_or_a_mask_of_another_video():
    builder = VideoResultBuilder(1, 2, (4, 7), [1])
    with pytest.raises(IndexError):
        builder.add(2, frame_objects([], []))
    with pytest.raises(ValueError, match="masks"):
        builder.add(0, frame_objects([(0, 1, 1.0)], [one_pixel()]))


# ---------------------------------------------------------------------------------------------------- files


def entry(**changes):
    rle = {"size": [4, 6], "counts": encode_mask(one_pixel().numpy())["counts"]}
    return {"video_id": 1, "score": 0.5, "category_id": 2, "segmentations": [None, rle], **changes}


def test_written_results_are_read_back(tmp_path):
    path = tmp_path / "new" / "results.json"
    result = VideoResult(3, 1, 0.1, tuple(entry()["segmentations"]))
    write_results([entry(), result], path)
    assert json.loads(path.read_text()) == [entry(), *as_dicts([result])]
    assert read_results(path) == json.loads(path.read_text())


def test_no_results_are_an_empty_list(tmp_path):
    write_results([], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []
    assert read_results(tmp_path / "results.json") == []


def test_recorded_results_survive_writing(tmp_path):
    recorded = json.loads((REFERENCE / "dataset_eval" / "results_all_frames.json").read_text())
    write_results(recorded, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == recorded


def test_bytes_and_numpy_numbers_become_text_and_numbers(tmp_path):
    rle = coco_mask.encode(np.asfortranarray(one_pixel().numpy().astype(np.uint8)))
    assert isinstance(rle["counts"], bytes)
    odd = entry(video_id=np.int64(1), score=np.float32(0.5), category_id=np.int32(2), segmentations=(None, rle))
    write_results([odd], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == [entry()]
    assert isinstance(odd["segmentations"][1]["counts"], bytes)  # the caller's own is not touched


@pytest.mark.parametrize(
    "changes",
    [
        {"score": float("nan")},
        {"score": np.float32("inf")},
        {"score": "high"},
        {"video_id": "1"},
        {"category_id": True},
        {"segmentations": None},
        {"segmentations": [3]},
        {"segmentations": [{"size": [4, 6]}]},
        {"extra": float("nan")},
    ],
)
def test_writing_refuses_a_bad_entry_and_leaves_the_old_file(tmp_path, changes):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(InputError, match=r"results\.json: entry 1"):
        write_results([entry(), entry(**changes)], path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_iterator_that_raises_leaves_nothing(tmp_path):
    def entries():
        yield entry()
        raise RuntimeError("network failed")

    with pytest.raises(RuntimeError, match="network failed"):
        write_results(entries(), tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not a JSON file"),
        ('{"results": []}', "must hold a list"),
        (json.dumps([entry(), 3]), "entry 1 must be an object"),
        (json.dumps([entry(), {"video_id": 1}]), "entry 1 lacks 'category_id'"),
        (json.dumps([entry(score=float("nan"))]), "entry 0: 'score'"),
        (json.dumps([entry(segmentations=[None, {"size": [4, 6], "counts": "P"}])]), "entry 0, frame 1"),
    ],
)
def test_reading_names_the_file_and_the_entry(tmp_path, text, message):
    path = tmp_path / "theirs.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_results(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_reading_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json"):
        read_results(tmp_path / "gone.json")


def test_reading_compresses_runs(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps([entry(segmentations=[{"size": [3, 2], "counts": [2, 3, 1]}])]))
    assert read_results(path)[0]["segmentations"] == [{"size": [3, 2], "counts": "231"}]


# ---------------------------------------------------------------------------------------------------- the journal

HEADER = {"config": "STMask_demo_config", "set": ("a=1",), "checkpoint": None}


def results_of(video_id):
    rles = encode_masks(torch.stack([one_pixel(video_id), one_pixel(video_id + 1)]).numpy())
    return [VideoResult(video_id, 7, 0.1 * video_id, (rle, None)) for rle in rles[: video_id % 3]]


def fill(journal, video_ids):
    for video_id in video_ids:
        journal.append(video_id, results_of(video_id), {"tracks": len(results_of(video_id))})


def whole(tmp_path, video_ids=(4, 2, 3)):
    """The bytes of results.json of a run without interruption."""
    journal = ResultsJournal.create(tmp_path / "whole.partial", HEADER)
    fill(journal, video_ids)
    journal.finish(tmp_path / "whole.json", video_ids)
    return (tmp_path / "whole.json").read_bytes()


def test_finish_writes_the_results_and_removes_the_journal(tmp_path):
    expected = as_dicts([result for video_id in (4, 2, 3) for result in results_of(video_id)])
    assert len(expected) == 3  # video 3 has none
    assert json.loads(whole(tmp_path)) == expected
    assert not (tmp_path / "whole.partial").exists()


def test_a_resumed_journal_has_kept_the_details(tmp_path):
    result = replace(results_of(1)[0], scores=(0.1234, None), shifted=(True, False))
    ResultsJournal.create(tmp_path / "run.partial", HEADER).append(1, [result], {})
    ResultsJournal.resume(tmp_path / "run.partial", HEADER).finish(tmp_path / "run.json", [1])
    details = {"scores": [0.1234, None], "shifted": [True, False]}
    assert read_results(tmp_path / "run.json") == [{**as_dicts([result])[0], **details}]


def test_a_resumed_run_gives_identical_bytes_whatever_its_order(tmp_path):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, HEADER), [2])
    journal = ResultsJournal.resume(path, HEADER)
    assert journal.done == {2}
    fill(journal, [3])
    journal = ResultsJournal.resume(path, HEADER)
    fill(journal, [4])
    assert journal.done == {2, 3, 4}
    assert list(journal.summaries()) == [{"tracks": 2}, {"tracks": 0}, {"tracks": 1}]
    journal.finish(tmp_path / "results.json", (4, 2, 3))
    assert (tmp_path / "results.json").read_bytes() == whole(tmp_path)


@pytest.mark.parametrize("cut", [1, 20, "\\0"])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, HEADER), [4, 2])
    size_of_two = path.stat().st_size
    fill(ResultsJournal.resume(path, HEADER), [3])
    text = path.read_bytes()
    path.write_bytes(text[:size_of_two] + b"\0" * 9 + b"\n" if cut == "\\0" else text[:-cut])
    journal = ResultsJournal.resume(path, HEADER)
    assert journal.done == {4, 2}
    assert path.stat().st_size == size_of_two
    fill(journal, [3])
    journal.finish(tmp_path / "results.json", (4, 2, 3))
    assert (tmp_path / "results.json").read_bytes() == whole(tmp_path)


def test_what_a_failed_append_left_is_overwritten(tmp_path):
    path = tmp_path / "results.json.partial"
    journal = ResultsJournal.create(path, HEADER)
    fill(journal, [4])
    with open(path, "ab") as file:
        file.write(b'{"video_id": 2, "res\n' * 100)
    fill(journal, [2])
    journal = ResultsJournal.resume(path, HEADER)
    fill(journal, [3])
    journal.finish(tmp_path / "results.json", (4, 2, 3))
    assert (tmp_path / "results.json").read_bytes() == whole(tmp_path)


def test_resume_without_a_journal_starts_one(tmp_path):
    path = tmp_path / "results.json.partial"
    assert ResultsJournal.resume(path, HEADER).done == set()
    path.write_bytes(b"")
    assert ResultsJournal.resume(path, HEADER).done == set()
    assert json.loads(path.read_text()) == {**HEADER, "set": ["a=1"]}


def test_create_replaces_a_journal(tmp_path):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, {"config": "other"}), [4])
    assert ResultsJournal.create(path, HEADER).done == set()
    assert ResultsJournal.resume(path, HEADER).done == set()


@pytest.mark.parametrize(
    "header", [{**HEADER, "config": "other"}, {"set": ["a=1"], "checkpoint": None}, {**HEADER, "more": 1}]
)
def test_another_run_is_not_resumed(tmp_path, header):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, HEADER), [4])
    before = path.read_bytes()
    with pytest.raises(InputError, match="config" if header.get("more") is None else "more"):
        ResultsJournal.resume(path, header)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b'{"video_id": 1}\n'])
def test_damage_before_the_last_line_is_told(tmp_path, line):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, HEADER), [4])
    text = path.read_bytes()
    first, second = text.splitlines(keepends=True)
    path.write_bytes(first + line + second)
    with pytest.raises(InputError, match="line 2 is damaged"):
        ResultsJournal.resume(path, HEADER)


def test_a_file_that_is_no_journal_is_not_overwritten(tmp_path):
    path = tmp_path / "results.json.partial"
    path.write_text("my notes\n")
    with pytest.raises(InputError, match="not the journal"):
        ResultsJournal.resume(path, HEADER)
    assert path.read_text() == "my notes\n"


def test_finish_wants_every_video_and_keeps_the_journal_otherwise(tmp_path):
    path = tmp_path / "results.json.partial"
    journal = ResultsJournal.create(path, HEADER)
    fill(journal, [4])
    with pytest.raises(ValueError, match="the first is 2"):
        journal.finish(tmp_path / "results.json", (4, 2))
    assert path.exists() and not (tmp_path / "results.json").exists()
    journal.finish(tmp_path / "results.json", ())
    assert read_results(tmp_path / "results.json") == []


def test_a_video_is_taken_once_and_a_bad_score_not_at_all(tmp_path):
    journal = ResultsJournal.create(tmp_path / "results.json.partial", HEADER)
    fill(journal, [4])
    with pytest.raises(ValueError, match="already"):
        fill(journal, [4])
    with pytest.raises(InputError, match="video 2"):
        journal.append(2, [VideoResult(2, 1, float("nan"), (None,))], {})
    assert ResultsJournal.resume(tmp_path / "results.json.partial", HEADER).done == {4}
