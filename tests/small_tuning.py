"""Small networks to tune: the real backbone on pictures of 64 pixels, and heads whose numbers do not matter."""

import numpy as np

from featurize.backbone.network import between
from featurize.backbone.vgg16 import VGG16
from finetune import network as networks
from finetune.examples import Examples, Rows, Source
from finetune.train import train
from heads.head import Head, Layer, Scaler

SIZE = 64  # the network takes any size; small pictures make the tests quick


def head(pooling="avg", classes=2, seed=0, dropout=0.0, scaler=False) -> Head:
    rng = np.random.default_rng(seed)
    inputs = {"flatten": 4 * 512, "avg": 512, "max": 512, "avgmax": 1024}[pooling]
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

    part = networks.above(network, VGG16, split_point)
    if from_pixels:
        part = between(network, None, [networks.LOGITS_LAYER])
    return Program(part, plan, np.asarray(targets), weights)


def tune(network, split_point, data, plan, weights, **options):
    return train(program(network, split_point, plan, data[0].targets, weights), data, plan, **options)
