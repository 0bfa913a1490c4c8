"""Write the published VGG16 weights to files that contenders without vggft can read.

It runs in a process of its own, so that the caller does not import Keras.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.contenders.entry import ARRAYS, KERAS_WEIGHTS
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.backend import load_keras


def write_weights(folder: Path) -> None:
    """Write the files that `Task.weights` describes."""
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
