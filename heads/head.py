"""A head: pooling of the backbone's output, dense layers, class probabilities. Saved as plain arrays and JSON."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.disk import checked, forms
from featurize.errors import VggftError, reason
from featurize.options import Option, records
from featurize.options.records import Count, Positive
from heads import arrays
from heads.specs import Pooling

HEAD_VERSION = 4
LEAST_SCALE = 2.5  # of a feature, relative to the median standard deviation
HEAD_FILE, WEIGHTS_FILE = HEAD_FILES = ("head.json", "weights.npz")

Kind = Literal["dense", "logistic"]


def pool(features: NDArray[Any], pooling: str) -> NDArray[np.float32]:
    """Turn feature maps into vectors.

    Args:
        features: (n, height, width, filters), any float type.
        pooling: "flatten" (row by row, as in Keras), "avg" or "max" (over the feature map), or "avgmax" (both, in that order).

    Returns:
        float32 (n, height·width·filters), (n, filters) or (n, 2·filters).
    """
    if pooling == "flatten":
        return features.reshape(len(features), -1).astype(np.float32)
    parts = []
    if pooling in ("avg", "avgmax"):
        parts.append(features.mean(axis=(1, 2), dtype=np.float32))
    if pooling in ("max", "avgmax"):
        parts.append(features.max(axis=(1, 2)).astype(np.float32))
    if not parts:
        raise ValueError(f"pooling {pooling!r}: expected flatten, avg, max or avgmax")
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Layer:
    """A dense layer: kernel float32 (inputs, units), bias float32 (units,), activation "relu", "sigmoid" or "softmax"."""

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    activation: str


@dataclass(frozen=True)
class Scaler:
    """Mean and scale of each feature over the training images, float64 (inputs,); see `scales`."""

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]


def scales(variance: NDArray[np.float64], pooling: Pooling) -> NDArray[np.float64]:
    """Return what features are divided by before training: standard deviations, at least `LEAST_SCALE` times their median.

    Divided by its own standard deviation, a feature that varies little would weigh as much as any other, and one that is nearly
    constant in the training images would alone decide the first image in which it is not. Measured in docs/heads.md.

    Args:
        variance: of each feature, (inputs,).
        pooling: of "avgmax", the two halves have a median each.
    """
    halves = np.split(np.sqrt(variance), 2 if pooling == "avgmax" else 1)
    floored = np.concatenate([np.maximum(half, LEAST_SCALE * np.median(half)) for half in halves])
    return np.where(floored > 0, floored, 1.0)


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
        name: display name.
        kind: "dense", or "logistic" for a logistic regression folded into one dense layer.
        pooling: see `pool`.
        classes: class names, in the order of the scores.
        layers: dense layers from input to output; the last one is a single sigmoid unit (two classes) or a softmax.
        dropout: rate before the last layer if the head is trained further.
        provenance: data, fingerprint, seed, hyper-parameters and versions that the head was trained with.
        scaler: the standardisation used in training, now folded into the first layer; None if inputs were not standardised.
    """

    name: str
    kind: Kind
    pooling: Pooling
    classes: tuple[str, ...]
    layers: tuple[Layer, ...]
    dropout: float = 0.0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scaler: Scaler | None = None

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        return sum(layer.kernel.size + layer.bias.size for layer in self.layers)

    @property
    def inputs(self) -> int:
        """Number of pooled features that it reads."""
        return len(self.layers[0].kernel)

    @property
    def digest(self) -> str:
        """sha256 of pooling and layers: two heads with the same digest give the same predictions."""
        sha256 = hashlib.sha256(self.pooling.encode())
        for layer in self.layers:
            sha256.update(layer.activation.encode() + layer.kernel.tobytes() + layer.bias.tobytes())
        return sha256.hexdigest()

    def predict(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) for outputs of the top layer (n, height, width, filters)."""
        return self.scores(pool(features, self.pooling))

    def scores(self, pooled: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) for pooled features (n, inputs), any float type."""
        x = pooled.astype(np.float32, copy=False)
        for layer in self.layers:
            x = x @ layer.kernel + layer.bias
            if layer.activation == "relu":
                x = np.maximum(x, 0)
        return probabilities(x)

    def files(self) -> dict[str, bytes]:
        """Return weights.npz and head.json, to be written by `checked.write_checked`."""
        stored: dict[str, Any] = {}
        for i, layer in enumerate(self.layers):
            stored[f"kernel{i}"], stored[f"bias{i}"] = layer.kernel, layer.bias
        if self.scaler is not None:
            stored["mean"], stored["scale"] = self.scaler.mean, self.scaler.scale
        buffer = io.BytesIO()
        np.savez(buffer, **stored)
        description = {
            "version": HEAD_VERSION,
            "name": self.name,
            "kind": self.kind,
            "pooling": self.pooling,
            "classes": list(self.classes),
            "layers": [{"units": layer.bias.size, "activation": layer.activation} for layer in self.layers],
            "dropout": self.dropout,
            "parameters": self.parameters,
            "weights_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
            "provenance": dict(self.provenance),
        }
        return {WEIGHTS_FILE: buffer.getvalue(), HEAD_FILE: forms.json_bytes(description)}


