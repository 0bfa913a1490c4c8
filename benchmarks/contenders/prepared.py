"""vggft with an engine that returns precomputed outputs, so that a run measures everything except the network.

`benchmarks.pipeline.RUN` has such an engine, too. Its program limits the number of processors, runs other checkouts of vggft, and
excludes imports from its times; a contender uses all cores, and its times include the start of the program.
"""

from typing import Any

import numpy as np

from benchmarks.contenders.entry import Entry, main

OUTPUTS = "outputs.npz"  # in `Task.weights`: float16 outputs of a batch of pictures, as `benchmarks.pipeline.prepare` writes them


class Prepared:
    """An engine that returns the same precomputed outputs for every batch."""

    name, trial, in_flight = "prepared", 1, 1

    def __init__(self, outputs: dict[str, Any]) -> None:
        self._outputs = outputs
        self.batch_size = min(map(len, outputs.values()))

    def __call__(self, inputs: Any, layers: Any, below: str | None = None) -> list[Any]:
        """Return one array of precomputed outputs a layer; see `featurize.engines.Engine`."""
        return [self._outputs[layer][: len(inputs)] for layer in layers]


def features(entry: Entry) -> None:
    """Run `featurize` with the prepared engine instead of Keras."""
    from vggft import Experiment
    from vggft.workspace import backbone

    with np.load(entry.task.weights / OUTPUTS) as stored:
        engine = Prepared(dict(stored))
    backbone.create = lambda *arguments: engine  # type: ignore[attr-defined]
    Experiment(entry.task.work / "vggft-work").featurize(entry.task.data, engine="keras")


if __name__ == "__main__":
    main({"features": features})
