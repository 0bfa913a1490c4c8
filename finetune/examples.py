"""The images that training sees, in any order: from memory where they fit, else read a window ahead of the training.

Either way the batches are the same: an order is a permutation of all images, never of a part of them. What does not fit
is read in windows of that order, each in the order of the disk, while the window before it is trained on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.cache import FeatureCache
from featurize.errors import VggftError
from featurize.layers import layer

_ROWS_AT_ONCE = 256  # read from the cache in one piece
_DECODE_AHEAD = 32

Read = Callable[[NDArray[np.intp]], NDArray[Any]]


@dataclass(frozen=True)
class Source:
    """Where the inputs of n images come from.

    Attributes:
        read: positions (k,) → inputs (k, …), in their order.
        n: number of images.
        row_bytes: what one takes in memory.
    """

    read: Read
    n: int
    row_bytes: int


def from_cache(cache: FeatureCache, name: str, digests: Sequence[str]) -> Source:
    """Return cached outputs of a layer, float16 (n, height, width, filters), of images by digest."""
    shape = layer(name).shape(cache.fingerprint.size)

    def read(positions: NDArray[np.intp]) -> NDArray[np.float16]:
        rows = np.empty((len(positions), *shape), np.float16)
        for at, piece in cache.pieces(name, [digests[i] for i in positions], _ROWS_AT_ONCE):
            rows[at] = piece
        return rows

    return Source(read, len(digests), _cached_bytes(name, cache.fingerprint.size))


def from_pixels(
    files: Mapping[str, Sequence[Path]], decoder: runner.Decoder, size: int, digests: Sequence[str]
) -> Source:
    """Return pictures uint8 (n, size, size, 3) of images by digest, decoded whenever they are asked for.

    Args:
        files: digest → files with those bytes.
    """

    def read(positions: NDArray[np.intp]) -> NDArray[np.uint8]:
        pictures = np.empty((len(positions), size, size, 3), np.uint8)
        at: dict[str, list[int]] = {}
        for i, position in enumerate(positions):
            at.setdefault(digests[position], []).append(i)
        for digest, picture in runner.decoded({d: files[d] for d in at}, decoder, _DECODE_AHEAD):
            if isinstance(picture, str):
                raise VggftError(
                    f"{files[digest][0]}: {picture}. Training needs every image that featurize saw. Put it back, and go on with "
                    "vggft finetune --resume; or run vggft featurize, to go on without it, and tune anew."
                )
            pictures[at[digest]] = picture
        return pictures

    return Source(read, len(digests), _picture_bytes(size))


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

    def __init__(self, source: Source, window: int | None = None) -> None:
        """Take a source; without a window all of it is read, now, and kept."""
        self.window = window
        self._source = source
        self._all = source.read(np.arange(source.n)) if window is None else None

    def batches(self, order: NDArray[np.intp], size: int) -> Iterator[NDArray[Any]]:
        """Yield the inputs of `order`, `size` at a time (a divisor of the window), the last time those that are left."""
        if self._all is not None:
            for first in range(0, len(order), size):
                yield self._all[order[first : first + size]]
            return
        assert self.window is not None
        parts = [order[first : first + self.window] for first in range(0, len(order), self.window)]
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._source.read, parts[0])
            for i in range(len(parts)):
                rows = following.result()
                if i + 1 < len(parts):
                    following = reader.submit(self._source.read, parts[i + 1])
                for first in range(0, len(rows), size):
                    yield rows[first : first + size]


def require_memory(memory: int, split_point: str | None, size: int, batch_size: int) -> None:
    """See that two batches of inputs fit into `memory` bytes.

    Args:
        split_point: whose outputs the inputs are; None: pictures of `size` pixels.

    Raises:
        VggftError: they do not.
    """
    least = 2 * batch_size * (_cached_bytes(split_point, size) if split_point else _picture_bytes(size))
    if memory < least:
        raise VggftError(
            f"--memory: {memory / 1e6:.1f} MB do not hold two batches of {batch_size} images, which take {least / 1e6:.1f} MB. "
            "Expected more, or a smaller --batch-size."
        )


def share(sources: Sequence[Source], memory: int, batch_size: int) -> list[Rows]:
    """Read all sources into memory if they fit into `memory` bytes together; else stream each of them.

    Streaming, at most two windows of one source are in memory, and of the others nothing, as one is read at a time.
    """
    if sum(source.n * source.row_bytes for source in sources) <= memory:
        return [Rows(source) for source in sources]
    return [Rows(source, max(1, memory // (2 * batch_size * source.row_bytes)) * batch_size) for source in sources]


def _cached_bytes(name: str, size: int) -> int:
    return int(np.prod(layer(name).shape(size))) * np.dtype(np.float16).itemsize


def _picture_bytes(size: int) -> int:
    return size * size * 3
