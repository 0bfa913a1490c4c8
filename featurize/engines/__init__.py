"""Who runs the frozen base: pictures (or outputs of a cached layer) in, outputs of the wanted layers out."""

import importlib
import importlib.util
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_info

from featurize import backend, interrupts
from featurize.backbone import network
from featurize.backbone.architecture import Architecture
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.choices import FULL_PRECISION, MIXED_PRECISION, EngineName, Precision
from featurize.engines import mnn_engine, winograd_engine
from featurize.engines.compiled import Run, compiled
from featurize.engines.mnn_engine import MnnEngine
from featurize.engines.winograd_engine import WinogradEngine
from featurize.errors import VggftError

# Pictures a step: enough to keep a few cores busy. The widest layer of 16 pictures takes 16·224·224·64·4 bytes, 205 MB.
CPU_BATCH = 16
# Where the search for a GPU's batch size begins: the widest layer of 256 pictures takes 1.6 GB in 16 bits.
GPU_BATCH = 256
# One batch travels to the GPU, one is computed, one travels back.
GPU_IN_FLIGHT = 3

# The names of OpenBLAS's kernels for AVX-512, which alone have a way of their own for small products.
_SMALL_PRODUCTS = {"SkylakeX", "Cooperlake", "SapphireRapids"}
_PACKAGES = {"winograd": "numba", "mnn": "MNN"}


class Engine(Protocol):
    """The frozen base, loaded once. Its rows meet relative error ≤ 1e-3 against Keras in float32, or say so.

    Attributes:
        name: who it is, for people and for the record.
        batch_size: rows that it likes to be handed at once.
        trial: rows enough to find out how fast it is.
        in_flight: batches to hand it at once, each from a thread of its own, so that its device never waits; 1: one at a time.
    """

    name: str
    batch_size: int
    trial: int
    in_flight: int

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """Return one array (n, height, width, filters) a layer, float32; or float16, where a row that holds a number beyond
        float16 is NaN throughout.

        Args:
            inputs: uint8 pictures (n, size, size, 3), RGB; with `below`, outputs (n, h, w, filters) of that layer.
            layers: names of the wanted layers, all above `below`.
            below: the layer whose outputs come in; None for pictures.
        """


