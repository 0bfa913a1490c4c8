"""A folder of class folders, or a folder and a table of labels → files with their labels, for a trained model."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from featurize.data.folders import loose_files, same_name, subfolders
from featurize.data.labels import Labelled
from featurize.data.split_names import split_of
from featurize.errors import VggftError
from featurize.wording import counted
from vggft.prediction import inputs
from vggft.prediction.inputs import Beside
from vggft.prediction.scoring import File


def files(root: Path, classes: Sequence[str], beside: Beside = lambda path: None) -> list[tuple[str, File]]:
    """Return (label, file) for every file below the class folders of `root`, in the order of labels and names.

    Args:
        classes: of the model; some may have no folder.
        beside: called with each annotation or note in a class folder, which is left out.

    Raises:
        VggftError: no such folder, no class folders, one of a class that the model does not have, or no files.
    """
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise VggftError(f"{root}: expected a folder of class folders ({', '.join(classes)}), found {what} there.")
    class_folders = subfolders(root)
    label_of = {same_name(name): name for name in classes}
    unknown = [folder for folder in class_folders if same_name(folder.name) not in label_of]
    splits = [folder for folder in unknown if split_of(folder.name) and subfolders(folder)]
    if splits:
        names = {split_of(folder.name): folder for folder in splits}
        raise VggftError(
            f"{root}: contains splits ({', '.join(folder.name for folder in splits)}). Expected class folders. Evaluate one: "
            f"vggft evaluate {shlex.quote(str(names.get('test', names.get('validate', splits[0]))))}"
        )
    if unknown:
        raise VggftError(
            f"{root}: not classes of the model: {', '.join(folder.name for folder in unknown)}. Expected folders named "
            f"{', '.join(classes)}. Rename the others, or move them away."
        )
    above = (os.path.realpath(root),)  # a link to it would give the files of all classes one label
    labelled = [
        (label_of[same_name(folder.name)], file)
        for folder in class_folders
        for file in inputs.below(folder, beside, above)
    ]
    if not labelled:
        loose = f"{counted(loose_files(root), 'file')} but no class folders" if loose_files(root) else "no images"
        raise VggftError(
            f"{root}: {loose}. Expected a folder of images for each class ({', '.join(classes)}), or --labels TABLE. To classify "
            "unlabelled images: vggft predict."
        )
    return labelled


def in_table(labelled: Labelled, table: Path, root: Path, classes: Sequence[str]) -> list[tuple[str, File]]:
    """Return (label, file) for every row of a table of labels; rows without a file have the reason.

    Args:
        labelled: what the table says.
        root: the folder of the files.

    Raises:
        VggftError: a label is no class of the model.
    """
    label_of = {same_name(name): name for name in classes}
    unknown = sorted({sample.label for sample in labelled.samples if same_name(sample.label) not in label_of})
    if unknown:
        raise VggftError(
            f"{table}: not classes of the model: {', '.join(unknown)}. Expected labels among {', '.join(classes)}. Correct "
            "them, or leave out their rows."
        )
    return [(label_of[same_name(s.label)], File(root / s.path, s.reason)) for s in labelled.samples]
