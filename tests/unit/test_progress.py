"""Progress: rates that mean something, time left, one bar at a time, and nothing of it in a log."""

import os
import re
import sys

import pytest
from processes import drained

from vggft.ui.console import Ui, pace


@pytest.mark.parametrize(
    ("done", "total", "elapsed", "text"),
    [
        (25, 25, 0.00001, ""),  # not 4413638.8 files/s
        (0, 25, 10, ""),
        (5, 25, 10, "0.5 files/s, 40 s left"),
        (25, 25, 10, "2.5 files/s"),
        (50000, 100000, 10, "5,000 files/s, 10 s left"),
        (300, 60000, 10, "30.0 files/s, 33 min left"),
        (70, None, 10, "7.0 files/s"),
    ],
)
def test_rates_and_time_left(done, total, elapsed, text):
    assert pace(done, total, elapsed, "files") == text


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_numbers_are_whole_at_any_width(width, monkeypatch):
    pytest.importorskip("termios")
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("vggft.ui.console.pace", lambda done, total, elapsed, unit: pace(12340, 256700, 100, unit))
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Ui().progress("fold 3 of 5: training 12 pooled heads together, number of epochs", 1234) as advance:
            advance(123)
        terminal.flush()
        shown = drained(ours)
    os.close(ours)
    numbers = r" 123/1234 +33 min left" if width < 60 else r" 123/1234 +123 images/s, 33 min left"
    assert re.search(numbers, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))


def test_a_log_has_no_bars(capfd):
    with Ui().progress("computing", 3) as advance:
        advance(2)
    with Ui().progress("predicting") as advance:
        advance(2)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_has_one_bar_at_a_time(monkeypatch):
    pytest.importorskip("termios")
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        ui = Ui()
        for what in ("reading", "computing"):
            with ui.progress(what, 4) as advance:
                advance(4)
        ui.say("finished")
        terminal.flush()
        shown = drained(ours)
    os.close(ours)
    screen = re.split(r"\x1b\[2K", shown)  # a bar is erased at its end
    assert "4/4" in shown
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen[-1]).strip() == "finished"
