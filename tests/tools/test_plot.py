import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.plot import default_labels, draw_curves, main
from ytvis.files import InputError

ROOT = Path(__file__).parent.parent.parent


def record(iteration, total, **losses):
    return {"iteration": iteration, "total": total, **losses, "lr": 0.1, "seconds": 1.0, "memory_mib": 9.0}


def validation(iteration, ap, **scores):
    return {"iteration": iteration, "validation": {"AP": ap, "AP50": 2 * ap, "AR1": 0.9, **scores}}


RUN = [
    record(10, 5.0, B=4.0, C=1.0),
    record(20, 3.0, B=2.0, C=1.0),
    validation(20, 0.25),
    record(30, 2.0, B=1.5, C=0.5),
]


def write_log(path, run):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in run))
    return str(path)


def curves(figure):
    """{panel's title: [(iterations, values) of each line that is drawn]}."""
    return {
        axes.get_title(): [
            (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines if len(line.get_xdata())
        ]
        for axes in figure.axes
    }


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def decode(path):
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture


# ------------------------------------------------------------------------------------------------ what is drawn


def test_a_panel_each_for_the_losses_the_learning_rate_and_the_scores():
    assert curves(draw_curves([RUN], ["demo"])) == {
        "total": [([10, 20, 30], [5.0, 3.0, 2.0])],
        "B": [([10, 20, 30], [4.0, 2.0, 1.5])],
        "C": [([10, 20, 30], [1.0, 1.0, 0.5])],
        "learning rate": [([10, 20, 30], [0.1, 0.1, 0.1])],
        "AP (%)": [([20], [25.0])],
        "AP50 (%)": [([20], [50.0])],
    }


def test_runs_lie_over_each_other_in_colours_that_the_legend_tells():
    other = [record(10, 6.0, B=5.0, D=1.0)]
    figure = draw_curves([RUN, other], ["fp32", "bf16"], title="two precisions")
    found = curves(figure)
    assert list(found) == ["total", "B", "C", "D", "learning rate", "AP (%)", "AP50 (%)"]
    assert found["total"] == [([10, 20, 30], [5.0, 3.0, 2.0]), ([10], [6.0])]
    assert found["D"] == [([10], [1.0])]
    assert legend(figure) == ["fp32", "bf16"]
    assert figure.get_suptitle() == "two precisions"
    (first, second), handles = figure.axes[0].lines, figure.legends[0].get_lines()
    assert [line.get_color() for line in handles] == [first.get_color(), second.get_color()]
    assert first.get_color() != second.get_color()
    assert first.get_linewidth() > second.get_linewidth()  # seen on both sides of one that covers it


def test_no_two_of_twenty_runs_look_alike():
    handles = draw_curves([RUN] * 20, [str(n) for n in range(20)]).legends[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle()) for line in handles}) == 20


def test_a_single_point_is_marked():
    (line,) = draw_curves([[record(10, 5.0)]], ["short"]).axes[0].lines
    assert line.get_marker() == "."


def test_smoothing_is_the_mean_of_the_last_lines_with_the_lines_behind():
    run = [record(10 * n, value) for n, value in enumerate([4.0, 2.0, math.nan, 6.0, 0.0], start=1)]
    found = curves(draw_curves([run], ["demo"], smooth=2))
    (_, raw), (_, smooth) = found["total"]
    assert raw[:2] == [4.0, 2.0] and math.isnan(raw[2])
    assert smooth == [4.0, 3.0, 2.0, 6.0, 3.0]
    assert len(found["learning rate"]) == 1


def test_what_is_not_finite_is_a_gap_and_of_an_iteration_twice_in_the_log_the_later_line_counts():
    run = [record(10, 5.0), record(20, 4.0), record(30, math.inf), record(20, 3.0)]
    ((iterations, values),) = curves(draw_curves([run], ["demo"]))["total"]
    assert iterations == [10, 20, 30] and values[:2] == [5.0, 3.0] and math.isnan(values[2])


def test_a_loss_that_is_not_finite_at_the_ends_keeps_its_place():
    run = [record(10, math.nan), record(20, 4.0), record(30, math.inf)]
    ((iterations, values),) = curves(draw_curves([run], ["demo"]))["total"]
    assert iterations == [10, 20, 30] and [math.isnan(value) for value in values] == [True, False, True]


def test_a_loss_that_a_stage_between_lacks_is_a_gap():
    stages = [("one", {"C": 1.0}), ("two", {"B": 2.0}), ("three", {"C": 0.5})]
    run = [{"stage": name, **record(10 * n, 3.0, **losses)} for n, (name, losses) in enumerate(stages, start=1)]
    found = curves(draw_curves([run], ["demo"]))
    assert list(found) == ["total", "C", "B", "learning rate"]
    ((iterations, values),) = found["C"]
    assert iterations == [10, 20, 30] and (values[0], values[2]) == (1.0, 0.5) and math.isnan(values[1])
    assert found["B"] == [([20], [2.0])]


