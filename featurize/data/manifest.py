"""`manifest.csv`: all samples of a data folder, and the columns that are read instead of it while it does not change.

A large manifest has `manifest.h5` beside it, from which a million rows are opened in tenths of a second. It is derived: it is
used only while size, time and inode of the CSV file are those it belongs to, and may be deleted at any time.
"""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, get_args

from featurize.data.columns import Builder
from featurize.data.dataset import COLUMNS, Dataset, Samples, Status
from featurize.disk import arrays, checked, forms
from featurize.disk.arrays import Stored
from featurize.disk.stamp import Stamp
from featurize.errors import VggftError

DERIVED = "manifest.h5"
_VERSION = 1
# With fewer rows, reading the CSV file takes less than 0.2 seconds.
_LARGE = 20_000
_DIGEST = re.compile("[0-9a-f]{64}")
_DIGESTS = re.compile("(?:[0-9a-f]{64}\n)*")


def table(dataset: Dataset) -> bytes:
    """Return a CSV file with one row per sample; the columns are the attributes of `Sample`."""
    return forms.csv_bytes(COLUMNS, map(attrgetter(*COLUMNS), dataset.samples))


def read(path: Path) -> Samples:
    """Read a file of `table`.

    Raises:
        OSError, KeyError, ValueError: it is missing or damaged.
    """
    with checked.opened(path) as (file, _):
        return _parsed(file)


def dataset(path: Path, root: Path, classes: tuple[str, ...], sha256: str) -> Dataset:
    """Return the data set of a manifest, from the columns beside it where they belong to it.

    Args:
        path: a file of `table`.
        root, classes: of the data set.
        sha256: of the file.

    Raises:
        OSError, KeyError, ValueError: it is missing or damaged, has another sha256, or a class that is not among `classes`.
    """
    belongs = _belonging(Stamp.of(path), sha256, classes)
    stored = _stored(path.with_name(DERIVED))
    if stored is not None and all(stored.attributes.get(name) == value for name, value in belongs.items()):
        return Dataset(root, classes, Samples(stored), str(stored.attributes["identity"]))
    with checked.opened(path) as (file, sha256_now):
        if sha256_now != sha256:
            raise ValueError("changed since featurize wrote it")
        samples = _parsed(file)
    strange = samples.counts("label").keys() - set(classes)
    if strange:
        raise ValueError(f"classes that workspace.json does not have: {', '.join(sorted(strange))}")
    from_csv = Dataset(root, classes, samples)
    _derive(path, from_csv, belongs)
    return from_csv


def derive(path: Path, dataset: Dataset, sha256: str) -> None:
    """Write the columns of a manifest beside it, so that it is not read before it changes.

    Args:
        path: the file of `table` of this data set.
        sha256: of the file.
    """
    _derive(path, dataset, _belonging(Stamp.of(path), sha256, dataset.classes))


def _derive(path: Path, dataset: Dataset, belongs: Mapping[str, Any]) -> None:
    """Write the columns, if there are many rows, and if no file is in their place that vggft did not write."""
    derived = path.with_name(DERIVED)
    if len(dataset.samples) >= _LARGE and arrays.may_be_replaced(derived):
        with contextlib.suppress(VggftError):  # a full disk, or a folder that may only be read: only slower next time
            arrays.write_all(derived, dataset.columns.whole, {**belongs, "identity": dataset.identity})


def _belonging(stamp: Stamp, sha256: str, classes: Sequence[str]) -> dict[str, Any]:
    """Return what the columns record of the manifest that they belong to."""
    return {"version": _VERSION, "stamp": str(stamp), "manifest": sha256, "classes": _digest(classes)}


def _stored(path: Path) -> Stored | None:
    """Open the columns beside a manifest; None if there are none, or they are damaged."""
    try:
        return Stored(path)
    except (OSError, ValueError, KeyError, RuntimeError):  # what h5py raises for what is no HDF5 file
        return None


def _digest(classes: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(classes).encode("utf-8", "surrogateescape")).hexdigest()


def _parsed(file: BinaryIO) -> Samples:
    builder = Builder()
    for cells in forms.columns(file):
        _check(cells)
        builder.add({name: cells[name] for name in COLUMNS})
    return Samples(builder.arrays())


def _check(cells: Mapping[str, Sequence[str]]) -> None:
    """Check the columns of some rows; KeyError or ValueError for something that `table` does not write."""
    strange = set(cells["status"]) - set(get_args(Status))
    if strange:
        raise ValueError(f"status: {min(strange)!r} instead of {' or '.join(get_args(Status))}")
    paths = "\n".join(["", *cells["path"]])
    for path in cells["path"] if "\n/" in paths or ".." in paths else ():
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise ValueError(f"a path outside of the data folder: {path}")
    if not _DIGESTS.fullmatch("\n".join([*cells["digest"], ""])):
        for digest, status, path in zip(cells["digest"], cells["status"], cells["path"], strict=True):
            if not _DIGEST.fullmatch(digest) and (digest or status != "rejected"):
                raise ValueError(f"{path}: {digest!r} is no sha256")
