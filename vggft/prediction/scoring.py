"""Files → class probabilities, batch by batch: while the model works on one, the next is read and decoded.

Memory holds a few batches of pictures, however many files there are.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts
from featurize.engines import CPU_BATCH
from featurize.pixels.decoding import Decoder, decode_or_reason, unreadable


@dataclass(frozen=True)
class Scorer:
    """A model that is ready to predict.

    Attributes:
        score: pictures uint8 (n, size, size, 3) → class probabilities (n, classes), for any n.
        batch_size: how many pictures it likes at once.
    """

    score: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
    batch_size: int = CPU_BATCH

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes)."""
        return self.score(pictures)


@dataclass(frozen=True)
class File:
    """A file that is to be predicted; `reason`: why it cannot be opened, if so."""

    path: Path
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """What came of a file.

    Attributes:
        digest: sha256 of its bytes; empty where it could not be read.
        probabilities: (classes,); None where there are none.
        reason: why there are none.
    """

    path: Path
    digest: str = ""
    probabilities: NDArray[np.float64] | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Decoded:
    path: Path
    digest: str
    picture: NDArray[np.uint8] | str


def scored(files: Iterable[File], decoder: Decoder, scorer: Scorer) -> Generator[Scored, None, None]:
    """Yield what comes of each file, in order. To be closed by who does not go to the end."""
    for batch in _batches(iter(files), decoder, scorer.batch_size):
        interrupts.check()
        usable = [one.picture for one in batch if not isinstance(one.picture, str)]
        rows: Iterator[NDArray[np.float64]] = iter(scorer(np.stack(usable)) if usable else ())
        for one in batch:
            if isinstance(one.picture, str):
                yield Scored(one.path, one.digest, reason=one.picture)
                continue
            p = next(rows)
            if np.isfinite(p).all():
                yield Scored(one.path, one.digest, p)
            else:  # the features of such a picture are kept in no cache, either
                yield Scored(one.path, one.digest, reason="its features are no numbers that float16 can hold")


def _batches(files: Iterator[File], decoder: Decoder, size: int) -> Iterator[list[_Decoded]]:
    """Yield `size` files at a time, decoded, with as many on their way."""
    waiting: deque[Future[_Decoded]] = deque()
    with interrupts.threads(os.cpu_count()) as pool:
        while True:
            while len(waiting) < 2 * size and (file := next(files, None)):
                waiting.append(pool.submit(_decoded, file, decoder))
            if not waiting:
                return
            yield [waiting.popleft().result() for _ in range(min(size, len(waiting)))]


def _decoded(file: File, decoder: Decoder) -> _Decoded:
    if file.reason:
        return _Decoded(file.path, "", file.reason)
    try:
        data = file.path.read_bytes()
    except OSError as error:
        return _Decoded(file.path, "", unreadable(error))
    return _Decoded(file.path, hashlib.sha256(data).hexdigest(), decode_or_reason(data, decoder))
