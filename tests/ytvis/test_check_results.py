"""The check of results files, on two videos of 6×4 pixels, with one fault that a server would refuse at a time."""

import itertools
import json
from pathlib import Path

import pytest

from tests.ytvis.rectangles import rectangle
from ytvis import check_results as check
from ytvis import files
from ytvis import results as reader
from ytvis.check_results import examine_results
from ytvis.diagnostics import Rule, exit_code
from ytvis.files import InputError
from ytvis.score.ap import evaluate_results

REFERENCE = Path(__file__).parent.parent / "fixtures" / "reference"


def rle(top, left, height, width, hw=(4, 6)):
    return rectangle(left, top, width, height, hw)


ANNOTATIONS = {
    "videos": [
        {"id": 7, "width": 6, "height": 4, "file_names": ["a/0.png", "a/1.png"]},
        {"id": 2, "width": 6, "height": 4, "file_names": ["b/0.png"]},
    ],
    "categories": [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}],
}


def entry(**changes):
    masks = [rle(0, 0, 2, 3), None]
    return {"video_id": 7, "category_id": 10, "score": 0.5, "segmentations": masks, **changes}


def last(**changes):
    return entry(video_id=2, segmentations=[rle(1, 1, 2, 2)], **changes)


def examine(tmp_path, results):
    (tmp_path / "ann.json").write_text(json.dumps(ANNOTATIONS))
    path = tmp_path / "results.json"
    path.write_text(results if isinstance(results, str) else json.dumps(results))
    return examine_results(tmp_path / "ann.json", path)


def shorten(found):
    return [(f.severity, f.where, f.what.split(":")[0], f.count) for f in found]


def test_good_results_have_no_faults(tmp_path):
    details = {"scores": [0.5, None], "shifted": [True, False]}
    assert examine(tmp_path, [entry(), entry(category_id=20, **details), last()]) == []


def test_recorded_results_have_none_either():
    found = examine_results(
        REFERENCE / "dataset_eval" / "instances.json", REFERENCE / "dataset_eval" / "results_all_frames.json"
    )
    assert exit_code(found) == 0


def without(key):
    return {name: value for name, value in entry().items() if name != key}


def masks(second):
    return {"segmentations": [rle(0, 0, 2, 3), second]}


RULES = {name: value for module in (reader, check) for name, value in vars(module).items() if isinstance(value, Rule)}

# (the rule, the place that must be reported, the entry)
CASES = [
    ("NOT_AN_OBJECT", "entry 1", [3]),
    ("UNKNOWN_VIDEO", "entry 1", entry(video_id=3)),
    ("UNKNOWN_VIDEO", "entry 1", entry(video_id="7")),
    ("UNKNOWN_VIDEO", "entry 1", entry(video_id=None)),
    ("UNKNOWN_VIDEO", "entry 1", entry(video_id=[])),
    ("UNKNOWN_CATEGORY", "entry 1 (video 7)", entry(category_id=1)),
    ("BAD_CATEGORY", "entry 1 (video 7)", entry(category_id="cat")),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score=float("nan"))),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score=float("-inf"))),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score="0.5")),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score=None)),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score=True)),
    ("NOT_A_SCORE", "entry 1 (video 7)", entry(score=10**400)),
    ("SCORE_RANGE", "entry 1 (video 7)", entry(score=50)),
    ("SCORE_RANGE", "entry 1 (video 7)", entry(score=-0.1)),
    ("BAD_TRACK_ID", "entry 1 (video 7)", entry(track_id=-1)),
    ("BAD_TRACK_ID", "entry 1 (video 7)", entry(track_id="3")),
    ("BAD_TRACK_ID", "entry 1 (video 7)", entry(track_id=2**60)),
    ("NO_LIST", "entry 1 (video 7)", entry(segmentations=rle(0, 0, 1, 1))),
    ("WRONG_LENGTH", "entry 1 (video 7)", entry(segmentations=[rle(0, 0, 2, 3)])),
    ("WRONG_LENGTH", "entry 1 (video 7)", entry(segmentations=[rle(0, 0, 2, 3), None, None])),
    ("BYTES_AS_TEXT", "entry 1 (video 7), frame 1", entry(**masks({"size": [4, 6], "counts": "b'04'"}))),
    ("RUNS", "entry 1 (video 7), frame 1", entry(**masks({"size": [4, 6], "counts": [0, 24]}))),
    ("POLYGONS", "entry 1 (video 7), frame 1", entry(**masks([[0, 0, 4, 0, 4, 4]]))),
    ("BAD_RLE", "entry 1 (video 7), frame 1", entry(**masks({"size": [4, 6], "counts": "99"}))),
    ("BAD_RLE", "entry 1 (video 7), frame 1", entry(**masks({"size": [4, 6], "counts": "no RLE"}))),
    ("BAD_RLE", "entry 1 (video 7), frame 1", entry(**masks({"counts": "0h0"}))),
    ("BAD_RLE", "entry 1 (video 7), frame 1", entry(**masks(7))),
    ("SWAPPED_SIZE", "entry 1 (video 7), frame 1", entry(**masks(rle(0, 0, 2, 3, (6, 4))))),
    ("WRONG_SIZE", "entry 1 (video 7), frame 1", entry(**masks(rle(0, 0, 2, 3, (8, 12))))),
    ("NEVER_SEEN", "entry 1 (video 7)", entry(segmentations=[None, None])),
    ("NEVER_SEEN", "entry 1 (video 7)", entry(segmentations=[None, rle(0, 0, 0, 0)])),
    ("DUPLICATE", "entry 1 (video 7)", entry(category_id=20)),
]


