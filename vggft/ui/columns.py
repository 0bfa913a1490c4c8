"""Tables at any width: the first column is wrapped, no other cell is, and columns without room are left out from the right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

_FIRST = 12  # characters that the first column gets before another column is left out, if its cells need them
_UNBROKEN = 1_000_000  # wider than any table


@dataclass(frozen=True)
class Fitted:
    """A table that fits, and the names of the columns that are left out."""

    table: Table
    left_out: Sequence[str]


def fitted(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Fitted:
    """Return a table for the width of a console.

    Args:
        columns: names; the first column is text, the others are numbers.
        rows: one cell for each column; a single line each.
    """
    for shown in range(len(columns), 0, -1):
        cells = [row[:shown] for row in rows]
        for headers in (list(columns[:shown]), _narrow(columns[:shown], cells)):
            needed = _width(console, _table(headers, cells))
            longest = max(cell_len(text) for text in (headers[0], *(row[0] for row in cells)))
            first = longest - max(0, needed - console.width)
            if first >= min(longest, _FIRST) or shown == 1:
                wrapped = [("\n".join(_lines(row[0], max(1, first))), *row[1:]) for row in cells]
                return Fitted(_table(headers, wrapped), columns[shown:])
    raise ValueError("a table without columns")


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, header in enumerate(headers):
        table.add_column(Text(header), justify="left" if i == 0 else "right", no_wrap=True, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _width(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(max_width=_UNBROKEN)).maximum


def _narrow(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the names of the columns, those after the first broken between words to be hardly wider than their cells."""
    narrow = [columns[0]]
    for i, name in enumerate(columns[1:], 1):
        width = max(
            [*(cell_len(row[i]) for row in rows), *(cell_len(word.rstrip()) for word in _words(name))], default=1
        )
        narrow.append("\n".join(_lines(name, max(1, width))))
    return narrow


def _words(text: str) -> list[str]:
    """Split a text after spaces and marks such as - and /; "← best" is one word."""
    return re.findall(r"(?:← )?+[^\s\-/_,]*[\s\-/_,]+|(?:← )?+[^\s\-/_,]+", text)


def _lines(text: str, width: int) -> list[str]:
    """Break a text between words, and inside a word only if it is longer than a line."""
    lines, line = [], ""
    for word in _words(text):
        if line and cell_len(line) + cell_len(word.rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        *pieces, rest = chop_cells(word, width) if cell_len(word.rstrip()) > width else [word]
        lines += pieces
        line += rest
    return [*lines, line.rstrip()]
