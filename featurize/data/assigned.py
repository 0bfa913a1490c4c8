"""Which split every image ever seen belongs to: remembered for good, found again by group, bytes or path."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from operator import attrgetter
from pathlib import Path

from featurize import durable
from featurize.data.dataset import SPLITS, Sample
from featurize.data.scan import SPLIT_FOLDERS
from featurize.errors import VggftError


@dataclass(frozen=True)
class Assigned:
    """That an image once seen belongs to a split, for good: found again by its group, its bytes, or its path."""

    digest: str
    path: str
    label: str
    group: str
    split: str

    @property
    def drawn(self) -> bool:
        """False where a folder said so (validate/cats/1.jpg), which its owner may change; True where vggft drew it."""
        return SPLIT_FOLDERS.get(self.path.split("/", 1)[0].lower()) != self.split


_COLUMNS = [field.name for field in fields(Assigned)]


def remember(before: Iterable[Assigned], samples: Iterable[Sample]) -> list[Assigned]:
    """Add the splits of `samples` to what is known, also keeping those of images that are gone: they may come back."""
    known = {(entry.path, entry.digest): entry for entry in before}
    for s in samples:
        if s.split and s.status != "rejected":
            known[s.path, s.digest] = Assigned(s.digest, s.path, s.label, s.group, s.split)
    return [known[key] for key in sorted(known)]


def write(path: Path, entries: Iterable[Assigned]) -> None:
    """Write one row an image; the columns are the attributes of `Assigned`."""
    durable.write_csv(path, _COLUMNS, map(attrgetter(*_COLUMNS), entries))


def read(path: Path) -> list[Assigned]:
    """Read what `write` wrote; an empty list if there is no such file.

    Raises:
        VggftError: damaged.
    """
    if not path.is_file():
        return []
    try:
        if not path.read_bytes().startswith((",".join(_COLUMNS) + "\r\n").encode()):
            raise ValueError("its first line is not the expected one")
        entries = [Assigned(**row) for row in durable.read_csv(path)]
        if any(None in astuple(entry) or entry.split not in SPLITS for entry in entries):
            raise ValueError("a row is cut short")
        return entries
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise VggftError(
            f"{path}: damaged ({error}). It says which image belongs to which split. Restore it, or delete it: the split is "
            "then taken from manifest.csv."
        ) from None


class Memory:
    """Looks up which splits a sample was given before: by its group, else by its bytes, else by its path."""

    def __init__(self, entries: Iterable[Assigned]) -> None:
        self._tables: tuple[dict[str, set[str]], ...] = (defaultdict(set), defaultdict(set), defaultdict(set))
        for entry in entries:
            for table, key in zip(self._tables, (entry.group, entry.digest, entry.path), strict=True):
                table[key].add(entry.split)

    def splits(self, sample: Sample) -> set[str]:
        """Return the splits known for the sample, an empty set if it is new."""
        keys = (sample.group, sample.digest, sample.path)
        return next((table[key] for table, key in zip(self._tables, keys, strict=True) if key in table), set())
