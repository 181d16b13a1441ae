import json
import logging
import math
import sys

import numpy as np
import pytest
import torch

from utils.training_log import TrainingLog, read_log
from ytvis.files import InputError

CPU = torch.device("cpu")


class Clock:
    """A clock that advances only on request."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def make_log(path, num_iterations=40, clips_per_step=4, **options):
    return TrainingLog(path, num_iterations, clips_per_step=clips_per_step, **options)


def train(log, first, last, clock=None, seconds=0.0):
    """Steps `first`…`last`, in which the loss B is the iteration and C is 1."""
    for iteration in range(first, last + 1):
        if clock:
            clock.now += seconds
        log.add(iteration, {"B": float(iteration), "C": 1.0}, 0.01, CPU)


def iterations(path):
    return [json.loads(line)["iteration"] for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------ lines


def test_a_line_is_the_mean_of_ten_iterations_and_the_last_line_of_what_is_left(tmp_path):
    path, clock = tmp_path / "new" / "log.jsonl", Clock()
    with make_log(path, num_iterations=13, clock=clock, cpu_clock=lambda: 2 * clock.now) as log:
        train(log, 1, 13, clock, seconds=0.5)
    first, last = read_log(path)
    assert first.pop("memory_mib") > 0
    assert first == {
        "iteration": 10,
        "total": 6.5,
        "B": 5.5,
        "C": 1.0,
        "lr": 0.01,
        "seconds": 0.5,
        "cpu_seconds": 1.0,
        "clips_per_second": 8.0,
    }
    assert [last[name] for name in ("iteration", "B", "seconds", "cpu_seconds")] == [13, 12.0, 0.5, 1.0]


def test_the_console_says_the_same_and_when_it_will_be_done(tmp_path, caplog):
    clock = Clock()
    with caplog.at_level(logging.INFO), make_log(tmp_path / "log.jsonl", num_iterations=1000, clock=clock) as log:
        train(log, 1, 10, clock, seconds=4.0)
    line = caplog.messages[-1]
    assert line == "10/1000 | B 5.50 C 1.00 | total 6.50 | lr 1.0e-02 | 4.00 s/it | ETA 1:06:00"


@pytest.mark.parametrize(("start", "lines"), [(0, [1, 10, 13]), (7, [8, 10, 13]), (9, [10, 13]), (12, [13])])
def test_the_console_gets_a_line_after_the_first_iteration_which_the_file_does_not(tmp_path, caplog, start, lines):
    path = tmp_path / "log.jsonl"
    with caplog.at_level(logging.INFO), make_log(path, num_iterations=13, start_iteration=start) as log:
        train(log, start + 1, 13)
    assert [int(line.partition("/")[0]) for line in caplog.messages] == lines
    assert f"{lines[0]}/13 | B {start + 1 if lines[0] == start + 1 else 5.5:.2f} C 1.00 |" in caplog.messages[0]
    assert iterations(path) == [number for number in lines if number in (10, 13)]
    assert read_log(path)[0]["B"] == sum(range(start + 1, iterations(path)[0] + 1)) / (iterations(path)[0] - start)


def test_a_score_that_the_set_cannot_give_is_only_in_the_file(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    with caplog.at_level(logging.INFO), make_log(path) as log:
        log.note(20, {"AP": 0.256, "APl": -1.0, "AR1": 0.0})
    assert caplog.messages == ["20 | validation | AP 25.6 AR1 0.0"]
    assert read_log(path) == [{"iteration": 20, "validation": {"AP": 0.256, "APl": -1.0, "AR1": 0.0}}]


def test_the_time_of_validation_and_pictures_is_not_that_of_iterations(tmp_path):
    path, clock = tmp_path / "log.jsonl", Clock()
    with make_log(path, clock=clock, cpu_clock=clock) as log:
        train(log, 1, 4, clock, seconds=1.0)
        clock.now += 500
        log.note(4, {"AP": 0.25})
        clock.now += 300
        log.show(4, "truth", np.zeros((2, 2, 3), np.uint8))
        train(log, 5, 10, clock, seconds=2.0)
    validation, record = read_log(path)
    assert validation == {"iteration": 4, "validation": {"AP": 0.25}}
    assert record["seconds"] == record["cpu_seconds"] == pytest.approx((4 * 1 + 6 * 2) / 10)


def test_a_clock_that_does_not_move_and_a_loss_that_is_not_finite_are_no_trouble(tmp_path):
    path = tmp_path / "log.jsonl"
    with make_log(path, num_iterations=1, clock=Clock()) as log:
        log.add(1, {"B": math.nan}, 0.01, CPU)
    (record,) = read_log(path)
    assert math.isnan(record["total"]) and math.isnan(record["clips_per_second"])


# ------------------------------------------------------------------------------------------------ resuming


def test_resuming_drops_what_will_come_again_and_leaves_the_rest_as_it_was(tmp_path):
    path = tmp_path / "log.jsonl"
    with make_log(path) as log:
        train(log, 1, 20)
        log.note(20, {"AP": 0.1})
        train(log, 21, 30)
        log.note(30, {"AP": 0.2})
    before = path.read_text().splitlines()
    with make_log(path, start_iteration=20) as log:
        assert path.read_text().splitlines() == before[:3]
        train(log, 21, 40)
    assert iterations(path) == [10, 20, 20, 30, 40]
    assert list(tmp_path.iterdir()) == [path]


def test_resuming_in_the_middle_of_ten_iterations(tmp_path):
    path = tmp_path / "log.jsonl"
    with make_log(path) as log:
        train(log, 1, 20)
    with make_log(path, start_iteration=17) as log:
        train(log, 18, 30)
    assert iterations(path) == [10, 20, 30]
    assert read_log(path)[1]["B"] == 19.0  # of 18, 19 and 20


def test_resuming_without_a_log_or_with_nothing_to_drop(tmp_path):
    path = tmp_path / "log.jsonl"
    make_log(path, start_iteration=20).close()
    assert not path.exists()
    path.write_text('{"iteration": 10}\n')
    inode = path.stat().st_ino
    make_log(path, start_iteration=20).close()
    assert path.stat().st_ino == inode  # not written anew


@pytest.mark.parametrize("rest", ['{"iteration": 20, "total": 1.', '{"iteration": 20}'])
def test_after_a_kill_the_next_line_does_not_stick_to_a_last_one_without_its_end(tmp_path, rest):
    path = tmp_path / "log.jsonl"
    path.write_text('{"iteration": 10}\n' + rest)
    with make_log(path, start_iteration=20) as log:
        train(log, 21, 30)
    assert iterations(path) == ([10, 20, 30] if rest.endswith("}") else [10, 30])


def test_a_new_training_keeps_the_logs_of_others_under_other_names(tmp_path):
    path = tmp_path / "STMask_demo_log.jsonl"
    for rate in range(3):
        with make_log(path) as log:
            log.add(10, {"B": 1.0}, float(rate), CPU)
    names = {"STMask_demo_log.1.jsonl": 0, "STMask_demo_log.2.jsonl": 1, "STMask_demo_log.jsonl": 2}
    assert {file.name: read_log(file)[0]["lr"] for file in tmp_path.iterdir()} == names


def test_a_damaged_log_is_not_touched_by_resuming(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"iteration": 10}\nno\n{"iteration": 30}\n')
    with pytest.raises(InputError, match=r"log\.jsonl, line 2: not JSON"):
        make_log(path, start_iteration=20)
    assert "30" in path.read_text()


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{'iteration': 20}", "not JSON"),
        ("[1]", "integer 'iteration'"),
        ('{"total": 3.0}', "integer 'iteration'"),
        ('{"iteration": true}', "integer 'iteration'"),
        ('{"iteration": 20, "total": "3"}', "'total' must be a number, not '3'"),
        ('{"iteration": 20, "total": null}', "'total' must be a number, not None"),
        ('{"iteration": 20, "validation": 0.5}', "'validation' must be an object"),
        ('{"iteration": 20, "validation": {"AP": []}}', "'AP' must be a number"),
    ],
)
def test_the_message_names_the_file_and_the_line(tmp_path, line, complaint):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"iteration": 10}}\n\n{line}\n{{"iteration": 30}}\n')
    with pytest.raises(InputError) as caught:
        read_log(path)
    assert str(caught.value).startswith(f"{path}, line 3: ") and complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_log(tmp_path):
    with pytest.raises(InputError, match="no.jsonl: cannot be read: No such file"):
        read_log(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_log(tmp_path)
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read_log(tmp_path / "picture")


def test_an_empty_log_and_a_last_line_that_is_not_whole(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    path.write_text("")
    assert read_log(path) == []
    path.write_text('{"iteration": 10}\n{"itera')
    assert read_log(path) == [{"iteration": 10}]
    assert f"{path}, line 2 is not whole" in caplog.text


# ------------------------------------------------------------------------------------------------ TensorBoard


def events(folder):
    """The contents of a folder as TensorBoard reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    return accumulator.EventAccumulator(str(folder)).Reload()


