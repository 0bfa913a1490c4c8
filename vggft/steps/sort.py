"""Sorting pictures by hand in a page on this machine, or reviewing labels there; and putting the files where they belong."""

import contextlib
import shlex
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import interrupts, places
from featurize.wording import counted
from vggft.labelling import applying, classes, decisions, seat, server
from vggft.labelling.applying import ClassFolders, Destination, OtherClass
from vggft.labelling.decisions import Decisions
from vggft.labelling.pictures import Picture, Pictures, number
from vggft.labelling.seat import Seat
from vggft.labelling.session import Session
from vggft.labelling.suggestions import CANNOT_TELL, Learner
from vggft.labelling.table import Unmoved, write_corrected
from vggft.steps import locations
from vggft.steps.options import SortOptions
from vggft.ui.console import Ui
from vggft.ui.visible import visible
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

_REVIEW, _LABELS = "review.csv", "labels.csv"  # in the report folder
_NAMED = 5  # files that cannot be opened, on standard error; the page lists more


@dataclass(frozen=True)
class _Task:
    """What is sorted, and what becomes of it.

    Attributes:
        root: folder that decided files are relative to, absolute and without links.
        decisions: with their file.
        destination: where --apply puts files.
        seat: the lock.
        classes: in the order of their keys.
        command: the words that start the same again.
        use: how the decisions are used, as a sentence.
    """

    root: Path
    decisions: Decisions
    destination: Destination
    seat: Seat
    classes: Sequence[str]
    command: str
    use: str


def run(workspace: Workspace, options: SortOptions, ui: Ui) -> dict[str, Any]:
    """Sort or review until Ctrl-C; with --apply, put files where they belong, and end.

    Raises:
        VggftError: options that contradict each other, no pictures, another sorter in the folder, a damaged list of decisions,
            classes that cannot be folders, or a missing package.
        KeyboardInterrupt: after Ctrl-C, which is how sorting ends.
    """
    _require_consistent(options)
    if not options.apply:
        server.require()
    with _review(workspace, options) if options.review else _folder(workspace, options) as task:
        if options.apply:
            _require_sorted(task)
        if options.apply and isinstance(task.destination, Unmoved):
            return _correct_table(workspace, task.destination, task.decisions, ui)
        if options.apply:
            return _apply(workspace, task, options, ui)
        if options.review:
            _serve(task, _to_review(workspace, task, ui), lambda pictures: None, options, ui)
        _serve(task, Pictures.below(task.root), partial(_learner, workspace), options, ui)


def _require_consistent(options: SortOptions) -> None:
    if options.review == (options.folder is not None):
        raise VggftError("Expected either FOLDER, with pictures to sort, or --review.")
    if options.review and options.into is not None:
        raise VggftError(
            "--review with --into: corrected images go into the folder of their class, beside the one they are in."
        )
    if options.how is not None and not options.apply:
        raise VggftError(f"--how {options.how} needs --apply; the page asks in its dialog.")


@contextlib.contextmanager
def _folder(workspace: Workspace, options: SortOptions) -> Iterator[_Task]:
    """Return the task of sorting a folder, whose lock is held inside the context."""
    given = options.folder or Path()
    root = places.resolved(given)
    if not root.is_dir():
        what = "not a folder" if root.exists() else "no such folder"
        raise VggftError(f"{given}: {what}. Expected a folder with pictures.")
    locations.refuse_overlap(workspace.root, root)
    with seat.taken(root) as held:
        durable.sweep_beside(root / decisions.FILE)
        decided = Decisions(root / decisions.FILE)
        labels = [label for label in decided.labels.values() if label != CANNOT_TELL]
        names = classes.merged(options.classes or held.classes, labels)
        command = f"vggft sort {shlex.quote(str(given))}{workspace_flag(workspace.root)}"
        where = workspace_flag(workspace.root)
        table = shlex.quote(str(decided.path))
        use = f"Train on them: vggft featurize {shlex.quote(str(given))} --labels {table}{where}"
        yield _Task(root, decided, ClassFolders.of(root, options.into), held, names, command, use)


@contextlib.contextmanager
def _review(workspace: Workspace, options: SortOptions) -> Iterator[_Task]:
    """Return the task of reviewing the labels of a workspace; its lock is in the report folder, as are the decisions."""
    known, dataset = workspace.settings.classes, workspace.dataset
    for name in options.classes:
        classes.require(name, known)
    folder = workspace.report_folder()
    with seat.taken(folder) as held:
        durable.sweep_beside(folder / _REVIEW)
        decided = Decisions(folder / _REVIEW)
        root = places.resolved(dataset.root)
        names = [*known, *(name for name in options.classes if name not in known)]
        command = f"vggft sort --review{workspace_flag(workspace.root)}"
        destination: Destination = OtherClass(root, {sample.path: sample.label for sample in dataset.accepted()})
        if workspace.settings.labels:
            destination = Unmoved(root, Path(workspace.settings.labels), f"{command} --apply")
        yield _Task(root, decided, destination, held, names, command, f"Apply the corrections: {command} --apply")


