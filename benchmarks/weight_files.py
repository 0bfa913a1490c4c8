"""The published VGG16 weights, as files for contenders that do not know vggft; a program, so that Keras is not in the caller."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.contenders.entry import ARRAYS, KERAS_WEIGHTS
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.backend import load_keras

NAMES = ("kernel", "bias")


def write_weights(folder: Path) -> None:
    """Write what `Task.weights` describes."""
    keras = load_keras()
    arrays = weights.load(VGG16, weights.locate(VGG16)).arrays
    folder.mkdir(parents=True, exist_ok=True)
    flat = {
        f"{layer}/{name}": value
        for layer, pair in arrays.items()
        for name, value in zip(("kernel", "bias"), pair, strict=True)
    }
    np.savez(folder / ARRAYS, **flat)  # type: ignore[arg-type]
    model = keras.applications.VGG16(include_top=False, weights=None)
    for layer, pair in arrays.items():
        model.get_layer(layer).set_weights(pair)
    model.save_weights(folder / KERAS_WEIGHTS)


if __name__ == "__main__":
    write_weights(Path(sys.argv[1]))
