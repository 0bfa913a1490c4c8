"""Fine-tuning runs on disk: one folder per run, never overwritten.

<name>/run.json        settings and results; written last, so that its presence marks a finished run
<name>/network.keras   the network from pixels to scores, with the weights of the best epoch
<name>/predictions.csv predictions of the best epoch for the validation images (`heads.predictions`)
<name>/history.csv     learning curve
<name>/tensorboard/    learning curve for TensorBoard
<name>/unfinished/     during training: settings.json, the initial head, checkpoint.bin
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
from heads import predictions
from heads.head import HEAD_FILES, Head, load_head
from heads.history import Epoch, read_history, write_history
from heads.metrics import Metrics
from heads.predictions import Predictions

RUN_VERSION = 4
SETTINGS_VERSION = 1
UNFINISHED, SETTINGS, CHECKPOINT = "unfinished", "settings.json", "checkpoint.bin"
_THEN = "continue with: vggft finetune --resume"
NETWORK, RUN, HISTORY, TENSORBOARD = "network.keras", "run.json", "history.csv", "tensorboard"
# All names that vggft uses in the folder of a run, without those of TensorBoard files.
FILES = frozenset({NETWORK, RUN, HISTORY, predictions.FILE, UNFINISHED, SETTINGS, CHECKPOINT, *HEAD_FILES})


@dataclass(frozen=True)
class Settings:
    """Settings of a run; with the initial head, everything that is needed to resume or repeat it.

    Attributes:
        name: name of the run and of its folder.
        unfreeze: the block or layer from which the network is tuned.
        split_point: the layer below it; None for pixels.
        plan: training settings.
        memory: maximum bytes of training inputs in memory.
        start: value of --from: "best", "scratch" or the name of a head.
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
        settings: settings of the run.
        start, start_digest, start_provenance: name, digest and provenance of the initial head.
        classes: class names, in the order of the scores.
        parameters: number of trained parameters.
        images: split → number of images.
        best_epoch: the epoch whose weights are kept; 0 is the untuned network.
        ended: why training ended: "epochs" (the maximum was reached), "patience" or "diverged".
        diverged: epoch and step in which the loss became NaN or infinite, or None.
        parity: largest difference of a probability in the parity gate.
        seconds: training time, over all sessions of a resumed run.
        validation, start_validation: validation metrics of the best epoch and of epoch 0.
        moved: backbone layers whose weights changed.
        network_sha256: sha256 of the network file; "" for runs that did not store it.
        history: learning curve.
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
        """Name of the run."""
        return self.settings.name

    @property
    def split_point(self) -> str | None:
        """The layer below the tuned part; None for pixels."""
        return self.settings.split_point


