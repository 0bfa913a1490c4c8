"""JSON and CSV as vggft writes and reads them: strict JSON, and CSV in which no cell is a formula."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from featurize.disk import durable

_ROW_END = b"\r\n"
_ROWS_AT_ONCE = 1024


def write_json(path: Path, value: Any, then: str = durable.AGAIN) -> None:
    """Write strict JSON (NaN raises ValueError); `then` as in `durable.write_bytes`."""
    durable.write_bytes(path, json_bytes(value), then)


def json_bytes(value: Any) -> bytes:
    """Return strict JSON, one item a line (NaN raises ValueError)."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def parse_json(data: bytes) -> Any:
    """Parse JSON; ValueError also for NaN, infinity, and lists in lists without end."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} in JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], then: str = durable.AGAIN) -> None:
    """Write a CSV file in UTF-8, row by row; bytes of file names that are not valid UTF-8 are kept (surrogateescape)."""
    with durable.replacing(path, then) as file:
        _write_rows(file, header, rows)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return what `write_csv` writes."""
    data = io.BytesIO()
    _write_rows(data, header, rows)
    return data.getvalue()


def _write_rows(file: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
    writer = csv.writer(text)
    writer.writerow([inert(cell) for cell in header])
    writer.writerows([inert(cell) for cell in row] for row in rows)
    text.detach()  # flushes without closing the file, which is still to be flushed to disk


# How the text of a formula begins: a spreadsheet computes it, and may run a program. After an apostrophe it is text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MAY_BE_FORMULA = frozenset({*_FORMULA, "'"})


def inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula; `parse_csv` gives the text as it was. Numbers stay as they are."""
    if isinstance(cell, str) and cell[:1] in _MAY_BE_FORMULA and cell.lstrip("'").startswith(_FORMULA):
        return f"'{cell}"
    return cell


def as_written(cell: str) -> str:
    """Return the text that `inert` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def parse_csv(data: bytes) -> list[dict[str, str]]:
    """Parse a CSV file: one dictionary per row; ValueError for anything else, and for a row of another length."""
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    try:
        header, *rows = [[as_written(cell) for cell in row] for row in csv.reader(text) if row] or [[]]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a row is incomplete")
    return [dict(zip(header, row, strict=True)) for row in rows]


def columns(file: BinaryIO) -> Iterator[dict[str, Sequence[str]]]:
    """Parse a CSV file without keeping its rows: yield the columns of some hundred rows at a time; errors as in `parse_csv`."""
    reader = csv.reader(io.TextIOWrapper(file, "utf-8", "surrogateescape", newline=""))
    try:
        header = [as_written(cell) for cell in next(reader, [])]
        while rows := list(islice(reader, _ROWS_AT_ONCE)):
            rows = [row for row in rows if row]
            if set(map(len, rows)) - {len(header)}:
                raise ValueError("a row is incomplete")
            if rows:
                cells = zip(header, zip(*rows, strict=True), strict=True)
                yield {name: list(map(as_written, x)) if "'" in "".join(x) else x for name, x in cells}
    except csv.Error as error:
        raise ValueError(str(error)) from None


def whole_rows(data: bytes) -> int:
    """Return the length of a CSV file without a last row that a killed process wrote in part.

    Inside a name with a newline like that of a row's end, the number of quotes before it is odd.
    """
    end = data.rfind(_ROW_END)
    while data.count(b'"', 0, end) % 2:
        end = data.rfind(_ROW_END, 0, end)
    return end + len(_ROW_END)
