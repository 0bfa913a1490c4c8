"""Sorting the pictures of a folder by hand, in a page on this machine, and putting the sorted ones into class folders."""

import contextlib
import shlex
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import interrupts, places
from featurize.wording import counted
from vggft.labelling import applying, classes, decisions, seat, server
from vggft.labelling.applying import ClassFolders, Destination
from vggft.labelling.decisions import Decisions
from vggft.labelling.pictures import Pictures
from vggft.labelling.seat import Seat
from vggft.labelling.session import Session
from vggft.labelling.suggestions import CANNOT_TELL, Learner
from vggft.steps.options import SortOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: SortOptions, ui: Ui) -> dict[str, Any]:
    """Sort until Ctrl-C; with --apply, put what is sorted into class folders, and end.

    Raises:
        VggftError: no pictures, another sorter in the folder, a damaged list of decisions, classes that cannot be folders, or a
            missing package.
        KeyboardInterrupt: after Ctrl-C, which is how sorting ends.
    """
    if options.folder is None:
        raise VggftError("FOLDER is missing. Expected a folder with pictures to sort.")
    root = places.resolved(places.expanded(options.folder))
    if not options.apply:
        server.require()
    if not root.is_dir():
        raise VggftError(f"{options.folder}: no such folder. Expected a folder with pictures.")
    with seat.taken(root) as held:
        durable.sweep_beside(root / decisions.FILE)
        decided = Decisions(root / decisions.FILE)
        destination = ClassFolders.of(root, options.into)
        if options.apply:
            return _apply(decided, root, destination, options, ui)
        _serve(_Sorting(Pictures.below(root), decided, destination, held, None), options, ui)


def _apply(decided: Decisions, root: Path, destination: Destination, options: SortOptions, ui: Ui) -> dict[str, Any]:
    """Put what is decided into folders."""
    rows = list(decided.rows.values())
    if not any(decision.label != CANNOT_TELL for decision in rows):
        raise VggftError(f"{decided.path}: no picture is sorted yet. Sort first: vggft sort {shlex.quote(str(root))}")
    with ui.progress("putting files into folders", len(rows), "files") as advance:
        return applying.apply(rows, root, destination, options.how or destination.hows[0], ui, advance)


@dataclass(frozen=True)
class _Sorting:
    """What is sorted, and what sorts it."""

    pictures: Pictures
    decisions: Decisions
    destination: Destination
    seat: Seat
    learner: Learner | None


def _serve(sorting: _Sorting, options: SortOptions, ui: Ui) -> NoReturn:
    """Serve the page until a signal."""
    from vggft.labelling.app import application
    from vggft.labelling.background import Applying
    from vggft.labelling.previews import THREADS, Previews

    pictures, held = sorting.pictures, sorting.seat
    labels = [label for label in sorting.decisions.labels.values() if label != CANNOT_TELL]
    names = classes.merged(options.classes, held.classes, labels)
    with contextlib.ExitStack() as stack:
        if sorting.learner:
            stack.callback(sorting.learner.close)
        pool = stack.enter_context(interrupts.threads(THREADS))
        listener = stack.enter_context(contextlib.closing(server.listening(options.port or 0, held.port)))
        port, token = listener.getsockname()[1], held.token
        held.take(port, token, names)

        def keep(session: Session) -> None:
            held.keep_classes(session.classes)
            ui.keep(_kept(session, options))

        session = Session(pictures, sorting.decisions, names, sorting.learner, keep)
        about = {
            "folder": str(pictures.root),
            "file": str(sorting.decisions.path),
            "into": str(sorting.destination.folder),
            "hows": sorting.destination.hows,
        }
        app = application(session, Previews(pool), Applying(session, sorting.destination, ui), about, port, token)
        thread = stack.enter_context(server.serving(app, listener, ui))
        keep(session)
        _show(session, seat.address(port, token), options, ui)
        server.wait(thread)
    raise VggftError(
        "The page's server has ended by itself. Every key that it took is kept: run the same command again."
    )


def _show(session: Session, address: str, options: SortOptions, ui: Ui) -> None:
    """Print the address, and open it in a browser."""
    done, total = session.sorted
    ui.say(f"{session.pictures.root}: {counted(total, 'picture')}, {done} sorted")
    for file, why in list(session.pictures.unreadable.items())[:_NAMED]:
        ui.warn(f"left out: {file}: {why}")
    (ui.say if ui.json else ui.put)(f"page: {address}")
    ui.say("Every key is kept at once. Ctrl-C ends sorting; files stay where they are until they are applied.")
    if not options.no_open and not webbrowser.open(address):
        ui.warn("no browser could be started: open the address above in one")


_NAMED = 5


def _kept(session: Session, options: SortOptions) -> str:
    """Return what is kept, and how to go on."""
    done, total = session.sorted
    return (
        f"{done} of {counted(total, 'picture')} sorted: {session.decisions.path}. Run the same command to continue, or put them "
        f"into class folders: vggft sort {shlex.quote(str(options.folder))} --apply"
    )
