"""A folder of class folders → its files with their labels, for a model that is there already."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from featurize.data import scan
from featurize.errors import VggftError
from vggft.prediction import inputs
from vggft.prediction.scoring import File


def files(root: Path, classes: Sequence[str]) -> list[tuple[str, File]]:
    """Return (label, file) for every file below the class folders of `root`, in the order of labels and names.

    Args:
        classes: those that the model knows; some of them may have no folder.

    Raises:
        VggftError: no such folder, no class folders, one that the model does not know, or no files.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise VggftError(f"{root}: expected a folder of class folders ({', '.join(classes)}), found {what} there.")
    folders = scan.subfolders(root)
    strange = [folder for folder in folders if folder.name not in classes]
    splits = [folder for folder in strange if folder.name.lower() in scan.SPLIT_FOLDERS and scan.subfolders(folder)]
    if splits:
        names = {scan.SPLIT_FOLDERS[folder.name.lower()]: folder for folder in splits}
        raise VggftError(
            f"{root}: holds {', '.join(folder.name for folder in splits)}, which are no classes. Give one of these folders: "
            f"vggft evaluate {shlex.quote(str(names.get('test', names.get('validate', splits[0]))))}"
        )
    if strange:
        raise VggftError(
            f"{root}: the model does not know {', '.join(folder.name for folder in strange)}. Expected only folders of its "
            f"classes: {', '.join(classes)}. Rename the folder, or move it away."
        )
    found = [(folder.name, file) for folder in folders for file in inputs.below(folder)]
    if not found:
        raise VggftError(
            f"{root}: no images. Expected a folder for each class ({', '.join(classes)}), with pictures in it."
        )
    return found
