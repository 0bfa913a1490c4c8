"""The frozen base on ncnn's Winograd convolutions (Lavin & Gray, arXiv:1509.09308): fewer multiplications on a CPU.

No converter is involved: ncnn's two files are a few lines of text and the weights themselves
(https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure).
"""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone import CAFFE_MEANS_BGR
from featurize.fingerprint import Fingerprint
from featurize.layers import LAYERS, NAMES
from featurize.weights import Weights

_MAGIC = "7767517"  # first line of a .param file
_FLOAT32 = b"\0\0\0\0"  # before a layer's weights: stored as they are
_ROUNDS = 8  # pictures a core in one batch: the cores wait for each other only at its end


class NcnnEngine:
    """Runs pictures side by side, each on one thread, so that a row never depends on its neighbours."""

    name = "ncnn"

    def __init__(self, weights: Weights, fingerprint: Fingerprint) -> None:
        """Load the network; about a second. Raises ImportError where ncnn is not installed."""
        import ncnn

        cores = os.cpu_count() or 1
        self.batch_size = _ROUNDS * cores
        self._ncnn: Any = ncnn
        self._caffe = fingerprint.preprocess == "caffe"
        self._net: Any = ncnn.Net()
        options = self._net.opt
        options.num_threads = 1
        options.use_vulkan_compute = False
        # Half precision would be faster on some CPUs and miss the bound that engines promise.
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        with tempfile.TemporaryDirectory(prefix="vggft-") as folder:
            param, model = Path(folder) / "vgg16.param", Path(folder) / "vgg16.bin"
            param.write_text(_param(fingerprint.size), encoding="ascii")
            model.write_bytes(_model(weights))
            if self._net.load_param(str(param)) or self._net.load_model(str(model)):
                raise RuntimeError("ncnn refused the network that vggft wrote for it")
        self._pool = ThreadPoolExecutor(cores)

    def __call__(
        self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None
    ) -> list[NDArray[np.float32]]:
        """Run any number of rows, see `featurize.engines.Engine`."""
        rows = list(self._pool.map(lambda row: self._one(row, layers, below), inputs))
        return [np.stack(column) for column in zip(*rows, strict=True)]

    def _one(self, row: NDArray[Any], layers: Sequence[str], below: str | None) -> list[NDArray[np.float32]]:
        x = row.astype(np.float32)
        if below is None and self._caffe:
            x = x[..., ::-1] - np.asarray(CAFFE_MEANS_BGR, np.float32)
        planes = np.ascontiguousarray(x.transpose(2, 0, 1))
        extractor = self._net.create_extractor()
        # A Mat borrows the array's memory without holding on to it: `planes` must outlive the clone, which owns its own.
        extractor.input(below or "pixels", self._ncnn.Mat(planes).clone())
        outputs = {}
        for layer in sorted(layers, key=NAMES.index):  # upwards: each goes on from where the last one stopped
            status, mat = extractor.extract(layer)
            if status:
                raise RuntimeError(f"ncnn failed at {layer} (status {status})")
            outputs[layer] = np.array(mat).transpose(1, 2, 0)
        return [outputs[layer] for layer in layers]


def _param(size: int) -> str:
    """Describe the network: for each layer type, name, numbers of inputs and outputs, their names, settings."""
    count = len(LAYERS) + 1
    lines = [_MAGIC, f"{count} {count}", f"Input pixels 0 1 pixels 0={size} 1={size} 2=3"]
    below = "pixels"
    for layer in LAYERS:
        if layer.convolution:  # 0 filters, 1 kernel side, 4 padding, 5 bias, 6 number of weights, 9 ReLU
            weights = 9 * layer.channels * layer.filters
            settings = f"0={layer.filters} 1=3 4=1 5=1 6={weights} 9=1"
            lines.append(f"Convolution {layer.name} 1 1 {below} {layer.name} {settings}")
        else:  # 0 maximum, 1 side, 2 stride
            lines.append(f"Pooling {layer.name} 1 1 {below} {layer.name} 0=0 1=2 2=2")
        below = layer.name
    return "\n".join(lines) + "\n"


def _model(weights: Weights) -> bytes:
    parts = []
    for kernel, bias in (weights.arrays[layer.name] for layer in LAYERS if layer.convolution):
        oihw = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1), "<f4")
        parts += [_FLOAT32, oihw.tobytes(), bias.astype("<f4").tobytes()]
    return b"".join(parts)
