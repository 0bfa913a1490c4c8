"""The frozen base on `featurize.engines.winograd`: pictures in parallel, one per core."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from featurize.backbone.architecture import Architecture
from featurize.backbone.network import preprocessed
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.process import cores, interrupts
from featurize.process.per_process import PerProcess

FILTERS = 64  # of `featurize.engines.winograd`, which cannot be imported without numba
_PIXELS = "pixels"  # name of the input of the first layer
_ROUNDS = 8  # pictures per core in one batch: the cores wait for each other only at its end
# Only one engine at a time limits the threads of BLAS, or one might restore the limit of another for good.
_LIMITING = PerProcess(threading.Lock)
_NONE = np.empty((0, 0, 0), np.float32)


def computes(architecture: Architecture) -> bool:
    """Return whether this engine computes an architecture: the number of filters of each layer is a multiple of 64."""
    return all(layer.filters % FILTERS == 0 for layer in architecture.layers)


class WinogradEngine:
    """Runs each picture on one thread, so that a row never depends on its neighbours."""

    name = "winograd"
    in_flight = 1

    def __init__(self, weights: Weights, fingerprint: Fingerprint) -> None:
        """Transform the kernels: a second, and 0.28 GB at 224 pixels. The first time on a machine, compile for some more.

        Raises:
            ImportError: numba is not installed, or does not start.
            VggftError: numba cannot compile.
        """
        import scipy.linalg.cython_blas  # noqa: F401 (numba's; its threads are counted below only once it is loaded)

        from featurize.engines import winograd

        self._winograd: Any = winograd
        self._preprocess = fingerprint.preprocess
        self._architecture = weights.architecture
        layers = weights.architecture.layers
        sizes = {layer.name: layer.shape(fingerprint.size)[0] for layer in layers}  # height and width of each output
        self._sizes = {_PIXELS: fingerprint.size, **sizes}
        self._kernels = {}
        for name, (kernel, bias) in weights.arrays.items():
            if name == layers[0].name:
                transformed = kernel.reshape(-1, kernel.shape[-1])
            else:
                transformed = winograd.transform_kernel(kernel, self._sizes[name])
            self._kernels[name] = np.ascontiguousarray(transformed), np.ascontiguousarray(bias)
        threads = cores.usable()
        self.batch_size, self.trial = _ROUNDS * threads, threads
        self._pool = ThreadPoolExecutor(threads)
        self._buffers = _Buffers(winograd, weights.architecture, self._sizes)
        self._blas = ThreadpoolController().select(user_api="blas")
        self._compile()

    def __call__(
        self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None
    ) -> list[NDArray[np.float32]]:
        """Run any number of rows, see `featurize.engines.Engine`."""
        with _LIMITING(), self._blas.limit(limits=1):  # the threads of the pool are enough
            rows = []
            for row in self._pool.map(lambda row: self._one(row, layers, below), inputs):
                interrupts.check()
                rows.append(row)
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _compile(self) -> None:
        """Compile, or load from numba's cache; a damaged cache is deleted and compiled again."""
        try:
            self._winograd.warm_up()
        except Exception:  # numba says nothing of its own about files that a power cut left half-written
            place = self._place()
            for path in place.glob("winograd.*.nb[ic]") if place else ():
                path.unlink(missing_ok=True)
            try:
                self._winograd.warm_up()
            except Exception as error:
                raise VggftError(
                    f"numba could not compile the engine or write to {place} ({type(error).__name__}: {error}). "
                    "Free some disk space, set NUMBA_CACHE_DIR to another folder, or use --engine keras."
                ) from error

    def _place(self) -> Path | None:
        kept = self._winograd.convolve.stats.cache_path
        return Path(kept) if kept else None

    def _one(self, row: NDArray[Any], layers: Sequence[str], below: str | None) -> list[NDArray[np.float32]]:
        source = below or _PIXELS
        self._buffers.picture(source)[:] = row if below else preprocessed(row, self._preprocess, self._architecture)
        chain, names = self._architecture.layers, self._architecture.names
        last = max(names.index(name) for name in layers)
        i = names.index(below) + 1 if below else 0
        while i <= last:
            pooling = i < last and not chain[i + 1].convolution
            if not chain[i].convolution:  # only right above `below`: others are pooled as they are convolved
                self._pool_alone(source, names[i])
            else:
                full = names[i] if names[i] in layers or not pooling else None
                self._layer(source, names[i], full, names[i + 1] if pooling else None)
                i += pooling
            source = names[i]
            i += 1
        return [self._buffers.picture(name).copy() for name in layers]

    def _layer(self, source: str, name: str, full: str | None, pooled: str | None) -> None:
        x, size = self._buffers.canvas(source), self._sizes[source]
        to = [self._buffers.canvas(output) if output else _NONE for output in (full, pooled)]
        if source == _PIXELS:
            self._winograd.convolve_pixels(x, size, *self._kernels[name], to[0])
        else:
            self._winograd.convolve(x, size, *self._kernels[name], *to, self._buffers.scratch)

    def _pool_alone(self, source: str, name: str) -> None:
        to = self._buffers.picture(name)
        height, width, filters = to.shape
        squares = self._buffers.picture(source)[: 2 * height, : 2 * width].reshape(height, 2, width, 2, filters)
        squares.max((1, 3), out=to)


class _Buffers(threading.local):
    """Buffers of one thread: a canvas for the output of each layer, and scratch memory."""

    def __init__(self, winograd: Any, architecture: Architecture, sizes: Mapping[str, int]) -> None:
        self._winograd = winograd
        self._filters = {_PIXELS: 3, **{layer.name: layer.filters for layer in architecture.layers}}
        self._sizes = sizes
        self._canvases: dict[str, NDArray[np.float32]] = {}
        inner = architecture.convolutions[1:]
        self.scratch = winograd.scratch([(sizes[layer.name], layer.channels, layer.filters) for layer in inner])

    def canvas(self, name: str) -> NDArray[np.float32]:
        """Return the canvas of a layer's output."""
        if name not in self._canvases:
            side = self._winograd.canvas_side(self._sizes[name])
            self._canvases[name] = np.zeros((side, side, self._filters[name]), np.float32)
        return self._canvases[name]

    def picture(self, name: str) -> NDArray[np.float32]:
        """Return the part of that canvas where the output is."""
        size = self._sizes[name]
        return self.canvas(name)[1 : 1 + size, 1 : 1 + size]
