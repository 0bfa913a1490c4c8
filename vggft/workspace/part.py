"""A part of the images of a data folder, whose features are computed apart, and the record that it is finished."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Self

from featurize.disk import durable, forms
from featurize.errors import VggftError, damaged
from featurize.options import Option, records

FILE = "part.json"  # in the workspace of the part; written last
_MOST = 1_000_000
_TEXT = re.compile(r"(\d{1,7})/(\d{1,7})")


@dataclass(frozen=True)
class Part:
    """Part `number`, from 1, of `of` parts. An image belongs to one part by its digest, on whatever machine it is computed."""

    number: Annotated[int, Option(least=1, most=_MOST)]
    of: Annotated[int, Option(least=1, most=_MOST)]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a text such as 3/16.

        Raises:
            VggftError: it is none.
        """
        match = _TEXT.fullmatch(text)
        if not match or not 1 <= int(match[1]) <= int(match[2]) <= _MOST:
            raise VggftError(f"--part {text}: expected K/N, such as 3/16: part K of N, counted from 1.")
        return cls(int(match[1]), int(match[2]))

    def has(self, digest: str) -> bool:
        """Return whether an image belongs to this part. sha256 digests are uniform, so parts are of about equal size."""
        return int(digest[:16], 16) % self.of == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Finished:
    """The record of a finished part.

    Attributes:
        part: which part.
        layers: those that it has.
        data: digest of all images of the data folder, to detect parts of other images.
    """

    part: Part
    layers: tuple[str, ...]
    data: str


def begin(root: Path) -> None:
    """Delete the record of an earlier run: the part is being computed."""
    (root / FILE).unlink(missing_ok=True)


def finish(root: Path, finished_part: Finished) -> None:
    """Record that a part is finished."""
    forms.write_json(root / FILE, asdict(finished_part))


def finished(root: Path) -> Finished | None:
    """Return which part a workspace holds; None if it holds none, or one that is not finished.

    Raises:
        VggftError: the record is damaged.
    """
    try:
        return records.build(Finished, forms.parse_json(durable.read_bytes(root / FILE)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise damaged(root / FILE, error, "Run vggft featurize --part again: what it computed is kept.") from None


def digest_of(digests: Iterable[str]) -> str:
    """Return the digest of a set of images."""
    return hashlib.sha256("\n".join(sorted(set(digests))).encode()).hexdigest()
