"""Files → class probabilities, batch by batch: while the model works on one, the next is read and decoded.

A file whose features are known by its digest is not decoded. Memory holds a few batches, however many files there are.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.engines import CPU_BATCH
from featurize.pixels.decoding import Decoder, contents, decode_or_reason, unreadable
from featurize.pixels.images import Unreadable
from featurize.process import cores, interrupts


class Scorer(ABC):
    """A model that is ready to predict.

    Attributes:
        batch_size: number of pictures that are best predicted at once.
        note: what went wrong without changing a prediction, or empty.
    """

    batch_size: int = CPU_BATCH
    note = ""

    @abstractmethod
    def __call__(self, pictures: NDArray[np.uint8], digests: Sequence[str] = ()) -> NDArray[np.float64]:
        """Return class probabilities (n, classes).

        Args:
            pictures: uint8 (n, size, size, 3), RGB.
            digests: of the files with these pictures, under which what is computed may be kept.
        """

    def knows(self, digest: str) -> bool:
        """Return whether `recall` can predict the file with this digest. Called from several threads; raises no OSError."""
        return False

    def recall(self, digests: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Return digest → class probabilities (classes,) without pixels; fewer where features cannot be read after all."""
        return {}

    def close(self) -> None:  # noqa: B027 (nothing is to be done where nothing is kept)
        """Keep what was computed."""


class PixelScorer(Scorer):
    """A model that reads pixels."""

    def __init__(self, score: Callable[[NDArray[np.uint8]], NDArray[np.float64]], batch_size: int = CPU_BATCH) -> None:
        """Wrap a function from pictures uint8 (n, size, size, 3) to class probabilities (n, classes), for any n."""
        self._score = score
        self.batch_size = batch_size

    def __call__(self, pictures: NDArray[np.uint8], digests: Sequence[str] = ()) -> NDArray[np.float64]:
        """See `Scorer`."""
        return self._score(pictures)


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
    """A file that was read; `picture`: its pixels, or why there are none, or None where the scorer knows its digest."""

    path: Path
    digest: str
    picture: NDArray[np.uint8] | str | None


def scored(files: Iterable[File], decoder: Decoder, scorer: Scorer) -> Generator[Scored, None, None]:
    """Yield each file with its probabilities, in order. A caller that stops early must close the generator."""
    for batch in _batches(iter(files), decoder, scorer):
        interrupts.check()
        recalled = scorer.recall([decoded.digest for decoded in batch if decoded.picture is None])
        pictured = [
            _decoded(File(decoded.path), decoder)
            if decoded.picture is None and decoded.digest not in recalled
            else decoded
            for decoded in batch
        ]
        pictures = {decoded.digest: decoded.picture for decoded in pictured if isinstance(decoded.picture, np.ndarray)}
        computed = scorer(np.stack(list(pictures.values())), list(pictures)) if pictures else ()
        p_of = {**recalled, **dict(zip(pictures, computed, strict=True))}
        for decoded in pictured:
            if isinstance(decoded.picture, str):
                yield Scored(decoded.path, decoded.digest, reason=decoded.picture)
                continue
            p = p_of[decoded.digest]
            if np.isfinite(p).all():
                yield Scored(decoded.path, decoded.digest, p)
            else:  # featurize rejects such a picture, too
                yield Scored(decoded.path, decoded.digest, reason="its features are not finite in float16")


def _batches(files: Iterator[File], decoder: Decoder, scorer: Scorer) -> Iterator[list[_Decoded]]:
    """Yield files as many at a time as the scorer predicts best, while as many more are read and decoded."""
    waiting: deque[Future[_Decoded]] = deque()
    with interrupts.threads(cores.usable()) as pool:
        while True:
            size = scorer.batch_size
            while len(waiting) < 2 * size and (file := next(files, None)):
                waiting.append(pool.submit(_decoded, file, decoder, scorer.knows))
            if not waiting:
                return
            yield [interrupts.result(waiting.popleft()) for _ in range(min(size, len(waiting)))]


def _decoded(file: File, decoder: Decoder, knows: Callable[[str], bool] = lambda digest: False) -> _Decoded:
    if file.reason:
        return _Decoded(file.path, "", file.reason)
    try:
        with contents(file.path) as data:
            digest = hashlib.sha256(data).hexdigest()
            return _Decoded(file.path, digest, None if knows(digest) else decode_or_reason(data, decoder))
    except OSError as error:
        return _Decoded(file.path, "", unreadable(error))
    except Unreadable as error:
        return _Decoded(file.path, "", str(error))
