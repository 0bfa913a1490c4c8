"""A second run: with nothing changed, with one image added, and with labels changed.

The contenders work on a copy of the pictures, in which the changes are made and undone. Before each round, a contender's folder
is brought back to what it was after the first run, and an untimed run with unchanged pictures follows, so that what a program
remembers about its files, such as their times, is true again.
"""

import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.contenders.entry import TRAIN, Task, classes, listed
from benchmarks.contest import Contest, Run, fastest_first, relative, spread, table
from benchmarks.questions.answer import Answer, numbers, seconds_of
from benchmarks.restoring import keep, restore

CONTENDERS = ("vggft", "keras_npy")
_MOVED = 0.1  # of the training images get another label

Change = Callable[[Path, Path], AbstractContextManager[None]]


def ask(contest: Contest) -> Answer:
    """Let each contender with a cache compute features again after each change."""
    contest.place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="changes-", dir=contest.place) as folder:
        kept, data = Path(folder) / "kept", Path(folder) / "data"
        shutil.copytree(contest.data, data)
        task = replace(contest.task("features"), data=data)
        first = {
            name: runs[0] for name, runs in replace(contest, rounds=1).in_turn(CONTENDERS, task, contest.clear).items()
        }
        for name in first:
            keep(contest, name, kept)
        again = {what: _again(contest, tuple(first), task, change, kept) for what, change in CHANGES.items()}
    images = sum(len(listed(path)[0]) for path in contest.data.iterdir())
    text = (
        f"{_table(first, again)}\n\nSeconds, the start of the program included; the first run, which computes everything, was "
        f"measured once. Labels: {len(_moves(contest.data))} training images move to another class folder."
    )
    measured = {"first": {name: asdict(run) for name, run in first.items()}}
    measured |= {what: numbers(runs) for what, runs in again.items()}
    return Answer(f"Featurizing {images} images again after a change", text, measured)


def _again(contest: Contest, contenders: Sequence[str], task: Task, change: Change, kept: Path) -> dict[str, list[Run]]:
    """Time the task after a change, each time from the state in `kept`."""
    with ExitStack() as changed:

        def before(name: str) -> None:
            changed.close()  # what the contender before this one has seen
            restore(contest, name, kept)
            contest.run(name, task)
            changed.enter_context(change(task.data, contest.unseen))

        return contest.in_turn(contenders, task, before)


@contextmanager
def unchanged(data: Path, unseen: Path) -> Iterator[None]:
    """Change nothing."""
    yield


@contextmanager
def added(data: Path, unseen: Path) -> Iterator[None]:
    """Add the first unseen picture to the training pictures of its class."""
    source = listed(unseen)[0][0]
    new = data / TRAIN / source.parent.name / f"added{source.suffix}"
    shutil.copy(source, new)
    yield
    new.unlink()


@contextmanager
def relabelled(data: Path, unseen: Path) -> Iterator[None]:
    """Move a tenth of the training pictures to the folder of the next class."""
    moves = _moves(data)
    for old, new in moves:
        old.rename(new)
    yield
    for old, new in moves:
        new.rename(old)


CHANGES: Mapping[str, Change] = {"nothing": unchanged, "one image": added, "labels": relabelled}


def _moves(data: Path) -> list[tuple[Path, Path]]:
    folder = data / TRAIN
    files, _ = listed(folder)
    names = classes(folder)
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    chosen = random.Random(0).sample(files, max(1, round(_MOVED * len(files))))
    return [(path, folder / following[path.parent.name] / f"moved-{path.name}") for path in chosen]


def _table(first: Mapping[str, Run], again: Mapping[str, Mapping[str, list[Run]]]) -> str:
    """Return a row for each contender: the seconds of the first run, and for each change the seconds and the ratio to vggft."""
    rows = []
    nothing, *_ = again.values()
    names = [name for name in fastest_first(seconds_of(nothing)) if all(name in runs for runs in again.values())]
    for name in names:  # without those that have failed meanwhile
        row = [name, f"{first[name].seconds:.1f}"]
        for runs in again.values():
            seconds = seconds_of(runs)
            row += [spread(seconds[name]), relative(seconds, name)]
        rows.append(row)
    return table(["", "first run", *(head for what in again for head in (what, "× vggft"))], rows)
