"""The paths on the command line → the files to predict, one by one."""

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurize.data.dataset import Sample
from featurize.data.scan import files_below
from featurize.errors import VggftError
from vggft.prediction.scoring import File

STDIN = Path("-")  # a list of paths on standard input; a file of that name is ./-


def require(paths: Sequence[Path]) -> None:
    """Require that each path exists.

    Raises:
        VggftError: one does not.
    """
    for path in paths:
        if path != STDIN and not path.exists():
            raise VggftError(f"{path}: no such file or folder.")


def files(paths: Sequence[Path]) -> Iterator[File]:
    """Yield every file at and below the paths; `STDIN` stands for the paths that standard input lists."""
    for path in paths:
        for listed in _listed() if path == STDIN else (path,):
            yield from below(listed)


def below(path: Path) -> Iterator[File]:
    """Yield a file, or the files below a folder in name order; with a reason where a file cannot be opened."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        yield File(path, f"cannot be read: {error.strerror}")
    except ValueError as error:  # a name that no file can have
        yield File(path, f"cannot be read: {error}")
    else:
        if stat.S_ISDIR(mode):
            for sample in files_below(path, path, Sample("", "")):
                yield File(path / sample.path, sample.reason)
        else:
            yield File(path, "" if stat.S_ISREG(mode) else "not a regular file (a pipe, socket or device)")


def _listed() -> Iterator[Path]:
    """Yield the paths on standard input, one per line, as they come; names need not be Unicode."""
    for line in sys.stdin.buffer:
        name = line.rstrip(b"\r\n")
        if name:
            yield Path(os.fsdecode(name))
