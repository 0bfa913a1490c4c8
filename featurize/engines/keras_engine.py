"""The engine that always works: the frozen network as a Keras model."""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import backend
from featurize.backbone import network
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.engines.compiled import Run, compiled
from featurize.process import interrupts

# Pictures a step: enough to keep a few cores busy. VGG16's widest layer takes 16·224·224·64·4 bytes, 205 MB, for 16 pictures.
CPU_BATCH = 16
# The first batch size tried on a GPU: VGG16's widest layer takes 1.6 GB in 16 bits for 256 pictures.
GPU_BATCH = 256
# One batch travels to the GPU, one is computed, one travels back.
GPU_IN_FLIGHT = 3


class KerasEngine:
    """The frozen network as a Keras model, on the device and backend that Keras uses."""

    def __init__(self, weights: Weights, fingerprint: Fingerprint, batch_size: int | None = None) -> None:
        """Build the model, which takes seconds.

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
        self.trial = self.batch_size  # fewer are padded, and take as long
        self._model = network.build(weights, fingerprint.preprocess, fingerprint.size, fingerprint.precision)
        self._half = gpu
        self._parts: dict[tuple[str | None, tuple[str, ...]], Run] = {}
        self._ready: set[tuple[Run, int]] = set()  # parts that are compiled for a batch of that size
        self._compiling = threading.RLock()

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """Run any number of rows. Where memory runs out, the batch is halved for good."""
        backend.require_no_fork()
        part = self._part(layers, below)
        outputs: list[list[NDArray[Any]]] = []
        first = 0
        while first < len(inputs):
            interrupts.check()
            size = self.batch_size
            rows = inputs[first : first + size]
            try:
                outputs.append(self._run(part, rows))
            except Exception as error:  # each backend has an exception of its own for this
                if not _out_of_memory(error) or size == 1:
                    raise
                self.batch_size = min(self.batch_size, size // 2)  # another thread may have halved it already
                continue
            first += len(rows)
        return [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*outputs, strict=True)]

    def _part(self, layers: Sequence[str], below: str | None) -> Run:
        key = (below, tuple(layers))
        with self._compiling:
            if key not in self._parts:
                self._parts[key] = compiled(network.between(self._model, below, layers), half=self._half)
        return self._parts[key]

    def _run(self, part: Run, rows: NDArray[Any]) -> list[NDArray[Any]]:
        """Run at most one batch; a short one is padded with zeros, so that one compiled program serves all."""
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
    """Return whether an error of TensorFlow, JAX or PyTorch means that the device's memory is full."""
    text = f"{type(error).__name__} {error}".lower()
    return any(word in text for word in ("resourceexhausted", "resource_exhausted", "out of memory", "outofmemory"))
