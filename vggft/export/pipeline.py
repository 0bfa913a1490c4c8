"""A logistic regression as a scikit-learn pipeline, made from the arrays of its head: nothing is unpickled."""

from typing import Any

import numpy as np

from featurize.errors import VggftError
from heads.head import Head, unfolded
from vggft.prediction.model import Model


def require(model: Model) -> None:
    """Check that a model is a logistic regression.

    Raises:
        VggftError: it is not.
    """
    if model.kind != "logistic":
        raise VggftError(
            f"{model.name} is not a logistic regression: expected one for a scikit-learn pipeline. Name one with --model, such "
            "as logistic-max, or choose another --format."
        )


def pipeline(head: Head) -> Any:
    """Return a fitted pipeline: pooled features (n, inputs) → class names and, by `predict_proba`, class probabilities.

    Args:
        head: a logistic regression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    layer = head.layers[0] if head.scaler is None else unfolded(head.layers[0], head.scaler)
    regression = LogisticRegression()
    regression.classes_ = np.array(head.classes)
    regression.coef_, regression.intercept_ = layer.kernel.T.astype(np.float64), layer.bias.astype(np.float64)
    regression.n_features_in_ = head.inputs
    if head.scaler is None:
        return make_pipeline(regression)
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = head.scaler.mean, head.scaler.scale, head.scaler.scale**2
    scaler.n_features_in_ = head.inputs
    return make_pipeline(scaler, regression)


def columns(head: Head) -> str:
    """Return what the columns of the input are, in words."""
    return {
        "flatten": "all values of the feature map, row by row",
        "avg": "the mean of each filter over the feature map",
        "max": "the maximum of each filter over the feature map",
        "avgmax": "the means of all filters over the feature map, then their maxima",
    }[head.pooling]
