"""Deleting a run: only what vggft provably wrote.

A folder is that of a run if it is no link and `run.json` or `unfinished/settings.json` in it names the folder; where both are
damaged or name another run, if a file in it has the checksum that vggft recorded for a run; or if a head or a checkpoint in
`unfinished/` has its checksum. In it, a file is deleted if vggft writes a file of that name in that place; where the checksum
of a result was recorded, it has to be that one.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from featurize.disk import checked, durable
from featurize.errors import VggftError
from finetune import checkpoint, tensorboard
from finetune.store import CHECKPOINT, HISTORY, NETWORK, PICTURES, RUN, SETTINGS, TENSORBOARD, UNFINISHED
from heads import predictions
from heads.head import HEAD_FILES, load_head

_LOGS = tuple((TENSORBOARD, split) for split in tensorboard.SPLITS)
_CHECKED = (RUN, HISTORY, predictions.FILE, NETWORK)
_FOLDERS = (*_LOGS, (TENSORBOARD,), (UNFINISHED,))  # inner ones first


def is_run(folder: Path) -> bool:
    """Return whether a folder provably is that of a run, finished or not."""
    if folder.is_symlink() or (folder / UNFINISHED).is_symlink():
        return False
    if folder.name in recorded_names(folder):
        return True
    if checked.lists(folder, RUN) and any(checked.is_as_written(folder / name) for name in _CHECKED):
        return True
    for read, path in ((load_head, folder / UNFINISHED), (checkpoint.read, folder / UNFINISHED / CHECKPOINT)):
        with contextlib.suppress(VggftError, OSError):
            read(path)
            return True
    return False


def recorded_names(folder: Path) -> set[str]:
    """Return the names of runs in the records of a folder: that of the folder, or of the one that it is a copy of."""
    stored = (_read(folder / RUN).get("settings"), _read(folder / UNFINISHED / SETTINGS))
    names = (settings.get("name") for settings in stored if isinstance(settings, dict))
    return {name for name in names if isinstance(name, str)}


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if there is none, or a link to one."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path.is_symlink():
            return {}
        stored = json.loads(durable.read_bytes(path))
        return stored if isinstance(stored, dict) else {}
    return {}


def remove(folder: Path) -> list[Path]:
    """Delete a run; return the paths that remain, because vggft may not have written them.

    What proves that it is one is deleted last, so that an interrupted removal can be repeated.

    Raises:
        VggftError: the folder is not provably that of a run.
    """
    if not is_run(folder):
        raise VggftError(
            f"{folder}: not provably a run: nothing in it has the name or the checksum that vggft writes. Nothing was deleted. "
            "If it is one, delete the folder yourself."
        )
    settings = [folder / RUN, folder / UNFINISHED / SETTINGS]
    named = settings if folder.name in recorded_names(folder) else []
    ours = [path for path in _contents(folder) if _is_ours(path, folder)]
    ours.sort(key=lambda path: (path in named, path.name == checked.CHECKSUMS, checked.is_as_written(path)))
    for path in ours:
        path.unlink()
    for place in (*_FOLDERS, ()):
        with contextlib.suppress(OSError):  # missing, or not empty, or a link
            folder.joinpath(*place).rmdir()
    durable.sync_folder(folder.parent)
    return sorted(_contents(folder))


def _contents(folder: Path) -> list[Path]:
    """Return the files, links and empty folders in a folder."""
    paths = [Path(place) / name for place, folders, names in os.walk(folder) for name in (*names, *folders)]
    return [path for path in paths if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]


def _is_ours(path: Path, folder: Path) -> bool:
    """Return whether vggft provably wrote a file in the folder of a run."""
    *place, name = path.relative_to(folder).parts
    if path.is_symlink() or not path.is_file():
        return False
    if place:
        unfinished = (CHECKPOINT, NETWORK, SETTINGS, *HEAD_FILES, checked.CHECKSUMS)
        in_unfinished = place == [UNFINISHED] and (name in unfinished or path.match(durable.TEMPORARY))
        return in_unfinished or (tuple(place) in _LOGS and tensorboard.is_ours(path))
    if name == NETWORK:
        recorded = _read(folder / RUN).get("network_sha256")
        return durable.sha256(path) == recorded or checked.is_as_written(path)
    if name in PICTURES:  # runs of earlier versions have none, so one may be the user's
        return checked.is_as_written(path)
    if name in (HISTORY, predictions.FILE):
        return checked.is_as_written(path) or not checked.lists(folder, name)
    return name in (RUN, checked.CHECKSUMS) or path.match(durable.TEMPORARY)
