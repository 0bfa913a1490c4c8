"""The files that weights come in: ONNX, HDF5 as Keras distributes it, Keras's `.weights.h5` and `.keras`.

Each reader returns all convolutions of a file by name, so that a file with more of them than the architecture has, the
weights of a deeper network, is refused and not read in part.
"""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import PREPROCESS_LAYER, Architecture
from featurize.backend import load_keras
from featurize.errors import VggftError

Convolutions = dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]  # name → kernel (HWIO) and bias


# Dimensions of the arrays of a convolution with bias, and of a dense layer with and without, as of a classifier on top.
_PLAIN = ([1, 4], [1, 2], [2])


def read(architecture: Architecture, path: Path) -> Convolutions:
    """Read the weights of an architecture: convolution → kernel (3, 3, in, out) and bias (out,), float32, in order.

    Raises:
        VggftError: an unknown or damaged file, or one with other convolutions or shapes.
    """
    if path.suffix == ".onnx":
        convolutions = _read_onnx(architecture, path)
    elif path.suffix == ".h5":
        convolutions = _read_h5(architecture, path)
    elif path.suffix == ".keras":
        convolutions = _read_keras(architecture, path)
    else:
        raise VggftError(f"{path}: unknown kind of weights file. Expected .h5, .onnx or .keras.")
    for layer in architecture.convolutions:
        kernel, bias = convolutions.get(layer.name, (np.empty(0), np.empty(0)))
        shapes = (tuple(kernel.shape), tuple(bias.shape))
        expected = ((3, 3, layer.channels, layer.filters), (layer.filters,))
        if shapes != expected:
            raise VggftError(
                f"{path}: not the weights of {architecture.name}: layer {layer.name} has kernel and bias of shape {shapes[0]} "
                f"and {shapes[1]}, expected {expected[0]} and {expected[1]}."
            )
        if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
            raise VggftError(
                f"{path}: damaged: layer {layer.name} has a weight that is NaN or infinite. Put a fresh copy in its place."
            )
    _refuse_surplus(architecture, path, convolutions.keys() - {PREPROCESS_LAYER})
    return {
        layer.name: (convolutions[layer.name][0].astype(np.float32), convolutions[layer.name][1].astype(np.float32))
        for layer in architecture.convolutions
    }


def _refuse_surplus(architecture: Architecture, path: Path, names: Iterable[str]) -> None:
    """Raise VggftError if there are layers with weights that the architecture does not have, such as batch normalisations."""
    surplus = sorted(set(names) - set(architecture.names))
    if surplus:
        raise VggftError(
            f"{path}: not the weights of {architecture.name}, which has no {', '.join(surplus)}. Expected the weights of its "
            f"{len(architecture.convolutions)} convolutions."
        )


def _read_onnx(architecture: Architecture, path: Path) -> Convolutions:
    wheel = architecture.wheel
    if wheel is None:
        raise VggftError(f"{path}: no ONNX file of {architecture.name} is known. Expected .h5 or .keras.")
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise VggftError(f"{path}: reading it needs the package onnx: pip install onnx.") from None
    try:
        listed = onnx.load(str(path)).graph.initializer
    except Exception as error:  # protobuf's own exception type depends on its build
        raise VggftError(f"{path}: damaged ONNX file ({error}). Put a fresh copy in its place.") from None
    initializers = {i.name: i for i in listed}
    if len(initializers) < len(listed):
        raise VggftError(
            f"{path}: damaged ONNX file (two initializers of the same name). Put a fresh copy in its place."
        )
    kernels = re.compile(re.escape(wheel.kernel).replace(re.escape("{layer}"), "(.+)"))
    convolutions: Convolutions = {}
    for name, initializer in initializers.items():
        match = kernels.fullmatch(name)
        bias = initializers.get(wheel.bias.format(layer=match[1])) if match else None
        if match and bias is not None:
            oihw = numpy_helper.to_array(initializer)
            convolutions[match[1]] = (oihw.transpose(2, 3, 1, 0), numpy_helper.to_array(bias).reshape(-1))
    return convolutions


