"""Filling a workspace's feature cache: missing rows are computed from the highest cached layer below them."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurize import runner
from featurize.backbone import weights
from featurize.cache import estimate, sharing, timings
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.timings import Timing
from featurize.data.dataset import Sample
from featurize.disk import durable
from featurize.engines import Engine, rate
from featurize.errors import VggftError
from featurize.options.choices import SHARD_ROWS, EngineName
from featurize.pixels import images
from featurize.pixels.decoding import Decoder
from featurize.runner import Step
from featurize.wording import counted, size
from vggft.ui.console import Advance, Ui, duration
from vggft.workspace.backbone import start_engine

_KEEP_DECODED = 16  # pictures in memory while files are only checked for being decodable
_ROWS_AT_ONCE = 64  # cached rows read at once, when a layer is computed from one below it
_DAMAGED_SHOWN = 5


@dataclass(frozen=True)
class Filling:
    """What the cache has to hold: digest → files with those bytes, the layers, and the file of the weights.

    `doubtful`: digests that could not be decoded last time; they are tried again before an engine is started for them.
    """

    files: Mapping[str, Sequence[Path]]
    layers: Sequence[str]
    weights_file: Path | None = None
    doubtful: frozenset[str] = field(default_factory=frozenset)
    shard_rows: int = SHARD_ROWS
    engine: EngineName = "auto"


@dataclass(frozen=True)
class Filled:
    """What was computed: number of digests, digest → reason for the rejected ones, and the engine (None: not needed)."""

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


def decoder(fingerprint: Fingerprint) -> Decoder:
    """Return the decoder of a fingerprint.

    Raises:
        VggftError: it is that of another version of vggft.
    """
    if fingerprint.decoder != images.DECODER_VERSION:
        raise VggftError(
            f"the features here were made with version {fingerprint.decoder} of the decoder, and this vggft has version "
            f"{images.DECODER_VERSION}. Run vggft featurize to compute them again, or use the vggft that made them."
        )
    return partial(
        images.decode_resized, size=fingerprint.size, resize=fingerprint.resize, perturbation=fingerprint.probe
    )


def require(cache: FeatureCache, filling: Filling) -> None:
    """Check that missing rows can be computed and stored. Writes nothing.

    Raises:
        VggftError: rows are missing, and there are no weights to compute them with, or not enough disk space.
    """
    steps = plan(cache, filling, filling.doubtful)
    if steps:
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
    starts: dict[str, dict[str, str]] = defaultdict(
        dict
    )  # layer → digest → the layer it is computed from, "" for pixels
    for layer in sorted({*filling.layers, *cache.lost_rows}, key=architecture.position):
        lost = cache.lost_rows.get(layer, frozenset())
        wanted = [digest for digest in filling.files if layer in filling.layers or digest in lost]
        lacking = [digest for digest in cache.missing([layer], wanted) if digest not in without]
        if lost:  # from the layer they were computed from before, to the same bits
            before = cache.computed_from(layer)
            unfit = set(cache.missing([before], lacking) if before else ())
            for digest in lacking:
                if digest in lost and digest not in unfit:
                    starts[layer][digest] = before or ""
            lacking = [digest for digest in lacking if digest not in lost or digest in unfit]
        for below in reversed(architecture.names[: architecture.position(layer)]):
            if lacking and below in cache.layers:
                still = set(cache.missing([below], lacking))
                for digest in lacking:
                    if digest not in still:
                        starts[layer][digest] = below
                lacking = [digest for digest in lacking if digest in still]
        for digest in lacking:
            starts[layer][digest] = ""
    work: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for digest in filling.files:
        own = [(start[digest], layer) for layer, start in starts.items() if digest in start]
        for below in dict.fromkeys(start for start, _ in own):
            work[below, tuple(layer for start, layer in own if start == below)].append(digest)
    return {Step(layers, below or None): digests for (below, layers), digests in work.items()}


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
    again = {
        d: filling.files[d] for d in cache.missing(filling.layers, sorted(filling.doubtful & filling.files.keys()))
    }
    rejected = {d: p for d, p in runner.decoded(again, decoder(cache.fingerprint), _KEEP_DECODED) if isinstance(p, str)}
    work = plan(cache, filling, frozenset(rejected))
    if not work:
        cache.save_index()
        return Filled(0, rejected, None)

    announced = engine is not None
    engine = engine or start_engine(
        cache.architecture,
        cache.fingerprint,
        filling.weights_file,
        filling.engine,
        ui,
        images=sum(len(wanted) for step, wanted in work.items() if step.below is None),
    )
    computed: set[str] = set()
    for step, wanted in work.items():
        if not announced:
            _announce(cache, step, len(wanted), engine, ui)
        began = time.perf_counter()
        try:
            with ui.progress("computing", len(wanted)) as advance:
                outcome = _compute(
                    cache, step, {d: filling.files[d] for d in wanted}, engine, filling.shard_rows, advance
                )
        except BaseException:
            with contextlib.suppress(VggftError, OSError):  # the first error is the one to report
                cache.save_index()
            raise
        cache.save_index()
        rejected |= outcome.rejected
        computed |= set(wanted) - outcome.rejected.keys()
        spent = time.perf_counter() - began
        timing = Timing(" ".join(step.layers), step.below or "", engine.name, len(wanted), spent)
        timings.add(cache.folder, timing)
    return Filled(len(computed), rejected, engine.name)


def _compute(
    cache: FeatureCache,
    step: Step,
    files: Mapping[str, Sequence[Path]],
    engine: Engine,
    shard_rows: int,
    advance: Advance,
) -> runner.Outcome:
    if step.below is None:
        decode = decoder(cache.fingerprint)
        return runner.run(files, step.layers, decode, engine, cache, progress=advance, shard_rows=shard_rows)
    rows = cache.rows(step.below, list(files), _ROWS_AT_ONCE)
    return runner.compute(rows, step, engine, cache, progress=advance, shard_rows=shard_rows)


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


def _announce(cache: FeatureCache, step: Step, number: int, engine: Engine, ui: Ui) -> None:
    """Announce what is computed, with the disk space it needs and the time, estimated from a short trial."""
    what = f"computing {' and '.join(step.layers)} of {counted(number, 'image')}"
    start = f" from cached {step.below}" if step.below else ""
    room = size(estimate.bytes_needed(cache, step.layers, number))
    took = ""
    if number > engine.trial:
        pixels = cache.fingerprint.size
        shape = cache.architecture.layer(step.below).shape(pixels) if step.below else (pixels, pixels, 3)
        took = f" and {duration(number / rate(engine, shape, step.layers, step.below))}"
    ui.say(f"{what}{start} on {engine.name}: about {room} on disk{took}")


def as_it_was(path: Path, digest: str) -> bool:
    """Return whether a file still has the bytes that featurize read."""
    try:
        return durable.sha256(path) == digest
    except OSError:
        return False
