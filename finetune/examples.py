"""Training inputs in any order: from the GPU's memory or this machine's if they fit, else read one window ahead of training.

The batches are the same either way, because the order is fixed before: a permutation of all images, of each the image itself or
one of its views. If the inputs do not fit, they are read in windows of that order; each window is read in the order of the disk,
while training uses the window before it.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.backbone.architecture import Architecture
from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.pixels.decoding import Decoder

_PIECE_BYTES = 8_000_000  # size of one read
_DECODE_AHEAD = 32  # pictures

Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Source:
    """A source of the inputs of n images.

    Attributes:
        pieces: positions (k,) → an iterator over (indices into these k positions, their inputs), a few images at a time, in any
            order.
        n: number of images.
        shape, dtype: shape and dtype of one input.
    """

    pieces: Callable[[Positions], Iterator[tuple[Positions, NDArray[Any]]]]
    n: int
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def row_bytes(self) -> int:
        """Bytes of one input in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def from_cache(cache: FeatureCache, name: str, digests: Sequence[str]) -> Source:
    """Return a source of cached outputs of the layer `name`, float16 (n, height, width, filters)."""
    shape = cache.architecture.layer(name).shape(cache.fingerprint.size)
    rows = max(1, _PIECE_BYTES // cached_bytes(cache.architecture, name, cache.fingerprint.size))

    def pieces(positions: Positions) -> Iterator[tuple[Positions, NDArray[Any]]]:
        yield from cache.pieces(name, [digests[i] for i in positions], rows)

    return Source(pieces, len(digests), shape, np.float16)


def from_pixels(files: Mapping[str, Sequence[Path]], decoder: Decoder, size: int, digests: Sequence[str]) -> Source:
    """Return a source of pictures, uint8 (n, size, size, 3), decoded each time they are read.

    Args:
        files: digest → files with this digest.
    """

    def pieces(positions: Positions) -> Iterator[tuple[Positions, NDArray[Any]]]:
        at: dict[str, list[int]] = {}
        for i, position in enumerate(positions):
            at.setdefault(digests[position], []).append(i)
        for digest, picture in runner.decoded({d: files[d] for d in at}, decoder, _DECODE_AHEAD):
            if isinstance(picture, str):
                raise VggftError(
                    f"{files[digest][0]}: {picture}. Tuning from pixels needs every image. Restore it and run the command again, "
                    "or resume the run: vggft finetune --resume. Or run vggft featurize without it, and tune again."
                )
            yield np.array(at[digest]), picture

    return Source(pieces, len(digests), (size, size, 3), np.uint8)


def joined(sources: Sequence[Source]) -> Source:
    """Return the inputs of sources of the same n images as one: those of source k are at k · n and after."""
    first = sources[0]

    def pieces(positions: Positions) -> Iterator[tuple[Positions, NDArray[Any]]]:
        for k, source in enumerate(sources):
            mine = np.flatnonzero(positions // first.n == k)
            if len(mine):
                for indices, piece in source.pieces(positions[mine] % first.n):
                    yield mine[indices], piece

    return Source(pieces, first.n * len(sources), first.shape, first.dtype)


@dataclass(frozen=True)
class Examples:
    """Images of one split.

    Attributes:
        rows: the inputs: of the n images, then of their first views, and so on.
        targets: indices of the true classes, int64 (n,).
        views: number of views of each image.
    """

    rows: "Rows"
    targets: NDArray[np.int64]
    views: int = 0


class Rows:
    """The inputs of n images, in memory or streamed.

    Attributes:
        window: number of images in a window, if streamed; None if all inputs are in memory.
    """

    def __init__(
        self, source: Source, window: int | None = None, progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """Without a window, read all inputs into memory.

        Args:
            progress: called with the number of inputs read so far.
        """
        self.window = window
        self._source = source
        self._all: Any = None if window else self._read(np.arange(source.n), threading.Event(), progress)
        self._on_device = False

    @property
    def bytes(self) -> int:
        """Bytes of all inputs, in memory or not."""
        return self._source.n * self._source.row_bytes

    def to_device(self) -> None:
        """Move the inputs from memory to the device of Keras's backend, so that no batch has to be gathered and sent there."""
        from keras import ops

        self._all = ops.convert_to_tensor(self._all)
        self._on_device = True

    def batches(self, order: Positions, size: int) -> Iterator[Any]:
        """Yield the inputs of `order` in batches of `size`, a divisor of the window; the last batch may be smaller.

        Batches are arrays, or tensors of Keras's backend after `to_device`.
        """
        if self._all is not None:
            for first in range(0, len(order), size):
                yield self._some(order[first : first + size])
            return
        assert self.window is not None
        windows = [order[first : first + self.window] for first in range(0, len(order), self.window)]
        stop = threading.Event()
        with ThreadPoolExecutor(1) as reader:
            try:
                next_window = reader.submit(self._read, windows[0], stop)
                for i in range(len(windows)):
                    rows = next_window.result()
                    if i + 1 < len(windows):
                        next_window = reader.submit(self._read, windows[i + 1], stop)
                    for first in range(0, len(rows), size):
                        yield rows[first : first + size]
            finally:
                stop.set()  # do not wait for a window that is no longer needed, for example after Ctrl-C

    def _some(self, positions: Positions) -> Any:
        if not self._on_device:
            return self._all[positions]
        from keras import ops

        return ops.take(self._all, positions, axis=0)

    def _read(
        self, positions: Positions, stop: threading.Event, progress: Callable[[int], None] = lambda count: None
    ) -> NDArray[Any]:
        rows = np.empty((len(positions), *self._source.shape), self._source.dtype)
        count = 0
        for indices, piece in self._source.pieces(positions):
            rows[indices] = piece
            count += len(indices)
            progress(count)
            if stop.is_set():
                break
        return rows


def require_memory(memory: int, row_bytes: int, batch_size: int) -> None:
    """Check that two batches of inputs fit into `memory` bytes.

    Args:
        row_bytes: bytes of one input.

    Raises:
        VggftError: they do not fit.
    """
    required = 2 * batch_size * row_bytes
    if memory < required:
        raise VggftError(
            f"--memory: {memory / 1e6:.1f} MB is too little for two batches of {batch_size} images ({required / 1e6:.1f} MB). "
            "Increase it, or lower --batch-size."
        )


def windows(sources: Sequence[Source], memory: int, batch_size: int) -> list[int | None]:
    """Return the window of each source: None if all sources fit into `memory` bytes together, else the largest that fits.

    While streaming, at most two windows are in memory, because sources are read one after the other.
    """
    if sum(source.n * source.row_bytes for source in sources) <= memory:
        return [None for _ in sources]
    return [max(1, memory // (2 * batch_size * source.row_bytes)) * batch_size for source in sources]


def cached_bytes(architecture: Architecture, name: str, size: int) -> int:
    """Return the bytes in memory of one cached output of a layer, for pictures of `size` × `size` pixels."""
    return int(np.prod(architecture.layer(name).shape(size))) * np.dtype(np.float16).itemsize


def picture_bytes(size: int) -> int:
    """Return the bytes in memory of a picture of `size` × `size` pixels."""
    return size * size * 3
