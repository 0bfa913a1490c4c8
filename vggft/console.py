"""What a person sees: results on standard output, progress and messages on standard error."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Columns of a table that goes to a file or a pipe, where nothing says how wide it may be.
_FILE_WIDTH = 110


def duration(seconds: float) -> str:
    """Write a length of time for people, roughly."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, done: int, of: int | None = None, /, *, what: str | None = None) -> None:
        """Show that `done` of `of` are done, and what is done; both may be left out where they do not change."""


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        self._unit = unit
        super().__init__()

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} {self._unit}/s" if speed else "", style="progress.data.speed", no_wrap=True)


_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python keeps a byte of a file name that is no UTF-8


def _printable(value: Any) -> Any:
    """Write bytes of file names that are no Unicode as \\xff: JSON has no other way, and lone surrogates are no text."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value


class Ui:
    """Speaks to the person and to programs.

    With `json`, standard output carries one object and nothing else: whatever libraries print on file descriptor 1 in
    the meantime goes to standard error.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._stdout = sys.stdout
        if json:
            self._stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
            sys.stdout.flush()
            os.dup2(2, 1)
        self._err = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._out = Console(quiet=quiet or json, highlight=False)
        if not self._out.is_terminal:
            self._out.width = max(self._out.width, _FILE_WIDTH)

    def say(self, message: str) -> None:
        """Say one thing on standard error, unless quiet."""
        self._err.print(message, markup=False)

    def warn(self, message: str) -> None:
        """Say what the person must not miss, also when quiet."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"warning: {message}", markup=False, style="yellow")

    def error(self, message: str) -> None:
        """Say why it did not work, also when quiet; programs get {"error": …}."""
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {message}", markup=False, style="red")
        if self.json:
            self._emit({"error": message})

    def print(self, message: str) -> None:
        """Print one line of the result on standard output, unless programs read it."""
        self._out.print(message, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is text, the others are numbers."""
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(columns):
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i == 0)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def result(self, value: dict[str, Any]) -> None:
        """Hand the result to programs, with `--json`."""
        if self.json:
            self._emit(value)

    def _emit(self, value: dict[str, Any]) -> None:
        self._stdout.write(json.dumps(_printable(value), allow_nan=False) + "\n")
        self._stdout.flush()

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "images") -> Iterator[Advance]:
        """Show a bar with rate and time left; the value is called with how much is done so far (of how much)."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            _RateColumn(unit),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=self._err, disable=self.quiet, expand=True) as bar:
            task = bar.add_task(what, total=total)

            def advance(done: int, of: int | None = total, /, *, what: str | None = None) -> None:
                bar.update(task, completed=done, total=of, description=what)

            yield advance
