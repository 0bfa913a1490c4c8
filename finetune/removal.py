"""Deleting a run: only what vggft provably wrote.

A folder is that of a run if it is no link and `run.json` or `unfinished/settings.json` in it names the folder, or where both
are damaged, if a head or a checkpoint in `unfinished/` has its checksum. In it, a file is deleted if vggft writes a file of that
name in that place; of `network.keras`, the sha256 has to be the one in `run.json`, too.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from featurize import durable
from featurize.errors import VggftError
from finetune import checkpoint, tensorboard
from finetune.store import CHECKPOINT, HISTORY, NETWORK, RUN, SETTINGS, TENSORBOARD, UNFINISHED
from heads import predictions
from heads.head import HEAD_FILES, load_head

_LOGS = tuple((TENSORBOARD, split) for split in tensorboard.SPLITS)
_FOLDERS = (*_LOGS, (TENSORBOARD,), (UNFINISHED,))  # inner ones first


def is_run(folder: Path) -> bool:
    """Return whether a folder provably is that of a run, finished or not."""
    if folder.is_symlink() or (folder / UNFINISHED).is_symlink():
        return False
    stored = (_read(folder / RUN).get("settings"), _read(folder / UNFINISHED / SETTINGS))
    if any(isinstance(settings, dict) and settings.get("name") == folder.name for settings in stored):
        return True
    for read, path in ((load_head, folder / UNFINISHED), (checkpoint.read, folder / UNFINISHED / CHECKPOINT)):
        with contextlib.suppress(VggftError, OSError):
            read(path)
            return True
    return False


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

    The proof, run.json or settings.json, is deleted last, so that an interrupted removal can be repeated.

    Raises:
        VggftError: the folder is not provably that of a run.
    """
    if not is_run(folder):
        raise VggftError(
            f"{folder}: not provably a run: nothing in it has the name or the checksum that vggft writes. Nothing was deleted. "
            "If it is one, delete the folder yourself."
        )
    files = [Path(place) / name for place, folders, names in os.walk(folder) for name in (*names, *folders)]
    files = [path for path in files if path.is_symlink() or not path.is_dir()]
    proofs = [folder / RUN, folder / UNFINISHED / SETTINGS]
    remaining = [path for path in files if path not in proofs and not _is_ours(path, folder)]
    for path in files:
        if path not in (*proofs, *remaining):
            path.unlink()
    for path in proofs:
        if not path.parent.is_symlink():
            path.unlink(missing_ok=True)
    for place in (*_FOLDERS, ()):
        with contextlib.suppress(OSError):  # missing, or not empty, or a link
            folder.joinpath(*place).rmdir()
    durable.sync_folder(folder.parent)
    return sorted(remaining)


def _is_ours(path: Path, folder: Path) -> bool:
    """Return whether vggft provably wrote a file in the folder of a run."""
    *place, name = path.relative_to(folder).parts
    if path.is_symlink():
        return False
    if tuple(place) in _LOGS:
        return tensorboard.is_ours(path)
    if place == [UNFINISHED]:
        return name in (CHECKPOINT, NETWORK, *HEAD_FILES, durable.CHECKSUMS) or path.match(durable.TEMPORARY)
    if place:
        return False
    if name == NETWORK:
        return durable.sha256(path) == _read(folder / RUN).get("network_sha256")
    return name in (HISTORY, predictions.FILE, durable.CHECKSUMS) or path.match(durable.TEMPORARY)
