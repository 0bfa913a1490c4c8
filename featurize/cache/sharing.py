"""A cache folder that several workspaces use: who they are, and a lock for those that write in it.

workspaces.txt   the workspaces that `--cache` brought here, one path per line; without it, a cache is not shared
lock             a kernel lock, held while features are computed or deleted
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from featurize.cache.upkeep import fingerprints
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import interrupts

USERS, LOCK = "workspaces.txt", "lock"
_POLL_SECONDS = 0.2  # between two attempts to take the lock


def users(folder: Path) -> list[Path]:
    """Return the workspaces that are listed in a cache folder; none where it is not shared.

    Raises:
        VggftError: the list cannot be read.
    """
    try:
        lines = os.fsdecode((folder / USERS).read_bytes()).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise VggftError(f"{folder / USERS}: cannot be read ({error.strerror}). Fix its permissions.") from None
    return [Path(line) for line in lines if line.strip()]


def join(folder: Path, workspace: Path, waiting: Callable[[str], None]) -> None:
    """List a workspace as a user of a cache folder, which is created if it is missing; `waiting` as in `locked`."""
    durable.refuse_link(folder / USERS)
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder, waiting):
        listed = users(folder)
        if workspace not in listed:
            durable.write_bytes(folder / USERS, b"".join(os.fsencode(path) + b"\n" for path in (*listed, workspace)))


def require_cache(folder: Path) -> None:
    """Check that a folder is missing, empty, or a cache folder.

    Raises:
        VggftError: it is something else.
    """
    if (folder / "workspace.json").is_file():
        raise VggftError(f"--cache {folder}: a workspace. Its features are in {folder / 'cache'}: name that folder.")
    if os.path.lexists(folder) and not folder.is_dir():
        raise VggftError(f"--cache {folder}: not a folder.")
    known = {USERS, LOCK, *(path.name for path in fingerprints(folder))}
    other = [path.name for path in folder.iterdir() if path.name not in known] if folder.is_dir() else []
    if other:
        raise VggftError(
            f"--cache {folder}: contains something else ({other[0]}). Expected a new folder, or the cache of a workspace."
        )


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[str], None]) -> Iterator[bool]:
    """Hold the lock of a cache folder, if it is shared; wait for it.

    Args:
        waiting: called with a message before a wait.

    Yields:
        Whether the folder is shared: another process may have changed it since it was opened.
    """
    if not users(folder):
        yield False
        return
    with _lock(folder, waiting):
        yield True


@contextlib.contextmanager
def free(folder: Path) -> Iterator[bool]:
    """Hold the lock of a cache folder, if it is shared and nobody else does; yield whether nobody else writes there."""
    import filelock

    if not users(folder):
        yield True
        return
    durable.refuse_link(folder / LOCK)
    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except (filelock.Timeout, OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextlib.contextmanager
def _lock(folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    import filelock

    durable.refuse_link(folder / LOCK)
    lock = filelock.FileLock(folder / LOCK, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting(f"waiting: another vggft process is writing in {folder}")
            try:
                lock.acquire(poll_interval=_POLL_SECONDS, cancel_check=interrupts.heard)
            except filelock.Timeout:
                interrupts.check()
                raise
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VggftError(f"{folder}: cannot be written or locked ({reason}). Choose another --cache.") from None
    try:
        yield
    finally:
        lock.release()
