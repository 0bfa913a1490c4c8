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
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts
from featurize.choices import SHARD_ROWS
from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.pixels.images import Unreadable

SHARD_SECONDS = 60.0
_DECODE_AHEAD = 3  # batches decoded before the engine asks for them

Decoder = Callable[[bytes], NDArray[np.uint8]]


class Sink(Protocol):
    """Where finished rows go; the feature cache, or a stand-in for tests."""

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], made: Mapping[str, str]
    ) -> None:
        """Commit rows."""


@dataclass(frozen=True)
class Step:
    """What an engine is to do: compute `layers` from the outputs of the layer `below`; None: from pixels."""

    layers: Sequence[str]
    below: str | None = None


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
        layers: names of the wanted layers.
        progress: called with the number of digests dealt with so far.

    Raises:
        VggftError: a feature that float16 cannot hold.
    """
    pictures = decoded(work, decoder, _DECODE_AHEAD * engine.batch_size)
    return compute(pictures, Step(layers), engine, sink, progress=progress, shard_rows=shard_rows)


def compute(
    inputs: Iterable[tuple[str, NDArray[Any] | str]],
    step: Step,
    engine: Engine,
    sink: Sink,
    *,
    progress: Callable[[int], None] = lambda done: None,
    shard_rows: int = SHARD_ROWS,
) -> Outcome:
    """Run an engine over inputs and commit what comes out, at most `shard_rows` rows or a minute at a time.

    Args:
        inputs: (digest, picture or row of the layer below, or the reason why there is none).
        step: from where to where.
        progress: called with the number of digests dealt with so far.

    Raises:
        VggftError: a feature that float16 cannot hold.
    """
    outcome = Outcome()
    made = {
        "engine": engine.name,
        "batch_size": str(engine.batch_size),
        "computed_from": step.below or "pixels",
    }
    with _Shards(step.layers, sink, made) as shards:
        for batch in _batches(inputs, min(engine.batch_size, shard_rows), outcome.rejected):
            if shards.rows + len(batch) > shard_rows:
                shards.commit()
            interrupts.check()
            digests = [digest for digest, _ in batch]
            shards.add(digests, engine(np.stack([row for _, row in batch]), step.layers, step.below))
            outcome.computed += len(batch)
            if shards.rows == shard_rows or shards.age >= SHARD_SECONDS:
                shards.commit()
            progress(outcome.computed + len(outcome.rejected))
    return outcome


def decoded(
    work: Mapping[str, Sequence[Path]], decoder: Decoder, ahead: int
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Yield (digest, picture or the reason why there is none) in the order of `work`, with `ahead` of them in threads."""
    waiting: deque[tuple[str, Future[NDArray[np.uint8] | str]]] = deque()
    with interrupts.threads(os.cpu_count()) as pool:
        for digest, paths in work.items():
            waiting.append((digest, pool.submit(_picture, digest, paths, decoder)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


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
    inputs: Iterable[tuple[str, NDArray[Any] | str]], size: int, rejected: dict[str, str]
) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    batch: list[tuple[str, NDArray[Any]]] = []
    for digest, row in inputs:
        if isinstance(row, str):
            rejected[digest] = row
            continue
        batch.append((digest, row))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _Shards:
    """Rows on their way to the cache: one shard is filled while the one before it is written by a thread of its own.

    Leaving the context commits the rest, also after Ctrl-C: rows that are computed are kept.
    """

    def __init__(self, layers: Sequence[str], sink: Sink, made: Mapping[str, str]) -> None:
        self._layers = layers
        self._sink = sink
        self._made = made
        self._writer = ThreadPoolExecutor(1, "writer")
        self._writing: Future[None] | None = None
        self._clear()

    def __enter__(self) -> "_Shards":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.commit()
            self._wait()
        finally:
            self._writer.shutdown()

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
        """Hand the rows to the writer, once it is done with those before: memory holds two shards at most."""
        if not self._parts:
            self._clear()
            return
        try:
            self._wait()
        except Exception:  # a full disk is not tried again; an interrupt is no Exception, and its rows are
            self._clear()
            raise
        self._writing = self._writer.submit(self._write, self._parts)
        self._clear()

    def _wait(self) -> None:
        if self._writing is not None:
            writing = self._writing
            writing.result()
            self._writing = None

    def _write(self, parts: list[tuple[Sequence[str], list[NDArray[np.float16]]]]) -> None:
        """Write rows and let go of them; rows that an interrupt, between two steps of `commit`, hands in again are gone."""
        digests = [digest for part, _ in parts for digest in part]
        if not digests:
            return
        # Popped layer by layer, as they are joined: memory would hold them twice until they are on the disk.
        features = {layer: np.concatenate([arrays.pop(0) for _, arrays in parts]) for layer in self._layers}
        parts.clear()
        self._sink.write(digests, features, self._made)
