"""An engine that also computes `POOLED`, which no engine needs to know: from another engine's outputs, or from cached ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import POOLED, Architecture
from featurize.cache.pooled import averages_and_maxima
from featurize.engines.engine import Engine


class PoolingEngine:
    """See `Engine`. Without an engine below it, it runs no network, and computes `POOLED` from the last layer only."""

    def __init__(self, architecture: Architecture, engine: Engine | None = None) -> None:
        """Put it in front of an engine; None: for cached outputs of the last layer."""
        self._top, self._engine = architecture.top, engine
        self.name = engine.name if engine else "pooling"
        self.trial = engine.trial if engine else 64
        self.in_flight = engine.in_flight if engine else 1

    @property
    def batch_size(self) -> int:
        """As in `Engine`; one that does not fit into memory becomes smaller."""
        return self._engine.batch_size if self._engine else 64

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """See `Engine`; `POOLED` is an array (n, 2, filters)."""
        if below == self._top:  # nothing but `POOLED` lies above it
            return [averages_and_maxima(inputs)]
        assert self._engine is not None  # only cached outputs of the last layer need none
        wanted = [*dict.fromkeys(self._top if name == POOLED else name for name in layers)]
        outputs = dict(zip(wanted, self._engine(inputs, wanted, below), strict=True))
        if POOLED in layers:
            outputs[POOLED] = averages_and_maxima(outputs[self._top]).astype(np.float32)
        return [outputs[name] for name in layers]
