"""The images that training sees, in any order: from memory where they fit, else read a window ahead of the training.

Either way the batches are the same: an order is a permutation of all images, never of a part of them. What does not fit
is read in windows of that order, each in the order of the disk, while the window before it is trained on.
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

_PIECE_BYTES = 8_000_000  # read at once on the way to where they are kept
_DECODE_AHEAD = 32

Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Source:
    """Where the inputs of n images come from.

    Attributes:
        pieces: positions (k,) → pairs of places among these k and the inputs for them, a few at a time, in any order.
        n: number of images.
        shape, dtype: of the input of one image.
    """

    pieces: Callable[[Positions], Iterator[tuple[Positions, NDArray[Any]]]]
    n: int
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def row_bytes(self) -> int:
        """What the input of one image takes in memory."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def from_cache(cache: FeatureCache, name: str, digests: Sequence[str]) -> Source:
    """Return cached outputs of a layer, float16 (n, height, width, filters), of images by digest."""
    shape = cache.architecture.layer(name).shape(cache.fingerprint.size)
    at_once = max(1, _PIECE_BYTES // cached_bytes(cache.architecture, name, cache.fingerprint.size))

    def pieces(positions: Positions) -> Iterator[tuple[Positions, NDArray[Any]]]:
        yield from cache.pieces(name, [digests[i] for i in positions], at_once)

    return Source(pieces, len(digests), shape, np.float16)


def from_pixels(files: Mapping[str, Sequence[Path]], decoder: Decoder, size: int, digests: Sequence[str]) -> Source:
    """Return pictures uint8 (n, size, size, 3) of images by digest, decoded whenever they are asked for.

    Args:
        files: digest → files with those bytes.
    """

    def pieces(positions: Positions) -> Iterator[tuple[Positions, NDArray[Any]]]:
        at: dict[str, list[int]] = {}
        for i, position in enumerate(positions):
            at.setdefault(digests[position], []).append(i)
        for digest, picture in runner.decoded({d: files[d] for d in at}, decoder, _DECODE_AHEAD):
            if isinstance(picture, str):
                raise VggftError(
                    f"{files[digest][0]}: {picture}. From pixels, every image that featurize saw is needed. Put it back, and go "
                    "on (a training: vggft finetune --resume); or run vggft featurize, to go on without it, and tune anew."
                )
            yield np.array(at[digest]), picture

    return Source(pieces, len(digests), (size, size, 3), np.uint8)


@dataclass(frozen=True)
class Examples:
    """Images of one split.

    Attributes:
        rows: their inputs.
        targets: positions of the true classes, int64 (n,).
    """

    rows: "Rows"
    targets: NDArray[np.int64]


class Rows:
    """The inputs of n images, in memory or read a window ahead.

    Attributes:
        window: images read at once where they are streamed; None where all are in memory.
    """

    def __init__(
        self, source: Source, window: int | None = None, progress: Callable[[int], None] = lambda done: None
    ) -> None:
        """Take a source; without a window all of it is read, now, and kept.

        Args:
            progress: told how many inputs are read.
        """
        self.window = window
        self._source = source
        self._all = None if window else self._read(np.arange(source.n), threading.Event(), progress)

    def batches(self, order: Positions, size: int) -> Iterator[NDArray[Any]]:
        """Yield the inputs of `order`, `size` at a time (a divisor of the window), the last time those that are left."""
        if self._all is not None:
            for first in range(0, len(order), size):
                yield self._all[order[first : first + size]]
            return
        assert self.window is not None
        parts = [order[first : first + self.window] for first in range(0, len(order), self.window)]
        enough = threading.Event()
        with ThreadPoolExecutor(1) as reader:
            try:
                following = reader.submit(self._read, parts[0], enough)
                for i in range(len(parts)):
                    rows = following.result()
                    if i + 1 < len(parts):
                        following = reader.submit(self._read, parts[i + 1], enough)
                    for first in range(0, len(rows), size):
                        yield rows[first : first + size]
            finally:
                enough.set()  # nobody waits for a window that nobody wants: after Ctrl-C, say

    def _read(
        self, positions: Positions, enough: threading.Event, progress: Callable[[int], None] = lambda done: None
    ) -> NDArray[Any]:
        rows = np.empty((len(positions), *self._source.shape), self._source.dtype)
        done = 0
        for places, piece in self._source.pieces(positions):
            rows[places] = piece
            done += len(places)
            progress(done)
            if enough.is_set():
                break
        return rows


def require_memory(memory: int, row_bytes: int, batch_size: int) -> None:
    """See that two batches of inputs, of so many bytes each, fit into `memory` bytes.

    Raises:
        VggftError: they do not.
    """
    least = 2 * batch_size * row_bytes
    if memory < least:
        raise VggftError(
            f"--memory: {memory / 1e6:.1f} MB do not hold two batches of {batch_size} images, which take {least / 1e6:.1f} MB. "
            "Expected more, or a smaller --batch-size."
        )


def windows(sources: Sequence[Source], memory: int, batch_size: int) -> list[int | None]:
    """Return the window of each source: None where all fit into `memory` bytes together, else what streaming has room for.

    Streaming, at most two windows of one source are in memory, and of the others nothing, as one is read at a time.
    """
    if sum(source.n * source.row_bytes for source in sources) <= memory:
        return [None for _ in sources]
    return [max(1, memory // (2 * batch_size * source.row_bytes)) * batch_size for source in sources]


def cached_bytes(architecture: Architecture, name: str, size: int) -> int:
    """Return what a row of a layer takes in memory, for pictures of `size` pixels."""
    return int(np.prod(architecture.layer(name).shape(size))) * np.dtype(np.float16).itemsize


def picture_bytes(size: int) -> int:
    """Return what a picture takes in memory."""
    return size * size * 3
