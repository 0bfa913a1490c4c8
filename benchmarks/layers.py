"""Where the time of the engine `winograd` goes: transforms, products and transforms back, layer by layer, on one core.

    python -m benchmarks.layers [--rounds 9]

Each convolution of VGG16 but the first runs as in the engine, block after block, on random pictures of 224 × 224 pixels. In each
round, every layer has its turn, and before each the rate of products that lie in the first cache is measured: the most that this
core can do. Medians of all rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from benchmarks.machine import machine
from featurize.backbone.architecture import Layer
from featurize.backbone.vgg16 import VGG16
from featurize.engines import winograd
from featurize.engines.vectors import ROWS
from featurize.engines.winograd import PART
from featurize.engines.winograd_engine import TOGETHER

SIZE = 224  # pixels
_NONE = np.empty((0, 0, 0, 0), np.float32)
PARTS = ("transform", "multiply", "transform back")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    layers = {layer.name: prepared(layer) for layer in VGG16.convolutions[1:]}
    for run, _ in layers.values():
        run()  # compiles
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in layers}
    fastest = []
    for _ in range(rounds):
        for name, (run, _) in layers.items():
            fastest.append(cached_rate())
            times[name].append(run())
    print(machine())
    print(f"products in the first cache: {statistics.median(fastest):.0f} GFLOP/s\n")
    print(f"{'ms a picture':<14}" + "".join(f"{part:>16}" for part in PARTS) + f"{'GFLOP/s of products':>22}")
    total = np.zeros(len(PARTS))
    for name, (_, operations) in layers.items():
        median = np.median(times[name], axis=0)
        total += median
        print(
            f"{name:<14}" + "".join(f"{1e3 * part:16.1f}" for part in median) + f"{operations / median[1] / 1e9:22.0f}"
        )
    print(f"{'all':<14}" + "".join(f"{1e3 * part:16.1f}" for part in total))


def prepared(layer: Layer) -> tuple[Callable[[], tuple[float, ...]], float]:
    """Return a function that convolves pictures, and how many operations its products take, a multiply-add being two.

    The function returns the seconds a picture of each of `PARTS`.
    """
    rng = np.random.default_rng(0)
    size = layer.shape(SIZE)[0]
    kernel = rng.normal(0, 0.01, (3, 3, layer.channels, layer.filters)).astype(np.float32)
    u = winograd.transform_kernel(kernel, size)
    m, side = winograd.tile_side(size), winograd.canvas_side(size)
    across = -(-size // m)
    pictures = TOGETHER if u.size > size**2 * (layer.channels + layer.filters) else 1
    x, full = (np.zeros((pictures, side, side, depth), np.float32) for depth in (layer.channels, layer.filters))
    x[:, 1 : 1 + size, 1 : 1 + size] = rng.random((pictures, size, size, layer.channels), np.float32)
    bias, buffers = np.zeros(layer.filters, np.float32), winograd.scratch([(size, layer.channels, layer.filters)])
    tiles = pictures * across**2
    blocks = -(-tiles // winograd.tiles_at_once(layer.channels, layer.filters))

    def run() -> tuple[float, ...]:
        seconds = np.zeros(len(PARTS))
        for i in range(blocks):
            block = (i * tiles // blocks, (i + 1) * tiles // blocks)
            marks = [time.perf_counter()]
            winograd._transform(m, x, across, block, buffers)
            marks.append(time.perf_counter())
            winograd._multiply(u, block[1] - block[0], buffers)
            marks.append(time.perf_counter())
            winograd._transform_back(m, bias, size, block, full, _NONE, buffers)
            marks.append(time.perf_counter())
            seconds += np.diff(marks)
        return tuple(seconds / pictures)

    return run, 2.0 * across**2 * u.size


def cached_rate(times: int = 5000) -> float:
    """Return the GFLOP/s of a product whose matrices all lie in the first cache, of as many rows as the registers take."""
    left, right, to = (np.ones(n * PART, np.float32) for n in (ROWS, PART, ROWS))
    _repeated(1, left, right, to)
    began = time.perf_counter()
    _repeated(times, left, right, to)
    return 2.0 * ROWS * PART**2 * times / (time.perf_counter() - began) / 1e9


def _repeat(times: int, left: Any, right: Any, to: Any) -> None:
    for _ in range(times):
        winograd._product(left, 0, PART, right, 0, PART, to, 0, PART, ROWS, PART, False)


_repeated = njit(_repeat)


if __name__ == "__main__":
    main()