def _read_h5(architecture: Architecture, path: Path) -> Convolutions:
    """Read the layout of Keras's published files, and of whole models in HDF5: groups named after the layers.

    In a Keras 3 `.weights.h5` layers have numbers instead of names; Keras reads it.
    """
    arrays: dict[str, dict[int, NDArray[np.float32]]] = {}
    ranks: dict[str, list[int]] = {}
    try:
        with h5py.File(path, "r", locking=False) as file:

            def visit(where: str, item: object) -> None:
                parts = where.split("/")
                if isinstance(item, h5py.Dataset) and item.ndim and parts[0] != "optimizer":
                    layer = next((part for part in parts if part in architecture.names), "/".join(parts[:-1]))
                    ranks.setdefault(layer, []).append(item.ndim)
                    if item.ndim in (1, 4):
                        arrays.setdefault(layer, {})[item.ndim] = item[...]

            file.get("model_weights", file).visititems(visit)  # a whole model has optimizer_weights beside them
    except OSError as error:
        raise VggftError(f"{path}: damaged HDF5 file ({error}). Delete it or put a fresh copy in its place.") from None
    for layer in architecture.names:
        if sorted(ranks.get(layer, [1, 4])) != [1, 4]:
            raise VggftError(
                f"{path}: not the weights of {architecture.name}: layer {layer} has arrays of {sorted(ranks[layer])} dimensions, "
                "expected one kernel (4) and one bias (1). Save the weights of a single network."
            )
    convolutions = {layer: (by_rank[4], by_rank[1]) for layer, by_rank in arrays.items() if by_rank.keys() == {1, 4}}
    _refuse_surplus(architecture, path, (name for name, found in ranks.items() if sorted(found) not in _PLAIN))
    if convolutions.keys() & set(architecture.names):
        return convolutions
    return _read_keras_weights(architecture, path, len(convolutions))


def _read_keras_weights(architecture: Architecture, path: Path, number: int) -> Convolutions:
    """Read a `.weights.h5` with `number` convolutions, whose order tells which is which."""
    if number > len(architecture.convolutions):
        raise VggftError(
            f"{path}: not the weights of {architecture.name}: {number} convolutions, expected {len(architecture.convolutions)}."
        )
    keras = load_keras()

    model = _skeleton(keras, architecture)
    try:
        model.load_weights(path)
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise VggftError(f"{path}: contains no {architecture.name} weights without the classifier ({error}).") from None
    return _convolutions_of(model)


def _skeleton(keras: Any, architecture: Architecture) -> Any:
    """Return a Keras model with the layers of an architecture, untrained."""
    x = pixels = keras.Input((None, None, 3))
    for layer in architecture.layers:
        if layer.convolution:
            x = keras.layers.Conv2D(layer.filters, 3, padding="same", name=layer.name)(x)
        else:
            x = keras.layers.MaxPooling2D(2, strides=2, name=layer.name)(x)
    return keras.Model(pixels, x)


def _read_keras(architecture: Architecture, path: Path) -> Convolutions:
    if not zipfile.is_zipfile(path):
        raise VggftError(f"{path}: Keras cannot load it (no .keras file: not a zip archive).")
    keras = load_keras()
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError, OSError) as error:
        raise VggftError(f"{path}: Keras cannot load it ({error}).") from None
    weighted = {layer.name: sorted(array.ndim for array in layer.get_weights()) for layer in model.layers}
    _refuse_surplus(architecture, path, (name for name, found in weighted.items() if found not in ([], *_PLAIN)))
    return _convolutions_of(model)


def _convolutions_of(model: Any) -> Convolutions:
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    return {name: (pair[0], pair[1]) for name, pair in weights.items() if [array.ndim for array in pair] == [4, 1]}
