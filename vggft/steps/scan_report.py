"""What `vggft featurize` says of the files that it found: classes and splits, what was left out, and what looks wrong."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence

from featurize.data import splits
from featurize.data.dataset import Dataset, Sample
from featurize.data.folders import differ_in_case, ignored
from featurize.data.frames import video_of
from featurize.data.labels import Labelled
from featurize.data.scan import Scan
from featurize.wording import counted
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

_SHOWN = 5  # files of a kind that are named on the terminal; the manifest has them all


def tell(workspace: Workspace, scan: Scan, dataset: Dataset, ui: Ui) -> None:
    """Print the number of images, and warn of what may be a mistake."""
    counts = ", ".join(f"{number} {split}" for split, number in dataset.split_counts.items() if number)
    ui.print(
        f"{counted(len(dataset.accepted()), 'image')} in {len(dataset.classes)} classes ({', '.join(dataset.classes)}): {counts}"
    )
    if scan.labelled and workspace.settings.labels:
        tell_of_labels(scan.labelled, workspace.settings.labels, ui)
    _tell_of_ignored(scan, ui)
    _tell_of_folders(scan, ui)
    _tell_of_groups(dataset.accepted(), ui)
    _warn_of_classes(dataset, ui)
    _warn_of_copies(dataset, ui)
    for sample in dataset.rejected[:_SHOWN]:
        ui.warn(f"rejected {sample.path}: {sample.reason}")
    if dataset.rejected:
        number = counted(len(dataset.rejected), "file")
        shown = f"; {_SHOWN} of them shown" if len(dataset.rejected) > _SHOWN else ""
        ui.warn(f"{number} rejected{shown}; reasons are listed in {workspace.manifest}")


def tell_of_labels(labelled: Labelled, table: str, ui: Ui) -> None:
    """Print the columns of a table that are used, and name what it says nothing or too much of."""
    columns = ", ".join(f"{key} from column {column!r}" for key, column in labelled.columns.items())
    ui.say(f"labels: {table}, {columns}")
    for files, what in (
        (labelled.unlabelled, "left out, because the table has no label for"),
        (labelled.repeated, "the table has several identical rows for"),
    ):
        if files:
            shown = ", ".join(files[:_SHOWN]) + (", …" if len(files) > _SHOWN else "")
            ui.warn(f"{what} {counted(len(files), 'file')} ({shown})")


def _tell_of_ignored(scan: Scan, ui: Ui) -> None:
    if scan.loose:
        ui.say(f"ignored beside the class folders: {counted(scan.loose, 'file')}")
    if scan.notes:
        ui.say(ignored(scan.notes))
    if scan.left_out:
        ui.say(f"ignored beside the splits: {', '.join(folder.name for folder in scan.left_out)}")


def _tell_of_folders(scan: Scan, ui: Ui) -> None:
    depth = 2 if scan.stored_splits else 1  # of a class folder
    if scan.labelled is None and all(sample.path.count("/") > depth for sample in scan.samples):
        ui.say("the class folders hold only folders: the images in these get the class of the class folder")


def _tell_of_groups(samples: Sequence[Sample], ui: Ui) -> None:
    grouped = [s for s in samples if s.group != s.digest]
    videos = {s.group for s in grouped if s.group == video_of(s.path)}
    if videos:
        frames = sum(s.group in videos for s in grouped)
        ui.say(
            f"{counted(frames, 'frame')} of {counted(len(videos), 'video')}: the frames of a video stay in one split"
        )
    splits_of: dict[str, set[str]] = defaultdict(set)
    for sample in grouped:
        splits_of[sample.group].add(sample.split)
    parted = sorted(group for group, found in splits_of.items() if len(found) > 1)
    if parted:
        ui.warn(
            f"{counted(len(parted), 'group')} in several splits, as given by folders or table ({', '.join(parted[:_SHOWN])}): "
            "metrics may be optimistic"
        )


def _warn_of_classes(dataset: Dataset, ui: Ui) -> None:
    for alike in differ_in_case(dataset.classes):
        ui.warn(
            f"classes that differ only in upper and lower case: {', '.join(alike)}. If they are one class, rename one"
        )
    for same in _same_numbers(dataset.classes):
        ui.warn(f"classes that are the same number: {', '.join(same)}. If they are one class, rename one")
    for split in ("validate", "test"):
        classes = dataset.accepted(split).counts("label")
        for name in dataset.classes:
            if classes and name not in classes:
                ui.warn(f"class {name!r} has no image in the {split} split: metrics there do not cover it")


def _same_numbers(names: Sequence[str]) -> list[list[str]]:
    """Return the names that are the same number, in lists: 1 and 1.0, as programs write tables."""
    alike: dict[float, list[str]] = defaultdict(list)
    for name in names:
        with contextlib.suppress(ValueError):
            alike[float(name)].append(name)
    return [variants for variants in alike.values() if len(variants) > 1]


def _warn_of_copies(dataset: Dataset, ui: Ui) -> None:
    conflicts = splits.conflicts(dataset.samples)
    for identical in conflicts[:_SHOWN]:
        ui.warn(
            "identical files under two labels or in two splits: "
            + ", ".join(f"{s.path} ({s.split})" for s in identical)
        )
    if len(conflicts) > _SHOWN:
        ui.warn(f"{_SHOWN} of {len(conflicts)} sets of identical files shown; --json lists all")
    if dataset.duplicates:
        copies = "copy" if len(dataset.duplicates) == 1 else "copies"
        ui.warn(f"{len(dataset.duplicates)} {copies} in validation or test left out (status duplicate in the manifest)")
