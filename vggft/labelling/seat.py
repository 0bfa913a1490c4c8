"""The only sorter of a folder: a kernel lock, and beside it who holds it, the address of its page, and the classes.

`.vggft-sort.lock` is the lock. `.vggft-sort.json` is for the next start: with the same port and token, pages that are still open
go on, and with the same classes in the same order, keys keep their meaning. Only its owner can read it.
"""

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from featurize.disk import durable, forms
from featurize.errors import VggftError, reason
from featurize.options import Option, records

LOCK = ".vggft-sort.lock"
RECORD = ".vggft-sort.json"
_TOKEN_BYTES = 24
_ANY_PORT = 0
_PAGES_WAIT = 3600.0  # seconds after an orderly end in which the token stays, because pages may be open


@dataclass(frozen=True)
class _Record:
    """What `.vggft-sort.json` holds."""

    process: int
    host: str
    port: Annotated[int, Option(least=1, most=65_535)]
    token: str
    classes: tuple[str, ...]
    ended: float | None = None  # seconds since 1970; None: it runs, or was killed


class Seat:
    """The lock of a folder, held, and its record."""

    def __init__(self, folder: Path, record: _Record | None) -> None:
        self._path = folder / RECORD
        self._earlier = record

    @property
    def port(self) -> int:
        """The port of the last start; 0 for any."""
        return self._earlier.port if self._earlier else _ANY_PORT

    @property
    def classes(self) -> Sequence[str]:
        """The classes when the last start ended."""
        return self._earlier.classes if self._earlier else ()

    @property
    def token(self) -> str:
        """The token of the last start, or a new one, so that an address does not stay valid for ever."""
        earlier = self._earlier
        if earlier and (earlier.ended is None or 0 <= time.time() - earlier.ended < _PAGES_WAIT):
            return earlier.token
        return secrets.token_urlsafe(_TOKEN_BYTES)

    def take(self, port: int, token: str, classes: Sequence[str]) -> None:
        """Record this process and the address of its page.

        Raises:
            VggftError: the folder cannot be written.
        """
        self._write(_Record(os.getpid(), socket.gethostname(), port, token, tuple(classes)))

    def keep_classes(self, classes: Sequence[str]) -> None:
        """Record other classes. A full disk is no error: only the order of keys would be another after a restart."""
        if self._earlier and self._earlier.classes != tuple(classes):
            with contextlib.suppress(VggftError):
                self._write(replace(self._earlier, classes=tuple(classes)))

    def leave(self) -> None:
        """Record an orderly end. A full disk is no error: it then looks like a kill."""
        if self._earlier:
            with contextlib.suppress(VggftError):
                self._write(replace(self._earlier, ended=time.time()))

    def _write(self, record: _Record) -> None:
        temporary = self._path.with_name(f".{RECORD}.{os.getpid()}.vggft.tmp")
        try:
            try:
                temporary.unlink(missing_ok=True)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, for the permissions)
                    file.write(forms.json_bytes(asdict(record)))
                temporary.replace(self._path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise VggftError(
                f"{self._path}: cannot be written ({reason(error)}), and decisions are kept there, too. Free some space or "
                "fix the permissions of the folder."
            ) from None
        self._earlier = record


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[Seat]:
    """Hold the lock of a folder.

    Raises:
        VggftError: another process holds it (named), or the folder cannot be written or locked.
    """
    import filelock

    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        if (folder / LOCK).is_symlink():
            raise VggftError(f"{folder / LOCK}: a link, which no vggft has made. Delete it.")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        holder = _read(folder / RECORD)
        who = f"process {holder.process} on {holder.host}" if holder else "another process"
        page = f" Its page: {address(holder.port, holder.token)} — open it in" if holder else " Open its page in"
        raise VggftError(
            f"{folder}: {who} is sorting here.{page} a second window to sort there too; or stop it with Ctrl-C first."
        ) from None
    except (OSError, NotImplementedError) as error:  # the latter on file systems without locks
        raise VggftError(
            f"{folder}: cannot be written or locked ({reason(error)}), and decisions are kept there. Fix its permissions, or "
            "sort a copy of it."
        ) from None
    try:
        durable.sweep_beside(folder / RECORD)
        yield Seat(folder, _read(folder / RECORD))
    finally:
        lock.release()


def address(port: int, token: str) -> str:
    """Return the address of the page. What follows # stays in the browser; the page sends it as a header."""
    return f"http://127.0.0.1:{port}/#{token}"


def _read(path: Path) -> _Record | None:
    """Return the record of the last start; None if there is none that can be used, or another person may know its token."""
    try:
        if os.name == "posix" and _known_to_others(path):
            return None
        return records.build(_Record, forms.parse_json(durable.read_bytes(path)))
    except (OSError, ValueError):
        return None


def _known_to_others(path: Path) -> bool:
    """Return whether another user may have written or read a record, although its disk has permissions.

    On a disk without them, such as exFAT, others can read the token while the server runs, too: a new one would help nobody.
    """
    status = path.lstat()
    if status.st_uid != os.getuid() or path.is_symlink():
        return True
    if not status.st_mode & 0o177:
        return False
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    return not path.lstat().st_mode & 0o177
