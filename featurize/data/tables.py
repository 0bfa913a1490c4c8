"""Tables of labels as files: a CSV in any usual form → its rows, with the columns that are used."""

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

from featurize.data import split_columns
from featurize.data.folders import PICTURE_SUFFIXES
from featurize.disk import durable, forms
from featurize.errors import VggftError, reason
from featurize.wording import counted

# Names of columns in lower case, without spaces and punctuation; the first one that a table has is used.
_FILE = (
    "file filename filenames filepath filepaths fname path image imagename imagefile imagefilename imagepath imageid imageids "
    "imageindex img imgname imgpath imgid imgids xrayimagename picture photo photoid id idcode uuid name"
).split()
_LABEL = (
    "label labels labelname class classname classlabel category categoryname target y species breed breedname diagnosis dx level "
    "findinglabels emotion classid labelid categoryid tag tags type gender"
).split()
_GROUP = "group groupid video videoid patient patientid subject subjectid lesionid sequence sequenceid".split()

_SPLIT = frozenset({*split_columns.NAMED, *split_columns.YES_NO})
_DELIMITERS = ",\t;|"
_TRIED = 100  # rows, to find out which column names files


@dataclass(frozen=True)
class Row:
    """A row: the cells that are used, and its place for messages. Empty: a column that the table does not have."""

    where: str
    file: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table of labels.

    Attributes:
        columns: the name of the column for "file", "label" and, where the table has them, "split" (or names) and "group".
        rows: in the order of the file.
    """

    columns: Mapping[str, str]
    rows: Sequence[Row]


def read(path: Path, is_file: Callable[[str], bool]) -> Table:
    """Read a table.

    Args:
        path: CSV in UTF-8 with a header; the delimiter is a comma, tab, semicolon or bar.
        is_file: whether a cell names a file, which tells the column of files where several may be it.

    Raises:
        VggftError: it cannot be read, is no such file, or lacks a column for files or labels; a row without a file; or a column
            of splits with something else in it.
    """
    text = _text(path)
    lines = _lines(text, path)
    header = [cell.strip() for cell in next(lines, ("", []))[1]]
    tried = [cells for _, cells in islice(lines, _TRIED)]
    columns = _columns(path, header, lambda column: any(is_file(cells[header.index(column)]) for cells in tried))
    at = {key: header.index(column) for key, column in columns.items()}
    of_splits = [c for c in header if split_columns.plain(c) in _SPLIT and c not in columns.values()]
    rows: list[Row] = []
    splits: dict[str, list[str]] = {column: [] for column in of_splits}
    for where, cells in islice(_lines(text, path), 1, None):
        rows.append(Row(where, **{key: forms.as_written(cells[i]).strip() for key, i in at.items()}))
        _check(rows[-1], columns)
        for column, values in splits.items():
            values.append(sys.intern(cells[header.index(column)].strip()))
    if not rows:
        raise VggftError(f"{path}: no rows. Expected one for each file.")
    reading = split_columns.splits(splits, [row.where for row in rows])
    if reading is None:
        return Table(columns, rows)
    columns = {**columns, "split": reading[0]}
    return Table(columns, [replace(row, split=split) for row, split in zip(rows, reading[1], strict=True)])


def _text(path: Path) -> str:
    try:
        text = durable.read_bytes(path).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise VggftError(
            f"--labels {path}: {reason(error)}. Expected a table (CSV) with a row for each file."
        ) from None
    if "\0" in text:
        raise VggftError(f"--labels {path}: not a CSV file in UTF-8. Export the table as CSV.")
    first, _, rest = text.partition("\n")
    return rest if re.fullmatch(r"sep=.\r?", first) else text  # as Excel writes it


def _lines(text: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line that is not blank, the header first; all have as many cells.

    Raises:
        VggftError: a line has more cells than the header, is cut off, or is no CSV.
    """
    first = text.lstrip().split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=first.count))
    last = 0 if text.endswith("\n") else text.count("\n") + 1  # a line that may be cut off
    width = 0
    try:
        for cells in reader:
            while cells and not cells[-1].strip() and len(cells) > width:  # delimiters at the end of a line
                cells.pop()
            if not cells:
                continue
            width = width or len(cells)
            where = f"{path}, line {reader.line_num}"
            if len(cells) > width or (len(cells) < width and (len(cells) == 1 or reader.line_num == last)):
                raise VggftError(f"{where}: {counted(len(cells), 'cell')}, but the header has {width}.")
            yield where, [*cells, *[""] * (width - len(cells))]
    except csv.Error as error:
        raise VggftError(f"{path}, line {reader.line_num}: {error}. Expected a CSV file.") from None


def _columns(path: Path, header: Sequence[str], holds_files: Callable[[str], bool]) -> dict[str, str]:
    by_name: dict[str, list[str]] = {}
    for column in header:
        by_name.setdefault(split_columns.plain(column), []).append(column)

    def named(names: Sequence[str], without: Sequence[str | None] = ()) -> list[str]:
        return [by_name[name][0] for name in names if name in by_name and by_name[name][0] not in without]

    candidates = named(_FILE)
    file = next(filter(holds_files, candidates), next(iter(candidates), None))
    label = next(iter(named(_LABEL, [file])), None)
    if file is not None and label is None and len(header) == 2:
        label = next((column for column in header if column != file), None)
    if file is None or label is None:
        raise _no_column(path, header, "files" if file is None else "labels")
    columns = {"file": file, "label": label}
    group = next(iter(named(_GROUP, list(columns.values()))), None)
    if group is not None:
        columns["group"] = group
    double = next((column for column in columns.values() if header.count(column) > 1), None)
    if double is not None:
        raise VggftError(f"{path}: two columns called {double!r}. Rename or delete one.")
    return columns


def _no_column(path: Path, header: Sequence[str], what: str) -> VggftError:
    if any(PurePosixPath(cell).suffix.lower() in PICTURE_SUFFIXES for cell in header):
        return VggftError(f"{path}: no names of columns. Write file,label as the first line.")
    if not header:
        return VggftError(f"{path}: the table is empty. Expected a header and a row for each file.")
    many = " Labels in a column for each class are not read: write one column." if what == "labels" else ""
    return VggftError(
        f"{path}: no column for the {what} among {', '.join(header[:10])}. Expected columns called file and "
        f"label (also filename, path, image_id; class, category, target), and perhaps split and group. Rename the column.{many}"
    )


def _check(row: Row, columns: Mapping[str, str]) -> None:
    if not row.file:
        raise VggftError(f"{row.where}: no file in column {columns['file']!r}.")
    for cell in (row.label, row.group):
        if any("\ud800" <= character <= "\udfff" for character in cell):
            raise VggftError(f"{row.where}: not in UTF-8. Save the table as CSV UTF-8.")
