import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.reading import read_results
from ytvis.annotations import Track, Video
from ytvis.diagnostics import Diagnostics
from ytvis.files import InputError
from ytvis.masks import encode_mask, encode_masks
from ytvis.results import ResultsJournal, ResultsParser, as_entry, read_entries, track_numbers, write_results

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"


def one_pixel(place=0):
    """A mask [4,6] with a single pixel, the `place`-th down the columns."""
    mask = np.zeros((6, 4), bool)
    mask.ravel()[place] = True
    return mask.T


# ---------------------------------------------------------------------------------------------------- files


def entry(**changes):
    rle = {"size": [4, 6], "counts": encode_mask(one_pixel())["counts"]}
    return {"video_id": 1, "score": 0.5, "category_id": 2, "segmentations": [None, rle], **changes}


def test_written_results_are_read_back(tmp_path):
    path = tmp_path / "new" / "results.json"
    result = Track(3, 1, tuple(entry()["segmentations"]), score=0.1)
    write_results([entry(), result], path)
    assert json.loads(path.read_text()) == [entry(), as_entry(result)]
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
    rle = coco_mask.encode(np.asfortranarray(one_pixel().astype(np.uint8)))
    assert isinstance(rle["counts"], bytes)
    odd = entry(video_id=np.int64(1), score=np.float32(0.5), category_id=np.int32(2), segmentations=(None, rle))
    write_results([odd], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == [entry()]
    assert isinstance(odd["segmentations"][1]["counts"], bytes)  # the caller's dict does not change


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


def parse(value, **arguments):
    """(The track of one entry, what is wrong with it)."""
    found = Diagnostics()
    track = ResultsParser(found, **arguments).parse(value, "entry 0")
    return track, [(diagnostic.severity, diagnostic.what) for diagnostic in found]


def test_an_entry_is_a_track_with_the_pixels_of_its_masks():
    track, found = parse(entry(scores=[None, 0.25], shifted=[False, True], model="other"))
    assert found == []
    assert (track.video_id, track.category_id, track.score, track.areas) == (1, 2, 0.5, (None, 1))
    assert track.segmentations == (None, entry()["segmentations"][1])
    assert track.scores == (None, 0.25) and track.shifted == (False, True)


def test_the_track_id_is_kept_from_the_run_to_the_reader(tmp_path):
    track = replace(parse(entry())[0], track_id=12)
    write_results([track, entry(track_id=np.int64(3)), entry()], tmp_path / "results.json")
    entries = list(read_entries(tmp_path / "results.json"))
    assert [item.get("track_id", "none") for item in entries] == [12, 3, "none"]
    assert [parse(item)[0].track_id for item in entries] == [12, 3, None]


@pytest.mark.parametrize("track_id", ["3", 1.5, True, -1, 2**60, [1]])
def test_a_track_id_of_another_tool_is_ignored_with_a_warning(track_id):
    track, found = parse(entry(track_id=track_id))
    assert track is not None and track.track_id is None
    assert [severity for severity, _ in found] == ["warning"] and "the track id is not a whole number" in found[0][1]


@pytest.mark.parametrize(
    ("track_ids", "expected"),
    [
        ([4, 0, 9], ([4, 0, 9], True)),
        ([4, 0, 4], ([0, 1, 2], False)),
        ([4, None, 9], ([0, 1, 2], False)),
        ([], ([], False)),
    ],
)
def test_tracks_are_numbered_by_their_ids_if_all_have_one(track_ids, expected):
    assert track_numbers(track_ids) == expected


@pytest.mark.parametrize("changes", [{"scores": [0.5]}, {"scores": ["a", None]}, {"scores": 3}, {"shifted": {}}])
def test_details_of_another_tool_are_ignored(changes):
    track, found = parse(entry(**changes))
    assert found == [] and track.scores is None and track.shifted is None


@pytest.mark.parametrize(
    ("changes", "severity", "what"),
    [
        ({"score": 10**400}, "refused", "the score is not a finite number"),
        ({"video_id": 2}, "refused", "unknown video: 2"),
        ({"video_id": 2**64}, "refused", "unknown video"),
        ({"category_id": 5}, "warning", "unknown category: 5"),
        ({"segmentations": [None]}, "warning", "'segmentations' is not as long as the video: 1 entries"),
        ({"segmentations": [None, [[0, 0, 4, 0, 4, 4]]]}, "warning", "a segmentation is polygons"),
        ({"segmentations": [None, {"size": [4, 6], "counts": [24]}]}, "warning", "counts are a list of runs"),
        ({"segmentations": [None, {"size": [6, 4], "counts": "h0"}]}, "warning", "height and width swapped"),
        ({"segmentations": [None, {"size": [4, 6], "counts": "b'h0'"}]}, "refused", "printed form of bytes"),
    ],
)
def test_what_is_wrong_with_an_entry_is_reported(changes, severity, what):
    track, found = parse(entry(**changes), videos={1: Video(1, 6, 4, ("a", "b"))}, categories={2: "x"})
    ((found_severity, found_what),) = found
    assert found_severity == severity and what in found_what
    assert (track is None) == (severity == "refused")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "not a JSON file"),
        ('{"results": []}', "must be a list"),
        (
            '\n{"info": {}, "videos": [{"id": 1}], "annotations": []}',
            "must be a list .it is an annotation file; --help",
        ),
    ],
)
def test_a_file_that_holds_no_list_is_refused(tmp_path, text, message):
    (tmp_path / "theirs.json").write_text(text)
    with pytest.raises(InputError, match=rf"theirs\.json: .*{message}"):
        list(read_entries(tmp_path / "theirs.json"))
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        list(read_entries(tmp_path / "gone.json"))


