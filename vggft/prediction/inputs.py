"""The paths on the command line → the files to predict, one by one."""

import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from featurize.data.dataset import Sample
from featurize.data.folders import files_below, spellings
from featurize.errors import VggftError
from vggft.prediction.scoring import File

Beside = Callable[[Path], None]

# First bytes (regular expression) → encoding of a list of paths.
_ENCODINGS = (
    (rb"\xef\xbb\xbf", "utf-8-sig"),
    (rb"\xff\xfe|\xfe\xff", "utf-16"),
    (rb"[^\0]\0[^\0]\0", "utf-16-le"),
    (rb"\0[^\0]\0[^\0]", "utf-16-be"),
)

STDIN = Path("-")  # a list of paths on standard input; a file of that name is ./-


def require(paths: Sequence[Path]) -> None:
    """Require that each path exists.

    Raises:
        VggftError: one does not.
    """
    for path in paths:
        if path != STDIN and not any(spelling.exists() for spelling in spellings(path)):
            raise VggftError(f"{path}: no such file or folder.")


def files(paths: Sequence[Path], beside: Beside = lambda path: None) -> Iterator[File]:
    """Yield every file at and below the paths; `STDIN` stands for the paths that standard input lists.

    Args:
        beside: called with each annotation or note in a folder, which is left out.
    """
    for path in paths:
        for listed in _listed() if path == STDIN else (path,):
            yield from below(listed, beside)


def below(path: Path, beside: Beside = lambda path: None, above: tuple[str, ...] = ()) -> Iterator[File]:
    """Yield a file, or the files below a folder in name order; with a reason where a file cannot be opened.

    Args:
        beside: as in `files`.
        above: real paths of folders above, to which no link is followed.
    """
    path = next((spelling for spelling in spellings(path) if os.path.lexists(spelling)), path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield File(path, f"cannot be read: {error.strerror}")
    except ValueError as error:  # a name that no file can have
        yield File(path, f"cannot be read: {error}")
    else:
        if stat.S_ISDIR(mode):
            for sample in files_below(path, path, Sample("", ""), above, beside):
                yield File(path / sample.path, sample.reason)
        else:
            yield File(path, "" if stat.S_ISREG(mode) else "not a regular file (a pipe, socket or device)")


def _listed() -> Iterator[Path]:
    """Yield the paths on standard input, one per line, as they come; names need not be Unicode.

    A list that starts with a byte-order mark is in UTF-8 or UTF-16, as it says; so is UTF-16 without one, from Windows.
    """
    given: Any = sys.stdin.buffer
    stream = given if isinstance(given, io.BufferedReader) else io.BufferedReader(given)
    start = stream.peek(4)[:4]
    encoding = next((name for mark, name in _ENCODINGS if re.match(mark, start, re.DOTALL)), None)
    if encoding is None:
        yield from _paths(os.fsdecode(line) for line in stream)
        return
    text = io.TextIOWrapper(stream, encoding, errors="surrogateescape" if encoding == "utf-8-sig" else "surrogatepass")
    try:
        yield from _paths(text)
    finally:
        text.detach()  # without closing standard input


def _paths(lines: Iterable[str]) -> Iterator[Path]:
    for line in lines:
        name = line.rstrip("\r\n")
        if name:
            yield Path(name)
