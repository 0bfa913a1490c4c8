"""Which engine runs the frozen network on this machine, and starting it."""

import importlib
import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

from featurize import backend
from featurize.backbone.architecture import Architecture
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import measured, mnn_engine, winograd_engine
from featurize.engines.engine import Engine
from featurize.engines.keras_engine import KerasEngine
from featurize.engines.mnn_engine import MnnEngine
from featurize.engines.winograd_engine import WinogradEngine
from featurize.errors import VggftError
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION, EngineName, Precision

CPU_PACKAGES = "numba MNN onnx"  # what the CPU engines need, as pip takes it

# For fewer images than this, starting and measuring several engines takes longer than the fastest one saves.
WORTH_MEASURING = 500


@dataclass(frozen=True)
class Choice:
    """Which engine runs, the reason, and the precision it computes in.

    Attributes:
        unmeasured: the engines of which one is chosen without knowing how fast each is here; else empty.
    """

    name: str
    reason: str
    precision: Precision = FULL_PRECISION
    unmeasured: tuple[str, ...] = ()


def require(wanted: EngineName) -> None:
    """Check that an engine is installed; imports nothing.

    Raises:
        VggftError: it is not.
    """
    if wanted in measured.PACKAGES and not _installed(wanted):
        raise VggftError(f"--engine {wanted}: not installed. Run: pip install {CPU_PACKAGES}, or use --engine keras.")


def choose(architecture: Architecture, wanted: EngineName = "auto", precision: Precision | None = None) -> Choice:
    """Choose an engine. Keras is imported only where there is an NVIDIA driver, to find out whether it can use the GPU.

    Args:
        architecture: of the frozen network.
        wanted: the engine, or "auto".
        precision: of a workspace's features, which the engine must compute in; None: the one that suits the machine.

    Raises:
        VggftError: an engine that is not installed, or does not compute in that precision or that architecture.
    """
    require(wanted)
    if wanted == "winograd" and not winograd_engine.computes(architecture):
        raise VggftError(
            f"--engine winograd: {architecture.name} has convolutions whose number of filters is no multiple of "
            f"{winograd_engine.PART}. Use --engine keras."
        )
    if wanted in measured.PACKAGES:
        if precision == MIXED_PRECISION:
            raise VggftError(
                f"--engine {wanted}: the features here are of mixed precision, which only Keras on a GPU computes. Use "
                "--engine keras, or another --workspace."
            )
        return Choice(wanted, "asked for")
    gpus = backend.gpus() if shutil.which("nvidia-smi") else []
    best = MIXED_PRECISION if gpus else FULL_PRECISION
    precision = precision or best
    if wanted == "keras":
        return Choice("keras", "asked for", precision)
    if gpus:
        return Choice("keras", f"{len(gpus)} GPU: {', '.join(gpus)}", precision)
    if precision == MIXED_PRECISION:
        return Choice("keras", "no GPU; the features here are of mixed precision, which only Keras computes", precision)
    return _for_cpu(architecture)


def _for_cpu(architecture: Architecture) -> Choice:
    """Choose an engine for a machine without a GPU."""
    names = [name for name in measured.PACKAGES if _installed(name)]
    if not winograd_engine.computes(architecture):
        names = [name for name in names if name != "winograd"]
    if not names:
        return Choice("keras", f"no faster CPU engine is installed; pip install {CPU_PACKAGES} brings two")
    if len(names) == 1:
        return Choice(names[0], "no GPU to use; faster than Keras on a CPU")
    rates = measured.known(architecture, names)
    if rates:
        return _fastest(rates)
    name = "winograd" if winograd_engine.suits() else "mnn"
    return Choice(name, "no GPU to use; probably the fastest on this CPU", unmeasured=tuple(names))


def _fastest(rates: measured.Rates) -> Choice:
    listed = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
    return Choice(max(rates, key=rates.__getitem__), f"the fastest on this machine, in images/s: {listed}")


def measure(engines: Mapping[str, Engine], architecture: Architecture, size: int) -> Choice:
    """Measure engines for some seconds, and return which is the fastest; it is kept for later commands.

    Args:
        engines, architecture, size: as for `measured.measure`.
    """
    return _fastest(measured.measure(engines, architecture, size))


def _installed(name: str) -> bool:
    return importlib.util.find_spec(measured.PACKAGES[name]) is not None


def create(name: str, weights: Weights, fingerprint: Fingerprint) -> Engine:
    """Return the engine called `name` ("keras", "winograd" or "mnn"), its weights loaded.

    Raises:
        VggftError: what it needs is installed and does not start.
    """
    try:
        if name == "winograd":
            return WinogradEngine(weights, fingerprint)
        if name == "mnn":
            return MnnEngine(weights, fingerprint)
        return KerasEngine(weights, fingerprint)
    except ImportError as error:
        raise VggftError(
            f"the engine {name} does not start ({error}). Reinstall it (pip install --upgrade {CPU_PACKAGES}), or use "
            "--engine keras."
        ) from None


def starts(name: str) -> str | None:
    """Return why an engine's packages do not start, or None if they do."""
    try:
        if name == "winograd":
            importlib.import_module("featurize.engines.winograd")
        elif name == "mnn":
            mnn_engine.load()
    except ImportError as error:
        return str(error)
    return None
