import subprocess
import sys

import cv2
import numpy as np
import pytest

from utils.window import LiveWindow

RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


@pytest.fixture
def screen(monkeypatch):
    """Stands in for OpenCV's window. "shown" and "closed" record the calls, "key" and "visible" are the answers."""
    state = {"shown": [], "closed": 0, "key": -1, "visible": 1.0}
    monkeypatch.setattr(cv2, "namedWindow", lambda title, *_: state.update(title=title))
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: state["shown"].append((title, picture)))
    monkeypatch.setattr(cv2, "waitKey", lambda _: state["key"])
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: state["visible"])
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: state.update(closed=state["closed"] + 1))
    return state


def test_pictures_are_shown_in_the_colours_that_opencv_wants(screen):
    with LiveWindow("a") as window:
        assert window.show(RED)
        assert screen["closed"] == 0
    ((title, picture),) = screen["shown"]
    assert title == screen["title"] == "a" and picture[0, 0].tolist() == [0, 0, 255] and screen["closed"] == 1


@pytest.mark.parametrize(
    ("key", "visible", "goes_on"),
    [(-1, 1.0, True), (ord("p"), 1.0, True), (ord("q"), 1.0, False), (27, 1.0, False), (-1, 0.0, False)],
)
def test_q_escape_and_closing_end_it(screen, key, visible, goes_on):
    screen.update(key=key, visible=visible)
    with LiveWindow("a") as window:
        assert window.show(RED) == goes_on


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a screen has no name")
def test_without_a_screen_nobody_tries(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("tried"))
    assert not LiveWindow.can_open()


def test_a_screen_that_cannot_be_reached_is_none(monkeypatch):
    monkeypatch.setenv("DISPLAY", "nowhere:99")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    if sys.platform.startswith("linux"):
        assert not LiveWindow.can_open()  # the trial ends with an abort


@pytest.mark.parametrize(("code", "can_open"), [(0, True), (-6, False)])
def test_the_trial_tells(monkeypatch, code, can_open):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, code))
    assert LiveWindow.can_open() == can_open


def test_a_trial_that_hangs_is_no_screen(monkeypatch):
    def hang(line, timeout, **_):
        raise subprocess.TimeoutExpired(line, timeout)

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(subprocess, "run", hang)
    assert not LiveWindow.can_open()
