"""A labelled data set: samples, classes and splits.

`featurize.data.scan` finds the files, `featurize.data.splits` assigns them to splits, and `featurize.data.manifest` stores them.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Literal, overload

import numpy as np
from numpy.typing import NDArray

from featurize.data import columns
from featurize.data.columns import Arrays, Builder
from featurize.disk.digests import pack, unpack

Split = Literal["train", "validate", "test"]
Status = Literal["ok", "duplicate", "rejected"]
SPLITS: tuple[Split, ...] = ("train", "validate", "test")


@dataclass(frozen=True, slots=True)
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


COLUMNS = [field.name for field in fields(Sample)]
_AT_ONCE = 4096  # samples made at once


class Samples(Sequence[Sample]):
    """Samples as columns (`featurize.data.columns`): an object is made when it is asked for, and not kept."""

    def __init__(self, arrays: Arrays, rows: NDArray[np.intp] | None = None) -> None:
        """Take columns.

        Args:
            arrays: the columns of some samples.
            rows: which of them, in which order; None: all.
        """
        self._arrays = arrays
        self._rows = np.arange(len(arrays["status/number"])) if rows is None else rows

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> "Samples":
        """Return some samples as columns."""
        if isinstance(samples, Samples):
            return samples
        builder, values, remaining = Builder(), attrgetter(*COLUMNS), iter(samples)
        while block := list(islice(remaining, _AT_ONCE)):
            builder.add(dict(zip(COLUMNS, zip(*map(values, block), strict=True), strict=True)))
        return cls(builder.arrays())

    @property
    def arrays(self) -> Arrays:
        """The columns that these samples are some or all rows of."""
        return self._arrays

    @property
    def whole(self) -> Arrays:
        """The columns of these samples alone, in their order."""
        if np.array_equal(self._rows, np.arange(len(self._arrays["status/number"]))):
            return self._arrays
        return Samples.of(list(self)).arrays

    @property
    def digests(self) -> NDArray[np.bytes_]:
        """The packed digests; zeros for a file that could not be read."""
        digests: NDArray[np.bytes_] = self._arrays["digest"][self._rows]
        return digests

    def where(self, **wanted: str) -> "Samples":
        """Return the samples with some label, split, status and so on."""
        rows = self._rows
        for name, text in wanted.items():
            texts = columns.texts_of(self._arrays, name)
            if text not in texts:
                return Samples(self._arrays, rows[:0])
            rows = rows[self._arrays[f"{name}/number"][rows] == texts.index(text)]
        return Samples(self._arrays, rows)

    def counts(self, name: str) -> dict[str, int]:
        """Return how many samples have each label, split, status or reason; those that none has are left out."""
        texts = columns.texts_of(self._arrays, name)
        numbers = np.bincount(self._arrays[f"{name}/number"][self._rows], minlength=len(texts)).tolist()
        return {text: number for text, number in zip(texts, numbers, strict=True) if number}

    def positions(self, name: str, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the position of each sample's label, split, status or reason among some texts.

        Raises:
            KeyError: a sample has another one.
        """
        position = {text: i for i, text in enumerate(texts)}
        known = columns.texts_of(self._arrays, name)
        used = self.counts(name)
        table = np.array([position[text] if text in used else -1 for text in known], np.int64)
        positions: NDArray[np.int64] = (
            table[self._arrays[f"{name}/number"][self._rows]] if known else np.empty(0, np.int64)
        )
        return positions

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> "Samples": ...

    def __getitem__(self, index: int | slice) -> "Sample | Samples":
        if isinstance(index, slice):
            return Samples(self._arrays, self._rows[index])
        return Sample(*columns.record(self._arrays, int(self._rows[index])))

    def __iter__(self) -> Iterator[Sample]:
        for first in range(0, len(self), _AT_ONCE):
            for record in columns.records(self._arrays, self._rows[first : first + _AT_ONCE]):
                yield Sample(*record)

    def __add__(self, other: "Samples") -> "Samples":
        if self._arrays is not other._arrays:
            return Samples.of([*self, *other])
        return Samples(self._arrays, np.concatenate([self._rows, other._rows]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Samples, list, tuple)):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list


def digests_of(samples: Sequence[Sample]) -> NDArray[np.bytes_]:
    """Return the packed digests of some samples."""
    return samples.digests if isinstance(samples, Samples) else pack(sample.digest for sample in samples)


@dataclass(frozen=True)
class Dataset:
    """All samples of a data folder, sorted by path, and the class names in the order of the model's outputs.

    Attributes:
        known_identity: the identity, where it is stored (`featurize.data.manifest`); None: it is computed.
    """

    root: Path
    classes: tuple[str, ...]
    samples: Sequence[Sample]
    known_identity: str | None = None

    @cached_property
    def columns(self) -> Samples:
        """The samples as columns."""
        return Samples.of(self.samples)

    def accepted(self, split: str | None = None) -> Samples:
        """Return the samples with status "ok", in one split or in all splits."""
        accepted = self._accepted
        return accepted if split is None else accepted.where(split=split)

    @cached_property
    def _accepted(self) -> Samples:
        return self.columns.where(status="ok")

    @property
    def rejected(self) -> Samples:
        """Samples whose picture cannot be read."""
        return self.columns.where(status="rejected")

    @property
    def duplicates(self) -> Samples:
        """Samples set aside because the same bytes occur under another label or in another split."""
        return self.columns.where(status="duplicate")

    @property
    def split_counts(self) -> dict[str, int]:
        """Number of accepted samples in each split."""
        counts = self.accepted().counts("split")
        return {split: counts.get(split, 0) for split in SPLITS}

    @cached_property
    def identity(self) -> str:
        """sha256 of the classes and of digest, label and split of every accepted sample. Paths do not matter.

        Heads and tuned networks store it; they are stale if it no longer matches.
        """
        if self.known_identity is not None:
            return self.known_identity
        sha256 = hashlib.sha256("\n".join([*self.classes, ""]).encode("utf-8", "surrogateescape"))
        for lines in self._lines():
            sha256.update("\n".join(["", *lines]).encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()

    def _lines(self) -> Iterator[list[str]]:
        """Yield lists of digest, split and label of every accepted sample, in the order of these lines."""
        samples = self.accepted()
        splits, labels = (sorted(samples.counts(name)) for name in ("split", "label"))
        kinds = [f"{split} {label}" for split in splits for label in labels]
        kind = samples.positions("split", splits) * len(labels) + samples.positions("label", labels)
        ranks = np.empty(len(kinds), np.int64)
        by_rank = sorted(range(len(kinds)), key=kinds.__getitem__)
        ranks[by_rank] = np.arange(len(kinds))
        rank, digests = ranks[kind], samples.digests
        order = np.argsort(rank, kind="stable")
        order = order[np.argsort(digests[order], kind="stable")]
        ends = [kinds[i] for i in by_rank]
        for first in range(0, len(order), _AT_ONCE):
            some = order[first : first + _AT_ONCE]
            yield [f"{d} {ends[i]}" for d, i in zip(unpack(digests[some]), rank[some].tolist(), strict=True)]

    def targets(self, samples: Iterable[Sample]) -> list[int]:
        """Return the index of each sample's label in `classes`."""
        targets: list[int] = Samples.of(samples).positions("label", self.classes).tolist()
        return targets
