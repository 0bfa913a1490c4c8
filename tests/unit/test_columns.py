"""Tables on real pseudo-terminals: the first column is always there, no number is cut, and what is left out is named."""

import os
import re
import sys

import pytest
from processes import drained

from vggft.ui.console import Ui

HEADS = (
    "head",
    "parameters",
    "accuracy",
    "95% interval",
    "log-loss",
    "AUC",
    "validation, mean ± sd (seeds)",
    "seconds",
)
ROWS = [
    ("max-64-l2-dropout  ← best", "33,092", "0.929", "0.774–0.980", "0.3070", "0.985", "0.3071 ± 0.0012 (3)", "2.0"),
    ("flatten-256-classic", "6,423,812", "0.821", "0.644–0.921", "0.6760", "0.981", "0.6760 ± 0.1034 (3)", "31.2"),
]
TABLES = {
    "heads": (HEADS, ROWS),
    "suspects": (
        ("image", "label", "predicted", "score"),
        [("flowers/" + "a long name " * 6 + "07.png", "a", "b", "0.991")],
    ),
    "digits": (("", *(f"class_{i}" for i in range(10))), [(f"class_{i}", *["1234567"] * 10) for i in range(10)]),
    "wide": (("日本", "數"), [("寬" * 30, "12345678901234567890")]),
}


def shown(width, table, monkeypatch):
    """Return what a table looks like on a pseudo-terminal, as lines without styles."""
    termios = pytest.importorskip("termios")
    monkeypatch.setenv("COLUMNS", str(width))  # other streams of the tests are no terminals
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, width))
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        Ui().table("Heads on 28 validation images", *table)
        terminal.flush()
        text = drained(ours)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_on_a_terminal(name, width, monkeypatch):
    from rich.cells import cell_len

    columns, rows = TABLES[name]
    lines = shown(width, (columns, rows), monkeypatch)
    assert all(cell_len(line) <= width for line in lines)
    text = "\n".join(lines)
    words = " ".join(text.split())
    left_out = re.search(r"no room for: (.*?) \(a wider", words)
    missing = [
        columns[i] for i in range(len(columns)) if left_out and columns[i] and columns[i] in left_out[1].split(", ")
    ]
    number = len(columns) - (len(left_out[1].split(", ")) if left_out else 0)
    if name == "heads" and left_out:  # a name with a comma in it
        number = next(n for n in range(len(columns)) if ", ".join(columns[n:]) == left_out[1])
    assert (left_out is None) == (number == len(columns)) == (not missing)
    kept = columns[:number]
    for row in rows:
        assert "".join(row[0].split()) in re.sub(r"\s", "", "".join(_column(lines)))
        for cell in row[1:number]:
            assert any(cell in line for line in lines)
        for cell in row[number:]:
            assert name == "digits" or cell not in text
    assert number > 1 or name == "wide"
    assert kept[0] in text


def _column(lines):
    """Return the texts of the first column: as wide as its part of the line below the header allows."""
    rule = next(i for i, line in enumerate(lines) if "───" in line)
    body = [line for line in lines[rule + 1 :] if line.strip() and "no room for" not in line]
    return [re.split(r"\s{2,}(?=\d|[ab]\b)", line.strip())[0] for line in body]


def test_a_table_of_a_wide_terminal_is_whole(monkeypatch):
    lines = shown(150, TABLES["heads"], monkeypatch)
    assert "no room" not in "".join(lines)
    (line,) = (line for line in lines if "flatten" in line)
    assert line.split() == " ".join(ROWS[1]).split()
    assert line.rstrip().endswith("31.2")
