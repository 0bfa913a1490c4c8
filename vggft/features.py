"""Filling a workspace's feature cache: what is missing is computed, from files that still hold the right bytes."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from featurize import images, runner, weights
from featurize.cache import FeatureCache
from featurize.engines import choose, create
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint
from featurize.weights import Weights
from vggft.console import Ui
from vggft.workspace import Settings

_KEEP_DECODED = 16  # pictures in memory while only looking whether they decode


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


def decoder(fingerprint: Fingerprint) -> runner.Decoder:
    """Return the decoder that a fingerprint stands for."""
    return partial(images.decode_resized, size=fingerprint.size, resize=fingerprint.resize)


def require_weights(cache: FeatureCache, filling: Filling) -> None:
    """See that there are weights to compute what is missing with. Writes nothing.

    Raises:
        VggftError: something is missing, and there are no weights to compute it with.
    """
    missing = set(cache.missing(filling.layers, list(filling.files))) - filling.doubtful
    if missing:
        weights.locate(filling.weights_file)


def fill(cache: FeatureCache, filling: Filling, ui: Ui) -> Filled:
    """Compute what is missing and commit it to the cache. The workspace's lock must be held."""
    decode = decoder(cache.fingerprint)
    digests = list(filling.files)
    missing = cache.missing(filling.layers, digests)
    again = {digest: filling.files[digest] for digest in missing if digest in filling.doubtful}
    rejected = {d: p for d, p in runner.decoded(again, decode, _KEEP_DECODED) if isinstance(p, str)}
    lacking = {layer: set(cache.missing([layer], missing)) for layer in filling.layers}
    work: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for digest in missing:
        if digest not in rejected:
            work[tuple(layer for layer in filling.layers if digest in lacking[layer])].append(digest)
    if not work:
        return Filled(0, rejected, None)

    source = weights.locate(filling.weights_file)
    ui.say(f"weights: {source}")
    loaded = weights.load(source)
    if loaded.digest != cache.fingerprint.weights:
        raise VggftError(
            f"{source}: not the weights that the features were made with (another digest). Put the "
            "old file back, or name the weights: vggft featurize DATA --weights FILE."
        )
    choice = choose(filling.engine)
    ui.say(f"engine: {choice.name} ({choice.reason})")
    computed, name = 0, ""
    for layers, wanted in work.items():
        engine = create(choice.name, loaded, cache.fingerprint, layers)
        name = engine.name
        try:
            ui.say(f"computing {' and '.join(layers)} of {len(wanted)} images on {name}")
            with ui.progress("computing", len(wanted)) as advance:
                outcome = runner.run(
                    {digest: filling.files[digest] for digest in wanted},
                    layers,
                    decode,
                    engine,
                    cache,
                    progress=advance,
                    shard_rows=filling.shard_rows,
                )
        finally:
            cache.save_index()
        rejected |= outcome.rejected
        computed += outcome.computed
    return Filled(computed, rejected, name)


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
