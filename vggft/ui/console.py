"""Terminal output: results on standard output, progress and messages on standard error."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from featurize.process import descriptors, interrupts
from vggft.ui import strict
from vggft.ui.columns import fitted
from vggft.ui.visible import shortened, visible

# Columns of a table that is written to a file or a pipe, which have no width.
_FILE_WIDTH = 110
_UNKNOWN_WIDTH = 80  # columns of a terminal that does not say how many it has

_FIRST_MOMENTS = 0.5  # seconds in which no rate is shown

# Of progress, in characters: from these widths on there are a rate and a bar; what the numbers take; and the label, at least.
_WITH_RATE, _WITH_BAR, _NUMBERS, _LABEL = 60, 80, 46, 8


def duration(seconds: float) -> str:
    """Format a duration for display, rounded."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def is_terminal(stream: Any) -> bool:
    """Return whether a standard stream is a terminal. Notebooks and programs with windows replace it, or set it to None."""
    isatty = getattr(stream, "isatty", None)
    with contextlib.suppress(ValueError):  # a stream that is closed
        return bool(isatty and isatty())
    return False


class _WithFlush:
    """A program's stream that has `write` only; rich also calls `flush`."""

    def __init__(self, stream: Any) -> None:
        self.write = stream.write

    def flush(self) -> None:
        """Do nothing: the program shows what is written when it likes."""


class _Escaping:
    """A program's stream on which characters that its encoding lacks are written as escape sequences."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a text."""
        encoding = self._stream.encoding
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _lacks_characters(stream: Any) -> bool:
    """Return whether a stream's encoding is known and cannot express all text."""
    encoding = getattr(stream, "encoding", None)
    return isinstance(encoding, str) and not encoding.lower().replace("_", "-").startswith("utf")


