"""Filling a workspace's feature cache: what is missing is computed, from as far up as the cache allows."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurize import durable, estimate, images, runner, timings, weights
from featurize.cache import FeatureCache
from featurize.decoding import Decoder
from featurize.engines import Engine, choose, create, rate
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint
from featurize.layers import NAMES
from featurize.runner import Step
from featurize.timings import Timing
from featurize.weights import Weights
from vggft.console import Advance, Ui, duration
from vggft.workspace import Settings

_KEEP_DECODED = 16  # pictures in memory while only looking whether they decode
_ROWS_AT_ONCE = 64  # cached rows read at once, when a layer is computed from one below it
_DAMAGED_SHOWN = 5


@dataclass(frozen=True)
class Filling:
    """What is to be in the cache: digest → files with those bytes, the layers, and where the weights lie.

    `doubtful`: digests that gave no picture last time; they are looked at again before an engine is started for them.
    """

    files: Mapping[str, Sequence[Path]]
    layers: Sequence[str]
    weights_file: Path | None = None
    doubtful: frozenset[str] = field(default_factory=frozenset)
    shard_rows: int = runner.SHARD_ROWS
    engine: str = "auto"


@dataclass(frozen=True)
class Filled:
    """What was done: digests computed, digest → reason of those rejected, and the engine (None: not needed)."""

    computed: int
    rejected: Mapping[str, str]
    engine: str | None


def decoder(fingerprint: Fingerprint) -> Decoder:
    """Return the decoder that a fingerprint stands for."""
    return partial(images.decode_resized, size=fingerprint.size, resize=fingerprint.resize, probe=fingerprint.probe)


def require(cache: FeatureCache, filling: Filling) -> None:
    """See that what is missing can be computed and kept. Writes nothing.

    Raises:
        VggftError: something is missing, and there are no weights to compute it with, or no room on the disk.
    """
    steps = plan(cache, filling, filling.doubtful)
    if steps:
        weights.locate(filling.weights_file)
        needed = sum(estimate.bytes_needed(cache, step.layers, len(wanted)) for step, wanted in steps.items())
        estimate.require_room(cache.folder, needed, len({digest for wanted in steps.values() for digest in wanted}))


def plan(cache: FeatureCache, filling: Filling, without: frozenset[str]) -> dict[Step, list[str]]:
    """Return what is to be computed from where: for each layer the deepest cached one below it, else the pixels.

    What was lost is computed again, also of layers that are not asked for this time.

    Args:
        without: digests that are to be left out.
    """
    starts: dict[str, dict[str, str]] = defaultdict(
        dict
    )  # layer → digest → the layer it is computed from, "" for pixels
    for layer in sorted({*filling.layers, *cache.lost_rows}, key=NAMES.index):
        lost = cache.lost_rows.get(layer, frozenset())
        wanted = [digest for digest in filling.files if layer in filling.layers or digest in lost]
        lacking = [digest for digest in cache.missing([layer], wanted) if digest not in without]
        if lost:  # by the way they were computed before, to the same bits
            before = cache.computed_from(layer)
            unfit = set(cache.missing([before], lacking) if before else ())
            for digest in lacking:
                if digest in lost and digest not in unfit:
                    starts[layer][digest] = before or ""
            lacking = [digest for digest in lacking if digest not in lost or digest in unfit]
        for below in reversed(NAMES[: NAMES.index(layer)]):
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
    """Compute what is missing and commit it to the cache. The workspace's lock must be held.

    Args:
        engine: who is to compute, where somebody is at work already and has said so; None: chosen, started and announced.
    """
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
    engine = engine or start_engine(cache.fingerprint, filling, ui)
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
            with contextlib.suppress(VggftError, OSError):  # what went wrong first is what has to be said
                cache.save_index()
            raise
        cache.save_index()
        rejected |= outcome.rejected
        computed |= set(wanted) - outcome.rejected.keys()
        spent = time.perf_counter() - began
        timing = Timing(" ".join(step.layers), step.below or "", engine.name, len(wanted), spent)
        timings.add(cache.folder, timing)
    return Filled(len(computed), rejected, engine.name)


def start_engine(fingerprint: Fingerprint, filling: Filling, ui: Ui) -> Engine:
    """Choose who computes and start it, saying so.

    Raises:
        VggftError: no weights, or others than those of the fingerprint.
    """
    source = weights.locate(filling.weights_file)
    ui.say(f"weights: {source}")
    loaded = weights.load(source)
    if loaded.digest != fingerprint.weights:
        raise VggftError(
            f"{source}: not the weights that the features were made with (another digest). Put the "
            "old file back, or name the weights: vggft featurize DATA --weights FILE."
        )
    choice = choose(filling.engine, fingerprint.precision)
    ui.say(f"engine: {choice.name} ({choice.reason})")
    return create(choice.name, loaded, fingerprint)


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
    """Put damaged shards out of the way, and say what is lost: it is computed again like anything that is missing."""
    for name, reason in list(cache.damaged.items())[:_DAMAGED_SHOWN]:
        ui.warn(f"{cache.shards / name}.h5 is damaged ({reason}): set aside, its images are computed again")
    for name in cache.lost[:_DAMAGED_SHOWN]:
        ui.warn(f"{cache.shards / name}.h5 is gone: its images are computed again")
    more = len(cache.damaged) + len(cache.lost)
    if more > _DAMAGED_SHOWN:
        ui.warn(f"{more} files of the cache are damaged or gone in all")
    cache.set_aside()


def _announce(cache: FeatureCache, step: Step, number: int, engine: Engine, ui: Ui) -> None:
    """Say what is going to be computed, and what it will take: room by what such features take, time by a short trial."""
    what = f"computing {' and '.join(step.layers)} of {estimate.counted(number, 'image')}"
    start = f" from cached {step.below}" if step.below else ""
    room = estimate.size(estimate.bytes_needed(cache, step.layers, number))
    took = ""
    if number > engine.trial:
        took = f" and {duration(number / rate(engine, cache.fingerprint, step.layers, step.below))}"
    ui.say(f"{what}{start} on {engine.name}: about {room} on disk{took}")


def load_weights(settings: Settings) -> Weights:
    """Load the weights that a workspace's features were made with.

    Raises:
        VggftError: no weights, or others than those.
    """
    source = weights.locate(settings.weights_file_path)
    loaded = weights.load(source)
    if loaded.digest != settings.fingerprint.weights:
        raise VggftError(
            f"{source}: not the weights that the features were made with (digest {loaded.digest[:12]}…, expected "
            f"{settings.fingerprint.weights[:12]}…). Run vggft featurize again with --weights."
        )
    return loaded


def as_it_was(path: Path, digest: str) -> bool:
    """Return whether a file is there with the bytes that featurize saw."""
    try:
        return durable.sha256(path) == digest
    except OSError:
        return False