class Unfinished:
    """A run that is not finished; its folder contains everything that is needed to resume it."""

    def __init__(self, folder: Path) -> None:
        """Open the folder of a run.

        Raises:
            VggftError: the folder is a link.
        """
        durable.refuse_link(folder)
        durable.refuse_link(folder / UNFINISHED)
        self.folder = folder
        self._unfinished = folder / UNFINISHED
        self._checkpoint = self._unfinished / CHECKPOINT

    @property
    def settings(self) -> Settings:
        """Settings of the run.

        Raises:
            VggftError: the file is damaged or has another version.
        """
        path = self._unfinished / SETTINGS
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return _settings(stored, stored.pop("version"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VggftError(
                f"{path}: damaged ({error}). Start a new run: vggft finetune (vggft runs --remove {self.folder.name} deletes "
                "this one)"
            ) from None

    @property
    def head(self) -> Head:
        """The initial head.

        Raises:
            VggftError: the head is damaged.
        """
        try:
            return load_head(self._unfinished)
        except VggftError:
            raise VggftError(
                f"{self._unfinished}: the initial head is damaged. Start a new run: vggft finetune (vggft runs --remove "
                f"{self.folder.name} deletes this one)"
            ) from None

    @property
    def changed(self) -> int:
        """When it was last trained or, before the first checkpoint, begun: nanoseconds since 1970."""
        path = self._checkpoint if self._checkpoint.exists() else self._unfinished
        return path.stat().st_mtime_ns

    @property
    def state(self) -> State | None:
        """The last checkpoint; None if there is none."""
        return checkpoint.read(self._checkpoint) if self._checkpoint.exists() else None

    def save(self, state: State) -> None:
        """Write a checkpoint, from which the run can be resumed, and the learning curve."""
        checkpoint.write(self._checkpoint, state)
        write_history(self.folder / HISTORY, state.history, _THEN)

    def finish(self, run: Run, network: Any, validation: Predictions) -> Path:
        """Write network, predictions for the validation images and, last, run.json; return the path of the network.

        Raises:
            VggftError: the disk is full; the run stays unfinished and can be resumed.
        """
        path = self.folder / NETWORK
        new = self._unfinished / NETWORK
        try:
            network.save(new)
            durable.sync_file(new)
        except OSError as error:
            new.unlink(missing_ok=True)
            reason = error.strerror or error
            raise VggftError(
                f"{path}: cannot be written ({reason}). All training is kept: free some space, and {_THEN}."
            ) from None
        stored = asdict(replace(run, network_sha256=durable.sha256(new)))
        new.replace(path)
        predictions.write(self.folder / predictions.FILE, validation, run.classes, _THEN)
        del stored["history"]
        stored |= {"validation": run.validation.as_json(), "start_validation": run.start_validation.as_json()}
        durable.write_json(self.folder / RUN, {"version": RUN_VERSION, **stored}, _THEN)
        durable.remove_known(self._unfinished, is_ours)
        return path


def is_ours(path: Path) -> bool:
    """Return whether a path in the folder of a run has a name that vggft uses; other files there belong to the user."""
    return path.name in FILES or tensorboard.is_ours(path) or path.match(durable.TEMPORARY)


def begin(folder: Path, settings: Settings, head: Head) -> Unfinished:
    """Create the folder of a run, `folder/<name>`, which must not exist."""
    target = folder / settings.name
    new = durable.fresh_folder(target)
    head.save(new / UNFINISHED)
    durable.write_json(new / UNFINISHED / SETTINGS, {"version": SETTINGS_VERSION, **asdict(settings)})
    durable.replace_folder(new, target)
    return Unfinished(target)


def unfinished(folder: Path) -> list[Unfinished]:
    """Return the unfinished runs in `folder`, sorted by name."""
    paths = sorted(path.parent for path in folder.glob(f"[!.]*/{UNFINISHED}"))
    return [Unfinished(path) for path in paths if not (path / RUN).exists() and not path.is_symlink()]


def sweep(folder: Path) -> None:
    """Delete the `unfinished/` folders of finished runs, which a killed process may leave."""
    for path in folder.glob(f"[!.]*/{UNFINISHED}"):
        if (path.parent / RUN).exists() and not path.parent.is_symlink():
            durable.remove_known(path, is_ours)


def free_name(folders: Sequence[Path], name: str) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, … that exists in none of the folders."""
    candidate, number = name, 1
    while any((folder / candidate).exists() for folder in folders):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def load_all(folder: Path, on_damage: Callable[[VggftError], None] | None = None) -> list[Run]:
    """Read all finished runs in `folder`, without their networks, sorted by name.

    Args:
        on_damage: called with the error of each run that is damaged or has another version; the run is left out. Without it,
            the error is raised.

    Raises:
        VggftError: a run is damaged or has another version.
    """
    runs = []
    for path in sorted(folder.glob(f"[!.]*/{RUN}")):
        try:
            runs.append(_load(path))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return runs


def _load(path: Path) -> Run:
    next_step = f"Tune again: vggft finetune (vggft runs --remove {path.parent.name} deletes this run)"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored.pop("version")
        if version != RUN_VERSION:
            raise VggftError(f"{path}: run version {version}, expected {RUN_VERSION}. {next_step}")
        stored["settings"] = _settings(stored["settings"], SETTINGS_VERSION)
        for key in ("validation", "start_validation"):
            stored[key] = Metrics.of_json(stored[key])
        for key in ("classes", "moved"):
            stored[key] = tuple(stored[key])
        stored["diverged"] = tuple(stored["diverged"]) if stored["diverged"] else None
        return Run(**stored, history=tuple(read_history(path.with_name(HISTORY))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{path}: damaged ({error}). {next_step}") from None


def _settings(stored: Mapping[str, Any], version: int) -> Settings:
    if version != SETTINGS_VERSION:
        raise ValueError(f"version {version}, expected {SETTINGS_VERSION}")
    return Settings(**{**stored, "plan": Plan(**stored["plan"])})
