import io
import logging
import sys

import pytest

from utils.logging import EvalProgress, setup_logging


class Terminal(io.StringIO):
    def isatty(self):
        return True


def replace_stderr(monkeypatch, stream):
    """`stream`, standing in for stderr from now on; a fixture would be too early, pytest puts its own there later."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_log_goes_to_stderr_in_one_line(monkeypatch, capsys):
    stderr = replace_stderr(monkeypatch, io.StringIO())
    setup_logging()
    logging.getLogger("eval").info("read %d videos", 3)
    logging.getLogger("eval").debug("hidden")
    assert stderr.getvalue().endswith(" INFO eval: read 3 videos\n")
    assert stderr.getvalue().count("\n") == 1
    assert capsys.readouterr().out == ""


def test_verbose_shows_debug_lines_and_a_second_call_does_not_double_them(monkeypatch):
    stderr = replace_stderr(monkeypatch, io.StringIO())
    setup_logging()
    setup_logging(verbose=True)
    logging.getLogger("eval").debug("shown")
    assert stderr.getvalue().count("shown") == 1


def test_without_a_terminal_a_line_every_ten_seconds_and_one_at_the_end(monkeypatch):
    stderr = replace_stderr(monkeypatch, io.StringIO())
    setup_logging()
    now = [0.0]
    with EvalProgress(100, 4, clock=lambda: now[0]) as progress:
        for frame in range(50):
            now[0] += 0.5
            progress.update()
            if frame % 25 == 24:
                progress.video_done()
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 3  # after 10 s, after 20 s, at the end
    assert lines[0].endswith("20/100 frames [00:10<00:40,  2.00 frame/s, videos 0/4]")
    assert lines[2].endswith("50/100 frames [00:25<00:25,  2.00 frame/s, videos 2/4]")


def test_nothing_to_do(monkeypatch):
    stderr = replace_stderr(monkeypatch, io.StringIO())
    setup_logging()
    with EvalProgress(0, 0):
        pass
    assert stderr.getvalue().count("\n") == 1
    assert "videos 0/0" in stderr.getvalue()


def test_bar_counts_and_log_lines_stay_whole_above_it(monkeypatch):
    terminal = replace_stderr(monkeypatch, Terminal())
    setup_logging()
    with EvalProgress(10, 2) as progress:
        progress.update(4)
        progress.video_done()
        logging.getLogger("eval").info("a line")
        progress.update(6)
        progress.video_done()
    shown = terminal.getvalue().replace("\r", "\n").splitlines()
    assert sum(line.strip().endswith("INFO eval: a line") for line in shown) == 1
    assert shown[-1].startswith("100%") and "10/10" in shown[-1] and "videos 2/2" in shown[-1]


def test_log_works_as_before_after_an_exception_under_the_bar(monkeypatch):
    replace_stderr(monkeypatch, Terminal())
    setup_logging()
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(KeyboardInterrupt), EvalProgress(10, 2) as progress:
        progress.update()
        raise KeyboardInterrupt
    assert logging.getLogger().handlers == handlers
