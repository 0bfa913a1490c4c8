"""Any model as one Keras network from pixels to class probabilities: the same layers and the same outputs for all of them."""

from dataclasses import replace
from typing import Any

import numpy as np

from finetune.network import assemble, disassemble
from heads.head import Head, Layer
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import Model
from vggft.prediction.network_model import NetworkModel
from vggft.workspace.backbone import load_weights
from vggft.workspace.workspace import Workspace

INPUT = "pixels"


def assembled(workspace: Workspace, model: Model) -> Any:
    """Return a model as a network of convolutions, poolings and dense layers.

    What only training needs is left out: the scaler is folded into the first dense layer, and there is no dropout.

    Returns:
        keras.Model: pixels float32 (n, size, size, 3), RGB 0–255 → class probabilities float32 (n, classes), also for two
        classes.

    Raises:
        VggftError: the weights, or the files of the model, are missing or damaged.
    """
    settings, architecture = workspace.settings, workspace.architecture
    fingerprint = settings.fingerprint
    if isinstance(model, NetworkModel):
        weights, head = disassemble(model.load(), architecture, model.classes, model.network)
    else:
        assert isinstance(model, HeadModel)
        weights, head = load_weights(architecture, fingerprint, settings.weights_file_path), model.head
    return assemble(weights, fingerprint.preprocess, fingerprint.size, _for_prediction(head))


def _for_prediction(head: Head) -> Head:
    """Return a head without scaler and dropout, with one output for each class: of two, the logits are −z/2 and z/2."""
    *hidden, last = head.layers
    if last.activation == "sigmoid":
        kernel, bias = last.kernel / 2, last.bias / 2
        last = Layer(np.hstack([-kernel, kernel]), np.concatenate([-bias, bias]), "softmax")
    return replace(head, layers=(*hidden, last), scaler=None, dropout=0.0)
