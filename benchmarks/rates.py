"""How fast this machine is: NumPy's product of float32 matrices, and an engine of vggft alone, each in a process of its own.

`OPENBLAS_CORETYPE`, which makes OpenBLAS use the kernels of another processor, is unset for these processes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.entry import TRAIN, listed
from benchmarks.machine import CORETYPE
from benchmarks.operations import Convolution, convolutions
from featurize import engines
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.options.choices import EngineName
from featurize.pixels import images

_PICTURES = 64  # passed to the engine in one call, all decoded before


def products(times: int) -> dict[str, list[float]]:
    """Return GFLOP/s of matrix products as large as those of VGG16's convolutions, on all cores.

    Args:
        times: number of measurements of each, after a warm-up.

    Returns:
        shapes as text → rates; a multiply-add counts as two operations.
    """
    return _apart(_products, times)


def engine(data: Path, times: int, wanted: str = "auto") -> dict[str, Any]:
    """Return the images a second of an engine: from pictures in memory to float32 outputs in memory.

    Args:
        data: folder with `train/CLASS`, from which pictures are decoded before the measurement.
        times: see `products`.
        wanted: name of the engine; "auto": the one that vggft chooses.

    Returns:
        "name" of the engine, "pictures" in each measurement, and "rates".
    """
    return _apart(_engine, times, str(data), wanted)


def _apart(function: Callable[..., dict[str, Any]], *arguments: int | str) -> dict[str, Any]:
    """Call a function of this module in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != CORETYPE}
    command = [sys.executable, "-m", "benchmarks.rates", function.__name__, json.dumps(arguments)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(process.stderr)
    return dict(json.loads(process.stdout.splitlines()[-1]))


def _products(times: int) -> dict[str, list[float]]:
    layers = convolutions(weights.load(VGG16, weights.locate(VGG16)), VGG16.size)
    largest = max(layer.positions * layer.depth for layer in layers)
    shapes = {_shape(layer, largest): None for layer in layers}  # in order, each once
    rates: dict[str, list[float]] = {}
    draw = np.random.default_rng(0)
    for rows, depth, filters in shapes:
        left = draw.random((rows, depth), np.float32)
        right = draw.random((depth, filters), np.float32)
        out = np.empty((rows, filters), np.float32)
        seconds = _timed(times, lambda a=left, b=right, c=out: np.matmul(a, b, out=c))  # type: ignore[misc]
        rates[f"{rows}×{depth} · {depth}×{filters}"] = [2 * rows * depth * filters / each / 1e9 for each in seconds]
    return rates


def _shape(layer: Convolution, largest: int) -> tuple[int, int, int]:
    """Return rows, depth and filters, for a number of pictures that makes the layer's input about as large as the largest."""
    pictures = max(1, largest // (layer.positions * layer.depth))
    return pictures * layer.positions, layer.depth, layer.filters


def _engine(times: int, data: str, wanted: EngineName) -> dict[str, Any]:
    choice = engines.choose(VGG16, wanted)
    fingerprint = Fingerprint.of(VGG16, precision=choice.precision)
    computing = engines.create(choice.name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)
    files = listed(Path(data) / TRAIN)[0][:_PICTURES]
    pictures = np.stack([images.decode_resized(path.read_bytes(), VGG16.size) for path in files])
    seconds = _timed(times, lambda: computing(pictures, VGG16.cached))
    return {"name": computing.name, "pictures": len(files), "rates": [len(files) / each for each in seconds]}


def _timed(times: int, compute: Callable[[], object]) -> list[float]:
    """Return the seconds of each call after the first, which warms up."""
    seconds = []
    for number in range(times + 1):
        began = time.perf_counter()
        compute()
        if number:
            seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    functions: dict[str, Callable[..., dict[str, Any]]] = {call.__name__: call for call in (_products, _engine)}
    print(json.dumps(functions[sys.argv[1]](*json.loads(sys.argv[2]))))
