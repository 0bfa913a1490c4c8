"""Costs of a model: trained parameters, seconds of training, milliseconds of a prediction, bytes on disk."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.cache import timings
from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.process import cores
from vggft.prediction.model import Model
from vggft.ui.console import Ui
from vggft.workspace.backbone import start_engine
from vggft.workspace.workspace import Workspace

BATCHES = (1, 32)
_REPEATS = 3  # timed calls for each batch size, after one that warms up; the median is reported

_Call = tuple[Callable[[NDArray[Any]], Any], NDArray[Any]]


@dataclass(frozen=True)
class Cost:
    """Costs of one model on this machine.

    Attributes:
        parameters: number of trained parameters.
        training: training time in seconds, without earlier steps.
        total: seconds from images to model: featurizing the training and validation images, training the head that fine-tuning
            started from, and `training`. None where the time of featurizing is not known.
        size: bytes that a head adds to the pretrained network, or of a whole tuned network; None if a file is missing.
        latency: batch size → median milliseconds from decoded pictures to probabilities; empty where it was not measured.
    """

    parameters: int
    training: float
    total: float | None
    size: int | None
    latency: Mapping[int, float]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with units in the keys."""
        return {
            "parameters": self.parameters,
            "training_seconds": self.training,
            "total_seconds": self.total,
            "bytes": self.size,
            "latency_ms": {str(batch): ms for batch, ms in self.latency.items()},
        }


def machine() -> str:
    """Return a description of the machine that the seconds were measured on."""
    return f"{platform.machine()}, {cores.usable()} cores"


def featurizing(workspace: Workspace, ui: Ui) -> float | None:
    """Return the recorded seconds of featurizing the training and validation images.

    None if nothing was recorded, or, with a warning, if the record is damaged.
    """
    try:
        per_image = timings.seconds_an_image(workspace.cache().folder, workspace.architecture.top)
    except VggftError as error:
        ui.warn(str(error))
        return None
    if per_image is None:
        ui.say("how long featurizing took is not recorded, so costs are without it")
    dataset = workspace.dataset
    images = len(dataset.accepted("train")) + len(dataset.accepted("validate"))
    return None if per_image is None else per_image * images


def measure(
    workspace: Workspace, models: Sequence[Model], shared: float | None, timed: bool, ui: Ui
) -> dict[str, Cost]:
    """Return model → cost.

    Args:
        shared: seconds of `featurizing`.
        timed: measure latencies, which takes some seconds per network.

    Raises:
        VggftError: latencies cannot be measured, for lack of weights or of a network's file.
    """
    training = {model.name: model.seconds for model in models}
    latency = _latencies(workspace, models, ui) if timed else {}
    costs = {}
    for model in models:
        before = training.get(model.start, 0.0) if model.start else 0.0
        total = None if shared is None else shared + before + model.seconds
        measured = latency.get(model.name, {})
        costs[model.name] = Cost(model.parameters, model.seconds, total, model.size_on_disk, measured)
    return costs


def _latencies(workspace: Workspace, models: Sequence[Model], ui: Ui) -> dict[str, dict[int, float]]:
    """Time the frozen network once up to each layer that a model reads, then each model from there."""
    fingerprint = workspace.settings.fingerprint
    engine = start_engine(workspace.architecture, fingerprint, workspace.settings.weights_file_path)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (max(BATCHES), fingerprint.size, fingerprint.size, 3)).astype(np.uint8)
    calls: dict[str, _Call] = {}
    inputs: dict[str | None, NDArray[Any]] = {None: pictures}
    for layer in sorted({model.layer for model in models if model.layer}):
        calls[_frozen(layer)] = partial(_outputs, engine, layer), pictures
        inputs[layer] = _outputs(engine, layer, pictures)
    calls |= {model.name: (model.predictor(), inputs[model.layer]) for model in models}
    milliseconds = _in_turn(calls, ui)
    return {
        model.name: {
            n: ms + (milliseconds[_frozen(model.layer)][n] if model.layer else 0.0)
            for n, ms in milliseconds[model.name].items()
        }
        for model in models
    }


def _frozen(layer: str) -> str:
    return f"frozen up to {layer}"  # no model has a name with a space


def _outputs(engine: Engine, layer: str, pictures: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Run an engine in its preferred batch size; the outputs are rounded as in the cache."""
    size = engine.batch_size
    batches = [engine(pictures[i : i + size], [layer])[0] for i in range(0, len(pictures), size)]
    with np.errstate(over="ignore"):
        return np.concatenate(batches).astype(np.float16)


def _in_turn(calls: Mapping[str, _Call], ui: Ui) -> dict[str, dict[int, float]]:
    """Return median milliseconds for each batch size. Calls take turns, so that a busy moment slows all of them alike."""
    timed: dict[str, dict[int, list[float]]] = {name: {n: [] for n in BATCHES} for name in calls}
    with ui.progress("measuring latency", (1 + _REPEATS) * len(calls), "calls") as advance:
        done = 0
        for repeat in range(1 + _REPEATS):
            for name, (call, inputs) in calls.items():
                for n, milliseconds in timed[name].items():
                    began = time.perf_counter()
                    call(inputs[:n])
                    if repeat:  # the first one warms up
                        milliseconds.append(1000 * (time.perf_counter() - began))
                done += 1
                advance(done)
    return {name: {n: median(values) for n, values in by_batch.items()} for name, by_batch in timed.items()}