def scalars(folder, tag):
    """[(step, value)] of a curve in TensorBoard."""
    return [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events(folder).Scalars(tag)]


def test_tensorboard_has_every_number_and_the_pictures(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("tensorboard")
    clock, board = Clock(), tmp_path / "deep" / "board"
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with make_log(tmp_path / "log.jsonl", tensorboard=board, clock=clock) as log:
        assert log.takes_pictures
        train(log, 1, 20, clock, seconds=0.5)
        log.note(20, {"AP": 0.25, "AP50": 0.5, "APl": -1.0})
        log.show(20, "video 3", picture)
        assert scalars(board, "loss/B") == [(10, 5.5), (20, 15.5)]  # before the log is closed
    tags = events(board).Tags()
    measures = {f"train/{name}" for name in ("lr", "seconds", "cpu_seconds", "clips_per_second", "memory_mib")}
    assert set(tags["scalars"]) == {"loss/total", "loss/B", "loss/C", *measures, "validation/AP", "validation/AP50"}
    assert scalars(board, "loss/total") == [(10, 6.5), (20, 16.5)]
    assert scalars(board, "train/lr") == [(10, 0.01), (20, 0.01)]
    assert scalars(board, "train/seconds") == [(10, 0.5), (20, 0.5)]
    assert scalars(board, "train/clips_per_second") == [(10, 8.0), (20, 8.0)]
    assert scalars(board, "validation/AP50") == [(20, 0.5)]
    assert tags["images"] == ["video 3"]
    (shown,) = events(board).Images("video 3")
    decoded = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert shown.step == 20 and np.array_equal(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), picture)