def _to_review(workspace: Workspace, task: _Task, ui: Ui) -> Pictures:
    """Return the images whose labels may be wrong.

    Raises:
        VggftError: there are none, or no heads to tell them.
    """
    from vggft.labelling.review import items

    pictures = [
        Picture(number(item.file), item.file, item.label, item.suggested, item.probability, item.reason)
        for item in items(workspace, ui.say)
    ]
    if not pictures:
        raise VggftError(f"{workspace.root}: no image to review: the models agree with all labels.")
    return Pictures.of(task.root, pictures, {})


def _learner(workspace: Workspace, pictures: Pictures) -> Learner:
    """Start what learns while a person sorts."""
    from vggft.labelling.learner import ProcessLearner

    return ProcessLearner(workspace, pictures.root, [picture.file for picture in pictures.by_id.values()])


def _require_sorted(task: _Task) -> None:
    if all(decision.label == CANNOT_TELL for decision in task.decisions.rows.values()):
        raise VggftError(f"{task.decisions.path}: no picture is sorted yet. Sort first: {task.command}")


def _correct_table(workspace: Workspace, destination: Unmoved, decided: Decisions, ui: Ui) -> dict[str, Any]:
    """Write a corrected copy of the table that the labels of a workspace come from."""
    copy = workspace.report / _LABELS
    for file in decided.forget_changed(destination.folder):
        ui.warn(f"left out: {visible(file)}: it has another size than when it was reviewed")
    number = write_corrected(destination.table, destination.folder, list(decided.rows.values()), copy)
    data = shlex.quote(workspace.settings.data)
    ui.print(f"{counted(number, 'label')} corrected in a copy of {destination.table}: {copy}")
    options = f"--labels {shlex.quote(str(copy))}{workspace_flag(workspace.root)}"
    ui.say(f"To use it: vggft featurize {data} {options}")
    return {"labels": str(copy), "corrected": number}


def _apply(workspace: Workspace, task: _Task, options: SortOptions, ui: Ui) -> dict[str, Any]:
    """Put decided files where they belong."""
    rows = list(task.decisions.rows.values())
    how = options.how or task.destination.hows[0]
    with ui.progress("putting files into folders", len(rows), "files") as advance:
        result = applying.apply(rows, task.root, task.destination, how, ui, advance)
    data = task.root if options.review else task.destination.folder
    ui.say(f"next: vggft featurize {shlex.quote(str(data))}{workspace_flag(workspace.root)}")
    return result


def _serve(
    task: _Task, pictures: Pictures, start: Callable[[Pictures], Learner | None], options: SortOptions, ui: Ui
) -> NoReturn:
    """Serve the page until a signal.

    Args:
        start: starts what learns while a person sorts.
    """
    from vggft.labelling.app import application
    from vggft.labelling.background import Applying
    from vggft.labelling.previews import THREADS, Previews

    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(interrupts.threads(THREADS))
        listener = stack.enter_context(contextlib.closing(server.listening(options.port or 0, task.seat.port)))
        port, token = listener.getsockname()[1], task.seat.token
        task.seat.take(port, token, task.classes)
        stack.callback(task.seat.leave)
        learner = start(pictures)
        if learner:
            stack.callback(learner.close)

        def keep(session: Session) -> None:
            task.seat.keep_classes(session.classes)
            ui.keep(_kept(task, session))

        session = Session(pictures, task.decisions, task.classes, learner, keep)
        about = {
            "folder": str(pictures.root),
            "file": str(task.decisions.path),
            "into": str(task.destination.folder),
            "hows": task.destination.hows,
            "review": options.review,
        }
        app = application(session, Previews(pool), Applying(session, task.destination, ui), about, port, token)
        thread = stack.enter_context(server.serving(app, listener, ui))
        keep(session)
        _show(session, seat.address(port, token), options, ui)
        server.wait(thread)
    raise VggftError(f"The page's server stopped unexpectedly. All decisions are saved. Run again: {task.command}")


def _show(session: Session, address: str, options: SortOptions, ui: Ui) -> None:
    """Print the address, and open it in a browser."""
    decided, total = session.sorted
    ui.say(f"{session.pictures.root}: {counted(total, 'picture')}, {decided} sorted")
    for file, why in list(session.pictures.unreadable.items())[:_NAMED]:
        ui.warn(f"left out: {file}: {why}")
    if session.changed_files:
        first, number = visible(session.changed_files[0]), counted(len(session.changed_files), "file")
        ui.warn(f"{number} with another size than when they were sorted, and shown again; the first: {first}")
    (ui.say if ui.json else ui.put)(f"page: {address}")
    ui.say("Every key is saved immediately. Ctrl-C ends sorting; files stay where they are until you apply.")
    if not options.no_open and not webbrowser.open(address):
        ui.warn("no browser could be started: open the address above in one")


def _kept(task: _Task, session: Session) -> str:
    """Return what is kept, and how to go on."""
    decided, total = session.sorted
    if not decided:
        return f"No picture is sorted yet. Continue: {task.command}"
    return f"{decided} of {counted(total, 'picture')} sorted: {session.decisions.path}. Continue: {task.command}. {task.use}"
