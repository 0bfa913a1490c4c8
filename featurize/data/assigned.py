"""Split assignments: the split of every image ever seen, stored permanently and looked up by group, digest or path."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Literal, cast

from featurize.data.dataset import Sample, Split
from featurize.data.split_names import split_of
from featurize.disk import checked, forms
from featurize.errors import damaged
from featurize.options import records

By = Literal["drawn", "given", ""]


@dataclass(frozen=True)
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
        rows = checked.read_csv(path)
        if not rows:
            raise ValueError("no image in it")
        return [records.build(Assigned, row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        advice = "It stores the split of each image. Restore it, or delete it: vggft then reads the splits from manifest.csv."
        raise damaged(path, error, advice) from None


class Memory:
    """Looks up earlier splits of a sample: by group, else by digest, else by path."""

    def __init__(self, entries: Iterable[Assigned]) -> None:
        self._tables: tuple[dict[str, set[str]], ...] = (defaultdict(set), defaultdict(set), defaultdict(set))
        for entry in entries:
            for table, key in zip(self._tables, (entry.group, entry.digest, entry.path), strict=True):
                table[key].add(entry.split)

    def splits(self, sample: Sample) -> set[str]:
        """Return the earlier splits of a sample; an empty set for a new sample."""
        keys = (sample.group, sample.digest, sample.path)
        return next((table[key] for table, key in zip(self._tables, keys, strict=True) if key in table), set())
