"""A contender's folder as it was after a task: kept once, and brought back before each round."""

import shutil
from pathlib import Path

from benchmarks.contest import Contest


def keep(contest: Contest, contender: str, place: Path) -> None:
    """Copy what a contender keeps to `place`."""
    shutil.copytree(contest.work(contender), place / contender)


def restore(contest: Contest, contender: str, place: Path) -> None:
    """Replace what a contender keeps by the copy in `place`."""
    contest.clear(contender)
    shutil.copytree(place / contender, contest.work(contender))
