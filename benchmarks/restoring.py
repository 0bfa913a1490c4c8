"""A contender's folder as it was after a task: kept once, and brought back before each round."""

import shutil
from pathlib import Path

from benchmarks.contest import Contest


def keep(contest: Contest, contender: str, place: Path) -> None:
    """Copy what a contender keeps to `place`, if there is anything."""
    if contest.work(contender).exists():
        shutil.copytree(contest.work(contender), place / contender)


def restore(contest: Contest, contender: str, place: Path) -> None:
    """Replace what a contender keeps by the copy in `place`, or by nothing where there is none."""
    contest.clear(contender)
    if (place / contender).exists():
        shutil.copytree(place / contender, contest.work(contender))
