"""The rules of a workspace's split: how it is first created, and what may change later."""

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
    """Options for the split; None means the stored value, or the default for a new workspace."""

    validation: float | None = None
    test: float | None = None
    seed: int | None = None
    group_by: str | None = None


@dataclass(frozen=True)
class SplitPlan:
    """How images are assigned to splits.

    Attributes:
        shares, group_by: as in the workspace's settings.
        reserve_test: draw a test split from images that have been training images.
        redraw: forget all assignments, because the shares or the seed have changed.
    """

    shares: Shares
    group_by: str | None = None
    reserve_test: bool = False
    redraw: bool = False


def plan(wishes: Wishes, before: SplitPlan | None, assigned: Sequence[Assigned]) -> SplitPlan:
    """Combine options with the stored plan.

    A test split where there was none takes training images only; any other change of shares or seed draws the split again.

    Args:
        before: the stored plan; None for a new workspace.
        assigned: every image that was ever assigned to a split.

    Raises:
        VggftError: shares are out of range, or an option contradicts the existing split.
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
    if wishes.group_by not in (None, before.group_by):
        raise VggftError(
            f"--group-by {wishes.group_by}: the split of this workspace uses {before.group_by}. Use another --workspace for "
            "other groups; --cache shares the features."
        )
    stored = before.shares
    shares = Shares(
        stored.validate if wishes.validation is None else wishes.validation,
        stored.test if wishes.test is None else wishes.test,
        stored.seed if wishes.seed is None else wishes.seed,
    )
    reserve = reserve and replace(shares, test=stored.test) == stored
    return SplitPlan(shares, before.group_by, reserve, redraw=shares != stored and not reserve)


def check_folders(scan: Scan, wishes: Wishes) -> None:
    """Check that no share is given for a split that has a folder.

    Raises:
        VggftError: the split has a folder.
    """
    for option, value, split in (("--validation", wishes.validation, "validate"), ("--test", wishes.test, "test")):
        if value is not None and split in scan.stored_splits:
            where = "the table of labels has" if scan.labelled else f"{scan.root} has a folder for"
            raise VggftError(f"{option} {value}: {where} the {split} split. Omit the option.")


def build(scan: Scan, samples: Sequence[Sample], shares: Shares, assigned: Sequence[Assigned]) -> Dataset:
    """Assign samples to splits, and set aside copies that would leak between splits.

    Args:
        samples: the samples of the scan; files that could not be decoded are rejected by now.

    Raises:
        VggftError: a class has no training images, or there are no validation images.
    """
    with_splits = splits.assign(samples, shares, scan.stored_splits, assigned)
    dataset = Dataset(scan.root, scan.classes, tuple(splits.set_aside_duplicates(with_splits)))
    trained = dataset.accepted("train").counts("label")
    for name in dataset.classes:
        if name not in trained:
            rejected = dataset.rejected.where(label=name)
            first = f" ({len(rejected)} rejected, first {rejected[0].path}: {rejected[0].reason})" if rejected else ""
            raise VggftError(
                f"class {name!r} has no training images left{first}. Add pictures, or lower --validation or --test. Features "
                "computed so far are kept."
            )
    if not dataset.accepted("validate"):
        raise VggftError(
            f"{dataset.root}: no validation images left ({len(dataset.duplicates)} set aside, because the same bytes occur "
            "under another label or in another split). Add pictures, or remove the copies."
        )
    return dataset
