"""What a set of labelled images is: samples, classes, splits, and the table (`manifest.csv`) that remembers them.

Finding the files is `featurize.data.scan`'s work, sharing them out over splits is `featurize.data.splits`'s.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from featurize import durable

Split = Literal["train", "validate", "test"]
Status = Literal["ok", "duplicate", "rejected"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")


@dataclass(frozen=True)
class Sample:
    """One image file with its label.

    Attributes:
        path: relative to the data folder, with forward slashes.
        label: name of the class.
        split: "train", "validate" or "test"; empty for a rejected sample of a folder without splits.
        group: samples that no split may part: by default the digest, so that copies stay together.
        digest: sha256 of the file's bytes, hexadecimal; empty where the file could not be read.
        status: "ok"; "duplicate" (set aside: its bytes also occur under another label or in another split);
            "rejected" (no usable picture).
        reason: why the status is not "ok".
        size: bytes; mtime_ns: nanoseconds; inode: with those two, tells at the next scan whether to read the file again.
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
    """All samples of one data folder, in path order, and the class names in the order of the network's outputs."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def accepted(self, split: str | None = None) -> list[Sample]:
        """Return the samples with status "ok", of one split or of all."""
        return [s for s in self.samples if s.status == "ok" and split in (None, s.split)]

    @property
    def rejected(self) -> list[Sample]:
        """Samples without a usable picture."""
        return [s for s in self.samples if s.status == "rejected"]

    @property
    def duplicates(self) -> list[Sample]:
        """Samples set aside because their bytes also occur under another label or in another split."""
        return [s for s in self.samples if s.status == "duplicate"]

    @property
    def split_counts(self) -> dict[str, int]:
        """Number of accepted samples in each split."""
        counts = Counter(s.split for s in self.accepted())
        return {split: counts[split] for split in SPLITS}

    @cached_property
    def identity(self) -> str:
        """sha256 over classes, and digest, label, split of every accepted sample, whatever the files are called.

        Heads and tuned networks keep it: where it differs, they were made from another state of the data.
        """
        lines = sorted(f"{s.digest} {s.split} {s.label}" for s in self.accepted())
        text = "\n".join([*self.classes, "", *lines])
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def targets(self, samples: Iterable[Sample]) -> list[int]:
        """Position of each sample's label in `classes`."""
        position = {name: i for i, name in enumerate(self.classes)}
        return [position[s.label] for s in samples]


_COLUMNS = [field.name for field in fields(Sample)]
_NUMBERS = ("size", "mtime_ns", "inode")


def write_manifest(path: Path, dataset: Dataset) -> None:
    """Write one row a sample; the columns are the attributes of `Sample`."""
    durable.write_csv(path, _COLUMNS, map(attrgetter(*_COLUMNS), dataset.samples))


def read_manifest(path: Path) -> list[Sample]:
    """Read what `write_manifest` wrote. A column that is missing raises KeyError."""
    rows = []
    for row in durable.read_csv(path):
        values: dict[str, Any] = {name: int(row[name]) if name in _NUMBERS else row[name] for name in _COLUMNS}
        rows.append(Sample(**values))
    return rows