def _console(*, stderr: bool = False, quiet: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console on a standard stream, which a program may have replaced; nothing is printed on one that is closed."""
    stream: Any = sys.stderr if stderr else sys.stdout
    file: Any = None
    if stream is not None and not hasattr(stream, "flush"):
        file = _WithFlush(stream)
    elif _lacks_characters(stream):
        file = _Escaping(stream)
    quiet = quiet or getattr(stream, "closed", False)
    console = Console(file=file, stderr=stderr, quiet=quiet, highlight=False, emoji=False, soft_wrap=soft_wrap)
    if console.width < 1:  # such as COLUMNS=0
        console.width = _UNKNOWN_WIDTH
    return console


class Advance(Protocol):
    """Updates a progress bar."""

    def __call__(self, done: int, of: int | None = None, /, *, what: str | None = None) -> None:
        """Show `done` of `of`, and `what` is being done; `of` and `what` may be omitted if they have not changed."""


class _PaceColumn(ProgressColumn):
    """The rate since the start, and the time left where the total is known; nothing before both mean something."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        super().__init__()

    def render(self, task: Task) -> Text:
        return Text(pace(task.completed, task.total, task.elapsed or 0.0, self._unit), no_wrap=True)


def pace(completed: float, total: float | None, elapsed: float, unit: str) -> str:
    """Return the rate of some work and the time left, in words; empty in its first moments, whose rate means nothing.

    Args:
        unit: empty: no rate.
    """
    if not completed or elapsed < _FIRST_MOMENTS:
        return ""
    rate = completed / elapsed
    parts = []
    if unit:
        parts.append(f"{rate:.1f} {unit}/s" if rate < 100 else f"{rate:,.0f} {unit}/s")
    if total is not None and completed < total:
        parts.append(f"{duration((total - completed) / rate)} left")
    return ", ".join(parts)


class Ui:
    """Output of one command, for people and for programs.

    With `json`, standard output contains exactly one object: whatever libraries print on file descriptor 1 goes to
    standard error.
    """

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet
        self.kept = ""
        self._emitted = False  # standard output may contain only one object
        self._on_terminal = is_terminal(sys.stdout)
        self._stdout = _claimed() if json else sys.stdout
        self._err = _console(stderr=True, quiet=quiet, soft_wrap=True)
        self._out = _console(quiet=quiet or json)
        self._results = _console(quiet=json)
        # Files and pipes have no width, unless COLUMNS sets one.
        self._folds = self._out.is_terminal or os.environ.get("COLUMNS", "").isdigit()
        if not self._folds:
            self._out.width = max(self._out.width, _FILE_WIDTH)

    def within(self, part: str) -> "Ui":
        """Return the output of a part of a longer command: only its progress is shown, under the name `part`."""
        return _Part(self, part)

    def keep(self, kept: str) -> None:
        """Set what an interruption from now on keeps, and how to continue: the end of its message."""
        self.kept = kept
        interrupts.announce(visible(f"interrupted. {kept}"), self.tell_programs)

    def say(self, message: str) -> None:
        """Print a message on standard error, unless quiet."""
        self._err.print(visible(message), markup=False)

    def warn(self, message: str) -> None:
        """Print a warning on standard error, also if quiet."""
        # On the console of the progress bar, which is then redrawn below the message.
        console = _console(stderr=True, soft_wrap=True) if self.quiet else self._err
        console.print(f"warning: {visible(message)}", markup=False, style="yellow")

    def error(self, message: str) -> None:
        """Print an error on standard error, also if quiet, and emit it with `json`."""
        _console(stderr=True, soft_wrap=True).print(f"error: {visible(message)}", markup=False, style="red")
        self.tell_programs(message)

    def tell_programs(self, message: str) -> None:
        """With `json`, emit {"error": …}, unless an object was emitted before."""
        if self.json and not self._emitted:
            with contextlib.suppress(OSError):  # such as a full disk, which may also be the error
                self._emit({"error": message})

    def print(self, message: str) -> None:
        """Print a line of the result on standard output, unless quiet or with `json`."""
        self._out.print(visible(message), markup=False, soft_wrap=True)

    def sentence(self, message: str) -> None:
        """As `print`; where there is a width, lines are broken between words."""
        self._out.print(visible(message), markup=False, soft_wrap=not self._folds)

    def put(self, message: str) -> None:
        """Print a line of the requested output, such as a prediction: as `print`, but also if quiet."""
        self._results.print(visible(message), markup=False, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is text, the others are numbers. What has no room is left out and named."""
        if title:
            self._out.print(Text(visible(title), style="bold"))
        table = fitted(self._out, list(map(visible, columns)), [list(map(visible, row)) for row in rows])
        self._out.print(table.table)
        if table.left_out:
            names = ", ".join(table.left_out)
            self._out.print(Text(f"no room for: {names} (a wider terminal shows them, and --json has all numbers)"))

    def result(self, value: dict[str, Any]) -> None:
        """With `json`, emit the result of the command."""
        if self.json:
            self._emit(value)

    def _emit(self, value: dict[str, Any]) -> None:
        line = strict.text(value) + "\n"
        self._emitted = True
        self._stdout.write(line)
        self._stdout.flush()

    @contextlib.contextmanager
    def rows(self) -> Iterator[TextIO]:
        """Open standard output for rows that programs read; every line is flushed.

        Inside the context, everything else goes to standard error. File names that are not Unicode keep their bytes.
        """
        with (
            descriptors.redirected(2, 1) as (stdout,),
            open(stdout, "w", 1, "utf-8", "surrogateescape", "\n", closefd=False) as stream,
        ):
            yield stream

    @property
    def on_terminal(self) -> bool:
        """True if standard output is a terminal."""
        return self._on_terminal

    @property
    def shows_progress(self) -> bool:
        """True if `progress` shows a bar."""
        return not self.quiet and self._err.is_terminal

    @property
    def lines_are_progress(self) -> bool:
        """True if results are printed line by line on a terminal, where a progress bar would be in the way."""
        return self._on_terminal and not self.json

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "images") -> Iterator[Advance]:
        """Show a progress bar with rate and time left, on a terminal only; call the context's value to update it.

        It disappears in the end: there is never more than one.
        """
        width = self._err.width
        bar_width = width // 8 if width >= _WITH_BAR else 0
        columns = (
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=bar_width)] if bar_width else []),
            MofNCompleteColumn(),
            _PaceColumn("" if width < _WITH_RATE else unit),
        )
        with Progress(*columns, console=self._err, disable=not self.shows_progress, expand=True, transient=True) as bar:
            room = max(_LABEL, width - _NUMBERS - bar_width)
            task = bar.add_task(shortened(what, room), total=total)

            def advance(done: int, of: int | None = total, /, *, what: str | None = None) -> None:
                interrupts.check()
                bar.update(task, completed=done, total=of, description=what and shortened(what, room))

            yield advance


def _claimed() -> TextIO:
    """Return standard output, and redirect everything else that is written to file descriptor 1 to standard error."""
    (stdout,) = descriptors.redirect(2, 1)
    return open(stdout, "w", encoding="utf-8", newline="\n")  # noqa: PTH123 (a descriptor), SIM115


class _Part(Ui):
    """The output of a part of a command; see `Ui.within`."""

    def __init__(self, whole: Ui, part: str) -> None:
        super().__init__(quiet=True)
        self._whole, self._part = whole, part

    def keep(self, kept: str) -> None:
        """Change nothing: an interruption is of the command."""

    def warn(self, message: str) -> None:
        """Print nothing: the command itself reports what matters."""

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "images") -> Iterator[Advance]:
        """Show the progress bar of the command, with the name of the part."""
        with self._whole.progress(f"{self._part}: {what}", total, unit) as advance:

            def named(done: int, of: int | None = total, /, *, what: str | None = None) -> None:
                advance(done, of, what=f"{self._part}: {what}" if what else None)

            yield named
