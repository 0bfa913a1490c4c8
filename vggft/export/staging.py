"""Writing files beside a person's own: under a temporary name until all are complete, and never over another file."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurize.disk import durable
from featurize.errors import VggftError, reason


def require_free(targets: Sequence[Path]) -> None:
    """Check that none of some files exists, and that their folder can be written.

    Raises:
        VggftError: one does, or it cannot.
    """
    out = targets[-1]
    if out.parent.exists() and not out.parent.is_dir():
        raise VggftError(f"{out}: {out.parent} is not a folder. Choose another name.")
    if not out.parent.is_dir():
        raise VggftError(f"{out}: no such folder: {out.parent}. Create it, or choose another name.")
    for target in reversed(targets):
        if os.path.lexists(target):
            raise VggftError(f"{target}: exists, and vggft overwrites nothing. Choose another name, or move it away.")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            return
    except OSError as error:
        raise _unwritable(out, error) from None


@contextlib.contextmanager
def staged(targets: Sequence[Path]) -> Iterator[Path]:
    """Yield an empty temporary folder beside the targets, and in the end move what is in it under their names, in their order.

    After an error nothing is left.

    Args:
        targets: all in one folder; the last is the one that tells that all are there.

    Raises:
        VggftError: as `require_free`, also in the end; or the folder cannot be written, or the disk is full.
    """
    require_free(targets)
    out = targets[-1]
    _sweep(targets)
    folder = out.with_name(f".{out.name}.{os.getpid()}.vggft.tmp")
    try:
        folder.mkdir()
        try:
            yield folder
            for path in folder.rglob("*"):
                if path.is_file():
                    durable.sync_file(path)
            _move(folder, targets)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        durable.sync_folder(out.parent)
    except OSError as error:
        raise _unwritable(out, error) from None


def _sweep(targets: Sequence[Path]) -> None:
    """Delete what killed processes left while they wrote `targets`: from their temporary folders only files of these names."""
    out, names = targets[-1], {target.name for target in targets}
    named = re.compile(rf"\.{re.escape(out.name)}\.(\d+)\.vggft\.tmp")
    for folder in out.parent.iterdir() if os.name == "posix" else ():  # elsewhere, running processes are not known
        match = named.fullmatch(folder.name)
        if match and not folder.is_symlink() and not durable.runs(int(match[1])):
            durable.remove_known(folder, lambda path: path == folder or path.relative_to(folder).parts[0] in names)  # noqa: B023


def _move(folder: Path, targets: Sequence[Path]) -> None:
    """Move the targets out of a folder, in their order; where one cannot be moved, take back those before it."""
    require_free(targets)
    moved: list[Path] = []
    try:
        for target in targets:
            (folder / target.name).rename(target)
            moved.append(target)
    except OSError:
        for target in moved:
            target.rename(folder / target.name)
        raise


def _unwritable(out: Path, error: OSError) -> VggftError:
    return VggftError(
        f"{out}: cannot be written ({reason(error)}). Free some space or fix the permissions, and export again."
    )
