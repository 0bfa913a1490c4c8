"""Putting files into folders while the page is open: in a thread, with its progress for the page; keys wait meanwhile."""

import shlex
import threading
from collections.abc import Callable
from typing import Any

from featurize.errors import VggftError
from featurize.process import interrupts
from featurize.wording import counted
from vggft.labelling import applying
from vggft.labelling.applying import Destination
from vggft.labelling.session import Session
from vggft.sorting.journal import How
from vggft.ui.console import Ui

_VERBS = {"copy": "copied", "link": "linked", "move": "moved"}


class _Stopped(VggftError):
    """The process is ending."""


class Applying:
    """At most one thread that puts files into folders."""

    def __init__(self, session: Session, destination: Destination, ui: Ui) -> None:
        self._session, self._destination, self._ui = session, destination, ui
        self._state: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        """For the page: `running` with `done` and `total`, or the `message` or `error` of the last time; empty before."""
        return self._state

    def start(self, how: How) -> None:
        """Start the thread.

        Raises:
            VggftError: the destination cannot be used, or files are being put there already.
        """
        self._session.begin("Files are being put into their folders. Keys are taken when that has ended.")
        try:
            self._destination.require(self._session.classes)
            if how not in self._destination.hows:
                raise VggftError(f"{how}: expected {' or '.join(self._destination.hows)}.")
        except VggftError:
            self._session.end()
            raise
        decisions = list(self._session.decisions.rows.values())
        total = len(decisions)
        self._state = {"running": True, "done": 0, "total": total}

        def advance(done: int) -> None:
            self._state = {"running": True, "done": done, "total": total}
            if interrupts.heard():
                raise _Stopped("interrupted")

        def put() -> dict[str, Any]:
            root = self._session.pictures.root
            return applying.apply(decisions, root, self._destination, how, self._ui, advance)

        def run() -> None:
            try:
                self._state = _outcome(put, how)
            finally:
                self._session.end()

        threading.Thread(target=run, name="applying", daemon=True).start()


def _outcome(put: Callable[[], dict[str, Any]], how: How) -> dict[str, Any]:
    """Put files into folders, and return what the page says of it."""
    try:
        result = put()
    except (VggftError, OSError) as error:
        return {"running": False, "error": str(error)}
    except Exception as error:  # without this, the page would wait for ever
        return {"running": False, "error": f"Unexpected error, please report it: {error!r}. Files already there stay."}
    into, left = result["into"], result["failed"]
    message = f"{counted(sum(into['put'].values()), 'file')} {_VERBS[how]} into {into['folder']}."
    if into["there"]:
        message += f" {counted(into['there'], 'file')} already there."
    if left:
        message += f" Left out: {counted(len(left), 'file')}: {left[0]['path']}: {left[0]['reason']}."
    if into["list"]:
        message += f" To undo it: vggft undo {shlex.quote(into['list'])}"
    return {"running": False, "message": message}
