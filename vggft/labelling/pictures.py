"""The pictures to sort: which files of a folder, each with a number that stays the same however often sorting is started."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from featurize.errors import VggftError
from vggft.prediction import inputs

# Numbers reach the page as JSON, whose whole numbers are exact up to 2**53. Of 20,000 files, two share one of 2**52 with a
# probability of 4e-8.
_BITS = 52


@dataclass(frozen=True)
class Picture:
    """A file to sort.

    Attributes:
        id: a number made from `file`, by which the page asks for the picture: no request contains a path.
        file: relative to the folder, with forward slashes.
        label: its present class, where labels are reviewed; else empty.
        suggested, probability, why: why the current label may be wrong, where labels are reviewed.
    """

    id: int
    file: str
    label: str = ""
    suggested: str = ""
    probability: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder, in order of name.

    Attributes:
        root: absolute path of the folder.
        by_id: number → picture.
        unreadable: file → why it cannot be opened.
    """

    root: Path
    by_id: Mapping[int, Picture]
    unreadable: Mapping[str, str]

    @classmethod
    def of(cls, root: Path, pictures: Iterable[Picture], unreadable: Mapping[str, str]) -> "Pictures":
        """Number pictures.

        Raises:
            VggftError: two files share a number.
        """
        by_id: dict[int, Picture] = {}
        for picture in pictures:
            if picture.id in by_id:
                raise VggftError(
                    f"{root}: {picture.file} and {by_id[picture.id].file} have the same number. Rename one of them."
                )
            by_id[picture.id] = picture
        return cls(root, by_id, unreadable)

    @classmethod
    def below(cls, root: Path) -> "Pictures":
        """Find the files of a folder, by the rules of `vggft predict`. No file is opened but notes, to tell them from pictures.

        Raises:
            VggftError: there is no such folder, or there are no files in it.
        """
        if not root.is_dir():
            raise VggftError(f"{root}: no such folder. Expected a folder with pictures.")
        unreadable, pictures = {}, []
        for file in inputs.below(root):
            relative = file.path.relative_to(root).as_posix()
            if file.reason:
                unreadable[relative] = file.reason
            else:
                pictures.append(Picture(number(relative), relative))
        if not pictures:
            raise VggftError(f"{root}: no pictures there. Expected a folder with pictures, also in folders below it.")
        return cls.of(root, pictures, unreadable)

    @cached_property
    def by_file(self) -> Mapping[str, Picture]:
        """File → picture."""
        return {picture.file: picture for picture in self.by_id.values()}

    def path(self, picture: Picture) -> Path:
        """Return the path of a picture."""
        return self.root / picture.file


def number(file: str) -> int:
    """Return the number of a file."""
    digest = hashlib.sha256(os.fsencode(file)).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _BITS)
