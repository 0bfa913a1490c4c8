"""Fine-tuning runs on disk: one folder a run, never overwritten.

<name>/run.json        what was done and found; written last: a run with it is finished
<name>/network.keras   from pixels to scores, with the weights of the best epoch
<name>/predictions.csv of the validation images, by the best epoch (`heads.predictions`)
<name>/history.csv     learning curve
<name>/tensorboard/    the same for TensorBoard
<name>/unfinished/     while it trains: settings.json, the head it starts from, checkpoint.bin
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from featurize import durable
from featurize.errors import VggftError
from finetune import checkpoint, tensorboard
from finetune.plan import Plan
from finetune.train import State
from heads import head as heads
from heads import predictions
from heads.head import Head
from heads.history import Epoch, read_history, write_history
from heads.metrics import Metrics
from heads.predictions import Predictions

RUN_VERSION = 4
SETTINGS_VERSION = 1
_UNFINISHED, _SETTINGS, _CHECKPOINT = "unfinished", "settings.json", "checkpoint.bin"
_THEN = "go on: vggft finetune --resume"
NETWORK, RUN, HISTORY, TENSORBOARD = "network.keras", "run.json", "history.csv", "tensorboard"
# All names that a run's folder may hold of vggft's, curves for TensorBoard aside.
FILES = frozenset({NETWORK, RUN, HISTORY, predictions.FILE, _UNFINISHED, _SETTINGS, _CHECKPOINT, *heads.FILES})


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do: with the head it starts from, all that it takes to go on with it or to repeat it.

    Attributes:
        name: of its folder.
        unfreeze, split_point: what is tuned, and the layer below it (None: the pixels).
        plan: of the training.
        memory: bytes of inputs in memory.
        start: what was asked for as a start: "best", "scratch" or the name of a head.
        provenance: manifest, fingerprint, weights, versions.
    """

    name: str
    unfreeze: str
    split_point: str | None
    plan: Plan
    memory: int
    start: str
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        settings: what it was asked to do.
        start, start_digest, start_provenance: name and digest of the head it started from, and how that was made.
        classes: names in the order of the scores.
        parameters: number of trained numbers.
        images: number of images by split.
        best_epoch: the one that is kept (0: the head as it came).
        ended: why it ended: "epochs" (all were trained), "patience" or "diverged".
        diverged: epoch and step at which the loss was no number.
        parity: largest difference of a probability at the parity gate.
        seconds: of training, of all its sessions.
        validation, start_validation: metrics of the best epoch and of epoch 0.
        moved: layers of the backbone that changed.
        network_sha256: of its network's file; "" in runs from before it was kept.
        history: a row an epoch.
    """

    settings: Settings
    start: str
    start_digest: str
    start_provenance: Mapping[str, Any]
    classes: tuple[str, ...]
    parameters: int
    images: Mapping[str, int]
    best_epoch: int
    ended: str
    diverged: tuple[int, int] | None
    parity: float
    seconds: float
    validation: Metrics
    start_validation: Metrics
    moved: tuple[str, ...]
    network_sha256: str = ""
    history: tuple[Epoch, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.settings.name

    @property
    def split_point(self) -> str | None:
        """The layer below what was tuned; None: the pixels."""
        return self.settings.split_point


class Unfinished:
    """A run that was begun: its folder holds what it takes to go on."""

    def __init__(self, folder: Path) -> None:
        """Name the run's folder. Raises VggftError where it is a link."""
        durable.refuse_link(folder)
        durable.refuse_link(folder / _UNFINISHED)
        self.folder = folder
        self._own = folder / _UNFINISHED
        self._checkpoint = self._own / _CHECKPOINT

    @property
    def settings(self) -> Settings:
        """What it was asked to do.

        Raises:
            VggftError: damaged, or of another version.
        """
        path = self._own / _SETTINGS
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return _settings(kept, kept.pop("version"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VggftError(
                f"{path}: damaged ({error}). Delete {self.folder} and tune again: vggft finetune"
            ) from None

    @property
    def head(self) -> Head:
        """The head it starts from.

        Raises:
            VggftError: damaged.
        """
        try:
            return heads.load(self._own)
        except VggftError:
            raise VggftError(
                f"{self._own}: its head is damaged. Delete {self.folder} and tune again: vggft finetune"
            ) from None

    @property
    def state(self) -> State | None:
        """How far it was trained; None: not at all."""
        return checkpoint.read(self._checkpoint) if self._checkpoint.exists() else None

    def keep(self, state: State) -> None:
        """Keep how far it is trained (after this, a kill loses nothing of it), and its curve, for people to see."""
        checkpoint.write(self._checkpoint, state)
        write_history(self.folder / HISTORY, state.history, _THEN)

    def give_up(self) -> None:
        """Remove a run of which nothing was trained yet."""
        if not self._checkpoint.exists():
            durable.remove_known(self.folder, lambda path: path == self.folder or is_ours(path))

    def finish(self, run: Run, network: Any, judged: Predictions) -> Path:
        """Write network, predictions of the validation images and, last, run.json; return the path of the network.

        Raises:
            VggftError: the disk is full; the run stays unfinished, and nothing of it is lost.
        """
        path = self.folder / NETWORK
        fresh = self._own / NETWORK
        try:
            network.save(fresh)
            durable.sync_file(fresh)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            reason = error.strerror or error
            raise VggftError(
                f"{path}: cannot be written ({reason}). Nothing of the training is lost: free some space, and {_THEN}."
            ) from None
        kept = asdict(replace(run, network_sha256=durable.sha256(fresh)))
        fresh.replace(path)
        predictions.write(self.folder / predictions.FILE, judged, run.classes, _THEN)
        del kept["history"]
        kept |= {"validation": run.validation.as_json(), "start_validation": run.start_validation.as_json()}
        durable.write_json(self.folder / RUN, {"version": RUN_VERSION, **kept}, _THEN)
        durable.remove_known(self._own, is_ours)
        return path


def is_ours(path: Path) -> bool:
    """Return whether a file or folder below a run's folder has a name that vggft gives; a person may keep notes there."""
    return path.name in FILES or tensorboard.is_ours(path) or path.match(durable.TEMPORARY)


def begin(folder: Path, settings: Settings, head: Head) -> Unfinished:
    """Make the folder of a run, `folder/<name>`, which must not exist."""
    place = folder / settings.name
    fresh = durable.fresh_folder(place)
    head.save(fresh / _UNFINISHED)
    durable.write_json(fresh / _UNFINISHED / _SETTINGS, {"version": SETTINGS_VERSION, **asdict(settings)})
    durable.replace_folder(fresh, place)
    return Unfinished(place)


def unfinished(folder: Path) -> list[Unfinished]:
    """Return the runs below `folder` that were begun and not finished, in name order."""
    begun = sorted(path.parent for path in folder.glob(f"[!.]*/{_UNFINISHED}"))
    return [Unfinished(path) for path in begun if not (path / RUN).exists() and not path.is_symlink()]


def sweep(folder: Path) -> None:
    """Remove what a kill left behind of runs that are finished."""
    for path in folder.glob(f"[!.]*/{_UNFINISHED}"):
        if (path.parent / RUN).exists() and not path.parent.is_symlink():
            durable.remove_known(path, is_ours)


def free_name(folders: Sequence[Path], wanted: str) -> str:
    """Return `wanted`, or `wanted-2`, `wanted-3`, … if one of the folders has something of that name already."""
    name, number = wanted, 1
    while any((folder / name).exists() for folder in folders):
        number += 1
        name = f"{wanted}-{number}"
    return name


def load_all(folder: Path, on_damage: Callable[[VggftError], None] | None = None) -> list[Run]:
    """Read every finished run below `folder` (not its network), in name order.

    Args:
        on_damage: told of damaged runs and those of another version, which are left out; without it the first is an error.

    Raises:
        VggftError: one of them is damaged or of another version.
    """
    found = []
    for path in sorted(folder.glob(f"[!.]*/{RUN}")):
        try:
            found.append(_load(path))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return found


def _load(path: Path) -> Run:
    mend = "Delete its folder, or move it elsewhere, and tune again"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version = kept.pop("version")
        if version != RUN_VERSION:
            raise VggftError(f"{path}: run of version {version}, expected {RUN_VERSION}. {mend}")
        kept["settings"] = _settings(kept["settings"], SETTINGS_VERSION)
        for key in ("validation", "start_validation"):
            kept[key] = Metrics.of_json(kept[key])
        for key in ("classes", "moved"):
            kept[key] = tuple(kept[key])
        kept["diverged"] = tuple(kept["diverged"]) if kept["diverged"] else None
        return Run(**kept, history=tuple(read_history(path.with_name(HISTORY))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{path}: damaged ({error}). {mend}") from None


def _settings(kept: Mapping[str, Any], version: int) -> Settings:
    if version != SETTINGS_VERSION:
        raise ValueError(f"version {version}, expected {SETTINGS_VERSION}")
    return Settings(**{**kept, "plan": Plan(**kept["plan"])})