@pytest.mark.parametrize(("name", "where", "bad"), CASES)
def test_every_fault_is_named_alone_with_its_place(tmp_path, name, where, bad):
    rule = RULES[name]
    (diagnostic,) = examine(tmp_path, [entry(category_id=20), bad, last()])
    assert (diagnostic.severity, diagnostic.where, diagnostic.what.split(":")[0]) == (rule.severity, where, rule.what)
    assert exit_code([diagnostic]) == (rule.severity == "refused")


@pytest.mark.parametrize("key", ["video_id", "category_id", "score", "segmentations"])
def test_missing_keys_are_named(tmp_path, key):
    (diagnostic,) = examine(tmp_path, [entry(category_id=20), without(key), last()])
    assert diagnostic.severity == "refused" and diagnostic.what == f"{key!r} is missing"


def test_two_tracks_of_a_video_with_one_id_are_named(tmp_path):
    entries = [entry(track_id=4), entry(category_id=20, track_id=4), last(track_id=4)]
    (diagnostic,) = examine(tmp_path, entries)
    assert (diagnostic.severity, diagnostic.where) == ("warning", "entry 1 (video 7)")
    assert diagnostic.what == "two tracks of a video have the same id: 4"


@pytest.mark.parametrize("second", [{}, {"track_id": None}])
def test_a_video_with_some_track_ids_is_named_once(tmp_path, second):
    third = entry(segmentations=[None, rle(1, 1, 2, 2)])
    entries = [entry(track_id=4), entry(category_id=20) | second, third, last()]
    (diagnostic,) = examine(tmp_path, entries)
    assert (diagnostic.severity, diagnostic.where, diagnostic.count) == ("warning", "entry 1 (video 7)", 1)
    assert diagnostic.what == "some tracks of a video have an id, others none"
    (diagnostic,) = examine(tmp_path, [entries[2], *entries[:2], last()])
    assert (diagnostic.where, diagnostic.count) == ("entry 1 (video 7)", 1)
    assert examine(tmp_path, [entry(track_id=4), last()]) == []  # of another video


def test_every_rule_has_a_test():
    elsewhere = {
        "SAME_TRACK_ID",
        "SOME_TRACK_IDS",
        "NOT_JSON",
        "NOT_A_LIST",
        "NOTHING",
        "SCATTERED",
        "TOO_MANY",
        "NO_PREDICTION",
    }
    assert {case[0] for case in CASES} | elsewhere == set(RULES)


def test_what_our_evaluator_refuses_is_refused_and_nothing_else(tmp_path):
    annotations = {**ANNOTATIONS, "annotations": []}
    (tmp_path / "truth.json").write_text(json.dumps(annotations))
    refusals = 0
    for _, _, bad in CASES:
        found = examine(tmp_path, [entry(), bad, last()])
        try:
            evaluate_results(tmp_path / "truth.json", tmp_path / "results.json")
            refused = False
        except InputError:
            refused = True
            refusals += 1
        assert exit_code(found) == refused, bad
    assert 5 < refusals < len(CASES)


def test_many_of_a_kind_are_one_line(tmp_path):
    results = [entry(video_id=9, score=index / 10_000) for index in range(10_000)]
    found = examine(tmp_path, [entry(), *results, last()])
    assert shorten(found) == [("refused", "entry 1", reader.UNKNOWN_VIDEO.what, 10_000)]


def test_duplicates_are_of_one_video_and_class_and_over_nine_tenths(tmp_path):
    whole = [rle(0, 0, 4, 6), rle(0, 0, 4, 6)]  # 48 pixels
    nearly = [rle(0, 0, 4, 6), rle(0, 0, 4, 5)]  # 44 of them: 0.917
    less = [rle(0, 0, 4, 5), rle(0, 0, 4, 5)]  # 40 of them: 0.833 of the whole, 0.909 of nearly
    assert examine(tmp_path, [entry(segmentations=whole), entry(segmentations=less), last()]) == []
    assert examine(tmp_path, [entry(segmentations=whole), entry(segmentations=nearly, category_id=20), last()]) == []
    found = examine(tmp_path, [entry(segmentations=masks) for masks in (whole, nearly, less)] + [last()])
    assert shorten(found) == [("warning", "entry 1 (video 7)", check.DUPLICATE.what, 2)]
    assert found[0].what.endswith("IoU 0.92 with entry 0")


