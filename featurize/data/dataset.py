"""A labelled data set: samples, classes, splits, and `manifest.csv`, which stores them.

`featurize.data.scan` finds the files, and `featurize.data.splits` assigns them to splits.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from featurize.disk import checked, forms
from featurize.options import records

Split = Literal["train", "validate", "test"]
Status = Literal["ok", "duplicate", "rejected"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")


@dataclass(frozen=True)
class Sample:
    """One image file with its label.

    Attributes:
        path: relative to the data folder, with forward slashes.
        label: class name.
        split: "train", "validate" or "test"; empty for a rejected sample if the data folder has no split folders.
        group: samples with the same group are always in the same split; by default the digest, so that copies stay together.
        digest: hexadecimal sha256 of the file; empty if the file could not be read.
        status: "ok"; "duplicate" (set aside, because the same bytes occur under another label or in another split); or
            "rejected" (not a readable picture).
        reason: why the status is not "ok".
        size, mtime_ns, inode: size in bytes, modification time in nanoseconds, and inode of the file. If they have not
            changed, the next scan reuses the digest.
    """

    path: str
    label: str
    split: str = ""
    group: str = ""
    digest: str = ""
    status: Status = "ok"
    reason: str = ""
    size: int = 0
    mtime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class Dataset:
    """All samples of a data folder, sorted by path, and the class names in the order of the model's outputs."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def accepted(self, split: str | None = None) -> list[Sample]:
        """Return the samples with status "ok", in one split or in all splits."""
        return [s for s in self.samples if s.status == "ok" and split in (None, s.split)]

    @property
    def rejected(self) -> list[Sample]:
        """Samples whose picture cannot be read."""
        return [s for s in self.samples if s.status == "rejected"]

    @property
    def duplicates(self) -> list[Sample]:
        """Samples set aside because the same bytes occur under another label or in another split."""
        return [s for s in self.samples if s.status == "duplicate"]

    @property
    def split_counts(self) -> dict[str, int]:
        """Number of accepted samples in each split."""
        counts = Counter(s.split for s in self.accepted())
        return {split: counts[split] for split in SPLITS}

    @cached_property
    def identity(self) -> str:
        """sha256 of the classes and of digest, label and split of every accepted sample. Paths do not matter.

        Heads and tuned networks store it; they are stale if it no longer matches.
        """
        lines = sorted(f"{s.digest} {s.split} {s.label}" for s in self.accepted())
        text = "\n".join([*self.classes, "", *lines])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def targets(self, samples: Iterable[Sample]) -> list[int]:
        """Return the index of each sample's label in `classes`."""
        index = {name: i for i, name in enumerate(self.classes)}
        return [index[s.label] for s in samples]


_COLUMNS = [field.name for field in fields(Sample)]
_DIGEST = re.compile("[0-9a-f]{64}")
_NUMBERS = ("size", "mtime_ns", "inode")


def manifest(dataset: Dataset) -> bytes:
    """Return a CSV file with one row per sample; the columns are the attributes of `Sample`."""
    return forms.csv_bytes(_COLUMNS, map(attrgetter(*_COLUMNS), dataset.samples))


def read_manifest(path: Path) -> list[Sample]:
    """Read a file of `manifest`.

    Raises:
        OSError, KeyError, ValueError: it is missing or damaged.
    """
    rows = []
    for row in checked.read_csv(path):
        values: dict[str, Any] = {name: int(row[name]) if name in _NUMBERS else row[name] for name in _COLUMNS}
        sample = records.build(Sample, values)
        if PurePosixPath(sample.path).is_absolute() or ".." in PurePosixPath(sample.path).parts:
            raise ValueError(f"a path outside of the data folder: {sample.path}")
        if not _DIGEST.fullmatch(sample.digest) and (sample.digest or sample.status != "rejected"):
            raise ValueError(f"{sample.path}: {sample.digest!r} is no sha256")
        rows.append(sample)
    return rows
