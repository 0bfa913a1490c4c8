"""Networks in MNN's format, kept on disk from one process to the next, because converting one takes seconds.

They are in a folder that only this module writes to: `vggft/mnn` in the user's cache folder (`$XDG_CACHE_HOME` on Linux) or,
where that cannot be written, in a folder of the user's in the temporary folder.

    <key>-<sha256>.mnn       a network; the key stands for what it computes, the sha256 for its bytes
    .<random>.vggft.tmp      a folder in which one is being converted

Everything here can be made again, so any of it may be deleted at any time.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import places

MOST_BYTES = 300_000_000  # of all networks in a folder; five of VGG16. What was used longest ago is deleted first
_KEY_DIGITS = 32
_NAME = re.compile(rf"[0-9a-f]{{{_KEY_DIGITS}}}-[0-9a-f]{{64}}\.mnn")
_ROOM = 2.2  # times the bytes of the weights: a conversion reads one file and writes another
_ABANDONED = 600.0  # seconds; a conversion takes some, so an older folder is what a killed process left


def network(key: str, size: int, convert: Callable[[Path], Path]) -> Path:
    """Return the file of a network, which is converted if no earlier process has done so.

    Args:
        key: hexadecimal digest of what determines the network, and of the version of MNN.
        size: bytes of its weights; a conversion needs room for twice as many.
        convert: makes the network (.mnn) in an empty folder, perhaps from an .onnx file there, and returns its path.

    Raises:
        VggftError: none of the folders can be written, or has room.
    """
    key, problems = key[:_KEY_DIGITS], []
    for folder in _folders():
        try:
            _open(folder)
            return _find(folder, key) or _add(folder, key, size, convert)
        except OSError as error:
            problems.append(f"{folder}: {error.strerror or error}")
    raise VggftError(
        f"the engine mnn needs a folder with {_ROOM * size / 1e6:.0f} MB of free space for its network "
        f"({'; '.join(problems) or 'there is no temporary folder'}). Free some space, or set XDG_CACHE_HOME or TMPDIR to another "
        "folder."
    )


def _folders() -> list[Path]:
    """Return the folders to look in, the preferred one first."""
    folders = []
    with contextlib.suppress(RuntimeError):  # the user has no home folder
        folders.append(user_cache_path("vggft", appauthor=False) / "mnn")
    with contextlib.suppress(OSError):  # no temporary folder can be written
        folders.append(places.private() / "mnn")
    return [folder for folder in folders if folder.is_absolute()]


def _open(folder: Path) -> None:
    """Create a folder if it does not exist, and delete what killed processes left there.

    Raises:
        OSError: it cannot be created, or belongs to another user.
    """
    folder.parent.parent.mkdir(parents=True, exist_ok=True)
    for part in (folder.parent, folder):
        part.mkdir(mode=0o700, exist_ok=True)
        status = part.lstat()
        if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
            raise OSError(f"{part} is not a folder of this user")
    for path in folder.glob(durable.TEMPORARY):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > _ABANDONED:
                durable.remove_known(path, lambda inside: inside.suffix in (".tmp", ".onnx", ".mnn"))


def _find(folder: Path, key: str) -> Path | None:
    """Return the undamaged network of that key; damaged ones are deleted."""
    for path in folder.glob(f"{key}-*.mnn"):
        with contextlib.suppress(OSError):  # deleted by another process meanwhile, or not to be deleted
            if not _is_network(path):
                continue
            if durable.sha256(path) != path.stem.partition("-")[2]:
                path.unlink()
                continue
            with contextlib.suppress(OSError):  # a folder that can only be read
                os.utime(path)
            return path
    return None


def _add(folder: Path, key: str, size: int, convert: Callable[[Path], Path]) -> Path:
    """Convert a network and rename it to its place.

    Raises:
        OSError: the folder cannot be written, or has no room.
    """
    if shutil.disk_usage(folder).free < _ROOM * size:
        raise OSError("not enough free space")
    with tempfile.TemporaryDirectory(prefix=".", suffix=durable.TEMPORARY.removeprefix(".*"), dir=folder) as temporary:
        made = convert(Path(temporary))
        if made.stat().st_size < size:
            raise OSError("the network was not written completely")
        path = folder / f"{key}-{durable.sha256(made)}.mnn"
        made.replace(path)
    _delete_oldest(folder, path)
    return path


def _delete_oldest(folder: Path, newest: Path) -> None:
    """Delete the networks that were used longest ago, until the others take at most `MOST_BYTES`."""
    status = {path: path.stat() for path in folder.glob("*.mnn") if _is_network(path)}
    total = 0
    for path in sorted(status, key=lambda path: (path != newest, -status[path].st_mtime)):
        total += status[path].st_size
        if total > MOST_BYTES and path != newest:
            path.unlink(missing_ok=True)


def _is_network(path: Path) -> bool:
    return bool(_NAME.fullmatch(path.name)) and stat.S_ISREG(path.lstat().st_mode)
