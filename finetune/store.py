"""Fine-tuning runs on disk: one folder a run, never overwritten."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from featurize import durable
from featurize.errors import VggftError
from heads.history import Epoch, read_history, write_history
from heads.metrics import Metrics

RUN_VERSION = 2


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: of its folder.
        start, start_digest: name and digest of the head it started from.
        unfreeze, split_point: what was tuned, and the layer below it.
        classes: names in the order of the scores.
        parameters: number of trained numbers.
        epochs, best_epoch: trained, and kept (0: the head as it came).
        parity: largest difference of a probability at the parity gate.
        seconds: of training.
        validation, start_validation: metrics of the best epoch and of epoch 0.
        moved: layers of the backbone that changed.
        provenance: manifest, fingerprint, hyper-parameters, versions: all that it takes to repeat the run.
    """

    name: str
    start: str
    start_digest: str
    unfreeze: str
    split_point: str
    classes: tuple[str, ...]
    parameters: int
    epochs: int
    best_epoch: int
    parity: float
    seconds: float
    validation: Metrics
    start_validation: Metrics
    moved: tuple[str, ...]
    provenance: Mapping[str, Any]
    history: tuple[Epoch, ...] = field(default=(), repr=False)


def free_name(folder: Path, wanted: str) -> str:
    """Return `wanted`, or `wanted-2`, `wanted-3`, … if there is such a run already."""
    name, number = wanted, 1
    while (folder / name).exists():
        number += 1
        name = f"{wanted}-{number}"
    return name


def save(folder: Path, run: Run, network: Any) -> Path:
    """Write run.json, history.csv and network.keras into `folder/<name>`; return the path of the network."""
    fresh = durable.fresh_folder(folder / run.name)
    network.save(fresh / "network.keras")
    durable.sync_file(fresh / "network.keras")
    write_history(fresh / "history.csv", run.history)
    kept = asdict(run)
    del kept["history"]
    kept |= {"validation": run.validation.as_json(), "start_validation": run.start_validation.as_json()}
    durable.write_json(fresh / "run.json", {"version": RUN_VERSION, **kept})
    durable.replace_folder(fresh, folder / run.name)
    return folder / run.name / "network.keras"


def load_all(folder: Path) -> list[Run]:
    """Read every run below `folder` (not its network), in name order.

    Raises:
        VggftError: one of them is damaged or of another version.
    """
    return [_load(path) for path in sorted(folder.glob("[!.]*/run.json"))]


def _load(path: Path) -> Run:
    mend = "Delete its folder, or tune again: vggft finetune"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version = kept.pop("version")
        if version != RUN_VERSION:
            raise VggftError(f"{path}: run of version {version}, expected {RUN_VERSION}. {mend}")
        for key in ("validation", "start_validation"):
            kept[key] = Metrics.of_json(kept[key])
        for key in ("classes", "moved"):
            kept[key] = tuple(kept[key])
        return Run(**kept, history=tuple(read_history(path.with_name("history.csv"))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{path}: damaged ({error}). {mend}") from None
