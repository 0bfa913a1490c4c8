"""A table of labels and a folder → samples: a row for each file, with its label, and perhaps its split and group."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from featurize.data import tables
from featurize.data.dataset import Sample
from featurize.data.folders import PICTURE_SUFFIXES, files_below, same_name
from featurize.data.tables import Row
from featurize.errors import VggftError
from featurize.process import places
from featurize.wording import counted


@dataclass(frozen=True)
class Labelled:
    """What a table says of the files in a folder.

    Attributes:
        samples: sorted by path, with label and, where the table has them, split and group. A row whose file is missing is a
            rejected sample.
        columns: the name of the column for "file", "label" and, where the table has them, "split" and "group".
        unlabelled: files that have no row, or one without a label.
        repeated: files that have several rows, all of which say the same.
    """

    samples: tuple[Sample, ...]
    columns: Mapping[str, str]
    unlabelled: tuple[str, ...]
    repeated: tuple[str, ...]


def read(table: Path, root: Path, beside: Callable[[Path], None] = lambda path: None) -> Labelled:
    """Read a table, and find its files below a folder.

    A row names its file by a path relative to the folder or to the table, by a path that contains the name of the folder, or by
    its name alone; the suffix may be missing.

    Args:
        table: a file as `featurize.data.tables` reads it.
        beside: called with each annotation or note in the folder, which is left out.

    Raises:
        VggftError: it cannot be read or used, says two things of a file, or none of its files is in the folder.
    """
    called, root = root.name, places.resolved(root)
    notes: list[Path] = []
    files = {s.path: s for s in files_below(root, root, Sample("", ""), (), notes.append)}
    names = _Names(files, root, called, table.parent)
    found = tables.read(table, lambda cell: bool(names.candidates(cell)))
    described: dict[str, Row] = {}
    missing: dict[str, Row] = {}
    repeated: set[str] = set()
    for row in found.rows:
        path = names.find(row)
        if path is None:
            missing[_inside(row.file)] = row
        elif path not in described:
            described[path] = row
        elif _said(described[path]) == _said(row):
            repeated.add(path)
        else:
            raise VggftError(
                f"{row.where}: {row.file} has another row, which says {_said(described[path])}; this one says {_said(row)}. "
                "Expected one row per file. Delete one of them."
            )
    if not described:
        raise VggftError(
            f"{table}: none of its {counted(len(missing), 'file')} is in {root} (the first: {found.rows[0].file}). Expected "
            f"paths relative to that folder in column {found.columns['file']!r}. Name the folder that holds them."
        )
    if not any(row.label for row in found.rows):
        raise VggftError(f"{table}: no labels. Expected one for each file in column {found.columns['label']!r}.")
    for note in notes:
        if not (note.exists() and note.samefile(table)):
            beside(note)
    gone = f"{table.name} has a row for it, but there is no such file"
    samples = [
        *(_labelled(files[path], row) for path, row in described.items() if row.label),
        *(
            replace(_labelled(Sample(path, ""), row), status="rejected", reason=gone)
            for path, row in missing.items()
            if row.label and path not in files
        ),
    ]
    return Labelled(
        tuple(sorted(samples, key=lambda sample: sample.path)),
        found.columns,
        tuple(sorted(path for path in files if path not in described or not described[path].label)),
        tuple(sorted(repeated)),
    )


def _labelled(sample: Sample, row: Row) -> Sample:
    return replace(sample, label=row.label, split=row.split, group=row.group)


def _said(row: Row) -> str:
    return ", ".join(repr(value) for value in (row.label, row.split, row.group) if value) or "no label"


def _inside(name: str) -> str:
    """Return a name as a path below the folder, whatever it is."""
    return PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", ".."))).as_posix()


class _Names:
    """Finds files by the names that tables give them."""

    def __init__(self, files: Iterable[str], root: Path, called: str, beside: Path) -> None:
        self._root, self._beside, self._roots = root, beside, {same_name(root.name), same_name(called)}
        self._by_path: dict[str, list[str]] = defaultdict(list)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in files:
            for key in _keys(path):
                self._by_path[key].append(path)
                name = key.rpartition("/")[2]
                if name != key:
                    self._by_name[name].append(path)

    def find(self, row: Row) -> str | None:
        """Return the path of the file of a row; None if there is none.

        Raises:
            VggftError: the name may be that of several files.
        """
        candidates = self.candidates(row.file)
        if row.file in candidates:
            return row.file
        if len(candidates) > 1:
            raise VggftError(
                f"{row.where}: {row.file} may be {' or '.join(candidates[:3])}. Expected paths relative to {self._root}. Write "
                "them, or name the folder that the table is about."
            )
        return candidates[0] if candidates else None

    def candidates(self, given: str) -> list[str]:
        """Return the paths of the files that a name may mean."""
        for name in dict.fromkeys((given, given.replace("\\", "/"))):
            for path in self._paths(name):
                found = self._by_path.get(_key(path))
                if found:
                    return found
            if "/" not in name and _key(name) in self._by_name:
                return self._by_name[_key(name)]
        return []

    def _paths(self, name: str) -> Iterable[str]:
        """Yield the paths relative to the folder that a name may mean, the most probable first."""
        yield name
        yield os.path.normpath(name)
        path = self._beside / name
        yield os.path.relpath(places.resolved(path.parent) / path.name, self._root)
        parts = same_name(name).split("/")
        for i, part in enumerate(parts[:-1], start=1):
            if part in self._roots:
                yield "/".join(parts[i:])


def _keys(path: str) -> list[str]:
    """Return the keys under which a file is found: with its suffix and, if it is that of a picture, without."""
    key = _key(path)
    return [key, key[: key.rindex(".")]] if PurePosixPath(key).suffix in PICTURE_SUFFIXES else [key]


def _key(path: str) -> str:
    """Return a path in the form in which paths are compared: one Unicode form, and the suffix in lower case."""
    stem, dot, suffix = same_name(path).rpartition(".")
    return f"{stem}{dot}{suffix.lower()}" if dot and f".{suffix.lower()}" in PICTURE_SUFFIXES else same_name(path)
