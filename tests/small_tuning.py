"""Small networks for fine-tuning: the tiny network, or VGG16 on small images, with random heads."""

import numpy as np
from conftest import PICTURES
from tiny import TINY

from featurize import engines
from featurize.backbone.network import between
from featurize.cache.fingerprint import Fingerprint
from featurize.pixels import images
from finetune import network as networks
from finetune.examples import Examples, Rows, Source
from finetune.train import train
from heads.head import Head, Layer, Scaler

FEATURES = TINY.layers[-1].shape(TINY.size)  # what heads read


def fruit(size):
    """Return 12 drawings of fruit, uint8 (12, size, size, 3)."""
    return np.stack([images.decode_resized(p.read_bytes(), size) for p in sorted(PICTURES.glob("fruit/*.png"))[:12]])


def keras_outputs(weights, pictures, names):
    """Return layer → outputs of pictures, float32, as Keras computes them."""
    fingerprint = Fingerprint.of(weights.architecture, size=pictures.shape[1])
    return dict(zip(names, engines.KerasEngine(weights, fingerprint, len(pictures))(pictures, names), strict=True))


def head(pooling="avg", classes=2, seed=0, dropout=0.0, scaler=False, shape=FEATURES) -> Head:
    """Return a head with random weights; `shape` of the feature maps that it reads."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    inputs = {"flatten": height * width * channels, "avg": channels, "max": channels, "avgmax": 2 * channels}[pooling]
    units = 1 if classes == 2 else classes
    layers = (
        Layer(rng.normal(0, 0.02, (inputs, 6)).astype(np.float32), np.ones(6, np.float32), "relu"),
        Layer(
            rng.normal(0, 0.2, (6, units)).astype(np.float32),
            np.zeros(units, np.float32),
            "sigmoid" if units == 1 else "softmax",
        ),
    )
    names = tuple(str(c) for c in range(classes))
    own = Scaler(rng.random(inputs) * 20, rng.random(inputs) * 10 + 1) if scaler else None
    return Head("h", "dense", pooling, names, layers, dropout, scaler=own)


def source(inputs) -> Source:
    return Source(lambda at: iter([(np.arange(len(at)), inputs[at])]), len(inputs), inputs.shape[1:], inputs.dtype)


def examples(inputs, targets) -> Examples:
    return Examples(Rows(source(inputs)), np.asarray(targets))


def program(network, split_point, plan, targets, weights, *, from_pixels=False):
    """Compile the part above the split point; from pixels: the whole network, frozen as far."""
    from finetune.program import Program

    part = networks.above(network, weights.architecture, split_point)
    if from_pixels:
        part = between(network, None, [networks.LOGITS_LAYER])
    return Program(part, plan, np.asarray(targets), weights)


def tune(network, split_point, data, plan, weights, **options):
    return train(program(network, split_point, plan, data[0].targets, weights), data, plan, **options)
