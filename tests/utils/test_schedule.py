import re
from pathlib import Path

import pytest

from data.config import get_config
from utils.schedule import Schedule

PAGE = Path(__file__).parent.parent.parent / "docs" / "train.md"


def test_the_published_schedule():
    config = get_config("STMask_plus_base_config")
    schedule = Schedule(config, batch_size=8)  # 16 images: everything takes half as long
    assert schedule.iterations == 125_000
    assert schedule(0) == pytest.approx(1e-4 / 250)
    assert schedule(124) == pytest.approx(1e-4 / 2)
    assert schedule(250) == schedule(74_999) == pytest.approx(1e-4)
    assert schedule(75_000) == pytest.approx(1e-5)
    assert schedule(100_000) == pytest.approx(1e-6)
    assert Schedule(config, batch_size=4).iterations == 250_000
    assert Schedule(config, batch_size=8, iterations=20).iterations == 20


def test_the_frames_of_clips_count_as_images():
    config = get_config("STMask_plus_base_config", {"quirks.lr_not_autoscaled": False})
    ours, twice = Schedule(config, batch_size=4, clip_frames=4), Schedule(config, batch_size=8)
    assert (ours.iterations, ours.warmup, ours.steps) == (125_000, 250, [75_000, 100_000])
    assert str(ours) == str(twice) and ours(1000) == twice(1000) == pytest.approx(2e-4)


def test_a_schedule_along_half_a_cosine():
    config = get_config("STMask_plus_base_config", {"train.lr_schedule": "cosine", "train.warmup_iterations": 10})
    schedule = Schedule(config, batch_size=4, iterations=1000, given_keys={"train.warmup_iterations"})
    assert schedule(4) == pytest.approx(0.5e-4, rel=1e-3)  # half of the warm-up
    assert schedule(500) == pytest.approx(0.5e-4)
    assert 0 < schedule(999) < 1e-9
    assert "half a cosine" in str(schedule)


def test_quirk_lr_is_not_autoscaled():
    for quirk, expected in ((True, 1e-4), (False, 2e-4)):
        config = get_config("STMask_plus_base_config", {"quirks.lr_not_autoscaled": quirk})
        assert Schedule(config, batch_size=8)(1000) == pytest.approx(expected)


def test_a_shorter_run_keeps_the_shares_of_warm_up_and_steps():
    config = get_config("STMask_plus_base_config")
    short = Schedule(config, batch_size=4, iterations=1000)
    assert (short.iterations, short.warmup, short.steps) == (1000, 2, [600, 800])
    assert [short(i) for i in (0, 1, 599, 600, 800)] == pytest.approx([0.5e-4, 1e-4, 1e-4, 1e-5, 1e-6])
    assert "warm-up over 2 iterations, ×0.1 at [600, 800]" in str(short)
    assert "the recipe's 250000 iterations shortened to 0.40%" in str(short)
    # As many iterations as the recipe's, or more: nothing moves.
    for iterations in (None, 250_000, 400_000):
        schedule = Schedule(config, batch_size=4, iterations=iterations)
        assert (schedule.warmup, schedule.steps) == (500, [150_000, 200_000]) and "shortened" not in str(schedule)


@pytest.mark.parametrize(
    ("given", "warmup", "steps"),
    [
        ({"train.warmup_iterations"}, 30, [600, 800]),
        ({"train.lr_steps"}, 0, [150_000, 200_000]),
        ({"train.warmup_iterations", "train.lr_steps", "train.gamma"}, 30, [150_000, 200_000]),
    ],
)
def test_lengths_that_are_given_by_hand_stay(given, warmup, steps):
    config = get_config("STMask_plus_base_config", {"train.warmup_iterations": 30})
    schedule = Schedule(config, batch_size=4, iterations=1000, given_keys=given)
    assert (schedule.warmup, schedule.steps) == (warmup, steps)
    assert f"; {' and '.join(sorted(given - {'train.gamma'}))} as given)" in str(schedule)


def test_a_training_of_80_iterations_leaves_its_warm_up():
    """The table of docs/train.md."""
    config = get_config("STMask_demo_config")
    before, after = Schedule(config, 4, 80, {"train.warmup_iterations"}), Schedule(config, 4, 80)
    table = [re.findall(r"[\d.e-]+", line) for line in PAGE.read_text("utf-8").splitlines() if "of 80 |" in line]
    assert len(table) == 6
    for number, _, *rates in table:
        assert rates == [f"{schedule(int(number) - 1):.1e}" for schedule in (before, after)]
