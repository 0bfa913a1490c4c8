"""Saving a contender's folder after a task, and restoring it before each round."""

import shutil
from pathlib import Path

from benchmarks.contest import Contest


def keep(contest: Contest, contender: str, place: Path) -> None:
    """Copy a contender's folder to `place`, if it exists."""
    if contest.work(contender).exists():
        shutil.copytree(contest.work(contender), place / contender)


def restore(contest: Contest, contender: str, place: Path) -> None:
    """Replace a contender's folder by the copy in `place`, or remove it where there is no copy."""
    contest.clear(contender)
    if (place / contender).exists():
        shutil.copytree(place / contender, contest.work(contender))
