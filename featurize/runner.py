"""decode → engine → cache as one bounded pipeline. What is committed stays; a stopped run is simply run again.

The collaborators are handed in: a decoder, an engine, a cache. Memory holds a few batches and one or two shards,
however many images there are.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts
from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.options.choices import SHARD_ROWS
from featurize.pixels import decoding
from featurize.pixels.decoding import Decoder

SHARD_SECONDS = 60.0
_DECODE_AHEAD = 3  # batches decoded before the engine asks for them
# An engine that takes several batches at once is faster than threads decode: 16 of them gave 1,700 pictures a second on 16
# cores, 16 processes 5,500. These take about half a second to start, which fewer pictures are not worth.
_WORTH_PROCESSES = 1_000


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
    processes = engine.in_flight > 1 and len(work) >= _WORTH_PROCESSES
    pictures = decoded(work, decoder, _DECODE_AHEAD * engine.batch_size, processes=processes)
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
    with _Shards(step.layers, sink, made, writers=engine.in_flight) as shards:
        batches = _batches(inputs, min(engine.batch_size, shard_rows), outcome.rejected)
        for digests, outputs in _computed(batches, step, engine):
            if shards.rows + len(digests) > shard_rows:
                shards.commit()
            interrupts.check()
            shards.add(digests, outputs)
            outcome.computed += len(digests)
            if shards.rows == shard_rows or shards.age >= SHARD_SECONDS:
                shards.commit()
            progress(outcome.computed + len(outcome.rejected))
    return outcome


def decoded(
    work: Mapping[str, Sequence[Path]], decoder: Decoder, ahead: int, *, processes: bool = False
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Yield (digest, picture or the reason why there is none) in the order of `work`, with `ahead` of them in threads.

    Args:
        processes: each thread has a process that decodes for it; `decoder` must then be one that pickle can name.
    """
    with contextlib.ExitStack() as end:
        decode: Callable[[str, Sequence[Path]], NDArray[np.uint8] | str] = partial(decoding.picture, decoder=decoder)
        if processes:
            decode = end.enter_context(contextlib.closing(decoding.Processes(decoder)))
        pool = end.enter_context(interrupts.threads(os.cpu_count()))
        waiting: deque[tuple[str, Future[NDArray[np.uint8] | str]]] = deque()
        for digest, paths in work.items():
            waiting.append((digest, pool.submit(decode, digest, paths)))
            if len(waiting) >= ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


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


def _computed(
    batches: Iterable[list[tuple[str, NDArray[Any]]]], step: Step, engine: Engine
) -> Iterator[tuple[list[str], list[NDArray[Any]]]]:
    """Yield digests and outputs of each batch, in order, with as many batches on their way as the engine asks for."""

    def compute(batch: list[tuple[str, NDArray[Any]]]) -> tuple[list[str], list[NDArray[Any]]]:
        rows = np.stack([row for _, row in batch])
        return [digest for digest, _ in batch], engine(rows, step.layers, step.below)

    if engine.in_flight == 1:
        yield from map(compute, batches)
        return
    with ThreadPoolExecutor(engine.in_flight, "engine") as pool:
        waiting: deque[Future[tuple[list[str], list[NDArray[Any]]]]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(compute, batch))
                if len(waiting) > engine.in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Shards:
    """Rows on their way to the cache: one shard is filled while the ones before it are written, each by a thread of its own.

    Leaving the context commits the rest, also after Ctrl-C: rows that are computed are kept.
    """

    def __init__(self, layers: Sequence[str], sink: Sink, made: Mapping[str, str], writers: int) -> None:
        self._layers = layers
        self._sink = sink
        self._made = made
        self._writers = writers
        self._writer = ThreadPoolExecutor(writers, "writer")
        self._writing: deque[Future[None]] = deque()
        self._taking = threading.Lock()
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

    def add(self, digests: Sequence[str], outputs: Sequence[NDArray[Any]]) -> None:
        narrow = []
        for layer, output in zip(self._layers, outputs, strict=True):
            with np.errstate(over="ignore"):
                narrow.append(output.astype(np.float16, copy=False))
            rows = narrow[-1].reshape(len(output), -1)
            if output.dtype == np.float16:  # checked by the engine: see `featurize.engines.Engine`
                rows = rows[:, :1]
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise VggftError(
                    f"{layer} of the image with digest {digests[int(np.argmin(finite))]} holds a number that float16 cannot "
                    "(above 65,504, or no number). With --weights: are these the right weights?"
                )
        self._parts.append((digests, narrow))  # in one step: an interrupt finds digests and rows together or neither

    def commit(self) -> None:
        """Hand the rows to a writer, once one is free: memory holds one shard more than there are writers."""
        if not self._parts:
            self._clear()
            return
        try:
            self._wait(self._writers - 1)
        except Exception:  # a full disk is not tried again; an interrupt is no Exception, and its rows are
            self._clear()
            raise
        self._writing.append(self._writer.submit(self._write, self._parts))
        self._clear()

    def _wait(self, left: int = 0) -> None:
        """Wait until no more than `left` shards are being written."""
        while len(self._writing) > left:
            self._writing[0].result()
            self._writing.popleft()

    def _write(self, parts: list[tuple[Sequence[str], list[NDArray[np.float16]]]]) -> None:
        """Write rows and let go of them; rows that an interrupt, between two steps of `commit`, hands in again are gone."""
        with self._taking:
            taken = parts[:]
            parts.clear()
        digests = [digest for part, _ in taken for digest in part]
        if not digests:
            return
        # Popped layer by layer, as they are joined: memory would hold them twice until they are on the disk.
        features = {layer: np.concatenate([arrays.pop(0) for _, arrays in taken]) for layer in self._layers}
        self._sink.write(digests, features, self._made)
