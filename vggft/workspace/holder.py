"""lock.txt: which process holds the lock of a workspace, for people. A file of that name with other contents is left alone."""

import contextlib
import os
import re
import socket
from pathlib import Path

from featurize.disk import durable
from featurize.errors import VggftError

_TEXT = re.compile(rb"process \d+ on .*\n")


def write(path: Path) -> None:
    """Name this process. A full disk is no error: it must not stop the command that frees space."""
    if not os.path.lexists(path) or _read(path):
        with contextlib.suppress(VggftError):
            durable.write_bytes(path, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def remove(path: Path) -> None:
    """Delete what `write` wrote."""
    if _read(path):
        path.unlink(missing_ok=True)


def name(path: Path) -> str:
    """Return which process holds the lock, as far as is known."""
    return _read(path) or "another process"


def _read(path: Path) -> str:
    """Return the text that `write` wrote; an empty one where there is none."""
    with contextlib.suppress(OSError):
        data = b"" if path.is_symlink() else durable.read_bytes(path)
        return data.decode(errors="replace").strip() if _TEXT.fullmatch(data) else ""
    return ""
