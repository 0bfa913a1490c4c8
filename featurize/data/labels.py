"""A table of labels → samples: a row for each file, with its label, and perhaps its split and group."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from featurize.data import split_names
from featurize.data.dataset import Sample
from featurize.data.folders import PICTURE_SUFFIXES, files_below, same_name
from featurize.disk import durable, forms
from featurize.errors import VggftError, reason
from featurize.wording import counted

# Names of columns in lower case, without spaces and punctuation; the first one that a table has is used.
_FILE = (
    "file filename filenames filepath filepaths fname path image imagename imagefile imagefilename imagepath imageid img "
    "imgname imgpath imgid picture photo photoid name id idcode uuid"
).split()
_LABEL = (
    "label labels labelname class classname classlabel category categoryname target y species breed diagnosis dx level "
    "classid labelid categoryid tag tags"
).split()
_SPLIT = "split subset partition set dataset phase isvalid isval istest".split()
_GROUP = "group groupid video videoid patient patientid subject subjectid lesionid sequence sequenceid".split()

# Columns that tell one split by yes, and training by no.
_YES_MEANS = {"isvalid": "validate", "isval": "validate", "istest": "test"}
_YES_NO = {**dict.fromkeys(("true", "1", "yes"), True), **dict.fromkeys(("false", "0", "no", ""), False)}
_DELIMITERS = ",\t;|"


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


@dataclass(frozen=True)
class _Row:
    """A row and where it is, for messages."""

    cells: Mapping[str, str]
    where: str


def read(table: Path, root: Path, beside: Callable[[Path], None] = lambda path: None) -> Labelled:
    """Read a table, and find its files below a folder.

    A row names its file by a path relative to the folder or to the table, by its name alone, or by either without suffix.

    Args:
        table: CSV in UTF-8 with a header; the delimiter is a comma, tab, semicolon or bar.
        beside: called with each annotation or note in the folder, which is left out.

    Raises:
        VggftError: it cannot be read, has no columns for files and labels, says two things of a file, or none of its files is
            in the folder.
    """
    header, rows = _rows(table)
    columns = _columns(table, header, rows)
    notes: list[Path] = []
    files = {s.path: s for s in files_below(root, root, Sample("", ""), (), notes.append)}
    names = _Names(files, root, table.parent)
    described: dict[str, Sample] = {}
    missing: dict[str, Sample] = {}
    repeated: list[str] = []
    for row in rows:
        name, sample = row.cells[columns["file"]].strip(), _described(row, columns)
        path = names.find(name, row.where)
        if path is None:
            gone = PurePosixPath(*(part for part in PurePosixPath(name).parts if part not in ("/", ".."))).as_posix()
            missing[gone] = replace(
                sample, path=gone, status="rejected", reason=f"{table.name} has a row for it, but there is no such file"
            )
        elif path not in described:
            described[path] = sample
        elif described[path] == sample:
            repeated.append(path)
        else:
            raise VggftError(
                f"{row.where}: {name} has another row, which says {_said(described[path])}; this one says {_said(sample)}. "
                "Expected one row per file. Delete one of them."
            )
    if not described:
        first = next(iter(missing), "none")
        raise VggftError(
            f"{table}: none of its {counted(len(missing), 'file')} is in {root} (the first: {first}). Expected paths relative to "
            f"that folder in column {columns['file']!r}. Name the folder that holds them."
        )
    for note in notes:
        if not (table.exists() and note.exists() and note.samefile(table)):
            beside(note)
    labelled = [
        replace(files[path], label=sample.label, split=sample.split, group=sample.group)
        for path, sample in described.items()
        if sample.label
    ]
    lost = [sample for path, sample in missing.items() if sample.label and path not in files]
    samples = sorted([*labelled, *lost], key=lambda sample: sample.path)
    unlabelled = sorted(path for path in files if path not in described or not described[path].label)
    return Labelled(tuple(samples), columns, tuple(unlabelled), tuple(sorted(set(repeated))))


def _rows(table: Path) -> tuple[list[str], list[_Row]]:
    try:
        text = durable.read_bytes(table).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise VggftError(
            f"--labels {table}: {reason(error)}. Expected a table (CSV) with a row for each file."
        ) from None
    if "\0" in text:
        raise VggftError(f"--labels {table}: not a CSV file in UTF-8. Export the table as CSV.")
    first = text.split("\n", 1)[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter=max(_DELIMITERS, key=first.count))
    try:
        header = [cell.strip() for cell in next(reader, [])]
        rows = []
        for cells in reader:
            where = f"{table}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise VggftError(f"{where}: {counted(len(cells), 'cell')}, but the header has {len(header)}.")
            rows.append(_Row(dict(zip(header, map(forms.as_written, cells), strict=True)), where))
    except csv.Error as error:
        raise VggftError(f"{table}, line {reader.line_num}: {error}. Expected a CSV file.") from None
    if len(set(header)) < len(header):
        raise VggftError(f"{table}: two columns of the same name in its first line: {', '.join(header)}. Rename one.")
    return header, rows


def _columns(table: Path, header: Sequence[str], rows: Sequence[_Row]) -> dict[str, str]:
    by_name = {re.sub(r"[\W_]+", "", column.lower()): column for column in reversed(header)}
    file = next((by_name[name] for name in _FILE if name in by_name), None)
    label = next((by_name[name] for name in _LABEL if name in by_name and by_name[name] != file), None)
    if file is not None and label is None and len(header) == 2:
        label = next(column for column in header if column != file)
    if file is None or label is None:
        what = "files" if file is None else "labels"
        raise VggftError(
            f"{table}: no column for the {what} among {', '.join(header) or 'no columns'}. Expected columns called file and "
            "label (also filename, path, image_id; class, category, target), and perhaps split and group. Rename the column."
        )
    if not rows:
        raise VggftError(f"{table}: no rows. Expected one for each file.")
    columns = {"file": file, "label": label}
    for key, names in (("split", _SPLIT), ("group", _GROUP)):
        column = next(
            (by_name[name] for name in names if name in by_name and by_name[name] not in columns.values()), None
        )
        if column is not None and (key == "group" or _tells_splits(column, rows)):
            columns[key] = column
    return columns


def _tells_splits(column: str, rows: Sequence[_Row]) -> bool:
    """Return whether all values of a column are splits. One called "split" has to be.

    Raises:
        VggftError: it is not.
    """
    strange = next((row for row in rows if not _split(column, row.cells[column])), None)
    if strange is not None and column.lower() == "split":
        raise VggftError(
            f"{strange.where}: {strange.cells[column]!r} in column {column!r}. Expected train, validate or test in every row; "
            "without this column, vggft draws the split."
        )
    return strange is None


def _split(column: str, value: str) -> str:
    """Return the split that a cell tells; empty if none."""
    yes_means = _YES_MEANS.get(re.sub(r"[\W_]+", "", column.lower()))
    if yes_means is None:
        return split_names.split_of(value) or ""
    yes = _YES_NO.get(value.strip().lower())
    return "" if yes is None else yes_means if yes else "train"


def _described(row: _Row, columns: Mapping[str, str]) -> Sample:
    """Return a sample without a path, as a row describes it."""
    if not row.cells[columns["file"]].strip():
        raise VggftError(f"{row.where}: no file in column {columns['file']!r}.")
    label = row.cells[columns["label"]].strip()
    split = _split(columns["split"], row.cells[columns["split"]]) if "split" in columns else ""
    return Sample("", label, split, row.cells[columns["group"]].strip() if "group" in columns else "")


def _said(sample: Sample) -> str:
    return ", ".join(repr(value) for value in (sample.label, sample.split, sample.group) if value) or "no label"


class _Names:
    """Finds files by the names that tables give them."""

    def __init__(self, files: Mapping[str, Sample], root: Path, beside: Path) -> None:
        self._files, self._root, self._beside = {same_name(path): path for path in files}, root, beside
        self._by_name: dict[str, list[str]] = defaultdict(list)  # by name, and by name without suffix
        for path in files:
            name = PurePosixPath(same_name(path))
            self._by_name[name.name].append(path)
            if name.suffix.lower() in PICTURE_SUFFIXES:
                self._by_name[name.stem].append(path)

    def find(self, given: str, where: str) -> str | None:
        """Return the path of a file; None if there is none.

        Raises:
            VggftError: the name may be that of several files.
        """
        name = same_name(given.replace("\\", "/") if "\\" in given and given not in self._files else given)
        for path in (name, os.path.relpath(os.path.normpath(self._beside / name), self._root)):
            if path in self._files:
                return self._files[path]
        candidates = [
            path
            for path in self._by_name[PurePosixPath(name).name]
            if self._lies_in(path, PurePosixPath(name).parts[:-1])
        ]
        if len(candidates) > 1:
            raise VggftError(
                f"{where}: {given} may be {' or '.join(candidates[:3])}. Expected paths relative to {self._root}."
            )
        return candidates[0] if candidates else None

    def _lies_in(self, path: str, folders: tuple[str, ...]) -> bool:
        """Return whether these are the names of the last folders above a file."""
        above = PurePosixPath(same_name((self._root / path).as_posix())).parts[:-1]
        return above[len(above) - len(folders) :] == folders
