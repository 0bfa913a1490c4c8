"""Fine-tuning runs on disk: one folder per run, never overwritten.

<name>/run.json        settings and results; written last, so that its presence marks a finished run
<name>/network.keras   the network from pixels to scores, with the weights of the epoch that is kept
<name>/predictions.csv predictions of that epoch for the validation images (`heads.predictions`)
<name>/history.csv     learning curve, as in run.json
<name>/network.svg, network.png
                       the layers as a picture (`finetune.picture`)
<name>/loss.svg, loss.png, accuracy.svg, accuracy.png
                       the learning curve as two pictures, which the caller of `finish` draws
<name>/checksums.json  of these files (`checked.write_checked`)
<name>/tensorboard/    learning curve for TensorBoard
<name>/unfinished/     during training: settings.json, the initial head, checkpoint.bin
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from featurize.disk import checked, durable, forms, listing
from featurize.errors import VggftError, damaged, reason
from featurize.options import records
from featurize.options.records import AtLeast0, Count, Positive
from finetune import checkpoint, picture, tensorboard
from finetune.plan import Plan
from finetune.recipes import RecipeName
from finetune.train import State
from heads import history, predictions
from heads.head import HEAD_FILES, Head, load_head
from heads.history import Epoch, read_history
from heads.metrics import Metrics
from heads.predictions import Predictions
from heads.specs import NAME

RUN_VERSION = 4
SETTINGS_VERSION = 1
UNFINISHED, SETTINGS, CHECKPOINT = "unfinished", "settings.json", "checkpoint.bin"
_THEN = "continue with: vggft finetune --resume"
NETWORK, RUN, HISTORY, TENSORBOARD = "network.keras", "run.json", "history.csv", "tensorboard"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Pictures of a run. Earlier versions drew fewer.
PICTURES = (picture.SVG, picture.PNG, *(f"{curve}.{form}" for curve in ("loss", "accuracy") for form in ("svg", "png")))
# All names that vggft uses in the folder of a run, without those of TensorBoard files.
FILES = frozenset(
    {NETWORK, RUN, HISTORY, predictions.FILE, UNFINISHED, SETTINGS, CHECKPOINT, *HEAD_FILES, checked.CHECKSUMS}
    | {*PICTURES}
)


@dataclass(frozen=True)
class Settings:
    """Settings of a run; with the initial head, everything that is needed to resume or repeat it.

    Attributes:
        name: name of the run and of its folder.
        unfreeze: the block or layer from which the network is tuned.
        split_point: the layer below it; None for pixels.
        plan: training settings.
        memory: maximum bytes of training inputs in memory.
        start: value of --from: "logistic", "best", "scratch" or the name of a head.
        provenance: manifest, fingerprint, weights, versions.
        recipe: value of --recipe.
    """

    name: str
    unfreeze: str
    split_point: str | None
    plan: Plan
    memory: Positive
    start: str
    provenance: Mapping[str, Any]
    recipe: RecipeName | None = None


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        settings: settings of the run.
        start, start_digest, start_provenance: name, digest and provenance of the initial head.
        classes: class names, in the order of the scores.
        parameters: number of trained parameters.
        images: split → number of images.
        best_epoch: the epoch whose weights are kept, the last one where `Plan.keep` says so; 0 is the untuned network.
        ended: why training ended: "epochs" (the maximum was reached), "patience" or "diverged".
        diverged: epoch and step in which the loss became NaN or infinite, or None.
        parity: largest difference of a probability in the parity gate.
        seconds: training time, over all sessions of a resumed run.
        validation, start_validation: validation metrics of the epoch that is kept and of epoch 0.
        moved: backbone layers whose weights changed.
        network_sha256: sha256 of the network file; "" for runs that did not store it.
        history: learning curve.
    """

    settings: Settings
    start: str
    start_digest: str
    start_provenance: Mapping[str, Any]
    classes: tuple[str, ...]
    parameters: Count
    images: Mapping[str, Count]
    best_epoch: Count
    ended: Literal["epochs", "patience", "diverged"]
    diverged: tuple[int, int] | None
    parity: AtLeast0
    seconds: AtLeast0
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
            stored = checked.read_json(path)
            settings = _settings(stored, stored.pop("version"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, error, f"Start a new run: vggft finetune ({_deleting(self.folder)})") from None
        if settings.name != self.folder.name:
            raise _copied(self.folder, settings.name)
        return settings

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
                f"{self._unfinished}: the initial head is damaged. Start a new run: vggft finetune ({_deleting(self.folder)})"
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

    @property
    def lost(self) -> str:
        """A sentence about a checkpoint that is missing, although its learning curve is there; else empty."""
        if self._checkpoint.exists() or not (self.folder / HISTORY).exists():
            return ""
        return f"{self._checkpoint}: missing, so {self.folder.name} is trained again from epoch 0"

    def save(self, state: State) -> None:
        """Write a checkpoint, from which the run can be resumed, and the learning curve."""
        checkpoint.write(self._checkpoint, state)
        self.write_curve(state)

    def write_curve(self, state: State) -> None:
        """Write the learning curve of a checkpoint; when training resumes, the one that a killed process did not get to."""
        durable.write_bytes(self.folder / HISTORY, history.table(state.history), _THEN)

    def finish(self, run: Run, network: Any, pictures: Mapping[str, bytes], validation: Predictions) -> Path:
        """Write network, pictures, predictions for the validation images and, last, run.json; return the network's path.

        Args:
            pictures: name among `PICTURES` → contents.

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
            raise VggftError(
                f"{path}: cannot be written ({reason(error)}). All training is kept: free some space, and {_THEN}."
            ) from None
        stored = asdict(replace(run, network_sha256=durable.sha256(new)))
        stored |= {"validation": run.validation.as_json(), "start_validation": run.start_validation.as_json()}
        new.replace(path)
        files = {
            **pictures,
            predictions.FILE: predictions.table(validation, run.classes),
            HISTORY: history.table(run.history),  # again, since a killed process may not have got to the last epoch
            RUN: forms.json_bytes({"version": RUN_VERSION, **stored}),
        }
        checked.write_checked(self.folder, files, _THEN, present=[NETWORK])
        durable.remove_known(self._unfinished, is_ours)
        return path


def is_ours(path: Path) -> bool:
    """Return whether a path in the folder of a run has a name that vggft uses; other files there belong to the user."""
    return path.name in FILES or tensorboard.is_ours(path) or path.match(durable.TEMPORARY)


def begin(folder: Path, settings: Settings, head: Head) -> Unfinished:
    """Create the folder of a run, `folder/<name>`, which must not exist."""
    target = folder / settings.name
    new = durable.fresh_folder(target)
    (new / UNFINISHED).mkdir()
    described = forms.json_bytes({"version": SETTINGS_VERSION, **asdict(settings)})
    checked.write_checked(new / UNFINISHED, {**head.files(), SETTINGS: described})
    durable.replace_folder(new, target)
    return Unfinished(target)


def unfinished(folder: Path) -> list[Unfinished]:
    """Return the unfinished runs in `folder`, sorted by name.

    Raises:
        VggftError: the folder cannot be read.
    """
    paths = [path for path in listing.folders(folder) if os.path.lexists(path / UNFINISHED)]
    return [
        Unfinished(path)
        for path in paths
        if not (path / RUN).exists() and not path.is_symlink() and not (path / UNFINISHED).is_symlink()
    ]


def sweep(folder: Path) -> None:
    """Delete what killed processes left: temporary files of runs, and `unfinished/` folders of finished ones."""
    for place in (path for pattern in ("[!.]*/", f"[!.]*/{UNFINISHED}/") for path in folder.glob(pattern)):
        if not place.is_symlink() and not place.parent.is_symlink():
            durable.sweep(place)
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
        VggftError: a run is damaged or has another version, or the folder cannot be read.
    """
    runs = []
    for path in listing.folders(folder):
        parts = [name for name in (RUN, NETWORK, checked.CHECKSUMS) if (path / name).exists()]
        if not parts or (RUN not in parts and (path / UNFINISHED).is_dir()):
            continue  # a folder of the user's, or an unfinished run
        try:
            runs.append(_load(path / RUN))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return runs


def _load(path: Path) -> Run:
    try:
        stored = checked.read_json(path)
        version = stored.pop("version")
        if version != RUN_VERSION:
            raise ValueError(f"version {version}, expected {RUN_VERSION}")
        stored["settings"] = _settings(stored["settings"], SETTINGS_VERSION)
        for key in ("validation", "start_validation"):
            stored[key] = Metrics.of_json(stored[key])
        if "history" not in stored:  # runs of earlier versions
            stored["history"] = read_history(path.with_name(HISTORY))
        run = records.build(Run, stored)
        _check(run, with_network="network_sha256" in stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error, f"Tune again: vggft finetune ({_deleting(path.parent)})") from None
    if run.name != path.parent.name:
        raise _copied(path.parent, run.name)
    return run


def _check(run: Run, *, with_network: bool) -> None:
    """Check what types and bounds do not show.

    Args:
        with_network: the run stored the sha256 of its network.

    Raises:
        ValueError: training never writes such a run.
    """
    if len(run.classes) < 2 or len(set(run.classes)) < len(run.classes):
        raise ValueError(f"classes: {', '.join(run.classes)}")
    if any(len(metrics.per_class) != len(run.classes) for metrics in (run.validation, run.start_validation)):
        raise ValueError(f"metrics of other classes than {', '.join(run.classes)}")
    epochs = [epoch.epoch for epoch in run.history]
    if not epochs or epochs != list(range(len(epochs))):
        raise ValueError("history: not the epochs from 0 on in their order")
    if run.best_epoch not in epochs:
        raise ValueError(f"best_epoch: {run.best_epoch} of {epochs[-1]}")
    if not NAME.fullmatch(run.start) or not NAME.fullmatch(run.settings.start):
        raise ValueError(f"start: {run.start!r} from {run.settings.start!r}, not the name of a head")
    digests = [run.start_digest, *([run.network_sha256] if with_network else [])]
    if not all(_SHA256.fullmatch(digest) for digest in digests):
        raise ValueError("start_digest or network_sha256: no sha256")


def _copied(folder: Path, name: str) -> VggftError:
    return VggftError(
        f"{folder}: a copy of the run {name!r}, or renamed by hand. A copy would be counted twice: move it out of "
        f"{folder.parent}. A renamed folder needs its old name."
    )


def _deleting(folder: Path) -> str:
    """Return how a damaged run is deleted, as an error message says it."""
    from finetune import removal  # which imports this module

    if removal.is_run(folder):
        return f"vggft runs --remove {folder.name} deletes this run"
    return f"delete {folder} yourself: what is left does not prove that vggft wrote it"


def _settings(stored: Mapping[str, Any], version: int) -> Settings:
    if version != SETTINGS_VERSION:
        raise ValueError(f"version {version}, expected {SETTINGS_VERSION}")
    plan = {"dropout": None, **stored["plan"]}  # runs of earlier versions had that of the head
    return records.build(Settings, {**stored, "plan": plan})