def test_resuming_shows_no_step_twice_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    path, board = tmp_path / "log.jsonl", tmp_path / "board"
    with make_log(path, tensorboard=board) as log:
        train(log, 1, 30)
        log.note(20, {"AP": 0.5})
    with make_log(path, start_iteration=20, tensorboard=board) as log:
        log.add(30, {"B": 7.0, "C": 1.0}, 0.01, CPU)
    assert scalars(board, "loss/B") == [(10, 5.5), (20, 15.5), (30, 7.0)]
    assert scalars(board, "validation/AP") == [(20, 0.5)]
    with make_log(path, tensorboard=board) as log:  # a new training
        log.add(10, {"B": 3.0}, 0.01, CPU)
    assert scalars(board, "loss/B") == [(10, 3.0)]


def test_without_tensorboard_nothing_of_it_is_imported_or_written(tmp_path, monkeypatch):
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it could not be imported
    path = tmp_path / "log.jsonl"
    path.write_text('{"iteration": 30}\n')
    with pytest.raises(InputError, match="pip install tensorboard"):
        make_log(path, start_iteration=20, tensorboard=tmp_path / "board")
    assert iterations(path) == [30]  # a training that does not begin removes nothing
    with make_log(path, start_iteration=20) as log:
        assert not log.takes_pictures
        train(log, 21, 30)
        log.show(30, "truth", np.zeros((2, 2, 3), np.uint8))
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be made a folder"):
        make_log(tmp_path / "file" / "demo_log.jsonl")


def test_a_folder_for_tensorboard_that_is_a_file_is_refused(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "board").write_text("taken")
    with pytest.raises(InputError, match="board: cannot be a folder"):
        make_log(tmp_path / "log.jsonl", tensorboard=tmp_path / "board")
