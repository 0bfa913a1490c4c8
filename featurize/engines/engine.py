"""The interface of an engine: from pictures or outputs of a cached layer to outputs of higher layers."""

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """The frozen network, loaded once. Its float32 rows are within a relative error of 1e-3 of Keras's.

    Attributes:
        name: of the engine, as it is recorded in shards.
        trial: number of rows that suffice to measure its rate.
        in_flight: number of batches to pass concurrently, each from its own thread, so that the device never waits.
    """

    name: str
    trial: int
    in_flight: int

    @property
    def batch_size(self) -> int:
        """Preferred batch size; it may become smaller while the engine runs."""

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """Return one array (n, height, width, filters) a layer, float32; or float16, where a row that holds a number beyond
        float16 is NaN throughout.

        Args:
            inputs: uint8 pictures (n, size, size, 3), RGB; with `below`, outputs (n, h, w, filters) of that layer.
            layers: names of the wanted layers, all above `below`.
            below: the layer whose outputs `inputs` are; None for pictures.
        """


def rate(engine: Engine, shape: tuple[int, ...], layers: Sequence[str], below: str | None = None) -> float:
    """Warm an engine up and return its images a second on this machine, measured briefly on blank input.

    Args:
        shape: of one picture, or of one output of `below`.
        layers, below: as for the engine.
    """
    blank = np.zeros((engine.trial, *shape), np.uint8 if below is None else np.float16)
    engine(blank, layers, below)
    began = time.perf_counter()
    engine(blank, layers, below)
    return len(blank) / (time.perf_counter() - began)
