"""One folder being sorted: takes what people press in one or several windows, and hands out the pictures that come next.

All methods may be called from several threads. Nothing here knows about HTTP.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from featurize.errors import VggftError
from featurize.options import Option
from featurize.options.records import Positive, Share
from vggft.labelling import classes
from vggft.labelling.decisions import Decision, Decisions
from vggft.labelling.pictures import Picture, Pictures
from vggft.labelling.queue import Mode, Queue
from vggft.labelling.suggestions import CANNOT_TELL, Learner, Snapshot
from vggft.ui.visible import visible

_LISTED = 200  # unreadable files that the page lists by name


@dataclass(frozen=True)
class Choice:
    """A picture and the class that a key gave it, with the suggestion that was shown."""

    id: int
    label: str
    suggested: str = ""
    probability: Share | None = None


@dataclass(frozen=True)
class Press:
    """A key press in a window.

    Attributes:
        window: name of the window, which it chose at random when it was loaded.
        number: counts the presses of the window: a press that is sent twice is taken once.
        kind: decide `choices`; undo what `step` decided of `ids`, or, without ids, all of `step` if it is the last one; `skip`,
            `unskip` or `doubt` the pictures with these `ids`, of which doubted ones come next; add the class `name`.
    """

    window: str
    number: Positive
    kind: Literal["decide", "undo", "skip", "unskip", "doubt", "class"]
    choices: tuple[Choice, ...] = ()
    ids: tuple[int, ...] = ()
    step: Annotated[int, Option(least=0)] = 0
    name: str = ""


class Busy(VggftError):
    """Presses cannot be taken while files are being put into their folders."""


@dataclass
class _Draft:
    """What the presses of one request change, before it is written."""

    rows: dict[str, Decision]
    classes: list[str]
    step: int
    replaced: dict[int, list[Decision]]
    skipped: dict[int, None]
    doubted: dict[int, None]
    added: list[Decision] = field(default_factory=list)  # for files that had no decision
    rewritten: bool = False  # there are other changes of rows
    outcomes: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)


class Session:
    """The state of sorting.

    Attributes:
        pictures: what is sorted.
        decisions: their decisions.
        classes: the classes, in the order of their keys.
        changed_files: files that changed after they were decided, and are shown again.
    """

    def __init__(
        self,
        pictures: Pictures,
        decisions: Decisions,
        class_names: Sequence[str],
        learner: Learner | None = None,
        changed: Callable[["Session"], None] = lambda session: None,
    ) -> None:
        """Begin, and let the learner learn from the decisions so far.

        Args:
            changed: called after decisions, classes or files have changed.
        """
        self.pictures, self.decisions, self.classes = pictures, decisions, list(class_names)
        self.changed_files = decisions.forget_changed(pictures.root)
        self._learner, self._changed = learner, changed
        self._lock = threading.RLock()
        self._queue = Queue(pictures)
        self._replaced: dict[int, list[Decision]] = {}  # step → decisions that it replaced
        self._last_step = decisions.last_step
        self._outcomes: dict[str, dict[int, dict[str, Any]]] = {}  # window → number → outcome, of its last request
        self._busy = ""
        self._counted: tuple[object, int, dict[str, Any]] = (None, 0, {})
        if learner and decisions.rows:
            learner.learn(decisions.labels)

    @property
    def snapshot(self) -> Snapshot:
        """What the learner knows now."""
        return self._learner.snapshot() if self._learner else Snapshot()

    def take(self, presses: Sequence[Press]) -> list[dict[str, Any]]:
        """Record presses in their order, all or none, and return what became of each: `step`, `undone`, or `error`.

        Raises:
            Unwritable: the file cannot be written now.
            Busy: files are being put into folders.
        """
        with self._lock:
            if self._busy:
                raise Busy(self._busy)
            draft = _Draft(
                dict(self.decisions.rows),
                list(self.classes),
                self._last_step,
                dict(self._replaced),
                dict(self._queue.skipped),
                dict(self._queue.doubted),
            )
            results = [self._once(press, draft) for press in presses]
            if draft.rewritten:
                self.decisions.replace(draft.rows)
            elif draft.added:
                self.decisions.add(draft.added)
            decided = draft.rewritten or bool(draft.added)
            added = draft.classes != self.classes
            self.classes, self._last_step, self._replaced = draft.classes, draft.step, draft.replaced
            self._queue.skipped, self._queue.doubted = draft.skipped, draft.doubted
            self._outcomes |= draft.outcomes
            if decided and self._learner:
                self._learner.learn(self.decisions.labels)
        if decided or added:
            self._changed(self)
        return results

    def _once(self, press: Press, draft: _Draft) -> dict[str, Any]:
        """Take a press, unless it was taken before; return what became of it."""
        before = self._outcomes.get(press.window, {})
        if before and press.number <= max(before):
            return before.get(press.number, {})
        in_draft = draft.outcomes.setdefault(press.window, {})
        if press.number not in in_draft:
            try:
                in_draft[press.number] = self._apply(press, draft)
            except VggftError as error:
                in_draft[press.number] = {"error": str(error)}
        return in_draft[press.number]

    def _apply(self, press: Press, draft: _Draft) -> dict[str, Any]:
        if press.kind == "decide":
            return self._decide(press.choices, draft)
        if press.kind == "undo":
            return self._undo(press.step, press.ids, draft)
        if press.kind == "class":
            classes.require(press.name, draft.classes)
            draft.classes += [] if press.name in draft.classes else [press.name]
        else:
            for number in (number for number in press.ids if number in self.pictures.by_id):
                for ids in (draft.skipped, draft.doubted):
                    ids.pop(number, None)
                if press.kind != "unskip":
                    (draft.skipped if press.kind == "skip" else draft.doubted)[number] = None
        return {}

    def _size(self, number: int) -> int:
        """Return the size of the file of a picture.

        Raises:
            VggftError: it is gone; it is shown no more, so that the other pictures of a grid can be decided.
        """
        picture = self.pictures.by_id.get(number)
        name = visible(picture.file) if picture else "This picture"
        if picture:
            try:
                return self.pictures.path(picture).stat().st_size
            except OSError:
                self._queue.left_out.add(picture.file)
        raise VggftError(
            f"{name} is no longer in the folder: its file was deleted, moved or renamed. Nothing was decided."
        )

    def _decide(self, choices: Sequence[Choice], draft: _Draft) -> dict[str, Any]:
        sizes = [self._size(choice.id) for choice in choices]
        for choice in choices:
            if choice.suggested:
                classes.require(choice.suggested)
            if choice.label != CANNOT_TELL and choice.label not in draft.classes:
                classes.require(choice.label, draft.classes)
                draft.classes.append(choice.label)
        draft.step += 1
        for choice, size in zip(choices, sizes, strict=True):
            file = self.pictures.by_id[choice.id].file
            earlier = draft.rows.pop(file, None)  # so that rows are in the order of deciding
            if earlier:
                draft.rewritten = True
            if earlier and earlier.label != choice.label:  # the same: a key that is sent again, to the next process
                draft.replaced.setdefault(draft.step, []).append(earlier)
            draft.rows[file] = Decision(file, choice.label, choice.suggested, choice.probability, draft.step, size)
            draft.added.append(draft.rows[file])
            draft.skipped.pop(choice.id, None)
            draft.doubted.pop(choice.id, None)
        return {"step": draft.step}

    def _undo(self, step: int, ids: Sequence[int], draft: _Draft) -> dict[str, Any]:
        """Undo a step. Another process may give its number again, so a window says what it decided."""
        if not step:
            return {"undone": []}
        if not ids and step != _last(draft.rows):
            raise VggftError("Not undone: another window has decided or undone something meanwhile. Undo again.")
        files = [self.pictures.by_id[number].file for number in ids if number in self.pictures.by_id]
        undone = [
            decision.file
            for decision in draft.rows.values()
            if decision.step == step and (not ids or decision.file in files)
        ]
        gone = [file for file in undone if not (self.pictures.root / file).exists()]
        if gone:
            raise VggftError(f"{visible(gone[0])}: not undone, because its file was deleted, moved or renamed.")
        for file in undone:
            del draft.rows[file]
            draft.rewritten = True
        restored = draft.replaced.pop(step, []) if undone else []
        for decision in restored:
            draft.rows.setdefault(decision.file, decision)
        if restored:
            draft.rows = dict(sorted(draft.rows.items(), key=lambda item: item[1].step))
        by_file = self.pictures.by_file
        return {"undone": [self._shown(by_file[file]) for file in undone if file in by_file]}

    def next(self, window: str, mode: Mode, label: str, count: int, have: Sequence[int]) -> dict[str, Any]:
        """Return the pictures that a window shows next, different ones in different windows as long as there are enough.

        Args:
            label: class of a grid of the surest; empty: the one with most sure suggestions.
            count: how many are wanted.
            have: pictures that the window has already, and keeps for itself.
        """
        with self._lock:
            self._queue.learn(self.snapshot, time.monotonic())
            chosen, pictures = self._queue.next(window, mode, label, count, have, self.decisions.rows)
            return {"label": chosen, "pictures": [self._shown(picture) for picture in pictures]}

    def close(self, window: str) -> None:
        """Give the pictures of a window to others, because it was closed or reloaded."""
        with self._lock:
            self._queue.close(window)

    def _shown(self, picture: Picture) -> dict[str, Any]:
        """Return a picture for the page; its name is only shown."""
        suggestion = self._queue.suggestions.get(picture.file)
        return {
            "id": picture.id,
            "name": visible(picture.file),
            "label": picture.label,
            "suggested": suggestion.label if suggestion else picture.suggested,
            "probability": suggestion.probability if suggestion else picture.probability,
            "why": picture.why,
        }

    def leave_out(self, picture: Picture, reason: str) -> None:
        """Show a picture no more, because its file cannot be decoded."""
        with self._lock:
            self._queue.unreadable[picture.file] = reason
            self._queue.left_out.add(picture.file)

    def begin(self, message: str) -> None:
        """Take no presses until `end`; presses are refused with this message.

        Raises:
            Busy: files are being put into folders already.
        """
        with self._lock:
            if self._busy:
                raise Busy(self._busy)
            self._busy = message

    def end(self) -> None:
        """Take presses again; files that are gone are shown no more."""
        with self._lock:
            self._busy = ""
            self._queue.forget_gone()
        self._changed(self)

    def state(self, window: str) -> dict[str, Any]:
        """Return counts and classes for a window, which is known to be open now."""
        with self._lock:
            snapshot = self.snapshot
            self._queue.learn(snapshot, time.monotonic())
            self._queue.seen(window)
            counts = self._counts()
            unreadable = {**self.pictures.unreadable, **snapshot.unreadable, **self._queue.unreadable}
            return {
                **counts,
                "classes": [{"name": name, "count": counts["classes"].get(name, 0)} for name in self.classes],
                "suggested": self._queue.suggested,
                "learner": None
                if self._learner is None
                else {
                    "computed": snapshot.computed,
                    "total": snapshot.total,
                    "learned_from": snapshot.learned_from,
                    "stopped": snapshot.stopped,
                },
                "unreadable": len(unreadable),
                "unreadable_files": [
                    {"name": visible(file), "reason": visible(reason)}
                    for _, (file, reason) in zip(range(_LISTED), unreadable.items(), strict=False)
                ],
                "last_step": _last(self.decisions.rows),
                "windows": self._queue.windows,
            }

    def _counts(self) -> dict[str, Any]:
        """Return numbers of decided pictures; counted once for each state of the decisions."""
        rows, left = self.decisions.rows, len(self._queue.left_out)
        if self._counted[0] is not rows or self._counted[1] != left:
            self._counted = (rows, left, _count(rows, self._queue))
        return self._counted[2]

    @property
    def sorted(self) -> tuple[int, int]:
        """How many pictures are decided, and how many there are."""
        with self._lock:
            counts = self._counts()
            return counts["sorted"], counts["total"]


def _last(rows: dict[str, Decision]) -> int:
    """Return the number of the last step that is not undone; rows are in the order of deciding."""
    return rows[next(reversed(rows))].step if rows else 0


def _count(rows: Mapping[str, Decision], queue: Queue) -> dict[str, Any]:
    """Return numbers of pictures by decision, and how many suggestions were right; one pass over all decisions."""
    by_file, left_out = queue.pictures.by_file, queue.left_out
    by_class: Counter[str] = Counter()
    right = judged = 0
    for file, decision in rows.items():
        if file in by_file and file not in left_out:
            by_class[decision.label] += 1
        if decision.suggested and decision.label != CANNOT_TELL:
            judged += 1
            right += decision.suggested == decision.label
    return {
        "sorted": by_class.total(),
        "total": len(by_file) - len(left_out),
        "cannot_tell": by_class.pop(CANNOT_TELL, 0),
        "classes": by_class,
        "right": right,
        "judged": judged,
    }
