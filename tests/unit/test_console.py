"""Terminal output shows file and class names unchanged."""

import contextlib
import csv
import io
from pathlib import Path

import pytest

from vggft.prediction import output
from vggft.ui.console import Ui

NAME = "data/:dog: [red]fruit[/red]/a.png"


@pytest.mark.parametrize("quiet", [False, True])
def test_names_are_shown_as_they_are(quiet, capsys):
    ui = Ui(quiet=quiet)
    for speak in (ui.say, ui.warn, ui.error, ui.print, ui.put):
        speak(NAME)
    ui.table("Names", ("name", "number"), [(NAME, NAME)])
    out, err = capsys.readouterr()
    assert err.splitlines() == ([] if quiet else [NAME]) + [f"warning: {NAME}", f"error: {NAME}"]
    assert out.splitlines()[:2] == ([NAME] if quiet else [NAME, NAME])
    assert out.count(NAME) == (1 if quiet else 4)


class WriteOnly:
    """A stream of a program with windows."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("kind", ["closed", "write only", "none"])
def test_standard_streams_that_a_program_replaced(kind, quiet, monkeypatch):
    stream = {"closed": io.StringIO(), "write only": WriteOnly(), "none": None}[kind]
    if kind == "closed":
        stream.close()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    ui = Ui(quiet=quiet)
    for show in (ui.say, ui.print, ui.put, ui.warn, ui.error):
        show("words")
    ui.table("", ("name", "number"), [("a", "1")])
    with ui.progress("reading", 2) as advance:
        advance(1)
    if kind == "write only":
        shown = ["words"] * (1 if quiet else 3) + ["warning: words", "error: words"]
        assert stream.text.splitlines()[: len(shown)] == shown


ATTACKS = {
    "a\nerror: all is lost": r"a\nerror: all is lost",
    "a\r\x1b[2Jb": r"a\r\x1b[2Jb",
    "\x9b31mred\x07\x00": r"\x9b31mred\x07\x00",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2028line\u2066": r"\u2028line\u2066",
    "caf\udce9": r"caf\udce9",
    "[red]x[/red] :smile:": "[red]x[/red] :smile:",
    "日本 é 👩‍👩‍👧 \xa0": "日本 é 👩‍👩‍👧 \xa0",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_names_are_shown_so_that_no_terminal_acts_on_them(capsys, name):
    ui = Ui()
    for show in (ui.say, ui.warn, ui.error, ui.print, ui.put):
        show(f"file {name}.")
        out, err = capsys.readouterr()
        text = out + err
        assert f"file {ATTACKS[name]}.\n" in text
        assert text.count("\n") == 1
    ui.table(f"title {name}", [f"head {name}", "n"], [(f"cell {name}", "1")])
    out = capsys.readouterr().out
    for part in ("title", "head", "cell"):
        assert f"{part} {ATTACKS[name].rstrip()}" in out
    assert not set(out) & set(map(chr, (*range(10), *range(11, 32), *range(127, 160), 0x202E, 0x2028)))


def test_a_class_in_brackets_is_in_the_header_of_a_table(capsys):
    Ui().table("", ["", "[cat]", "[/]"], [("[dog]", "1", "2")])
    out = capsys.readouterr().out
    assert "[cat]" in out
    assert "[/]" in out
    assert "[dog]" in out


class Terminal:
    """What the writer of rows needs of a `Ui`."""

    def __init__(self, on_terminal):
        self.on_terminal = on_terminal
        self.text = io.StringIO(newline="")

    @contextlib.contextmanager
    def rows(self):
        yield self.text


@pytest.mark.parametrize("on_terminal", [False, True])
def test_csv_rows_are_no_formulas_and_read_back_unchanged(on_terminal):
    ui = Terminal(on_terminal)
    paths = ["=1+1.png", "-x.png", "a\rb.png", "a\nb.png", 'a"b,c.png', "'x.png", "\x1b[2J.png", "sub/=x.png"]
    with output.rows(ui, 1, grey=False) as write:
        for path in paths:
            write(output.Prediction(Path(path), {"=cat": 0.5, "dog": 0.5}, 1, None))
    header, *rows = csv.reader(io.StringIO(ui.text.getvalue(), newline=""))
    assert header == ["path", "label", "score", "unsure"]
    if on_terminal:
        assert "\x1b" not in ui.text.getvalue()
        assert "\r" not in ui.text.getvalue()
        assert len(ui.text.getvalue().splitlines()) == 1 + len(paths)
    else:
        assert [Path(row[0]) for row in rows] == [Path(path) for path in paths]
    assert not any(row[0].startswith(("=", "-", "+", "@")) for row in rows)
    assert {row[1] for row in rows} == {"'=cat"}
    assert {row[2] for row in rows} == {"0.5"}


def test_what_the_encoding_of_a_program_lacks_is_escaped(monkeypatch):
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    streams = {name: io.TextIOWrapper(file, "cp1252", newline="\n") for name, file in written.items()}
    for name, stream in streams.items():
        monkeypatch.setattr(f"sys.{name}", stream)
    ui = Ui()
    for show in (ui.say, ui.print):
        show("é ← best")
    ui.table("", ("name", "number"), [("é ← best", "1")])
    for name, stream in streams.items():
        stream.flush()
        assert r"é \u2190 best" in written[name].getvalue().decode("cp1252")
        assert stream.errors == "strict"


def test_a_pipe_is_as_wide_as_columns_says(monkeypatch, capsys):
    for columns, lines in ((None, 1), ("40", 3)):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        else:
            monkeypatch.delenv("COLUMNS", raising=False)
        Ui().sentence("word " * 20)
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_a_width_of_zero_is_no_width(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    Ui().table("", ("name", "number"), [("first", "17")])
    out = capsys.readouterr().out
    assert "first" in out
    assert "17" in out
