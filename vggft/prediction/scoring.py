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

from featurize.engines import CPU_BATCH
from featurize.pixels.decoding import Decoder, decode_or_reason, unreadable
from featurize.process import interrupts


@dataclass(frozen=True)
class Scorer:
    """A model that is ready to predict.

    Attributes:
        score: pictures uint8 (n, size, size, 3) → class probabilities (n, classes), for any n.
        batch_size: number of pictures that it predicts best at once.
    """

    score: Callable[[NDArray[np.uint8]], NDArray[np.float64]]
    batch_size: int = CPU_BATCH

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes)."""
        return self.score(pictures)


@dataclass(frozen=True)
class File:
    """A file to predict; `reason`: why it cannot be opened, or empty."""

    path: Path
    reason: str = ""


@dataclass(frozen=True)
class Scored:
    """A file that was predicted or rejected.

    Attributes:
        digest: sha256 of its bytes; empty where it could not be read.
        probabilities: (classes,); None where it was rejected.
        reason: why it was rejected.
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
    """Yield each file with its probabilities, in order. A caller that stops early must close the generator."""
    for batch in _batches(iter(files), decoder, scorer.batch_size):
        interrupts.check()
        usable = [decoded.picture for decoded in batch if not isinstance(decoded.picture, str)]
        rows: Iterator[NDArray[np.float64]] = iter(scorer(np.stack(usable)) if usable else ())
        for decoded in batch:
            if isinstance(decoded.picture, str):
                yield Scored(decoded.path, decoded.digest, reason=decoded.picture)
                continue
            p = next(rows)
            if np.isfinite(p).all():
                yield Scored(decoded.path, decoded.digest, p)
            else:  # featurize rejects such a picture, too
                yield Scored(decoded.path, decoded.digest, reason="its features are not finite in float16")


def _batches(files: Iterator[File], decoder: Decoder, size: int) -> Iterator[list[_Decoded]]:
    """Yield `size` decoded files at a time, while as many more are decoded."""
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
