"""What turns files into a workspace's features: the decoder, the weights of the frozen network, and its engine."""

from functools import partial
from pathlib import Path

from featurize.backbone import weights
from featurize.backbone.architecture import Architecture
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import WORTH_MEASURING, Engine, PoolingEngine, choose, create, measure
from featurize.errors import VggftError
from featurize.options.choices import EngineName
from featurize.pixels import images
from featurize.pixels.decoding import Decoder
from vggft.ui.console import Ui


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


def load_weights(architecture: Architecture, fingerprint: Fingerprint, file: Path | None) -> Weights:
    """Load the weights that features of a fingerprint are made with.

    Args:
        architecture: whose weights they are.
        fingerprint: of the features.
        file: what `--weights` named; None: the published weights, wherever they are.

    Raises:
        VggftError: there are none, or their digest is not the fingerprint's.
    """
    source = weights.locate(architecture, file)
    loaded = weights.load(architecture, source)
    if loaded.digest != fingerprint.weights:
        raise VggftError(
            f"{source}: wrong weights: the features were made with others (digest {loaded.digest[:12]}…, expected "
            f"{fingerprint.weights[:12]}…). Put the old file back, or name the right one: vggft featurize DATA --weights FILE"
        )
    return loaded


def start_engine(
    architecture: Architecture,
    fingerprint: Fingerprint,
    file: Path | None,
    wanted: EngineName = "auto",
    ui: Ui | None = None,
    images: int = 0,
) -> Engine:
    """Choose an engine, load the weights and start it.

    Engines whose speed on this machine is not known are measured, if there is enough to compute. It computes `POOLED`, too.

    Args:
        architecture, fingerprint, file: as for `load_weights`.
        wanted: "auto" or the name of an engine.
        ui: told which weights and which engine are used, and why; None: nothing is shown.
        images: number of images that it will compute.

    Raises:
        VggftError: as `load_weights`; or an engine that is not installed, does not start, or does not compute that
            architecture in the fingerprint's precision.
    """
    choice = choose(architecture, wanted, fingerprint.precision)
    loaded = load_weights(architecture, fingerprint, file)
    say = ui.say if ui else lambda text: None
    say(f"weights: {loaded.source}")
    if choice.unmeasured and images >= WORTH_MEASURING:
        say(f"measuring {' and '.join(choice.unmeasured)}: about 10 s, once on this machine")
        engines = {name: create(name, loaded, fingerprint) for name in choice.unmeasured}
        choice = measure(engines, architecture, fingerprint.size)
    else:
        engines = {choice.name: create(choice.name, loaded, fingerprint)}
    say(f"engine: {choice.name} ({choice.reason})")
    return PoolingEngine(architecture, engines[choice.name])
