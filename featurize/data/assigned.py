"""Split assignments: the split of every image ever seen, stored permanently and looked up by group, digest or path."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from sys import intern
from typing import Literal, cast, get_args

from featurize.data.dataset import SPLITS, Sample, Split
from featurize.data.split_names import split_of
from featurize.disk import checked, forms
from featurize.errors import damaged

By = Literal["drawn", "given", ""]


@dataclass(frozen=True, slots=True)
class Assigned:
    """The permanent split of one image.

    Attributes:
        by: "drawn" by vggft; "given" by a folder or a table, and the user may change it; empty in files of earlier versions.
    """

    digest: str
    path: str
    label: str
    group: str
    split: Split
    by: By = ""

    @property
    def drawn(self) -> bool:
        """True if vggft drew the split; where an earlier version did not store that, the folder tells it."""
        return self.by == "drawn" if self.by else split_of(self.path.split("/", 1)[0]) != self.split


_COLUMNS = [field.name for field in fields(Assigned)]


def remember(
    before: Iterable[Assigned], samples: Iterable[Sample], given: Mapping[str, str] | None = None
) -> list[Assigned]:
    """Add the splits of `samples` to earlier assignments. Images that no longer exist are kept, because they may come back.

    Args:
        given: path → split that a folder or a table gives; None where that is not known.
    """
    entries = {(entry.path, entry.digest): entry for entry in before}
    for s in samples:
        if s.split and s.status != "rejected":
            by: By = "" if given is None else "given" if given.get(s.path) == s.split else "drawn"
            entries[s.path, s.digest] = Assigned(s.digest, s.path, s.label, s.group, cast(Split, s.split), by)
    return [entries[key] for key in sorted(entries)]


def table(entries: Iterable[Assigned]) -> bytes:
    """Return a CSV file with one row per image; the columns are the attributes of `Assigned`."""
    return forms.csv_bytes(_COLUMNS, map(attrgetter(*_COLUMNS), entries))


def read(path: Path) -> list[Assigned]:
    """Read a file of `table`; return an empty list if it does not exist.

    Raises:
        VggftError: the file is damaged.
    """
    try:
        with checked.opened(path) as (file, _):
            entries = [entry for cells in forms.columns(file) for entry in _entries(cells)]
        if not entries:
            raise ValueError("no image in it")
        return entries
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        advice = "It stores the split of each image. Restore it, or delete it: vggft then reads the splits from manifest.csv."
        raise damaged(path, error, advice) from None


def _entries(cells: Mapping[str, Sequence[str]]) -> Iterator[Assigned]:
    """Return the entries of some rows. Equal texts are one object: 280 bytes an entry instead of 550.

    Raises:
        ValueError: something that `table` does not write.
    """
    if not set(_COLUMNS) - {"by"} <= cells.keys() <= set(_COLUMNS):
        raise ValueError(f"columns {', '.join(cells)}; expected {', '.join(_COLUMNS)}")
    digests, paths, labels, groups, splits = (cells[name] for name in _COLUMNS[:5])
    by = cells.get("by", [""] * len(paths))
    strange = [*set(splits).difference(SPLITS), *set(by).difference(get_args(By))]
    if strange:
        raise ValueError(f"{strange[0]!r} instead of a split, or of what gave it")
    for digest, path, label, group, split, given_by in zip(digests, paths, labels, groups, splits, by, strict=True):
        group_name = digest if group == digest else group  # one string, where both are the same
        yield Assigned(digest, path, intern(label), group_name, cast(Split, intern(split)), cast(By, intern(given_by)))


_ONLY: Mapping[str, frozenset[str]] = {split: frozenset({split}) for split in SPLITS}


class Memory:
    """Looks up earlier splits of a sample: by group, else by digest, else by path."""

    def __init__(self, entries: Iterable[Assigned]) -> None:
        self._tables: tuple[dict[str, frozenset[str]], ...] = ({}, {}, {})
        for entry in entries:
            split = _ONLY[entry.split]  # shared: with a set for each key, an entry took 760 bytes
            for table, key in zip(self._tables, (entry.group, entry.digest, entry.path), strict=True):
                if not split <= table.setdefault(key, split):
                    table[key] |= split

    def splits(self, sample: Sample) -> frozenset[str]:
        """Return the earlier splits of a sample; an empty set for a new sample."""
        keys = (sample.group, sample.digest, sample.path)
        return next((table[key] for table, key in zip(self._tables, keys, strict=True) if key in table), frozenset())
