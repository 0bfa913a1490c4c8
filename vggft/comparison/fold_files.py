"""The folds of nested cross-validation on disk: `report/cv/<key>/`.

folds.json   everything that decides the results; the folder's name is its hash, which proves that vggft made the folder
fold-N.npz   the result of a finished fold
fold-N/      the workspace of a fold while it is trained
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import finetune.store
import heads.store
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Dataset
from featurize.disk import checked, durable, forms
from heads import arrays
from vggft.workspace.workspace import Settings, Workspace

ABOUT = "folds.json"

_FOLD = re.compile(r"fold-\d+(\.npz)?$")
# Names in a fold's workspace, besides those of `finetune.store`.
_FILES = frozenset(
    {ABOUT, checked.CHECKSUMS, "heads", "finetune", "report", "lock", "lock.txt", "leaderboard.csv", "suspects.csv"}
)


@dataclass(frozen=True)
class FoldResult:
    """The result of one fold.

    Attributes:
        probabilities: model → (held-out images, classes).
        head, network: the models that validation selected in this fold.
        unchanged: no epoch of fine-tuning was better than the head that this network started from.
        seconds: of the fold; None where it was interrupted.
    """

    probabilities: Mapping[str, NDArray[np.float64]]
    head: str
    network: str
    unchanged: bool
    seconds: float | None

    def as_json(self) -> dict[str, Any]:
        """Return all but the probabilities."""
        return {key: value for key, value in asdict(self).items() if key != "probabilities"}

    def save(self, path: Path) -> None:
        """Write it to an .npz file."""
        names = list(self.probabilities)
        about = json.dumps({**self.as_json(), "names": names}).encode()
        stored = {f"p{i}": self.probabilities[name] for i, name in enumerate(names)}
        buffer = io.BytesIO()
        np.savez(buffer, about=np.frombuffer(about, np.uint8), **stored)  # type: ignore[arg-type]
        checked.write_checked(path.parent, {path.name: buffer.getvalue()})

    @classmethod
    def read(cls, path: Path, images: int, classes: int) -> "FoldResult | None":
        """Return what `save` wrote; None where it is missing or damaged, so that the fold has to be trained again.

        Args:
            images: number of held-out images.
        """
        try:
            stored: Mapping[str, Any] = arrays.read(checked.read_checked(path))
            about = forms.parse_json(stored["about"].tobytes())
            probabilities = {name: stored[f"p{i}"] for i, name in enumerate(about.pop("names"))}
            result = cls(probabilities, **about)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        right = all(p.shape == (images, classes) and np.isfinite(p).all() for p in probabilities.values())
        return result if right and {result.head, result.network} <= probabilities.keys() else None


class Fold(Workspace):
    """A workspace with the features of another one, and its images split in another way."""

    draws_runs = False  # its runs are deleted as soon as they have predicted

    def __init__(self, whole: Workspace, root: Path, dataset: Dataset, views: int) -> None:
        """Take the images of `dataset`. Nothing is written before something is trained.

        Args:
            views: number of views of each training image that models may train on.
        """
        super().__init__(root, whole.architecture)
        self._whole = whole
        self._dataset = dataset
        self._views = views

    @property
    def settings(self) -> Settings:
        """The settings of the whole workspace, with the number of views here."""
        return replace(self._whole.settings, views=self._views)

    @property
    def dataset(self) -> Dataset:
        """The images, with the splits of this fold."""
        return self._dataset

    def cache(self, fingerprint: Fingerprint | None = None, *, recheck: bool = False) -> FeatureCache:
        """Open the cache of the whole workspace."""
        return self._whole.cache(fingerprint, recheck=recheck)


def key(about: str) -> str:
    """Return the name of the folder whose folds.json has this text."""
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def remove_others(place: Path, but: Path) -> None:
    """Delete the folds of other models or images below `place`; nothing that vggft cannot prove to be its own."""
    for folder in place.glob("*/"):
        if folder != but and _is_provable(folder):
            durable.remove_known(folder, is_ours)
            durable.remove_known(folder, lambda path, provable=folder: path == provable)  # type: ignore[misc]


def _is_provable(folder: Path) -> bool:
    """Return whether a folder is no link and is named after the folds.json in it."""
    try:
        return not folder.is_symlink() and key(durable.read_bytes(folder / ABOUT).decode()) == folder.name
    except (OSError, ValueError):
        return False


def is_ours(path: Path) -> bool:
    """Return whether a file or folder in such a folder has a name that vggft gives."""
    named = (
        path.name in _FILES
        or path.name in heads.store.FILES
        or bool(_FOLD.match(path.name))
        or finetune.store.is_ours(path)
    )
    return named or (path.is_dir() and path.parent.name in ("heads", "finetune"))  # of a head or a run