def folded(layer: Layer, scaler: Scaler) -> Layer:
    """Fold standardisation into a layer: w·(x − μ)/σ + b = (w/σ)·x + (b − (w/σ)·μ).

    Computed in float64, so the only loss is the final rounding to float32.

    Args:
        layer: reads standardised inputs (x − μ)/σ.

    Returns:
        The equivalent layer that reads x.
    """
    kernel = layer.kernel.astype(np.float64) / scaler.scale.reshape(-1, 1)
    bias = layer.bias.astype(np.float64) - scaler.mean @ kernel
    return Layer(kernel.astype(np.float32), bias.astype(np.float32), layer.activation)


def unfolded(layer: Layer, scaler: Scaler) -> Layer:
    """Return the layer that reads (x − μ)/σ where `layer` reads x: the inverse of `folded`, up to float32 rounding."""
    kernel = layer.kernel.astype(np.float64)
    bias = layer.bias + scaler.mean @ kernel
    return Layer((kernel * scaler.scale.reshape(-1, 1)).astype(np.float32), bias.astype(np.float32), layer.activation)


def load_head(folder: Path) -> Head:
    """Read a head from the files of `HEAD_FILES`. Nothing is unpickled.

    Raises:
        VggftError: the folder holds no head, a head of another version, or damaged files.
    """
    retrain = "Train it again: vggft head"
    try:
        stored = checked.read_json(folder / HEAD_FILE)
        version = stored.pop("version")
        if version != HEAD_VERSION:
            raise VggftError(f"{folder}: head version {version}, expected {HEAD_VERSION}. {retrain}")
        described = records.build(_Description, stored)
        data = checked.read_checked(folder / WEIGHTS_FILE)
        if hashlib.sha256(data).hexdigest() != described.weights_sha256:
            raise VggftError(f"{folder / WEIGHTS_FILE}: damaged, or from another head (sha256 differs). {retrain}")
        layers, scaler = _read_weights(data, described)
        return Head(
            name=described.name,
            kind=described.kind,
            pooling=described.pooling,
            classes=described.classes,
            layers=layers,
            dropout=described.dropout,
            provenance=described.provenance,
            scaler=scaler,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VggftError(f"{folder}: not a readable head ({reason(error)}). {retrain}") from None


@dataclass(frozen=True)
class _LayerDescription:
    units: Positive
    activation: Literal["relu", "sigmoid", "softmax"]


@dataclass(frozen=True)
class _Description:
    """head.json without its version."""

    name: str
    kind: Kind
    pooling: Pooling
    classes: tuple[str, ...]
    layers: tuple[_LayerDescription, ...]
    dropout: Annotated[float, Option(least=0, below=1)]
    parameters: Count
    weights_sha256: str
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        *hidden, last = [(layer.units, str(layer.activation)) for layer in self.layers] or [(0, "")]
        number = len(self.classes)
        if number < 2 or len(set(self.classes)) < number or last != output_activation(self.classes):
            raise VggftError(f"a last layer of {last[0]} {last[1]} units for {number} classes")
        if any(activation != "relu" for _, activation in hidden):
            raise VggftError("a hidden layer without relu")


def _read_weights(data: bytes, described: _Description) -> tuple[tuple[Layer, ...], Scaler | None]:
    """Return layers and scaler from the bytes of weights.npz.

    Raises:
        ValueError, KeyError: they are not those that head.json describes.
    """
    stored: Mapping[str, Any] = arrays.read(data)
    layers = tuple(
        Layer(stored[f"kernel{i}"], stored[f"bias{i}"], layer.activation) for i, layer in enumerate(described.layers)
    )
    scaler = Scaler(stored["mean"], stored["scale"]) if "mean" in stored else None
    inputs = len(layers[0].kernel) if layers[0].kernel.ndim else 0
    arrays_and_shapes: list[tuple[NDArray[Any], str, tuple[int, ...]]] = []
    if scaler:
        arrays_and_shapes += [(scaler.mean, "float64", (inputs,)), (scaler.scale, "float64", (inputs,))]
    for layer, description in zip(layers, described.layers, strict=True):
        units = description.units
        arrays_and_shapes += [(layer.kernel, "float32", (inputs, units)), (layer.bias, "float32", (units,))]
        inputs = units
    for array, dtype, shape in arrays_and_shapes:
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(f"{array.dtype} weights of shape {array.shape}, expected {dtype} {shape}")
        if not np.isfinite(array).all():
            raise ValueError("a weight is NaN or infinite")
    return layers, scaler


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return (n, classes) probabilities for logits (n, classes), or (n, 1) for the second of two classes, in float64."""
    from scipy.special import expit, softmax

    z = np.asarray(logits, np.float64)
    return with_both_classes(expit(z)) if z.shape[1] == 1 else softmax(z, axis=1)


def with_both_classes(p: NDArray[Any]) -> NDArray[np.float64]:
    """Return (n, classes) probabilities for the output of one sigmoid unit (n, 1) or of a softmax (n, classes).

    A float32 softmax sums to 1 only within 1e-7, so it is renormalised in float64.
    """
    p = np.asarray(p, np.float64)
    return np.concatenate([1 - p, p], axis=1) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)


def output_activation(classes: Sequence[str]) -> tuple[int, str]:
    """Return units and activation of the last layer: one sigmoid unit for two classes, else a softmax."""
    return (1, "sigmoid") if len(classes) == 2 else (len(classes), "softmax")
