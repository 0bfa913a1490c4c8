"""The rules of a split over the life of a workspace: how it is made first, and what may change of it later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from featurize.data import splits
from featurize.data.assigned import Assigned
from featurize.data.dataset import Dataset, Sample
from featurize.data.scan import Scan
from featurize.data.shares import Shares
from featurize.errors import VggftError


@dataclass(frozen=True)
class Wishes:
    """What the options say of the split; None: as before, or the default."""

    validation: float | None = None
    test: float | None = None
    seed: int | None = None
    group_by: str | None = None


@dataclass(frozen=True)
class SplitPlan:
    """How images are shared out over the splits.

    Attributes:
        shares, group_by: as in the workspace's settings.
        reserve_test: a test split is drawn from images that were training images before.
    """

    shares: Shares
    group_by: str | None = None
    reserve_test: bool = False


def plan(wishes: Wishes, before: SplitPlan | None, assigned: Sequence[Assigned]) -> SplitPlan:
    """Return how the split is made.

    Args:
        before: how it was made; None for a new workspace.
        assigned: every image that was ever assigned to a split.

    Raises:
        VggftError: shares out of range, or a wish that contradicts the split there is.
    """
    reserve = bool(wishes.test and assigned) and all(entry.split != "test" for entry in assigned)
    if before is None:
        default = Shares()
        shares = Shares(
            default.validate if wishes.validation is None else wishes.validation,
            default.test if wishes.test is None else wishes.test,
            default.seed if wishes.seed is None else wishes.seed,
        )
        return SplitPlan(shares, wishes.group_by, reserve)
    stored = before.shares
    for option, wish, value in (
        ("--validation", wishes.validation, stored.validate),
        ("--seed", wishes.seed, stored.seed),
        ("--test", wishes.test, stored.test or wishes.test),
        ("--group-by", wishes.group_by, before.group_by),
    ):
        if wish is not None and wish != value:
            raise VggftError(
                f"{option} {wish}: the split of this workspace was made with {value}, and no image ever moves to another split. "
                "Use another --workspace for another split."
            )
    return SplitPlan(replace(stored, test=wishes.test or stored.test), before.group_by, reserve)


def check_folders(scan: Scan, wishes: Wishes) -> None:
    """See that no share is asked for of a split that has a folder.

    Raises:
        VggftError: there is a folder for it.
    """
    for option, value, split in (("--validation", wishes.validation, "validate"), ("--test", wishes.test, "test")):
        if value is not None and split in scan.stored_splits:
            raise VggftError(f"{option} {value}: {scan.root} has a folder for the {split} split. Leave the option out.")


def build(scan: Scan, samples: Sequence[Sample], shares: Shares, assigned: Sequence[Assigned]) -> Dataset:
    """Share samples out over the splits and set leaking copies aside.

    Args:
        samples: those of the scan, with what is known by now of files that are no pictures.

    Raises:
        VggftError: a class without training images, or no validation images.
    """
    shared = splits.assign(samples, shares, scan.stored_splits, assigned)
    dataset = Dataset(scan.root, scan.classes, tuple(splits.set_aside_duplicates(shared)))
    for name in dataset.classes:
        if not any(sample.label == name for sample in dataset.accepted("train")):
            lost = [sample for sample in dataset.rejected if sample.label == name]
            why = f" ({len(lost)} rejected, the first: {lost[0].path}: {lost[0].reason})" if lost else ""
            raise VggftError(
                f"class {name!r} has no training image left{why}. Add pictures, or hold back less (--validation, --test). "
                "Features computed so far are kept."
            )
    if not dataset.accepted("validate"):
        aside = len(dataset.duplicates)
        raise VggftError(
            f"{dataset.root}: no validation image is left ({aside} set aside, because the same bytes occur under another "
            "label or in another split). Add pictures, or remove the copies."
        )
    return dataset
