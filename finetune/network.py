"""Backbone and head as one network from pixels to scores; freezing layers; the parity gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.backbone.network import between, build
from featurize.backbone.weights import Source, Weights, digest
from featurize.backend import load_keras
from featurize.cache.fingerprint import FEATURE_BOUNDS
from featurize.errors import VggftError
from featurize.options.choices import FULL_PRECISION, Precision
from heads.head import Head, Layer, Scaler, folded, output_activation, pool, unfolded, with_both_classes
from heads.specs import Pooling

_ROUNDING = 16 * 2.0**-24  # relative error of a float32 sum, whose order Keras chooses
PARITY_IMAGES = 16

LOGITS_LAYER, SCORES_LAYER = "logits", "scores"
STANDARDISE_LAYER, DROPOUT_LAYER = "head_standardise", "head_dropout"
_POOL, _DENSE = "pool_", "head_dense"  # beginnings of names


def assemble(weights: Weights, preprocess: str, size: int, head: Head) -> Any:
    """Build a network from the backbone and a head.

    A head that was trained on scaled features gets a normalisation layer again. With the scaler folded into the first dense
    layer, its inputs would be as large as the features and far from mean 0, and an epoch of SGD would undo the head's training.

    Args:
        weights, preprocess, size: as in `featurize.backbone.network.build`.
        head: a head that was trained on outputs of the top layer for pictures of this size.

    Returns:
        keras.Model: pixels float32 (batch, size, size, 3), RGB 0–255 → scores (batch, 1), the probability of the second of two
        classes, or (batch, classes). All layers are built into Keras.
    """
    keras = load_keras()

    # Every layer has its dtype: the program that uses vggft may have set another policy.
    base = build(weights, preprocess, size)
    x = _pooled(keras, base.output, head.pooling)
    layers = list(head.layers)
    if head.scaler is not None:
        variance = head.scaler.scale**2
        x = keras.layers.Normalization(
            mean=head.scaler.mean, variance=variance, name=STANDARDISE_LAYER, dtype=FULL_PRECISION
        )(x)
        layers[0] = unfolded(layers[0], head.scaler)
    dense = []
    for i, layer in enumerate(layers):
        last = i == len(layers) - 1
        if last and head.dropout:
            # Without a seed, the layer ignores the state that `finetune.program` sets for each step (on PyTorch).
            x = keras.layers.Dropout(head.dropout, seed=0, name=DROPOUT_LAYER, dtype=FULL_PRECISION)(x)
        name = LOGITS_LAYER if last else dense_layer(i)
        dense.append(
            keras.layers.Dense(
                layer.bias.size, activation=None if last else layer.activation, name=name, dtype=FULL_PRECISION
            )
        )
        x = dense[-1](x)
    x = keras.layers.Activation(layers[-1].activation, name=SCORES_LAYER, dtype=FULL_PRECISION)(x)
    for keras_layer, layer in zip(dense, layers, strict=True):
        keras_layer.set_weights([layer.kernel, layer.bias])
    return keras.Model(base.input, x, name="vggft")


def dense_layer(i: int) -> str:
    """Return the name of the head's dense layer number `i`, from 0 on; the last one is `LOGITS_LAYER`."""
    return f"{_DENSE}{i + 1}"


def _pooled(keras: Any, x: Any, pooling: str) -> Any:
    if pooling == "flatten":
        return keras.layers.Flatten(name=f"{_POOL}flatten", dtype=FULL_PRECISION)(x)
    parts = []
    if pooling in ("avg", "avgmax"):
        parts.append(keras.layers.GlobalAveragePooling2D(name=f"{_POOL}avg", dtype=FULL_PRECISION)(x))
    if pooling in ("max", "avgmax"):
        parts.append(keras.layers.GlobalMaxPooling2D(name=f"{_POOL}max", dtype=FULL_PRECISION)(x))
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(name=f"{_POOL}avgmax", dtype=FULL_PRECISION)(parts)


def head_of(part: Any, name: str, classes: Sequence[str]) -> Head:
    """Return the head of a network that `assemble` built, as it is now; a normalisation layer is folded into the first layer.

    Args:
        part: the network or a part of it, up to the logits.
        name, classes: of the head.
    """
    of_name = {layer.name: layer for layer in part.layers}
    poolings: tuple[Pooling, ...] = ("avgmax", "flatten", "avg", "max")  # avgmax is made of layers called avg and max
    pooling = next(pooling for pooling in poolings if f"{_POOL}{pooling}" in of_name)
    dense = [layer for layer in part.layers if layer.name.startswith(_DENSE) or layer.name == LOGITS_LAYER]
    last = output_activation(classes)[1]
    layers = []
    for layer in dense:
        kernel, bias = layer.get_weights()
        layers.append(Layer(kernel, bias, "relu" if layer is not dense[-1] else last))
    standardise = of_name.get(STANDARDISE_LAYER)
    if standardise is not None:
        numbers = (load_keras().ops.convert_to_numpy(value) for value in (standardise.mean, standardise.variance))
        mean, variance = (values.astype(np.float64).ravel() for values in numbers)
        layers[0] = folded(layers[0], Scaler(mean, np.sqrt(variance)))
    return Head(name, "dense", pooling, tuple(classes), tuple(layers))


