import json

import pytest

from inference import frame_journal
from inference.frame_journal import FrameJournal, main
from inference.object_rows import ObjectRow
from tests.reading import read_results
from ytvis.files import InputError
from ytvis.results import track_result

RLE = {"size": [2, 3], "counts": "06"}
HEADER = {"rows_of": "in.mp4"}


def results_of(rows, num_frames, details=False):
    """The results of rows, computed with all of them in memory."""
    tracks = {}
    for item in rows:
        tracks.setdefault(item.track_id, []).append(item)
    return [track_result(track, num_frames, video_id=1, details=details) for track in tracks.values()]


def row(frame, track_id, label=1, score=0.5, shifted=False):
    return ObjectRow(
        frame=frame, time_s=frame / 10, track_id=track_id, label=label, class_name="bar", score=score, x1=0, y1=0, x2=3,
        y2=2, area=6, rle=RLE, shifted=shifted,
    )  # fmt: skip


# Track 7 in frames 0, 1 and 3, its label 2, 1, 1, shifted in 1; track 2 in 1 and 3, before it in the latter; nothing in
# 2 and 4.
FRAMES = ([row(0, 7, 2, 0.1)], [row(1, 7, 1, 0.7, True), row(1, 2)], [], [row(3, 2), row(3, 7)], [])
ROWS = [entry for frame in FRAMES for entry in frame]


def fill(journal, frames=FRAMES, first=0):
    for index, rows in enumerate(frames, start=first):
        journal.append(rows, index + 1)
    return journal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.json.partial"


def test_rows_come_back_as_they_were_and_tracks_as_one_by_one(path):
    journal = fill(FrameJournal.create(path, HEADER))
    assert journal.num_frames == 5
    assert list(journal.rows()) == ROWS
    assert list(journal.results()) == results_of(ROWS, 5)
    assert list(journal.results(8)) == results_of(ROWS, 8)


def test_without_rows_there_are_no_results(path):
    journal = FrameJournal.create(path, HEADER)
    assert list(journal.rows()) == list(journal.results()) == [] and journal.num_frames == 0
    fill(journal, [[], []])
    assert list(journal.rows()) == list(journal.results()) == [] and journal.num_frames == 2


def test_a_journal_that_is_opened_again_goes_on(path):
    fill(FrameJournal.create(path, HEADER), FRAMES[:2])
    journal = FrameJournal.open(path)
    assert journal.num_frames == 2 and list(journal.rows()) == ROWS[:3]
    fill(journal, FRAMES[2:], first=2)
    assert list(journal.results()) == results_of(ROWS, 5)


@pytest.mark.parametrize(("cut", "kept"), [(1, 3), (20, 2), (60, 2)])
def test_what_a_crash_cuts_off_is_left_out(path, cut, kept):
    fill(FrameJournal.create(path, HEADER), FRAMES[:2])
    path.write_bytes(path.read_bytes()[:-cut])
    journal = FrameJournal.open(path)
    assert list(journal.rows()) == ROWS[:kept] and journal.num_frames == 2
    assert list(journal.results()) == results_of(ROWS[:kept], 2)


def test_of_the_tracks_only_a_place_is_kept(path):
    journal = FrameJournal.create(path, HEADER)
    for index in range(50):
        journal.append([row(index, index % 3)], index + 1)
    kept = {name: value for name, value in vars(journal).items() if name not in ("path", "header")}
    assert len(json.dumps(kept)) < 120, kept


def test_the_command_makes_results_of_it(path, capsys):
    fill(FrameJournal.create(path, HEADER))
    assert main([str(path)]) == 0
    assert capsys.readouterr().out == f"5 frames: {path.with_suffix('')}\n"
    entries = read_results(path.with_suffix(""))
    assert [entry["category_id"] for entry in entries] == [1, 1] and not path.exists()
    assert [rle is not None for rle in entries[0]["segmentations"]] == [True, True, False, True, False]


@pytest.mark.parametrize("details", [True, False])
def test_details_are_kept_if_the_run_asked_for_them(path, details):
    fill(FrameJournal.create(path, {**HEADER, "details": details}))
    assert list(FrameJournal.open(path).results()) == results_of(ROWS, 5, details=details)
    assert main([str(path)]) == 0
    found = [(entry.get("scores"), entry.get("shifted")) for entry in read_results(path.with_suffix(""))]
    seven = ([0.1, 0.7, None, 0.5, None], [False, True, False, False, False])
    two = ([None, 0.5, None, 0.5, None], [False] * 5)
    assert found == ([seven, two] if details else [(None, None)] * 2)


def test_rows_of_a_journal_from_before_there_were_shifted_ones_are_not_shifted(path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(frame_journal, "_ROW_KEYS", tuple(key for key in frame_journal._ROW_KEYS if key != "shifted"))
        fill(FrameJournal.create(path, HEADER))
    assert b"shifted" not in path.read_bytes()
    assert [entry.shifted for entry in FrameJournal.open(path).rows()] == [False] * len(ROWS)


@pytest.mark.parametrize(
    "changes",
    [
        *({key: None} for key in ("frame", "track_id", "label", "score", "rle", "time_s")),
        {"frame": "1"},
        {"frame": -1},
        {"track_id": [7]},
        {"shifted": 3},
        {"before": 5},
        {"before": "x"},
        {"before": None},
    ],
)
def test_a_damaged_row_is_named(path, capsys, changes):
    journal = fill(FrameJournal.create(path, HEADER), [[row(0, 7)], [row(1, 7)]])
    lines = path.read_text().splitlines()
    assert json.loads(lines[3])["before"] == len(lines[0]) + 1
    lines[3] = json.dumps({**json.loads(lines[3]), **changes})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"out\.json\.partial: line 4 is damaged"):
        FrameJournal.open(path)
    assert main([str(path)]) == 2 and capsys.readouterr().err.count("\n") == 1 and journal.path.exists()


@pytest.mark.parametrize(
    "line", ['{"before": null}', '{"num_frames": null}', '{"num_frames": "2"}', '{"num_frames": 0}', "{}", "[]"]
)
def test_a_damaged_line_is_named(path, line):
    fill(FrameJournal.create(path, HEADER), [[row(0, 7)]])
    with open(path, "a") as file:
        file.write(f'{line}\n{{"num_frames": 2}}\n')
    with pytest.raises(InputError, match="line 4 is damaged"):
        FrameJournal.open(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.json.partial", None, "cannot be read"),
        ("out.json", b'{"rows_of": "x"}\n', "must end with .partial"),
        ("other.json.partial", b'{"config": "x"}\n', "not the journal of a tracked video"),
        ("text.json.partial", b"text\n", "not the journal of a tracked video"),
        ("bad.json.partial", b'{"rows_of": "x"}\n{"a": 1}\n{"num_frames": 1}\n', "line 2 is damaged"),
    ],
)
def test_what_is_no_journal_is_one_clear_line(tmp_path, capsys, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("inference.frame_journal: error: ") and words in error
    assert content is None or (tmp_path / name).read_bytes() == content


def test_the_journal_of_another_run_is_refused(path):
    fill(FrameJournal.create(path, HEADER))
    with pytest.raises(InputError, match="rows_of"):
        FrameJournal.resume(path, {"rows_of": "other.mp4"})
