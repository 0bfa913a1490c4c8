"""A part of the frozen base as one compiled function on the device of Keras's backend.

Rows travel to the device in the type they have (uint8 pictures, float16 outputs of a cached layer) and are cast there. On a
GPU the outputs are cast to float16 there, too: half the bytes come back, and the host neither casts nor checks them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backend import load_keras

Run = Callable[[NDArray[Any]], list[NDArray[Any]]]


def compiled(part: Any, *, half: bool) -> Run:
    """Return rows (n, ...) of any numeric type → one array a layer, for a part that `featurize.backbone.network.between` made.

    Args:
        half: return float16, in which a row that holds a number beyond float16 is NaN throughout; else what the part computes.
    """
    keras = load_keras()
    ops = keras.ops

    def finish(outputs: Any) -> list[Any]:
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]  # Keras hands a single output out bare
        return [_halved(ops, output) for output in listed] if half else list(listed)

    if keras.backend.backend() == "jax":
        return _on_jax(part, finish)
    if keras.backend.backend() == "torch":
        return _on_torch(part, finish)
    return _on_tensorflow(part, finish)


def _halved(ops: Any, output: Any) -> Any:
    narrow = ops.cast(output, "float16")
    finite = ops.all(ops.isfinite(narrow), axis=tuple(range(1, len(output.shape))), keepdims=True)
    return ops.where(finite, narrow, ops.cast(float("nan"), "float16"))


def _on_jax(part: Any, finish: Callable[[Any], list[Any]]) -> Run:
    import jax

    weights = [variable.value for variable in part.trainable_variables]
    others = [variable.value for variable in part.non_trainable_variables]

    @jax.jit
    def run(weights: Any, others: Any, rows: Any) -> list[Any]:
        outputs, _ = part.stateless_call(weights, others, rows.astype("float32"), training=False)
        return finish(outputs)

    return lambda rows: [np.asarray(output) for output in run(weights, others, rows)]


def _on_tensorflow(part: Any, finish: Callable[[Any], list[Any]]) -> Run:
    import tensorflow as tf

    def run(rows: Any) -> list[Any]:
        return finish(part(tf.cast(rows, tf.float32), training=False))

    # Without XLA, which made this forward pass slower on the CPU it was measured on, and without AutoGraph, which is of no use
    # here and leaves a file in the temporary folder if the process is killed.
    graph = tf.function(run, autograph=False)
    return lambda rows: [output.numpy() for output in graph(tf.constant(rows))]


def _on_torch(part: Any, finish: Callable[[Any], list[Any]]) -> Run:
    import torch
    from keras import ops

    def run(rows: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            outputs = finish(part(ops.cast(ops.convert_to_tensor(rows), "float32"), training=False))
            return [output.cpu().numpy() for output in outputs]

    return run
