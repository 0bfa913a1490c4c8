"""What is in the folder of a workspace that has no workspace.json: files of vggft, or of somebody else."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import featurize.data.assigned
from featurize.data import manifest
from featurize.disk import checked
from featurize.disk.arrays import Stored
from featurize.errors import VggftError
from finetune.store import RUN
from heads.head import HEAD_FILE

SETTINGS, MANIFEST, SPLITS = "workspace.json", "manifest.csv", "splits.csv"
HEADS, FINETUNE, REPORT = "heads", "finetune", "report"
OPTIONS = (
    "--labels, --layout, --preprocess, --weights, --layers, --group-by, --validation, --test, --seed, --views, --cache"
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def was_settled(root: Path) -> bool:
    """Return whether featurize recorded a workspace.json here; if killed just then, it may not have written it."""
    return bool(_recorded(root).get(SETTINGS))


def has_models(root: Path) -> bool:
    """Return whether there are heads or runs, which need a workspace.json."""
    return any(root.glob(f"{HEADS}/[!.]*/{HEAD_FILE}")) or any(root.glob(f"{FINETUNE}/[!.]*/{RUN}"))


def require_same_settings(root: Path, described: bytes) -> None:
    """Check that settings are those of the workspace.json that is missing, if its checksum is there.

    Args:
        described: the workspace.json that featurize would write now.

    Raises:
        VggftError: they are not.
    """
    recorded = _recorded(root).get(SETTINGS)
    if recorded and hashlib.sha256(described).hexdigest() != recorded[-1]:
        raise VggftError(
            f"{root / SETTINGS} is missing, and with these options and this data folder its settings would change. Restore it, "
            f"or use the options of before ({OPTIONS}) and the same data folder. To change the settings, delete "
            f"{root / checked.CHECKSUMS}, too: heads and runs may then be stale."
        )


def manifest_sha256(root: Path) -> str:
    """Return the recorded sha256 of manifest.csv; an empty text where there is none."""
    return (_recorded(root).get(MANIFEST) or [""])[-1]


def refuse_foreign_files(root: Path) -> None:
    """Check that featurize replaces nothing in a new workspace that vggft did not write.

    Files of an interrupted featurize are proven by checksums.json; those of versions that wrote none, by their contents.

    Raises:
        VggftError: something that it did not provably write has the name of one of its files.
    """
    if was_settled(root):
        return
    foreign = [
        root / name
        for name, read in (
            (MANIFEST, manifest.read),
            (manifest.DERIVED, Stored),
            (SPLITS, featurize.data.assigned.read),
        )
        if os.path.lexists(root / name) and not _is_readable(root / name, read)
    ]
    if not foreign and (root / MANIFEST).exists():
        return
    if os.path.lexists(root / checked.CHECKSUMS):
        foreign.append(root / checked.CHECKSUMS)
    for folder in (root / HEADS, root / FINETUNE, root / REPORT):
        if not folder.is_symlink() and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
            foreign.append(folder)
    if foreign:
        raise VggftError(
            f"{foreign[0]}: vggft cannot prove that it wrote this, and would replace it or write in it. Move it away, or choose "
            "another --workspace, such as a new folder."
        )


def refuse_foreign_lock(path: Path) -> None:
    """Check that a lock file, which locking empties, is one: vggft's are empty.

    Raises:
        VggftError: it is not.
    """
    if os.path.lexists(path) and not path.is_symlink() and (path.is_dir() or path.stat().st_size):
        raise VggftError(
            f"{path}: vggft needs this name for its lock, but something else is there. Move it away, or choose another "
            "--workspace."
        )


def _is_readable(path: Path, read: Callable[[Path], object]) -> bool:
    try:
        return bool(read(path))
    except (OSError, ValueError, KeyError, TypeError, VggftError):
        return False


def _recorded(root: Path) -> dict[str, list[str]]:
    """Return what checksums.json records; nothing if it is missing, or not as vggft writes it."""
    try:
        recorded = checked.read_checksums(root)
    except ValueError:
        return {}
    sums = [checksum for checksums in recorded.values() for checksum in checksums]
    return recorded if all(isinstance(text, str) and _SHA256.fullmatch(text) for text in sums) else {}