def test_writing_compresses_runs(tmp_path):
    write_results([entry(segmentations=[{"size": [3, 2], "counts": [2, 3, 1]}])], tmp_path / "results.json")
    assert read_results(tmp_path / "results.json")[0]["segmentations"] == [{"size": [3, 2], "counts": "231"}]


# ---------------------------------------------------------------------------------------------------- the journal

HEADER = {"config": "STMask_demo_config", "set": ("a=1",), "checkpoint": None}


def results_of(video_id):
    rles = encode_masks(np.stack([one_pixel(video_id), one_pixel(video_id + 1)]))
    return [Track(video_id, 7, (rle, None), score=0.1 * video_id) for rle in rles[: video_id % 3]]


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
    expected = [as_entry(result) for video_id in (4, 2, 3) for result in results_of(video_id)]
    assert len(expected) == 3  # video 3 has none
    assert json.loads(whole(tmp_path)) == expected
    assert not (tmp_path / "whole.partial").exists()


def test_journals_of_several_processes_keep_the_track_ids(tmp_path):
    main, other = (ResultsJournal.create(tmp_path / f"r.partial{end}", HEADER) for end in ("", ".1"))
    main.append(4, [replace(track, track_id=5) for track in results_of(4)], {})
    other.append(2, [replace(track, track_id=7 + n) for n, track in enumerate(results_of(2))], {})
    main.absorb(other.path)
    main.finish(tmp_path / "r.json", [2, 4])
    assert [item["track_id"] for item in read_results(tmp_path / "r.json")] == [7, 8, 5]


def test_a_resumed_journal_has_kept_the_details(tmp_path):
    result = replace(results_of(1)[0], scores=(0.1234, None), shifted=(True, False))
    ResultsJournal.create(tmp_path / "run.partial", HEADER).append(1, [result], {})
    ResultsJournal.resume(tmp_path / "run.partial", HEADER).finish(tmp_path / "run.json", [1])
    details = {"scores": [0.1234, None], "shifted": [True, False]}
    assert read_results(tmp_path / "run.json") == [{**as_entry(result), **details}]


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


def test_a_journal_of_another_version_has_other_keys_and_the_message_names_the_first(tmp_path):
    path = tmp_path / "results.json.partial"
    fill(ResultsJournal.create(path, HEADER), [4])
    with pytest.raises(InputError, match=r"was started without more, this run has 1: .* version"):
        ResultsJournal.resume(path, {**HEADER, "more": 1})
    fewer = {key: value for key, value in HEADER.items() if key != "config"}
    with pytest.raises(InputError, match=f"was started with config = {HEADER['config']!r}, which this run lacks: "):
        ResultsJournal.resume(path, fewer)


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
        journal.append(2, [Track(2, 1, (None,), score=float("nan"))], {})
    assert ResultsJournal.resume(tmp_path / "results.json.partial", HEADER).done == {4}
