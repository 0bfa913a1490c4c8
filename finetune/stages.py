"""The layers of a network from pixels to scores as values: names, output shapes, parameters, and which of them are trained.

Without Keras; the network itself is built by `finetune.network.assemble`, whose layers these are.
"""

from dataclasses import dataclass
from typing import Literal

from featurize.backbone.architecture import PREPROCESS_LAYER, Architecture
from finetune.network import DROPOUT_LAYER, LOGITS_LAYER, SCORES_LAYER, STANDARDISE_LAYER, dense_layer
from heads.head import Head

# "neither": nothing in the layer is learned, such as in a pooling, or in the preprocessing.
State = Literal["frozen", "trained", "neither"]

_POOLINGS = {
    "flatten": "all features in one row",
    "avg": "average over the feature map",
    "max": "maximum over the feature map",
    "avgmax": "average and maximum",
}


@dataclass(frozen=True)
class Stage:
    """One layer.

    Attributes:
        block: layers of one block stand together.
        what: what it computes, in a few words.
        shape: of its output, without the batch.
        parameters: number of its weights, trained or not.
    """

    name: str
    block: str
    what: str
    shape: tuple[int, ...]
    parameters: int
    state: State


def of(
    architecture: Architecture, preprocess: str, size: int, head: Head, split_point: str | None
) -> tuple[Stage, ...]:
    """Return the layers of backbone and head, from the pixels to the scores.

    Args:
        preprocess, size: as in `featurize.backbone.network.build`.
        head: with the dropout that it is trained with.
        split_point: the layer below the tuned ones; None: all are tuned; the top layer: the head alone is trained.
    """
    pixels = (size, size, 3)
    first = [Stage("pixels", "pixels", "RGB, 0–255", pixels, 0, "neither")]
    if preprocess == "caffe":
        weights = 3 * 3 + 3  # a fixed 1×1 convolution
        first.append(Stage(PREPROCESS_LAYER, "pixels", "RGB → BGR, minus means", pixels, weights, "neither"))
    frozen = architecture.up_to(split_point)
    backbone = []
    for layer in architecture.layers:
        shape = layer.shape(size)
        if layer.convolution:
            weights = (9 * layer.channels + 1) * layer.filters
            state: State = "frozen" if layer in frozen else "trained"
            backbone.append(Stage(layer.name, layer.block, "3×3 convolution, ReLU", shape, weights, state))
        else:
            backbone.append(Stage(layer.name, layer.block, "2×2 maximum", shape, 0, "neither"))
    return (*first, *backbone, *_of_head(head))


def _of_head(head: Head) -> list[Stage]:
    def stage(name: str, what: str, width: int, parameters: int = 0, state: State = "neither") -> Stage:
        return Stage(name, "head", what, (width,), parameters, state)

    stages = [stage(f"pool_{head.pooling}", _POOLINGS[head.pooling], head.inputs)]
    if head.scaler is not None:
        stages.append(stage(STANDARDISE_LAYER, "(x − mean) / scale", head.inputs))
    for i, layer in enumerate(head.layers):
        inputs, width = layer.kernel.shape
        last = i == len(head.layers) - 1
        if last and head.dropout:
            stages.append(stage(DROPOUT_LAYER, f"dropout {head.dropout:g}, in training", inputs))
        name, what = (LOGITS_LAYER, "dense") if last else (dense_layer(i), "dense, ReLU")
        stages.append(stage(name, what, width, layer.kernel.size + layer.bias.size, "trained"))
    return [*stages, stage(SCORES_LAYER, head.layers[-1].activation, width)]
