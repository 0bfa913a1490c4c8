"""Filling a workspace's feature cache: missing rows are computed from the highest cached layer below them."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from featurize import runner
from featurize.backbone import weights
from featurize.backbone.architecture import POOLED
from featurize.cache import estimate, sharing, timings
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.timings import Timing
from featurize.cluster.cluster import Cluster
from featurize.data.dataset import Dataset, Sample
from featurize.disk import durable
from featurize.engines import Engine, PoolingEngine, rate
from featurize.errors import VggftError
from featurize.options.choices import SHARD_ROWS, EngineName
from featurize.runner import Step
from featurize.wording import counted, size
from vggft.ui.console import Ui, duration
from vggft.workspace import on_workers
from vggft.workspace.backbone import decoder, start_engine
from vggft.workspace.on_workers import FATAL, ROWS_AT_ONCE, Computed, Files, Job

_KEEP_DECODED = 16  # pictures in memory while files are only checked for being decodable
_DAMAGED_SHOWN = 5


@dataclass(frozen=True)
class Means:
    """What computes features, and the most rows in one file. With `on`, the workers of that cluster compute them."""

    engine: EngineName = "auto"
    shard_rows: int = SHARD_ROWS
    on: Cluster | None = None


@dataclass(frozen=True)
class Filling:
    """What the cache has to hold: digest → files with those bytes, the layers, and the file of the weights.

    Attributes:
        doubtful: digest → reason why it could not be decoded last time; it is tried again before an engine is started for it,
            unless it ends the process.
    """

    files: Mapping[str, Sequence[Path]]
    layers: Sequence[str]
    weights_file: Path | None = None
    doubtful: Mapping[str, str] = field(default_factory=dict)
    means: Means = field(default_factory=Means)

    @property
    def fatal(self) -> Mapping[str, str]:
        """The doubtful ones that end the process, which are not tried."""
        return {d: reason for d, reason in self.doubtful.items() if reason.startswith(FATAL) and d in self.files}


@dataclass(frozen=True)
class Filled:
    """What was computed: number of digests, digest → reason for the rejected ones, and the engine (None: no network ran)."""

    computed: int
    rejected: Mapping[str, str]
    engine: str | None


class _Files(Mapping[str, Sequence[Path]]):
    """Digest → files with those bytes, whose paths are made when they are asked for: a Path takes 390 bytes."""

    def __init__(self, root: Path, samples: Iterable[Sample]) -> None:
        self._root = root
        self._paths: dict[str, tuple[str, ...]] = {}
        for sample in samples:
            self._paths[sample.digest] = (*self._paths.get(sample.digest, ()), sample.path)

    def __getitem__(self, digest: str) -> Sequence[Path]:
        return [self._root / path for path in self._paths[digest]]

    def __contains__(self, digest: object) -> bool:
        return digest in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def files_of(root: Path, samples: Iterable[Sample]) -> Mapping[str, Sequence[Path]]:
    """Return digest → files of some images."""
    return _Files(root, samples)


def require(cache: FeatureCache, filling: Filling) -> None:
    """Check that missing rows can be computed and stored. Writes nothing.

    Raises:
        VggftError: rows are missing, and there are no weights to compute them with, or not enough disk space.
    """
    steps = plan(cache, filling, frozenset(filling.doubtful))
    if steps:
        if network_runs(cache, steps):
            weights.locate(cache.architecture, filling.weights_file)
        needed = sum(estimate.bytes_needed(cache, step.layers, len(wanted)) for step, wanted in steps.items())
        estimate.require_room(cache.folder, needed, len({digest for wanted in steps.values() for digest in wanted}))


def plan(cache: FeatureCache, filling: Filling, without: frozenset[str]) -> dict[Step, list[str]]:
    """Return which digests each step computes: from the highest cached layer below the wanted one, else from pixels.

    Lost rows are computed again, also those of layers that are not asked for this time.

    Args:
        without: digests to leave out.
    """
    architecture = cache.architecture
    # Layer → digest → the layer it is computed from, "" for pixels.
    starts: dict[str, dict[str, str]] = defaultdict(dict)
    for layer in sorted({*filling.layers, *cache.lost_rows}, key=architecture.position):
        lost = cache.lost_rows.get(layer, frozenset())
        wanted = [digest for digest in filling.files if layer in filling.layers or digest in lost]
        lacking = [digest for digest in cache.missing([layer], wanted) if digest not in without]
        if layer == POOLED:  # also what is lost: heads read from the maps what they would read from these rows
            lacking = _starting_from(architecture.top, cache, lacking, starts[layer])
        if lost:  # from the layer they were computed from before, to the same bits
            before = cache.computed_from(layer)
            unfit = set(cache.missing([before], lacking) if before else ())
            for digest in lacking:
                if digest in lost and digest not in unfit:
                    starts[layer][digest] = before or ""
            lacking = [digest for digest in lacking if digest not in lost or digest in unfit]
        for below in reversed(architecture.names[: architecture.position(layer)]):
            if lacking and below in cache.layers:
                lacking = _starting_from(below, cache, lacking, starts[layer])
        for digest in lacking:
            starts[layer][digest] = ""
    work: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for digest in filling.files:
        lacking_layers = [(start[digest], layer) for layer, start in starts.items() if digest in start]
        for below in dict.fromkeys(start for start, _ in lacking_layers):
            work[below, tuple(layer for start, layer in lacking_layers if start == below)].append(digest)
    return {Step(layers, below or None): digests for (below, layers), digests in work.items()}


def _starting_from(below: str, cache: FeatureCache, lacking: Sequence[str], starts: dict[str, str]) -> list[str]:
    """Note in `starts` the digests that have a row of the layer `below`, and return the others."""
    without = set(cache.missing([below], lacking))
    starts.update((digest, below) for digest in lacking if digest not in without)
    return [digest for digest in lacking if digest in without]


def network_runs(cache: FeatureCache, steps: Iterable[Step]) -> bool:
    """Return whether some step needs the network: from cached outputs of the last layer, only `POOLED` is computed."""
    return any(step.below != cache.architecture.top for step in steps)


def fill(cache: FeatureCache, filling: Filling, ui: Ui, engine: Engine | None = None) -> Filled:
    """Compute missing rows and commit them to the cache. The workspace's lock must be held.

    Args:
        engine: an engine that is running already, and was announced; None: one is chosen, started and announced.
    """
    with sharing.locked(cache.folder.parent, ui.say) as shared:
        if shared:
            cache.refresh()
        return _fill(cache, filling, ui, engine)


def _fill(cache: FeatureCache, filling: Filling, ui: Ui, engine: Engine | None) -> Filled:
    _set_aside(cache, ui)
    uncertain = sorted(filling.doubtful.keys() & filling.files.keys() - filling.fatal.keys())
    again = {d: filling.files[d] for d in cache.missing(filling.layers, uncertain)}
    pictures = runner.decoded(again, decoder(cache.fingerprint), _KEEP_DECODED)
    rejected = {**filling.fatal, **{d: p for d, p in pictures if isinstance(p, str)}}
    work = plan(cache, filling, frozenset(rejected))
    if not work:
        cache.save_index()
        return Filled(0, rejected, None)

    announced = engine is not None
    if engine is None and not network_runs(cache, work):
        engine = PoolingEngine(cache.architecture)
    elif engine is None and filling.means.on is None:
        engine = start_engine(
            cache.architecture,
            cache.fingerprint,
            filling.weights_file,
            filling.means.engine,
            ui,
            images=sum(len(wanted) for step, wanted in work.items() if step.below is None),
        )
    computed: set[str] = set()
    engines: set[str] = set()
    for step, wanted in work.items():
        files = {digest: filling.files[digest] for digest in wanted}
        if not announced:
            _announce(cache, step, len(files), engine or filling.means.on, ui)
        try:
            outcome = (
                _compute(cache, step, files, engine, filling, ui)
                if engine
                else _compute_on(cache, step, files, filling, ui)
            )
        except BaseException:
            with contextlib.suppress(VggftError, OSError):  # the first error is the one to report
                cache.save_index()
            raise
        cache.save_index()
        rejected |= outcome.rejected
        computed |= files.keys() - outcome.rejected.keys()
        engines |= outcome.engines
    return Filled(len(computed), rejected, ", ".join(sorted(engines)) if network_runs(cache, work) else None)


def _compute(cache: FeatureCache, step: Step, files: Files, engine: Engine, filling: Filling, ui: Ui) -> Computed:
    """Compute rows in this process."""
    began, rows = time.perf_counter(), filling.means.shard_rows
    with ui.progress("computing", len(files)) as advance:
        if step.below is None:
            decode = decoder(cache.fingerprint)
            outcome = runner.run(files, step.layers, decode, engine, cache, progress=advance, shard_rows=rows)
        else:
            below = cache.rows(step.below, list(files), ROWS_AT_ONCE)
            outcome = runner.compute(below, step, engine, cache, progress=advance, shard_rows=rows)
    spent = time.perf_counter() - began
    timings.add(cache.folder, Timing(" ".join(step.layers), step.below or "", engine.name, len(files), spent))
    return Computed(outcome.rejected, {engine.name})


def _compute_on(cache: FeatureCache, step: Step, files: Files, filling: Filling, ui: Ui) -> Computed:
    """Compute rows on the workers of a cluster. How long that takes says nothing of this machine, and is not kept."""
    means = filling.means
    assert means.on is not None
    job = Job(
        cache.architecture,
        cache.fingerprint,
        cache.folder.parent.absolute(),
        step,
        filling.weights_file.absolute() if filling.weights_file else None,
        means.engine,
        means.shard_rows,
    )
    with ui.progress("computing", len(files)) as advance:
        return on_workers.compute(means.on, cache, job, files, advance, ui.warn)


def _set_aside(cache: FeatureCache, ui: Ui) -> None:
    """Quarantine damaged shards and report them: their rows are computed again like all missing ones."""
    for name, reason in list(cache.damaged.items())[:_DAMAGED_SHOWN]:
        ui.warn(f"{cache.shards / name}.h5 is damaged ({reason}): quarantined, its images are computed again")
    for name in cache.lost[:_DAMAGED_SHOWN]:
        ui.warn(f"{cache.shards / name}.h5 is gone: its images are computed again")
    more = len(cache.damaged) + len(cache.lost)
    if more > _DAMAGED_SHOWN:
        ui.warn(f"{more} files of the cache are damaged or missing in total")
    cache.quarantine()


def _announce(cache: FeatureCache, step: Step, number: int, by: Engine | Cluster | None, ui: Ui) -> None:
    """Announce what is computed, with the disk space it needs; for an engine also the time, estimated from a short trial."""
    top = cache.architecture.top
    layers = [f"pooled {top}" if name == POOLED else name for name in step.layers]
    what = f"computing {' and '.join(layers)} of {counted(number, 'image')}"
    start = f" from cached {step.below}" if step.below else ""
    room = size(estimate.bytes_needed(cache, step.layers, number))
    on, took = "", ""
    if isinstance(by, Cluster):
        on = f" on {counted(by.workers, 'worker')} of {by.address}"
    elif by is not None and network_runs(cache, [step]):
        on = f" on {by.name}"
    if by is not None and not isinstance(by, Cluster) and number > by.trial:
        pixels = cache.fingerprint.size
        shape = cache.architecture.layer(step.below).shape(pixels) if step.below else (pixels, pixels, 3)
        took = f" and {duration(number / rate(by, shape, step.layers, step.below))}"
    ui.say(f"{what}{start}{on}: about {room} on disk{took}")


def copies(dataset: Dataset, digests: Collection[str]) -> Mapping[str, Sequence[Path]]:
    """Return digest → files of the data set, also those that were set aside as copies."""
    return files_of(dataset.root, (sample for sample in dataset.samples if sample.digest in digests))


def as_it_was(path: Path, digest: str) -> bool:
    """Return whether a file still has the bytes that featurize read."""
    try:
        return durable.sha256(path) == digest
    except OSError:
        return False
