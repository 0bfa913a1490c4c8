"""Computing features on the workers of a cluster: a task is a shard.

A worker gets digests and paths, decodes and computes them as `featurize.runner` does, writes the shard into the cache's folder,
which all machines share, and returns its name. Only this process writes the index. A worker that dies loses its shard in flight,
and a picture that ends the workers that read it is found by halving.
"""

import contextlib
import functools
import math
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.backbone.architecture import Architecture
from featurize.cache import shards
from featurize.cache.feature_cache import FINGERPRINT_FILE, FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cluster.cluster import Cluster, Done
from featurize.disk.digests import pack
from featurize.engines import Engine
from featurize.errors import VggftError
from featurize.options.choices import EngineName
from featurize.runner import Outcome, Step
from featurize.wording import counted
from vggft.ui.console import Advance
from vggft.workspace.backbone import decoder, start_engine

FATAL = "ends every process that reads it"  # how the reason begins for which a picture is not tried again
_FEWEST = 32  # rows of a task, where there is little to do for many workers
_TASKS = 4  # for each worker, where there is little to do: they do not all end at the same time
ROWS_AT_ONCE = 64  # cached rows read at once, when a layer is computed from one below it

Files = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Job:
    """What all tasks have in common.

    Attributes:
        folder: the cache folder, with one folder a fingerprint.
    """

    architecture: Architecture
    fingerprint: Fingerprint
    folder: Path
    step: Step
    weights_file: Path | None
    engine: EngineName
    shard_rows: int


@dataclass(frozen=True)
class Written:
    """What a task did: the names of its shards, digest → reason for pictures that cannot be decoded, engine and host."""

    shards: Sequence[str]
    rejected: Mapping[str, str]
    engine: str
    host: str


@dataclass
class Computed:
    """What all tasks did.

    Attributes:
        rejected: digest → reason.
        engines: names of those that computed.
        done: number of digests that were computed or rejected.
    """

    rejected: dict[str, str] = field(default_factory=dict)
    engines: set[str] = field(default_factory=set)
    done: int = 0


class _Sink:
    """Writes shards, and remembers their names."""

    def __init__(self, job: Job) -> None:
        self._folder = job.folder / job.fingerprint.key / "shards"
        self._fingerprint = job.fingerprint.json
        self.names: list[str] = []

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> None:
        """Write one shard."""
        attributes = {"fingerprint": self._fingerprint, **attributes}
        self.names.append(shards.write(self._folder, pack(digests), features, attributes))

    def writing_in_processes(self) -> contextlib.AbstractContextManager[None]:
        """Write in this process: a task is one shard."""
        return contextlib.nullcontext()


def compute(
    cluster: Cluster, cache: FeatureCache, job: Job, files: Files, advance: Advance, warn: Callable[[str], None]
) -> Computed:
    """Compute rows on the workers, and index them here.

    Args:
        files: digest → files with those bytes.
        advance: called with the number of digests that are done.
        warn: called with messages for the user.

    Raises:
        VggftError: the scheduler is gone; or a worker cannot do what this process can.
    """
    cache.shards.mkdir(parents=True, exist_ok=True)
    cache.describe()
    found = Computed()
    call: Callable[[Files], Written] = functools.partial(compute_shard, job)

    def take(task: Done[Files, Written]) -> bool:
        """Return whether there is a result."""
        if task.result is None:  # its workers died
            return False
        _index(cache, task.result)
        found.rejected |= _rejected(cache.fingerprint, job.step, task.item, task.result)
        found.engines.add(task.result.engine)
        found.done += len(task.item)
        advance(found.done, what=f"computing on {counted(cluster.workers, 'worker')}")
        return True

    suspected = [task.item for task in cluster.run(call, _tasks(cluster, cache, job, files)) if not take(task)]
    while suspected:
        item = suspected.pop()
        if len(item) > 1:
            suspected += [half for half in _halves(item) if not take(cluster.run_alone(call, half))]
            continue
        _require_sound(cluster, job)
        ((digest, paths),) = item.items()
        found.rejected[digest] = f"{FATAL}: tried alone, on workers of {cluster.address}"
        found.done += 1
        warn(f"{paths[0]}: {found.rejected[digest]}")
    return found