class KerasEngine:
    """The base as a Keras model, on whatever device and backend Keras has; on a GPU the batch size is found by trying."""

    def __init__(self, weights: Weights, fingerprint: Fingerprint, batch_size: int | None = None) -> None:
        """Build the model; seconds.

        Args:
            weights: with their architecture.
            fingerprint: gives size, preprocessing and precision.
            batch_size: None for 16 on a CPU, and for 256 or less on a GPU.
        """
        keras = backend.load_keras()
        self.name = f"keras/{keras.backend.backend()}"
        gpu = bool(backend.gpus())
        self.batch_size = batch_size or (GPU_BATCH if gpu else CPU_BATCH)
        self.in_flight = GPU_IN_FLIGHT if gpu else 1
        self.trial = self.batch_size  # fewer are filled up, and take as long
        self._model = network.build(weights, fingerprint.preprocess, fingerprint.size, fingerprint.precision)
        self._half = gpu
        self._parts: dict[tuple[str | None, tuple[str, ...]], Run] = {}
        self._ready: set[tuple[Run, int]] = set()  # parts that are compiled for a batch of that size
        self._compiling = threading.RLock()

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """Run any number of rows. Where memory runs out, the batch is halved, and stays so."""
        part = self._part(layers, below)
        done: list[list[NDArray[Any]]] = []
        first = 0
        while first < len(inputs):
            interrupts.check()
            size = self.batch_size
            rows = inputs[first : first + size]
            try:
                done.append(self._run(part, rows))
            except Exception as error:  # each backend has an exception of its own for this
                if not _out_of_memory(error) or size == 1:
                    raise
                self.batch_size = min(self.batch_size, size // 2)  # another thread may have halved it already
                continue
            first += len(rows)
        return [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*done, strict=True)]

    def _part(self, layers: Sequence[str], below: str | None) -> Run:
        key = (below, tuple(layers))
        with self._compiling:
            if key not in self._parts:
                self._parts[key] = compiled(network.between(self._model, below, layers), half=self._half)
        return self._parts[key]

    def _run(self, part: Run, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Run at most one batch; a short one is filled up with zeros, so that one compiled program serves all."""
        batch, size = rows, max(self.batch_size, len(rows))
        if len(rows) < size:
            batch = np.zeros((size, *rows.shape[1:]), rows.dtype)
            batch[: len(rows)] = rows
        with nullcontext() if (part, size) in self._ready else self._compiling:
            outputs = part(batch)
            self._ready.add((part, size))
        return [
            output[: len(rows)] if self._half else np.asarray(output[: len(rows)], np.float32) for output in outputs
        ]


def _out_of_memory(error: Exception) -> bool:
    """Tell TensorFlow's, JAX's and PyTorch's ways of saying that the device's memory is full."""
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in ("resourceexhausted", "resource_exhausted", "out of memory", "outofmemory"))


def rate(engine: Engine, shape: tuple[int, int, int], layers: Sequence[str], below: str | None = None) -> float:
    """Warm an engine up and return its images a second on this machine, on blank input: a moment's measurement.

    Args:
        shape: of one picture, or of one output of `below`.
        layers, below: as for the engine.
    """
    blank = np.zeros((engine.trial, *shape), np.uint8 if below is None else np.float16)
    engine(blank, layers, below)
    began = time.perf_counter()
    engine(blank, layers, below)
    return len(blank) / (time.perf_counter() - began)


@dataclass(frozen=True)
class Choice:
    """Which engine runs, and why; and in which precision it computes best."""

    name: str
    reason: str
    precision: Precision = FULL_PRECISION


def require(wanted: EngineName) -> None:
    """See that an engine is installed; imports nothing.

    Raises:
        VggftError: it is not.
    """
    if wanted in _PACKAGES and not _installed(wanted):
        raise VggftError(f"--engine {wanted}: not installed. Run: pip install 'vggft[cpu]', or use --engine keras.")


def choose(architecture: Architecture, wanted: EngineName = "auto", precision: Precision | None = None) -> Choice:
    """Decide who runs the frozen base. Keras is imported only where there is an NVIDIA driver, to see if it can use it.

    Args:
        architecture: of the frozen base.
        wanted: the engine, or "auto".
        precision: that of a workspace's features, which its engines must keep to; None: whatever suits the machine.

    Raises:
        VggftError: an engine that is not installed, or does not compute in that precision or that architecture.
    """
    require(wanted)
    if wanted == "winograd" and not winograd_engine.computes(architecture):
        raise VggftError(
            f"--engine winograd: it computes convolutions of a multiple of {winograd_engine.FILTERS} filters, which those of "
            f"{architecture.name} are not. Use --engine keras."
        )
    if wanted in _PACKAGES:
        if precision == MIXED_PRECISION:
            raise VggftError(
                f"--engine {wanted}: the features here were made in mixed precision, on a GPU, which only Keras computes. Use "
                "--engine keras, or another --workspace."
            )
        return Choice(wanted, "asked for")
    found = backend.gpus() if shutil.which("nvidia-smi") else []
    best = MIXED_PRECISION if found else FULL_PRECISION
    kept = precision or best
    if wanted == "keras":
        return Choice("keras", "asked for", kept)
    if found:
        return Choice("keras", f"{len(found)} GPU: {', '.join(found)}", kept)
    if kept == MIXED_PRECISION:
        return Choice(
            "keras", "no GPU; but the features here were made in mixed precision, which only Keras computes", kept
        )
    return _for_cpu(architecture)


def _for_cpu(architecture: Architecture) -> Choice:
    """Choose for a machine without a GPU."""
    winograd = _installed("winograd") and winograd_engine.computes(architecture)
    kernels = {str(library.get("architecture")) for library in threadpool_info()}
    if winograd and kernels & _SMALL_PRODUCTS:
        return Choice("winograd", "no GPU to use; the fastest on a CPU with AVX-512")
    if _installed("mnn"):
        return Choice("mnn", "no GPU to use; the fastest on a CPU without AVX-512")
    if winograd:
        return Choice("winograd", "no GPU to use; faster than Keras on a CPU")
    return Choice("keras", "no faster CPU engine is installed; pip install 'vggft[cpu]' brings two")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(_PACKAGES[name]) is not None


def create(name: str, weights: Weights, fingerprint: Fingerprint) -> Engine:
    """Return the engine called `name` ("keras", "winograd" or "mnn"), its weights loaded.

    Raises:
        VggftError: what it needs is installed and does not start.
    """
    try:
        if name == "winograd":
            return WinogradEngine(weights, fingerprint)
        if name == "mnn":
            return MnnEngine(weights, fingerprint)
        return KerasEngine(weights, fingerprint)
    except ImportError as error:
        raise VggftError(
            f"the engine {name} does not start ({error}). Mend it (pip install --upgrade 'vggft[cpu]'), or choose another with "
            "--engine: keras always works."
        ) from None


def starts(name: str) -> str | None:
    """Return why an engine's packages do not start, or None if they do."""
    try:
        if name == "winograd":
            importlib.import_module("featurize.engines.winograd")
        elif name == "mnn":
            mnn_engine.load()
    except ImportError as error:
        return str(error)
    return None