def test_tracks_of_equal_size_elsewhere_are_no_duplicates(tmp_path):
    apart = [[rle(0, 0, 4, 3), None], [rle(0, 3, 4, 3), None], [None, rle(0, 0, 4, 3)]]
    assert examine(tmp_path, [entry(segmentations=masks) for masks in apart] + [last()]) == []
    # 24 pixels shared of 26 each, but of 28 in all: 0.857
    nearly = [[rle(0, 0, 4, 6), rle(0, left, 1, 2)] for left in (0, 2)]
    assert examine(tmp_path, [entry(segmentations=masks) for masks in nearly] + [last()]) == []


def test_duplicates_are_found_across_the_file_as_far_as_memory_goes(tmp_path, monkeypatch):
    results = [entry(), last(), entry(), last(score=0.1)]
    assert shorten(examine(tmp_path, results)) == [("warning", "entry 2 (video 7)", check.DUPLICATE.what, 2)]
    monkeypatch.setattr(check, "MEMORY", 0)
    assert shorten(examine(tmp_path, results)) == [("warning", "entry 2 (video 7)", check.SCATTERED.what, 2)]
    assert shorten(examine(tmp_path, [entry(), entry(), last()])) == [
        ("warning", "entry 1 (video 7)", check.DUPLICATE.what, 1)  # neighbours are always compared
    ]


def test_more_tracks_than_count_are_told_once(tmp_path):
    places = itertools.product(range(4), range(6), range(4), range(6))
    tracks = [
        [rle(top, left, 1, 1), rle(down, right, 1, 1)] for top, left, down, right in itertools.islice(places, 103)
    ]
    results = [entry(segmentations=masks) for masks in tracks] + [last()]
    assert shorten(examine(tmp_path, results)) == [("warning", "entry 100 (video 7)", check.TOO_MANY.what, 1)]
    assert examine(tmp_path, [*results[:100], last()]) == []


def test_videos_without_a_track_are_a_warning(tmp_path):
    assert shorten(examine(tmp_path, [entry()])) == [("warning", "video 2", check.NO_PREDICTION.what, 1)]


def test_no_tracks_at_all_are_a_warning(tmp_path):
    found = examine(tmp_path, [])
    assert shorten(found)[0] == ("warning", "the file", check.NOTHING.what, 1)
    assert shorten(found)[1:] == [("warning", "video 7", check.NO_PREDICTION.what, 2)]


@pytest.mark.parametrize(
    ("text", "rule", "detail"),
    [
        ('{"results": []}', check.NOT_A_LIST, "begins with '{"),
        ("", check.NOT_A_LIST, ""),
        ("[", check.NOT_JSON, "Expecting value"),
        ("[" + json.dumps(entry()), check.NOT_JSON, "the list has no end"),
        ("[" + json.dumps(entry())[:-9], check.NOT_JSON, "at the end of the file"),
        ("[" + json.dumps(entry()) + ",]", check.NOT_JSON, "Expecting value"),
        ("[" + json.dumps(entry()) + "] 1", check.NOT_JSON, "follows the end"),
        ("[" + json.dumps(entry()) + json.dumps(entry()) + "]", check.NOT_JSON, "follows an entry"),
        ('[{"score": .5, "segmentations": ["' + "x" * 99 + '"]}]', check.NOT_JSON, "at '.5"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_what_is_no_whole_list_is_refused(tmp_path, monkeypatch, text, rule, detail, chunk):
    monkeypatch.setattr(files, "CHUNK", chunk)
    diagnostic = examine(tmp_path, text)[0]
    assert diagnostic.severity == "refused" and diagnostic.what.startswith(rule.what) and detail in diagnostic.what


def test_a_file_that_is_no_text_is_refused(tmp_path):
    examine(tmp_path, [])
    (tmp_path / "results.json").write_bytes(b"[\xff\xfe]")
    found = examine_results(tmp_path / "ann.json", tmp_path / "results.json")
    assert found[0].what.startswith(check.NOT_JSON.what)


def test_files_that_are_not_there_or_are_faulty_themselves_raise(tmp_path):
    examine(tmp_path, [])
    with pytest.raises(InputError, match=r"gone\.json"):
        examine_results(tmp_path / "ann.json", tmp_path / "gone.json")
    with pytest.raises(InputError, match=r"gone\.json"):
        examine_results(tmp_path / "gone.json", tmp_path / "results.json")
    (tmp_path / "bad.json").write_text(json.dumps({**ANNOTATIONS, "videos": [{"id": 1}]}))
    with pytest.raises(InputError, match=r"bad\.json: video 1: .*video without 'width'"):
        examine_results(tmp_path / "bad.json", tmp_path / "results.json")
