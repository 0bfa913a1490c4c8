"""Which pictures come next: by name, the most doubtful first, or the surest of one class; and which window already has them.

The constants of grids are measured with `benchmarks/sorting_keys.py`; the table is in docs/sorting.md.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from vggft.labelling.pictures import Picture, Pictures
from vggft.labelling.suggestions import Snapshot, Suggestion

Mode = Literal["order", "doubtful", "surest"]

SURE = 0.9  # least probability of a picture in a grid
GRID = 24  # pictures in a grid, at most
FEWEST = 4  # pictures of a class that are worth a grid: it costs a key to open and one to confirm

_OPEN = 10.0  # seconds after its last request in which a window is taken to be open; it asks every other second


@dataclass
class _Window:
    """A window: when it last asked, and the pictures that it has."""

    seen: float
    ids: frozenset[int] = frozenset()


@dataclass
class Queue:
    """The pictures that are not decided.

    Attributes:
        skipped: ids of pictures that come when no others are left, in the order of skipping.
        doubted: ids of pictures that were taken out of a grid of the surest: they come first, because what has learned is wrong
            there, and not in such a grid again.
        unreadable: file → why it cannot be decoded.
        left_out: files that are unreadable or gone.
        suggestions: file → suggestion, of the latest snapshot.
        suggested: class → number of sure suggestions of it, of classes that have a grid.
    """

    pictures: Pictures
    skipped: dict[int, None] = field(default_factory=dict)
    doubted: dict[int, None] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    suggestions: Mapping[str, Suggestion] = field(default_factory=dict)
    suggested: dict[str, int] = field(default_factory=dict)
    _now: float = 0.0
    _rising: list[Picture] = field(default_factory=list)  # pictures with suggestions, by probability
    _windows: dict[str, _Window] = field(default_factory=dict)

    def learn(self, snapshot: Snapshot, now: float) -> None:
        """Take over the suggestions of a snapshot, sorted once for each, and the time in seconds."""
        self._now = now
        self.left_out.update(file for file in snapshot.unreadable if file in self.pictures.by_file)
        if snapshot.suggestions is self.suggestions:
            return
        self.suggestions = suggestions = snapshot.suggestions
        present = [picture for picture in self.pictures.by_id.values() if picture.file in suggestions]
        self._rising = sorted(present, key=lambda picture: suggestions[picture.file].probability)
        self.suggested = {label: len(pictures) for label, pictures in self._grids(self._ordered("surest")).items()}

    def seen(self, window: str) -> None:
        """Note that a window is open."""
        self._windows.setdefault(window, _Window(self._now)).seen = self._now
        for name in [name for name, other in self._windows.items() if self._now - other.seen > _OPEN]:
            del self._windows[name]

    def close(self, window: str) -> None:
        """Forget a window that was closed."""
        self._windows.pop(window, None)

    @property
    def windows(self) -> int:
        """Number of open windows."""
        return len(self._windows)

    def next(
        self, window: str, mode: Mode, label: str, count: int, have: Sequence[int], decided: Container[str]
    ) -> tuple[str, list[Picture]]:
        """Return the class of the pictures (mode "surest"), and up to `count` pictures besides those that the window has.

        Args:
            label: class of the pictures in mode "surest"; empty: the one with most sure suggestions.
            decided: files that are decided.
        """
        self.seen(window)
        others = set().union(*(other.ids for name, other in self._windows.items() if name != window))
        unwanted = {*have, *self.skipped}
        open_pictures: Iterator[Picture] = (
            picture
            for picture in self._ordered(mode)
            if picture.file not in decided and picture.id not in unwanted and picture.file not in self.left_out
        )
        if mode == "surest":
            label, open_pictures = self._of_class(label, open_pictures)
            count = min(count, GRID)
        free: list[Picture] = []
        taken: list[Picture] = []
        for picture in open_pictures:
            if len(free) == count:
                break
            (taken if picture.id in others else free).append(picture)
        if not free and not have:
            free = taken[:count] or ([] if mode == "surest" else self._skipped(decided)[:count])
        self._windows[window].ids = frozenset(have).union(picture.id for picture in free)
        return label, free

    def _of_class(self, label: str, pictures: Iterator[Picture]) -> tuple[str, Iterator[Picture]]:
        """Return the pictures whose suggestion is a class, by default the one that most are suggested to be, and that class."""
        by_class = self._grids(pictures)
        chosen = label or max(by_class, key=lambda name: len(by_class[name]), default="")
        return chosen, iter(by_class.get(chosen, ()))

    def _grids(self, pictures: Iterator[Picture]) -> dict[str, list[Picture]]:
        """Return class → pictures whose suggestion it is, of classes with enough of them for a grid."""
        by_class: dict[str, list[Picture]] = {}
        for picture in pictures:
            by_class.setdefault(self.suggestions[picture.file].label, []).append(picture)
        return {label: pictures for label, pictures in by_class.items() if len(pictures) >= FEWEST}

    def _skipped(self, decided: Container[str]) -> list[Picture]:
        """Return the skipped pictures, which come when there are no others."""
        pictures = [self.pictures.by_id[number] for number in self.skipped if number in self.pictures.by_id]
        return [picture for picture in pictures if picture.file not in decided and picture.file not in self.left_out]

    def _ordered(self, mode: Mode) -> Iterator[Picture]:
        if mode == "surest":
            falling = reversed(self._rising)
            sure = takewhile(lambda picture: self.suggestions[picture.file].probability >= SURE, falling)
            yield from (picture for picture in sure if picture.id not in self.doubted)
            return
        yield from (self.pictures.by_id[number] for number in self.doubted)
        if mode == "doubtful":
            yield from (p for p in self._rising if p.id not in self.doubted)
            yield from (
                p for p in self.pictures.by_id.values() if not (p.file in self.suggestions or p.id in self.doubted)
            )
            return
        yield from (p for p in self.pictures.by_id.values() if p.id not in self.doubted)

    def forget_gone(self) -> None:
        """Show pictures no more whose files are gone."""
        gone = {picture.file for picture in self.pictures.by_id.values() if not self.pictures.path(picture).is_file()}
        self.left_out = gone.union(self.unreadable)
