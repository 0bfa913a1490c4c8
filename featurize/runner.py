"""decode → engine → cache as one bounded pipeline. What is committed stays; a stopped run is simply run again.

The collaborators are handed in: a decoder, an engine, a cache. Memory holds a few batches and one or two shards,
however many images there are.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.images import Unreadable

SHARD_ROWS = 512
SHARD_SECONDS = 60.0
_DECODE_AHEAD = 3  # batches decoded before the engine asks for them

Decoder = Callable[[bytes], NDArray[np.uint8]]


class Sink(Protocol):
    """Where finished rows go; the feature cache, or a stand-in for tests."""

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], made: Mapping[str, str]
    ) -> None:
        """Commit rows."""


@dataclass
class Outcome:
    """What a run did: images computed, and digest → reason for those it could not use."""

    computed: int = 0
    rejected: dict[str, str] = field(default_factory=dict)


def run(
    work: Mapping[str, Sequence[Path]],
    layers: Sequence[str],
    decoder: Decoder,
    engine: Engine,
    sink: Sink,
    *,
    progress: Callable[[int], None] = lambda done: None,
    shard_rows: int = SHARD_ROWS,
) -> Outcome:
    """Compute `layers` for every digest in `work` and commit them, at most `shard_rows` rows or a minute at a time.

    Args:
        work: digest → files with those bytes; the first that still reads and still hashes to the digest is used.
        layers: names of the engine's outputs, in its order.
        progress: called with the number of digests dealt with so far.

    Raises:
        VggftError: a feature that float16 cannot hold.
    """
    outcome = Outcome()
    shard = _Shard(
        layers, sink, {"engine": engine.name, "batch_size": str(engine.batch_size), "computed_from": "pixels"}
    )
    size = min(engine.batch_size, shard_rows)
    try:
        for batch in _batches(decoded(work, decoder, _DECODE_AHEAD * size), size, outcome.rejected):
            if shard.rows + len(batch) > shard_rows or shard.age >= SHARD_SECONDS:
                shard.commit()
            digests = [digest for digest, _ in batch]
            shard.add(digests, engine(np.stack([picture for _, picture in batch])))
            outcome.computed += len(batch)
            progress(outcome.computed + len(outcome.rejected))
    finally:  # also after Ctrl-C: rows that are computed are kept
        shard.commit()
    return outcome


def decoded(
    work: Mapping[str, Sequence[Path]], decoder: Decoder, ahead: int
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Yield (digest, picture or the reason why there is none) in the order of `work`, with `ahead` of them in threads."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[tuple[str, Future[NDArray[np.uint8] | str]]] = deque()
        try:
            for digest, paths in work.items():
                waiting.append((digest, pool.submit(_picture, digest, paths, decoder)))
                if len(waiting) >= ahead:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _picture(digest: str, paths: Sequence[Path], decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode the first of `paths` that reads and still has these bytes; else return the last reason."""
    reason = "no file"
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = unreadable(error)
            continue
        if hashlib.sha256(data).hexdigest() == digest:
            return decode_or_reason(data, decoder)
        reason = "changed while vggft was running; run featurize again"
    return reason


def decode_or_reason(data: bytes, decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode one file's bytes; return the reason where there is no picture in them."""
    try:
        return decoder(data)
    except Unreadable as error:
        return str(error)


def unreadable(error: OSError) -> str:
    """Say why a file could not be read."""
    return f"cannot be read: {error.strerror or error}"


def _batches(
    pictures: Iterable[tuple[str, NDArray[np.uint8] | str]],
    size: int,
    rejected: dict[str, str],
) -> Iterator[list[tuple[str, NDArray[np.uint8]]]]:
    batch: list[tuple[str, NDArray[np.uint8]]] = []
    for digest, picture in pictures:
        if isinstance(picture, str):
            rejected[digest] = picture
            continue
        batch.append((digest, picture))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Shard:
    """Rows on their way to one shard."""

    def __init__(self, layers: Sequence[str], sink: Sink, made: Mapping[str, str]) -> None:
        self._layers = layers
        self._sink = sink
        self._made = made
        self._clear()

    def _clear(self) -> None:
        self._parts: list[tuple[Sequence[str], list[NDArray[np.float16]]]] = []
        self._since = time.perf_counter()

    @property
    def rows(self) -> int:
        return sum(len(digests) for digests, _ in self._parts)

    @property
    def age(self) -> float:
        return time.perf_counter() - self._since

    def add(self, digests: Sequence[str], outputs: Sequence[NDArray[np.float32]]) -> None:
        narrow = []
        for layer, output in zip(self._layers, outputs, strict=True):
            with np.errstate(over="ignore"):
                narrow.append(output.astype(np.float16))
            finite = np.isfinite(narrow[-1]).reshape(len(output), -1).all(axis=1)
            if not finite.all():
                raise VggftError(
                    f"{layer} of the image with digest {digests[int(np.argmin(finite))]} holds a number that float16 cannot "
                    "(above 65,504, or no number). With --weights: are these the right weights?"
                )
        self._parts.append((digests, narrow))  # in one step: an interrupt finds digests and rows together or neither

    def commit(self) -> None:
        if self._parts:
            digests = [digest for part, _ in self._parts for digest in part]
            columns = zip(*(arrays for _, arrays in self._parts), strict=True)
            features = {layer: np.concatenate(arrays) for layer, arrays in zip(self._layers, columns, strict=True)}
            try:
                self._sink.write(digests, features, self._made)
            except Exception:  # a full disk is not tried again; an interrupt is no Exception, and its rows are
                self._clear()
                raise
        self._clear()