def test_a_score_of_a_set_without_truth_is_not_drawn():
    assert "AP (%)" not in curves(draw_curves([[RUN[0], validation(10, -1.0)]], ["demo"]))


def test_a_run_with_nothing_to_draw_is_named():
    for empty in ([], [{"iteration": 10}], [validation(10, -1.0)]):
        with pytest.raises(InputError, match="^empty: .*nothing to draw"):
            draw_curves([RUN, empty], ["full", "empty"])


def test_labels_come_from_the_names_that_tell_files_apart():
    paths = [Path("a/base_log.jsonl"), Path("a/resnet50_log.jsonl")]
    assert default_labels(paths) == ["base", "resnet50"]
    paths = [Path("a/base_log.jsonl"), Path("b/base_log.jsonl")]
    assert default_labels(paths) == ["a/base_log.jsonl", "b/base_log.jsonl"]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_writes_a_picture_1600_pixels_wide(tmp_path):
    log, output = write_log(tmp_path / "demo_log.jsonl", RUN), tmp_path / "new" / "curves.png"
    line = [sys.executable, "-m", "tools.plot", log, f"--output={output}", "--title=demo"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    picture = decode(output)
    assert picture.shape[1] == 1600
    assert (picture != 255).any(axis=2).mean() > 0.01
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("name", ["curves.png", "curves.SVG"])
def test_the_same_logs_give_the_same_bytes_whatever_the_persons_settings_and_others_do_not(tmp_path, name):
    import matplotlib

    log = write_log(tmp_path / "one_log.jsonl", RUN)
    other = write_log(tmp_path / "two" / "one_log.jsonl", [*RUN[:-1], record(30, 2.5, B=2.0, C=0.5)])
    first, again, different = (tmp_path / folder / name for folder in ("first", "again", "different"))
    assert main([log, f"--output={first}"]) == 0
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linestyle": ":"}):
        assert main([log, f"--output={again}"]) == 0
    assert main([other, f"--output={different}"]) == 0
    assert first.read_bytes() == again.read_bytes() != different.read_bytes()


def test_svg_is_svg_and_a_dollar_sign_is_no_formula(tmp_path):
    log, output = write_log(tmp_path / "demo_log.jsonl", RUN), tmp_path / "curves.svg"
    assert main([log, f"--output={output}", r"--title=$HOME and $\frac"]) == 0
    assert ElementTree.parse(output).getroot().tag.endswith("svg")


def test_curves_reach_the_pixels_of_the_picture(tmp_path):
    """Two runs show both default colours, one run only the first."""
    one, two = (write_log(tmp_path / name / "log.jsonl", RUN) for name in ("a", "b"))
    colours = {"blue": (0xB4, 0x77, 0x1F), "orange": (0x0E, 0x7F, 0xFF)}  # BGR
    counts = {}
    for logs in ([one], [one, two]):
        assert main([*logs, f"--output={tmp_path / 'curves.png'}"]) == 0
        picture = decode(tmp_path / "curves.png")
        counts[len(logs)] = {name: np.all(picture == colour, axis=2).sum() for name, colour in colours.items()}
    assert counts[1]["blue"] > 500 and counts[1]["orange"] == 0
    assert counts[2]["blue"] > 500 and counts[2]["orange"] > 500  # equal curves, and both are seen


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--output=curves.gif"], "curves.gif: .* must end in .png or .svg"),
        (["--output=curves.png", "--labels=a,b"], "--labels has 2 names for 1 logs"),
        (["--output=curves.png", "--smooth=0"], "--smooth: '0' is not a whole number of at least 1"),
        ([], "--output"),
        (["--output=demo_log.jsonl/curves.png"], "demo_log.jsonl: cannot be made a folder"),
        (["missing.jsonl", "--output=curves.png"], "missing.jsonl: cannot be read"),
        (["bad.jsonl", "--output=curves.png"], "bad.jsonl, line 2: not JSON"),
        (["empty.jsonl", "--output=curves.png"], "empty: the log has nothing to draw"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, more, complaint):
    monkeypatch.chdir(tmp_path)
    write_log(Path("demo_log.jsonl"), RUN)
    Path("bad.jsonl").write_text('{"iteration": 10, "total": 1}\n{"iteration"\n{"iteration": 30}\n')
    Path("empty.jsonl").write_text("")
    before = sorted(tmp_path.iterdir())
    try:
        code = main(["demo_log.jsonl", *more])
    except SystemExit as stop:
        code = stop.code
    last = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and "error: " in last and re.search(complaint, last)
    assert sorted(tmp_path.iterdir()) == before


def test_help_explains_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(word in said for word in ("python -m tools.plot", "--labels", "--smooth", "mean of ten iterations"))
