"""Who runs the frozen base: pictures in, outputs of the wanted layers out."""

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurize import backbone, backend
from featurize.backend import load_keras
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint
from featurize.ncnn_engine import NcnnEngine
from featurize.weights import Weights

# Pictures a step: enough to keep a few cores busy. The widest layer of 16 pictures takes 16·224·224·64·4 bytes, 205 MB.
CPU_BATCH = 16


ENGINES = ("auto", "keras", "ncnn")


class Engine(Protocol):
    """Runs the frozen base on whole batches."""

    name: str
    batch_size: int

    def __call__(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return one array of shape (n, height, width, filters) a layer, for pictures (n, size, size, 3), n ≤ batch."""


class KerasEngine:
    """The base as a Keras model, on whatever device and backend Keras has."""

    def __init__(self, weights: Weights, fingerprint: Fingerprint, layers: Sequence[str], batch_size: int = CPU_BATCH):
        """Build and warm up; seconds."""
        keras = load_keras()

        self.name = f"keras/{keras.backend.backend()}"
        self.batch_size = batch_size
        model = backbone.build(weights, fingerprint.preprocess, fingerprint.size)
        self._model = backbone.between(model, None, layers)
        # TensorFlow's XLA made this forward pass slower on the CPU it was measured on, and its start slower too.
        self._model.compile(jit_compile=keras.backend.backend() == "jax")
        self._batch = np.zeros((batch_size, fingerprint.size, fingerprint.size, 3), np.float32)
        self._model.predict_on_batch(self._batch)

    def __call__(self, pictures: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Run one batch; a short one is filled up with black, so that one compiled program serves all."""
        self._batch[: len(pictures)] = pictures
        self._batch[len(pictures) :] = 0
        outputs = self._model.predict_on_batch(self._batch)
        if not isinstance(outputs, (list, tuple)):  # Keras hands a single output out bare
            outputs = [outputs]
        return [output[: len(pictures)] for output in outputs]


@dataclass(frozen=True)
class Choice:
    """Which engine runs, and why."""

    name: str
    reason: str


def choose(wanted: str = "auto") -> Choice:
    """Decide who runs the frozen base. Keras is imported only where there is an NVIDIA driver, to see if it can use it.

    Args:
        wanted: "auto", "keras" or "ncnn".

    Raises:
        VggftError: an unknown engine, or one that is not installed.
    """
    installed = importlib.util.find_spec("ncnn") is not None
    if wanted not in ENGINES:
        raise VggftError(f"--engine {wanted!r}: expected one of {', '.join(ENGINES)}.")
    if wanted == "ncnn" and not installed:
        raise VggftError("--engine ncnn: not installed. Run: pip install 'vggft[cpu]', or use --engine keras.")
    if wanted != "auto":
        return Choice(wanted, "asked for")
    if shutil.which("nvidia-smi") and (found := backend.gpus()):
        return Choice("keras", f"{len(found)} GPU: {', '.join(found)}")
    if installed:
        return Choice("ncnn", "no GPU to use; ncnn's Winograd convolutions are faster than Keras on a CPU")
    return Choice("keras", "no faster CPU engine is installed; pip install 'vggft[cpu]' brings one")


def create(name: str, weights: Weights, fingerprint: Fingerprint, layers: Sequence[str]) -> Engine:
    """Return the engine called `name` ("keras" or "ncnn"), ready to run."""
    if name == "ncnn":
        return NcnnEngine(weights, fingerprint, layers, CPU_BATCH)
    return KerasEngine(weights, fingerprint, layers)
