"""What a person sees: results on standard output, progress and messages on standard error."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TextIO

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from featurize.process import descriptors, interrupts
from vggft.ui import strict

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


class Ui:
    """Speaks to the person and to programs.

    With `json`, standard output carries one object and nothing else: whatever libraries print on file descriptor 1 in
    the meantime goes to standard error.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self._emitted = False  # an object was begun: no other one may follow
        self._on_terminal = sys.stdout.isatty()
        self._stdout = _claimed() if json else sys.stdout
        self._err = Console(stderr=True, quiet=quiet, highlight=False, emoji=False, soft_wrap=True)
        self._out = Console(quiet=quiet or json, highlight=False, emoji=False)
        self._results = Console(quiet=json, highlight=False, emoji=False)
        if not self._out.is_terminal:
            self._out.width = max(self._out.width, _FILE_WIDTH)

    def within(self, part: str) -> "Ui":
        """Return what a part of a longer piece of work speaks to: only its progress is shown, under the name `part`."""
        return _Part(self, part)

    def say(self, message: str) -> None:
        """Say one thing on standard error, unless quiet."""
        self._err.print(message, markup=False)

    def warn(self, message: str) -> None:
        """Say what the person must not miss, also when quiet."""
        # Through the console of the progress bar, if there is one, which then makes room.
        console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True) if self.quiet else self._err
        console.print(f"warning: {message}", markup=False, style="yellow")

    def error(self, message: str) -> None:
        """Say why it did not work, also when quiet, and to programs."""
        Console(stderr=True, highlight=False, emoji=False, soft_wrap=True).print(
            f"error: {message}", markup=False, style="red"
        )
        self.tell_programs(message)

    def tell_programs(self, message: str) -> None:
        """Emit {"error": …} where programs read standard output, unless it has its object already."""
        if self.json and not self._emitted:
            with contextlib.suppress(OSError):  # of a full disk, say, which is what the error may be about
                self._emit({"error": message})

    def print(self, message: str) -> None:
        """Print one line of the result on standard output, unless programs read it."""
        self._out.print(message, markup=False, soft_wrap=True)

    def put(self, message: str) -> None:
        """Print one line that the command is there for: as `print`, but also when quiet."""
        self._results.print(message, markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is text, the others are numbers."""
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for i, column in enumerate(columns):
            # A name may be folded where there is little room; numbers must not be cut.
            table.add_column(column, justify="left" if i == 0 else "right", no_wrap=i > 0, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def result(self, value: dict[str, Any]) -> None:
        """Hand the result to programs, with `--json`."""
        if self.json:
            self._emit(value)

    def _emit(self, value: dict[str, Any]) -> None:
        line = strict.text(value) + "\n"
        self._emitted = True
        self._stdout.write(line)
        self._stdout.flush()

    @contextlib.contextmanager
    def rows(self) -> Iterator[TextIO]:
        """Hand out standard output for rows that programs read as they come, each sent on at its end.

        Until the end of it all else that is printed goes to standard error. File names that are no Unicode keep their bytes.
        """
        with (
            descriptors.redirected(2, 1) as (stdout,),
            open(stdout, "w", 1, "utf-8", "surrogateescape", "\n", closefd=False) as stream,
        ):
            yield stream

    @property
    def lines_are_progress(self) -> bool:
        """True where results come line by line on a terminal, so that a progress bar would only be in their way."""
        return self._on_terminal and not self.json

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
                interrupts.check()
                bar.update(task, completed=done, total=of, description=what)

            yield advance


def _claimed() -> TextIO:
    """Return standard output; whatever else is written on file descriptor 1 from now on goes to standard error."""
    (stdout,) = descriptors.redirect(2, 1)
    return open(stdout, "w", encoding="utf-8", newline="\n")  # noqa: PTH123 (a descriptor), SIM115


class _Part(Ui):
    """What `Ui.within` returns."""

    def __init__(self, whole: Ui, part: str) -> None:
        super().__init__(quiet=True)
        self._whole, self._part = whole, part

    def warn(self, message: str) -> None:
        """Say nothing: the whole says what matters of its parts."""

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "images") -> Iterator[Advance]:
        """Show a bar of the whole."""
        with self._whole.progress(f"{self._part}: {what}", total, unit) as advance:

            def named(done: int, of: int | None = total, /, *, what: str | None = None) -> None:
                advance(done, of, what=f"{self._part}: {what}" if what else None)

            yield named
