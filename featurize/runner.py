"""The pipeline decode → engine → cache. Committed rows are kept, so an interrupted run is continued by running it again.

Decoder, engine and cache are passed in. Memory is bounded by a few batches and shards, whatever the number of images.
"""

import contextlib
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

from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.options.choices import SHARD_ROWS
from featurize.pixels import decoding
from featurize.pixels.decoding import Decoder
from featurize.process import cores, interrupts

SHARD_SECONDS = 60.0
_DECODE_AHEAD = 3  # batches
# An engine with several batches in flight is faster than decoding in threads: on 16 cores, 16 threads decoded 1,700 pictures per
# second, and 16 processes 5,500. Processes take about half a second to start, so they are used only for this many pictures.
_MIN_PICTURES_FOR_PROCESSES = 1_000
_PICTURES_PER_MESSAGE = 8  # of a decoding process


class Sink(Protocol):
    """Receives finished rows: the feature cache, or a fake in tests."""

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> None:
        """Commit rows, with attributes that describe how they were computed."""

    def writing_in_processes(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which each thread that writes does so in a process of its own."""


@dataclass(frozen=True)
class Step:
    """The computation of `layers` from the outputs of the layer `below`, or from pixels if `below` is None."""

    layers: Sequence[str]
    below: str | None = None


@dataclass
class Outcome:
    """The result of a run: number of computed images, and digest → reason of rejected ones."""

    computed: int = 0
    rejected: dict[str, str] = field(default_factory=dict)


def run(
    work: Mapping[str, Sequence[Path]],
    layers: Sequence[str],
    decoder: Decoder,
    engine: Engine,
    sink: Sink,
    *,
    progress: Callable[[int], None] = lambda count: None,
    shard_rows: int = SHARD_ROWS,
) -> Outcome:
    """Compute `layers` for every digest in `work`, and commit a shard every `shard_rows` rows or every minute.

    Args:
        work: digest → files with this digest; the first one that can be read and has not changed is used.
        layers: names of the layers to compute.
        progress: called with the number of processed digests.

    Raises:
        VggftError: a feature is outside the range of float16.
    """
    processes = engine.in_flight > 1 and len(work) >= _MIN_PICTURES_FOR_PROCESSES
    pictures = decoded(work, decoder, _DECODE_AHEAD * engine.batch_size, processes=processes)
    with sink.writing_in_processes() if processes else contextlib.nullcontext():
        return compute(pictures, Step(layers), engine, sink, progress=progress, shard_rows=shard_rows)


def compute(
    inputs: Iterable[tuple[str, NDArray[Any] | str]],
    step: Step,
    engine: Engine,
    sink: Sink,
    *,
    progress: Callable[[int], None] = lambda count: None,
    shard_rows: int = SHARD_ROWS,
) -> Outcome:
    """Run an engine on the inputs, and commit a shard every `shard_rows` rows or every minute.

    Args:
        inputs: pairs of a digest and a picture, a row of the layer below, or the reason why there is neither.
        step: which layers to compute, and from what.
        progress: called with the number of processed digests.

    Raises:
        VggftError: a feature is outside the range of float16.
    """
    outcome = Outcome()
    attributes = {
        "engine": engine.name,
        "batch_size": str(engine.batch_size),
        "computed_from": step.below or "pixels",
    }
    with _Shards(step.layers, sink, attributes, writers=engine.in_flight) as shards:
        batches = _batches(inputs, min(engine.batch_size, shard_rows), outcome.rejected)
        for digests, outputs in _computed(batches, step, engine):
            if shards.rows + len(digests) > shard_rows:
                shards.commit()
            shards.add(digests, outputs)
            interrupts.check()
            outcome.computed += len(digests)
            if shards.rows == shard_rows or shards.age >= SHARD_SECONDS:
                shards.commit()
            progress(outcome.computed + len(outcome.rejected))
    return outcome


def decoded(
    work: Mapping[str, Sequence[Path]], decoder: Decoder, ahead: int, *, processes: bool = False
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Decode `work` in threads; yield pairs of a digest and a picture, or the reason why there is none, in order.

    Args:
        ahead: number of pictures to decode ahead.
        processes: decode in one process per thread; `decoder` must then be picklable.
    """
    files = list(work.items())
    size = _PICTURES_PER_MESSAGE if processes else 1
    with contextlib.ExitStack() as stack:
        decode: Callable[[Sequence[tuple[str, Sequence[Path]]]], list[NDArray[np.uint8] | str]]
        decode = partial(_decoded_here, decoder=decoder)
        if processes:
            decode = stack.enter_context(contextlib.closing(decoding.Processes(decoder)))
        pool = stack.enter_context(interrupts.threads(cores.usable()))
        waiting: deque[tuple[int, Future[list[NDArray[np.uint8] | str]]]] = deque()
        for first in range(0, len(files), size):
            waiting.append((first, pool.submit(decode, files[first : first + size])))
            if len(waiting) * size >= ahead:
                yield from _finished(files, *waiting.popleft())
        while waiting:
            yield from _finished(files, *waiting.popleft())


def _decoded_here(files: Sequence[tuple[str, Sequence[Path]]], decoder: Decoder) -> list[NDArray[np.uint8] | str]:
    return [decoding.picture(digest, paths, decoder) for digest, paths in files]


def _finished(
    files: Sequence[tuple[str, Sequence[Path]]], first: int, future: Future[list[NDArray[np.uint8] | str]]
) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    pictures = interrupts.result(future)
    for (digest, _), picture in zip(files[first : first + len(pictures)], pictures, strict=True):
        yield digest, picture


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
    """Yield digests and outputs of each batch, in order, with `engine.in_flight` batches in flight."""

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
    """Collects rows into shards: one shard is filled while up to `writers` earlier ones are written, each in a thread.

    Leaving the context commits the remaining rows, also after Ctrl-C.
    """

    def __init__(self, layers: Sequence[str], sink: Sink, attributes: Mapping[str, str], writers: int) -> None:
        self._layers = layers
        self._sink = sink
        self._attributes = attributes
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
            if output.dtype == np.float16:  # the engine has checked every value: see `featurize.engines.Engine`
                rows = rows[:, :1]
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                raise VggftError(
                    f"image with digest {digests[int(np.argmin(finite))]}: outputs of {layer} are NaN, infinite or above 65,504, "
                    "the largest float16. With --weights, check that these are the right weights."
                )
        self._parts.append((digests, narrow))  # one operation, so that an interrupt cannot separate digests and rows

    def commit(self) -> None:
        """Pass the rows to a writer as soon as one is free; memory holds at most one shard more than there are writers."""
        if not self._parts:
            self._clear()
            return
        try:
            self._wait(self._writers - 1)
        except (
            Exception
        ):  # writing failed, for example on a full disk: drop the rows (an interrupt is not an Exception)
            self._clear()
            raise
        self._writing.append(self._writer.submit(self._write, self._parts))
        self._clear()

    def _wait(self, at_most: int = 0) -> None:
        """Wait until at most `at_most` shards are being written."""
        while len(self._writing) > at_most:
            self._writing[0].result()
            self._writing.popleft()

    def _write(self, parts: list[tuple[Sequence[str], list[NDArray[np.float16]]]]) -> None:
        """Write rows and release their memory. If an interrupt in `commit` submits the same rows twice, they are written once."""
        with self._taking:
            taken = parts[:]
            parts.clear()
        digests = [digest for part, _ in taken for digest in part]
        if not digests:
            return
        # Removes the parts of each layer as they are concatenated, so that memory does not hold all layers twice.
        features = {layer: np.concatenate([arrays.pop(0) for _, arrays in taken]) for layer in self._layers}
        self._sink.write(digests, features, self._attributes)