def _require_sound(cluster: Cluster, job: Job) -> None:
    """Check that workers do not die whatever they compute, before a picture is blamed.

    Raises:
        VggftError: they do.
    """
    if cluster.run_alone(compute_blank, job).died:
        raise VggftError(
            f"{cluster.address}: workers die on every task: probably out of memory, or they cannot run the engine. Look at "
            "what they print, and start them with more memory (dask worker --memory-limit 0 sets no limit), or "
            "choose another --engine. Features that are finished are kept."
        )


def _tasks(cluster: Cluster, cache: FeatureCache, job: Job, files: Files) -> Iterator[Files]:
    """Yield the files of each task, fewer than fill a shard where there would not be enough tasks for all workers."""
    digests = cache.in_order(job.step.below, list(files)) if job.step.below else list(files)
    enough = math.ceil(len(digests) / (_TASKS * max(1, cluster.workers)))
    size = min(job.shard_rows, max(_FEWEST, enough))
    for first in range(0, len(digests), size):
        yield {digest: files[digest] for digest in digests[first : first + size]}


def _halves(files: Files) -> list[Files]:
    items = list(files.items())
    middle = len(items) // 2
    return [dict(items[:middle]), dict(items[middle:])]


def _index(cache: FeatureCache, written: Written) -> None:
    for name in written.shards:
        try:
            cache.adopt(name)
        except FileNotFoundError:
            raise VggftError(
                f"{written.host} has written {name}.h5 into {cache.shards}, and it is not there. All machines must see the same "
                "folder under this path, such as on a network file system."
            ) from None


def _rejected(fingerprint: Fingerprint, step: Step, files: Files, written: Written) -> Mapping[str, str]:
    """Return the pictures that this machine rejects, too.

    Raises:
        VggftError: it can decode one of them.
    """
    again = {digest: files[digest] for digest in written.rejected}
    if step.below is not None:
        return written.rejected
    for digest, picture in runner.decoded(again, decoder(fingerprint), len(again) + 1):
        if not isinstance(picture, str):
            raise VggftError(
                f"{files[digest][0]}: {written.host} cannot decode it ({written.rejected[digest]}), and this machine can. All "
                "machines must see the pictures under the same path, and have the same versions of vggft and Pillow."
            )
    return written.rejected


def compute_shard(job: Job, files: Files) -> Written:
    """Compute and write some rows; called on a worker.

    Raises:
        VggftError: this machine cannot: the message names it.
    """
    _require_folder(job)
    engine, sink = _engine_of(job), _Sink(job)
    outcome = _outcome(job, files, engine, sink)
    return Written(sink.names, outcome.rejected, engine.name, socket.gethostname())


def compute_blank(job: Job) -> None:
    """Compute a blank row and keep nothing; called on a worker."""
    size, below = job.fingerprint.size, job.step.below
    shape = (size, size, 3) if below is None else job.architecture.layer(below).shape(size)
    _engine_of(job)(np.zeros((1, *shape), np.uint8 if below is None else np.float16), job.step.layers, below)


def _outcome(job: Job, files: Files, engine: Engine, sink: _Sink) -> Outcome:
    if job.step.below is None:
        return runner.run(files, job.step.layers, decoder(job.fingerprint), engine, sink, shard_rows=job.shard_rows)
    cache = FeatureCache(job.folder, job.fingerprint, job.architecture)
    rows = cache.rows(job.step.below, list(files), ROWS_AT_ONCE)
    return runner.compute(rows, job.step, engine, sink, shard_rows=job.shard_rows)


def _require_folder(job: Job) -> None:
    folder = job.folder / job.fingerprint.key
    if not (folder / FINGERPRINT_FILE).is_file():
        raise VggftError(f"{folder}: not there. All machines must see the same folder under this path.")


def _engine_of(job: Job) -> Engine:
    plain = replace(job.fingerprint, probe="")  # views have the same engine
    return _engine(job.architecture, plain, job.weights_file, job.engine)


@functools.lru_cache(maxsize=1)
def _engine(
    architecture: Architecture, fingerprint: Fingerprint, weights_file: Path | None, wanted: EngineName
) -> Engine:
    """Return an engine, which is kept for the tasks that follow."""
    return start_engine(architecture, fingerprint, weights_file, wanted)