def disassemble(network: Any, architecture: Architecture, classes: Sequence[str], file: Path) -> tuple[Weights, Head]:
    """Return the backbone's weights and the head of a network: the inverse of `assemble`, scaler folded, dropout left out.

    Args:
        network: as `assemble` returns it, perhaps trained.
        classes: class names, in the order of the scores.
        file: the file that the network was read from.
    """
    arrays = {layer.name: tuple(network.get_layer(layer.name).get_weights()) for layer in architecture.convolutions}
    backbone = Weights(architecture, arrays, digest(architecture, arrays), Source("file", file))
    return backbone, head_of(network, file.parent.name, classes)


def freeze(network: Any, architecture: Architecture, split_point: str | None) -> None:
    """Freeze all convolutions up to the split point, and unfreeze those above it; None unfreezes all."""
    frozen = architecture.up_to(split_point)
    for layer in architecture.convolutions:
        network.get_layer(layer.name).trainable = layer not in frozen


def above(network: Any, architecture: Architecture, split_point: str | None) -> Any:
    """Freeze the network up to the split point, and return the part above it, to the logits; the weights are shared."""
    freeze(network, architecture, split_point)
    return between(network, split_point, [LOGITS_LAYER])


class ParityError(VggftError):
    """The assembled network does not compute what the head was trained on, or what the head computes."""


def check_parity(
    network: Any,
    pictures: NDArray[np.uint8],
    head: Head,
    cached: NDArray[np.float16],
    top: str,
    precision: Precision = FULL_PRECISION,
) -> float:
    """The parity gate: from pixels, the network must compute the cached features, and from these features the head's scores.

    The two are checked apart, because a head may amplify what engines differ by: one that was trained on few images has features
    that hardly vary, by whose spread it divides.

    Args:
        pictures: uint8 (n, size, size, 3).
        head: the head that the network was assembled with.
        cached: outputs of the top layer for these pictures, from the cache.
        top: name of the top layer.
        precision: precision in which the cached features were computed.

    Returns:
        The largest absolute difference between probabilities of the network and of the head on the cached features.

    Raises:
        ParityError: the difference of the features is larger than engines differ, or that of the scores larger than rounding.
    """
    keras = load_keras()
    both = keras.Model(network.input, [network.get_layer(top).output, network.output])
    features, scores = (np.asarray(output) for output in both.predict_on_batch(pictures.astype(np.float32)))
    actual = with_both_classes(scores)
    stored = cached.astype(np.float64).reshape(len(cached), -1)
    errors = np.linalg.norm(features.reshape(stored.shape) - stored, axis=1)
    bound = FEATURE_BOUNDS[precision]
    if not (errors <= bound * np.linalg.norm(stored, axis=1)).all():
        worst = float(np.max(errors / np.linalg.norm(stored, axis=1)))
        raise ParityError(
            f"parity gate: computed from images, {top} differs from the cached features by {worst:.2g} relative to their norm, "
            f"expected at most {bound:g}. Images, weights or preprocessing are not those that featurize used. Run: vggft cache "
            "verify; if it finds nothing, run vggft featurize and vggft head in another --workspace."
        )
    differences = np.abs(actual - head.predict(features)).max(axis=1)
    if not (differences <= _rounding(head, features)).all():
        raise ParityError(
            f"parity gate: on the same features, probabilities of network and head differ by {differences.max():.2g}, more than "
            "rounding can explain. The network was not assembled as the head is: train the head again with vggft head "
            "--retrain, or try another KERAS_BACKEND."
        )
    return float(np.abs(actual - head.predict(cached)).max())


def _rounding(head: Head, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return by how much rounding may change the probabilities of a head (n,): large where large terms of a sum cancel."""
    x = pool(features, head.pooling).astype(np.float64)
    error = np.zeros_like(x)
    for layer in head.layers:
        kernel, bias = layer.kernel.astype(np.float64), layer.bias.astype(np.float64)
        error = error @ np.abs(kernel) + _ROUNDING * (np.abs(x) @ np.abs(kernel) + np.abs(bias))
        x = x @ kernel + bias
        if layer.activation == "relu":
            x = np.maximum(x, 0)
    bound: NDArray[np.float64] = (
        1e-5 + error.max(axis=1) / 2
    )  # no probability changes by more than half as much as a logit
    return bound


def moved_layers(network: Any, weights: Weights, split_point: str | None) -> list[str]:
    """Return the convolutions whose weights differ from the pretrained `weights`.

    Raises:
        VggftError: a frozen layer has changed.
    """
    architecture, moved = weights.architecture, []
    for layer in architecture.convolutions:
        trained = network.get_layer(layer.name).get_weights()
        if any(not np.array_equal(a, b) for a, b in zip(trained, weights.arrays[layer.name], strict=True)):
            moved.append(layer.name)
    frozen = {layer.name for layer in architecture.up_to(split_point)}
    wrong = [name for name in moved if name in frozen]
    if wrong:
        raise VggftError(
            f"frozen layers changed in training: {', '.join(wrong)}. This is a bug in vggft; nothing was saved."
        )
    return moved


def tuned_layers(architecture: Architecture, split_point: str | None) -> list[str]:
    """Return the convolutions above the split point."""
    return [layer.name for layer in architecture.above(split_point) if layer.convolution]


def parameters(network: Any) -> int:
    """Return the number of trainable parameters of a network after `freeze`, including the head's."""
    return int(sum(np.prod(w.shape) for w in network.trainable_weights))
