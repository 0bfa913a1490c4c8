"""Samples as columns: one array for a number or a digest, and arrays of UTF-8 bytes and their ends for texts.

About 115 bytes a sample, where an object read from a file took 740. Columns are a mapping of names to arrays, so that those of
a file are read when they are first used (`featurize.disk.arrays.Stored`). A sample without a digest has 32 zero bytes there.
Texts that repeat (labels, splits, groups) are stored once, and each sample has the number of its text.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.disk.digests import HEX, pack, unpack

Arrays = Mapping[str, NDArray[Any]]

NUMBERS: Mapping[str, Any] = {"size": np.int64, "mtime_ns": np.int64, "inode": np.uint64}
REPEATED = ("label", "split", "group", "status", "reason")
_NO_DIGEST = "0" * HEX
_OWN = "\0"  # stands for a group that is the digest of the file, as most are; no name of a file or folder has this character


class Texts:
    """Some texts, stored as UTF-8 without separators; bytes of file names that are not valid UTF-8 are kept."""

    def __init__(self, arrays: Arrays, name: str) -> None:
        """Read a column of texts."""
        self._bytes = arrays[f"{name}/bytes"].data
        self._ends = arrays[f"{name}/end"]

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, rows: NDArray[np.integer[Any]]) -> list[str]:
        """Return the texts of some rows."""
        ends = self._ends[rows].tolist()
        begins = np.where(rows > 0, self._ends[rows - 1], 0).tolist()
        data = self._bytes
        return [str(data[first:end], "utf-8", "surrogateescape") for first, end in zip(begins, ends, strict=True)]


def repeated(arrays: Arrays, name: str, rows: NDArray[np.intp]) -> list[str]:
    """Return the texts of some samples in a column of `REPEATED`; `_OWN` for a group that is the digest."""
    numbers, inverse = np.unique(arrays[f"{name}/number"][rows], return_inverse=True)
    known = Texts(arrays, name).at(numbers)
    return [known[i] for i in inverse.tolist()]


def texts_of(arrays: Arrays, name: str) -> list[str]:
    """Return the texts of a column of `REPEATED`, in the order of their numbers."""
    texts = Texts(arrays, name)
    return texts.at(np.arange(len(texts)))


def record(arrays: Arrays, row: int) -> tuple[Any, ...]:
    """Return what `records` returns, of one sample: without the steps that only pay for many."""

    def text(name: str, number: int) -> str:
        ends = arrays[f"{name}/end"]
        first = int(ends[number - 1]) if number else 0
        return str(arrays[f"{name}/bytes"].data[first : int(ends[number])], "utf-8", "surrogateescape")

    (digest,) = digests(arrays, np.array([row]))
    label, split, group, status, reason = (text(name, int(arrays[f"{name}/number"][row])) for name in REPEATED)
    numbers = (int(arrays[name][row]) for name in NUMBERS)
    return (text("path", row), label, split, digest if group == _OWN else group, digest, status, reason, *numbers)


def digests(arrays: Arrays, rows: NDArray[np.intp]) -> list[str]:
    """Return the hexadecimal digests of some samples, an empty text for those without."""
    return ["" if text == _NO_DIGEST else text for text in unpack(arrays["digest"][rows])]


def records(arrays: Arrays, rows: NDArray[np.intp]) -> Iterator[tuple[Any, ...]]:
    """Return path, label, split, group, digest, status, reason, size, mtime_ns and inode of some samples."""
    path, digest = Texts(arrays, "path").at(rows), digests(arrays, rows)
    label, split, group, status, reason = (repeated(arrays, name, rows) for name in REPEATED)
    group = [d if g == _OWN else g for g, d in zip(group, digest, strict=True)]
    size, mtime_ns, inode = (arrays[name][rows].tolist() for name in NUMBERS)
    return zip(path, label, split, group, digest, status, reason, size, mtime_ns, inode, strict=True)


class Builder:
    """Makes columns from records, some thousand at a time."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}
        self._numbers: dict[str, dict[str, int]] = {name: {} for name in REPEATED}
        self._length = 0  # of all paths, in bytes

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add some samples: name → a value of each.

        Raises:
            ValueError: a number that is no whole number of at most 64 bits, or a digest that is no sha256.
        """
        digests = columns["digest"]
        packed = pack(digest or _NO_DIGEST for digest in digests)
        self._append("digest", packed)
        if len(packed) != len(digests):
            raise ValueError("a digest that is no sha256")
        for name, kind in NUMBERS.items():
            try:
                self._append(name, np.array(list(map(int, columns[name])), kind))
            except OverflowError as error:
                raise ValueError(f"{name}: {error}") from None
        self._add_paths(columns["path"])
        for name in REPEATED:
            numbers, texts = self._numbers[name], columns[name]
            if name == "group":
                texts = [group if group != digest else _OWN for group, digest in zip(texts, digests, strict=True)]
            for text in dict.fromkeys(texts):
                numbers.setdefault(text, len(numbers))
            self._append(f"{name}/number", np.array(list(map(numbers.__getitem__, texts)), np.int32))

    def _add_paths(self, paths: Sequence[str]) -> None:
        text = "".join(paths)
        encoded = paths if text.isascii() else [path.encode("utf-8", "surrogateescape") for path in paths]
        ends = self._length + np.cumsum(list(map(len, encoded)), dtype=np.int64)
        self._length = int(ends[-1]) if len(ends) else self._length
        self._append("path/end", ends)
        self._append("path/bytes", np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8))

    def _append(self, name: str, values: NDArray[Any]) -> None:
        self._parts.setdefault(name, []).append(values)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the columns. Nothing can be added afterwards."""
        if not self._parts:
            self.add({name: () for name in ("path", "digest", *REPEATED, *NUMBERS)})
        arrays: dict[str, NDArray[Any]] = {}
        while self._parts:
            name, parts = self._parts.popitem()
            arrays[name] = np.concatenate(parts)
        for name, numbers in self._numbers.items():
            texts = [text.encode("utf-8", "surrogateescape") for text in numbers]
            arrays[f"{name}/bytes"] = np.frombuffer(b"".join(texts), np.uint8)
            arrays[f"{name}/end"] = np.cumsum(list(map(len, texts)), dtype=np.int64)
        return arrays
