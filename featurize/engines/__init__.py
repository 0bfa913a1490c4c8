"""Engines that run the frozen network, one module each; `selection` chooses which one runs."""

from featurize.engines.engine import Engine, rate
from featurize.engines.keras_engine import CPU_BATCH, GPU_BATCH, KerasEngine
from featurize.engines.pooling_engine import PoolingEngine
from featurize.engines.selection import WORTH_MEASURING, Choice, choose, create, measure, require, starts
from featurize.engines.winograd_engine import WinogradEngine

__all__ = [
    "CPU_BATCH",
    "GPU_BATCH",
    "WORTH_MEASURING",
    "Choice",
    "Engine",
    "KerasEngine",
    "PoolingEngine",
    "WinogradEngine",
    "choose",
    "create",
    "measure",
    "rate",
    "require",
    "starts",
]
