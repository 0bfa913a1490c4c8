"""The frozen base on `featurize.engines.winograd`: pictures in parallel, some per core."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.backbone.network import preprocessed
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.process import cores, interrupts

PART = 64  # of `featurize.engines.winograd`, which cannot be imported without numba
_PIXELS = "pixels"  # name of the input of the first layer
# Pictures that a core computes as a group: each reading of a kernel larger than they are serves all of them.
TOGETHER = 4
_GROUPS = 2  # of a core in a full batch; only at the end of a batch does a core wait for the others
_NONE = np.empty((0, 0, 0, 0), np.float32)


def computes(architecture: Architecture) -> bool:
    """Return whether this engine computes an architecture: the number of filters of each layer is a multiple of 64."""
    return all(layer.filters % PART == 0 for layer in architecture.layers)


@dataclass(frozen=True)
class _Step:
    """A convolution, or a pooling alone.

    Attributes:
        source: the layer that it reads, or the pixels.
        name: the layer.
        full: the layer, if its output is wanted, or None.
        pooled: the pooling that is computed with it, or None.
    """

    source: str
    name: str
    full: str | None
    pooled: str | None


def suits() -> bool:
    """Return whether this is probably the fastest engine on this CPU: one with AVX-512, in vectors of 16 numbers."""
    try:
        from featurize.engines import vectors
    except (ImportError, OSError):  # numba does not start, which whoever starts the engine is told
        return False
    return bool(vectors.LANES == 16)


class WinogradEngine:
    """Runs each picture on one thread. A row never depends on its neighbours."""

    name = "winograd"
    in_flight = 1

    def __init__(self, weights: Weights, fingerprint: Fingerprint) -> None:
        """Transform the kernels: a second, and 0.28 GB at 224 pixels. The first time on a machine, compile for some more.

        Raises:
            ImportError: numba is not installed, or does not start.
            VggftError: numba cannot compile.
        """
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
        self.batch_size, self.trial = _GROUPS * TOGETHER * threads, TOGETHER * threads
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        self._large = frozenset(self._larger_than_kernels())
        self._buffers = _Buffers(winograd, weights.architecture, self._sizes, self._large)
        self._compile()

    def __call__(
        self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None
    ) -> list[NDArray[np.float32]]:
        """Run any number of rows, see `featurize.engines.Engine`."""
        most = TOGETHER * self._threads
        groups = min(len(inputs), -(-len(inputs) // most) * self._threads)
        outputs = []
        for group in self._pool.map(lambda rows: self._group(rows, layers, below), np.array_split(inputs, groups)):
            interrupts.check()
            outputs.append(group)
        return [np.concatenate(column) for column in zip(*outputs, strict=True)]

    def _larger_than_kernels(self) -> Iterator[str]:
        """Return the layers, from the pixels on, that are read by convolutions whose kernel is smaller than their pictures."""
        source = _PIXELS
        for layer in self._architecture.layers:
            pictures = self._sizes[source] ** 2 * (layer.channels + layer.filters)  # read and written
            if layer.convolution and self._kernels[layer.name][0].size > pictures:
                return
            yield source
            source = layer.name

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

    def _group(self, rows: NDArray[Any], layers: Sequence[str], below: str | None) -> list[NDArray[np.float32]]:
        """Compute a few pictures: large outputs one after the other, so that they stay in the cache, small ones together."""
        source = below or _PIXELS
        steps = list(self._steps(source, layers))
        large = [step for step in steps if step.source in self._large]
        kept: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
        for i, row in enumerate(rows):
            here = slice(i, i + 1)
            self._buffers.pictures(source, here)[0] = (
                row if below else preprocessed(row, self._preprocess, self._architecture)
            )
            for step in large:
                self._run(step, here)
            for name in kept.keys() & self._large:
                kept[name].append(self._buffers.pictures(name, here).copy())
        everything = slice(0, len(rows))
        for step in steps[len(large) :]:
            self._run(step, everything)
        for name in kept.keys() - self._large:
            kept[name].append(self._buffers.pictures(name, everything).copy())
        return [np.concatenate(kept[name]) for name in layers]

    def _steps(self, source: str, layers: Sequence[str]) -> Iterator[_Step]:
        """Return what has to be computed from `source` up to the last of `layers`."""
        chain, names = self._architecture.layers, self._architecture.names
        last = max(names.index(name) for name in layers)
        i = names.index(source) + 1 if source != _PIXELS else 0
        while i <= last:
            name = names[i]
            # The first convolution does not pool what it computes.
            pooling = source != _PIXELS and chain[i].convolution and i < last and not chain[i + 1].convolution
            pooled = names[i + 1] if pooling else None
            yield _Step(source, name, name if name in layers or not pooling else None, pooled)
            source = pooled or name
            i += 1 + pooling

    def _run(self, step: _Step, pictures: slice) -> None:
        x, size = self._buffers.canvases(step.source, pictures), self._sizes[step.source]
        full, pooled = (self._buffers.canvases(to, pictures) if to else _NONE for to in (step.full, step.pooled))
        if step.source == _PIXELS:
            self._winograd.convolve_pixels(x, size, *self._kernels[step.name], full)
        elif step.name in self._kernels:
            self._winograd.convolve(x, size, *self._kernels[step.name], full, pooled, self._buffers.scratch)
        else:  # pooling right above a cached layer or the first convolution: elsewhere, it is part of a convolution
            to = self._buffers.pictures(step.name, pictures)
            number, height, width, filters = to.shape
            given = self._buffers.pictures(step.source, pictures)[:, : 2 * height, : 2 * width]
            given.reshape(number, height, 2, width, 2, filters).max((2, 4), out=to)


class _Buffers(threading.local):
    """Buffers of one thread: canvases for the output of each layer, of one picture where it is large, and scratch memory."""

    def __init__(
        self, winograd: Any, architecture: Architecture, sizes: Mapping[str, int], large: Collection[str]
    ) -> None:
        self._winograd = winograd
        self._filters = {_PIXELS: 3, **{layer.name: layer.filters for layer in architecture.layers}}
        self._sizes = sizes
        self._large = large
        self._canvases: dict[str, NDArray[np.float32]] = {}
        inner = architecture.convolutions[1:]
        self.scratch = winograd.scratch([(sizes[layer.name], layer.channels, layer.filters) for layer in inner])

    def canvases(self, name: str, pictures: slice) -> NDArray[np.float32]:
        """Return the canvases of a layer's output for these pictures of a group."""
        if name not in self._canvases:
            side = self._winograd.canvas_side(self._sizes[name])
            number = 1 if name in self._large else TOGETHER
            self._canvases[name] = np.zeros((number, side, side, self._filters[name]), np.float32)
        return self._canvases[name] if name in self._large else self._canvases[name][pictures]

    def pictures(self, name: str, pictures: slice) -> NDArray[np.float32]:
        """Return the parts of those canvases where the output is."""
        size = self._sizes[name]
        return self.canvases(name, pictures)[:, 1 : 1 + size, 1 : 1 + size]
