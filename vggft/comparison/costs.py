"""What a method costs: numbers trained, seconds until it is there, milliseconds of a prediction, bytes on disk."""

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.cache import timings
from featurize.engines import Engine
from finetune.store import Run
from heads.head import HEAD_FILES
from heads.search import Result
from vggft.prediction import judging
from vggft.prediction.models import Model
from vggft.ui.console import Ui
from vggft.workspace.backbone import start_engine
from vggft.workspace.workspace import Workspace

BATCHES = (1, 32)
_REPEATS = 3  # timed calls a batch size, after one that warms up; the median is kept

_FROZEN = ""  # what the frozen network is called among the methods
_Call = tuple[Callable[[NDArray[Any]], Any], NDArray[Any]]


@dataclass(frozen=True)
class Cost:
    """What one method costs on this machine.

    Attributes:
        parameters: numbers trained.
        training: seconds of its own training.
        total: seconds until it is there: featurizing the training and validation images, the head that fine-tuning started
            from, and `training`. None where it is not known what featurizing took.
        size: bytes of what it adds to the pretrained network (a head), or of the whole network (a tuned one); None where its
            files are gone.
        latency: batch size → milliseconds from decoded pictures to probabilities, median; empty where it was not measured.
    """

    parameters: int
    training: float
    total: float | None
    size: int | None
    latency: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "parameters": self.parameters,
            "training_seconds": self.training,
            "total_seconds": self.total,
            "bytes": self.size,
            "latency_ms": {str(batch): ms for batch, ms in self.latency.items()},
        }


def machine() -> str:
    """Say what the seconds were measured on."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


def featurizing(workspace: Workspace) -> float | None:
    """Return the seconds of featurizing the training and validation images, by what was recorded; None if nothing was."""
    one = timings.seconds_an_image(workspace.cache().folder)
    dataset = workspace.dataset
    return None if one is None else one * (len(dataset.accepted("train")) + len(dataset.accepted("validate")))


def measure(workspace: Workspace, methods: Sequence[Model], timed: bool, ui: Ui) -> dict[str, Cost]:
    """Return method → cost.

    Args:
        timed: measure latencies, which takes some seconds a network.
    """
    shared = featurizing(workspace)
    training = {method.name: method.seconds for method in methods}
    latency = _latencies(workspace, methods, ui) if timed else {}
    found = {}
    for method in methods:
        before = training.get(method.made.start, 0.0) if isinstance(method.made, Run) else 0.0
        total = None if shared is None else shared + before + method.seconds
        files = _files(workspace, method)
        size = sum(path.stat().st_size for path in files) if all(path.exists() for path in files) else None
        found[method.name] = Cost(method.parameters, method.seconds, total, size, latency.get(method.name, {}))
    return found


def _files(workspace: Workspace, method: Model) -> list[Path]:
    if method.network is not None:
        return [method.network]
    return [workspace.heads / method.name / name for name in HEAD_FILES]


def _latencies(workspace: Workspace, methods: Sequence[Model], ui: Ui) -> dict[str, dict[int, float]]:
    """Measure each method; the frozen network below the heads, which is the same for all, only once."""
    fingerprint = workspace.settings.fingerprint
    engine = start_engine(workspace.architecture, fingerprint, workspace.settings.weights_file_path)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (max(BATCHES), fingerprint.size, fingerprint.size, 3)).astype(np.uint8)
    top = workspace.architecture.top
    maps = _run(engine, top, pictures)
    heads = [method.made.head for method in methods if isinstance(method.made, Result)]
    calls: dict[str, _Call] = {_FROZEN: (partial(_run, engine, top), pictures)}
    calls |= {head.name: (head.predict, maps) for head in heads}
    networks = [method for method in methods if method.tuned]
    calls |= {method.name: (judging.from_pixels(method, workspace, engine), pictures) for method in networks}
    found = _in_turn(calls, ui)
    below = found.pop(_FROZEN)
    for head in heads:
        found[head.name] = {n: below[n] + ms for n, ms in found[head.name].items()}
    return found


def _in_turn(calls: Mapping[str, _Call], ui: Ui) -> dict[str, dict[int, float]]:
    """Time all calls in turn, so that a busy moment of the machine is no method's alone."""
    taken: dict[str, dict[int, list[float]]] = {name: {n: [] for n in BATCHES} for name in calls}
    with ui.progress("measuring latency", (1 + _REPEATS) * len(calls), "calls") as advance:
        done = 0
        for repeat in range(1 + _REPEATS):
            for name, (call, inputs) in calls.items():
                for n, own in taken[name].items():
                    began = time.perf_counter()
                    call(inputs[:n])
                    if repeat:  # the first one warms up
                        own.append(1000 * (time.perf_counter() - began))
                done += 1
                advance(done)
    return {name: {n: median(own) for n, own in one.items()} for name, one in taken.items()}


def _run(engine: Engine, layer: str, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Run an engine up to a layer, as many pictures at once as it likes."""
    size = engine.batch_size
    return np.concatenate([engine(pictures[i : i + size], [layer])[0] for i in range(0, len(pictures), size)])
