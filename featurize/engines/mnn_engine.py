"""The frozen base on MNN's Winograd convolutions (Lavin & Gray, arXiv:1509.09308): fewer multiplications on a CPU.

MNN plans Winograd only for weights that are constants of its own file format, so the wanted part of the network is
written as ONNX and goes through MNN's compiled converter. The converter's Python wrapper, `MNN.tools`, is never
imported: it tries to install a package and reports its use to a server.
"""

import contextlib
import hashlib
import importlib
import importlib.metadata
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.network import preprocessed
from featurize.backbone.weights import Weights
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import converted
from featurize.process import cores, descriptors, interrupts

_ROUNDS = 8  # pictures per core in one batch: the cores wait for each other only at its end
# At most, one a core: each has transformed weights of its own, which take 0.43 GB and a second to make for the whole base.
# More threads a session would not help: MNN's thread pool serves two sessions at a time.
_SESSIONS = 8
_POLL_SECONDS = 0.1  # between two looks at the converter


def load() -> Any:
    """Import MNN and onnx. Raises ImportError if one is missing."""
    importlib.import_module("onnx")
    with descriptors.hidden():
        return importlib.import_module("MNN")


class MnnEngine:
    """Runs pictures in parallel, each alone in a session, so that a row never depends on the rest of its batch."""

    name = "mnn"
    in_flight = 1

    def __init__(self, weights: Weights, fingerprint: Fingerprint) -> None:
        """Get ready; the network itself is loaded when it is first run. Raises ImportError without MNN or onnx."""
        self._mnn = load()
        self._weights = weights
        self._size = fingerprint.size
        self._preprocess = fingerprint.preprocess
        threads = min(cores.usable(), _SESSIONS)
        self.batch_size, self.trial = _ROUNDS * threads, threads
        self._pool = ThreadPoolExecutor(threads)
        self._parts: dict[tuple[str | None, frozenset[str]], _Part] = {}

    def __call__(
        self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None
    ) -> list[NDArray[np.float32]]:
        """Run any number of rows, see `featurize.engines.Engine`. The first run of a part of the network loads it."""
        key = (below, frozenset(layers))
        part = self._parts.setdefault(key, _Part(self._mnn, self._weights, self._size, *key))
        part.file()  # here and not in the pool, because signals interrupt the main thread only
        rows = []
        for row in self._pool.map(lambda row: part.run(np.ascontiguousarray(self._prepared(row, below))), inputs):
            interrupts.check()
            rows.append(row)
        return [np.stack([row[name] for row in rows]) for name in layers]

    def _prepared(self, row: NDArray[Any], below: str | None) -> NDArray[np.float32]:
        if below:
            return row.astype(np.float32)
        return preprocessed(row, self._preprocess, self._weights.architecture)


class _Part:
    """A part of the network: its file, and the sessions that run it, of which each thread that needs one opens one."""

    def __init__(self, mnn: Any, weights: Weights, size: int, below: str | None, layers: frozenset[str]) -> None:
        self._mnn = mnn
        self._weights = weights
        self._size = size
        self._below = below
        self._layers = layers
        self._path: Path | None = None
        self._finding = threading.Lock()
        self._idle: SimpleQueue[_Session] = SimpleQueue()

    def run(self, row: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return layer → output (height, width, filters) for one row (height, width, channels)."""
        try:
            session = self._idle.get_nowait()
        except Empty:
            shapes = {name: self._weights.architecture.layer(name).shape(self._size) for name in self._layers}
            path = self.file()
            with descriptors.hidden():
                session = _Session(self._mnn, path, shapes)
        try:
            return session.run(row)
        finally:
            self._idle.put(session)

    def file(self) -> Path:
        """Return the converted network, which is made if it does not exist, also if it was deleted meanwhile."""
        with self._finding:
            if self._path is None or not self._path.exists():
                self._path = converted.network(self._key(), self._bytes(), self._convert)
            return self._path

    def _key(self) -> str:
        settings = (
            importlib.metadata.version("MNN"),
            self._weights.architecture.layers,
            self._weights.digest,
            self._size,
            self._below,
            sorted(self._layers),
        )
        return hashlib.sha256(repr(settings).encode()).hexdigest()

    def _bytes(self) -> int:
        """Return the size of the part's weights."""
        architecture = self._weights.architecture
        top = max(map(architecture.position, self._layers))
        names = [layer.name for layer in architecture.above(self._below) if architecture.position(layer.name) <= top]
        return sum(array.nbytes for name in names for array in self._weights.arrays.get(name, ()))

    def _convert(self, folder: Path) -> Path:
        onnx, mnn = folder / "part.onnx", folder / "part.mnn"
        onnx.write_bytes(_onnx(self._weights, self._size, self._below, self._layers))
        _convert(onnx, mnn)
        return mnn


class _Session:
    """One copy of a part of the network, on one thread, for one row at a time."""

    def __init__(self, mnn: Any, path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
        self._mnn = mnn
        # Not an `MNN.nn` module: while one runs, no other Python thread does.
        self._interpreter = mnn.Interpreter(str(path))
        self._session = self._interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": 1})
        self._input = self._interpreter.getSessionInput(self._session)
        self._outputs = {name: self._interpreter.getSessionOutput(self._session, name) for name in shapes}
        self._found = {name: self._tensor(np.zeros(shape, np.float32)) for name, shape in shapes.items()}

    def run(self, row: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return layer → output (height, width, filters) for one row (height, width, channels)."""
        self._input.copyFrom(self._tensor(row))
        status = self._interpreter.runSession(self._session)
        if status:
            raise RuntimeError(f"MNN failed (status {status})")
        outputs = {}
        for name, output in self._outputs.items():
            output.copyToHostTensor(self._found[name])
            # A copy: what getNumpyData returns is the tensor's own memory, which the next row overwrites.
            outputs[name] = np.array(self._found[name].getNumpyData()[0])
        return outputs

    def _tensor(self, row: NDArray[np.float32]) -> Any:
        """Copy a row into a tensor with the filters last, as TensorFlow has them; MNN transposes to and from its own."""
        mnn = self._mnn
        return mnn.Tensor((1, *row.shape), mnn.Halide_Type_Float, row[None], mnn.Tensor_DimensionType_Tensorflow)


def _onnx(weights: Weights, size: int, below: str | None, layers: frozenset[str]) -> bytes:
    """Describe the network from above `below` to the topmost of `layers` as an ONNX model for one row."""
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, height: int, width: int, channels: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, height, width])

    architecture = weights.architecture
    last = max(architecture.position(name) for name in layers)
    start = value(below, *architecture.layer(below).shape(size)) if below else value("pixels", size, size, 3)
    nodes, numbers, x = [], [], start.name
    for part in architecture.layers[len(architecture.up_to(below)) : last + 1]:
        if part.convolution:
            kernel, bias = weights.arrays[part.name]
            numbers.append(
                numpy_helper.from_array(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)), f"{part.name}_k")
            )
            numbers.append(numpy_helper.from_array(np.ascontiguousarray(bias), f"{part.name}_b"))
            given = [x, f"{part.name}_k", f"{part.name}_b"]
            nodes.append(helper.make_node("Conv", given, [f"{part.name}_c"], kernel_shape=[3, 3], pads=[1] * 4))
            nodes.append(helper.make_node("Relu", [f"{part.name}_c"], [part.name]))
        else:
            nodes.append(helper.make_node("MaxPool", [x], [part.name], kernel_shape=[2, 2], strides=[2, 2]))
        x = part.name
    ends = [value(name, *architecture.layer(name).shape(size)) for name in sorted(layers)]
    graph = helper.make_graph(nodes, architecture.name.lower(), [start], ends, numbers)
    # Versions of 2020 and 2021: a newer `onnx` would write its own newest, which MNN's converter may not know yet.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def _convert(onnx: Path, mnn: Path) -> None:
    """Convert in a process of its own: beside TensorFlow, whose protobuf knows ONNX's types too, the converter aborts."""
    names = ["-f", "ONNX", "--modelFile", str(onnx), "--MNNModel", str(mnn), "--bizCode", "vggft"]
    command = [sys.executable, "-P", "-c", "import sys, _tools; _tools.mnnconvert(sys.argv)", *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as converter:
        try:
            output = _output(converter)
        except BaseException:
            converter.kill()
            raise
    if not mnn.is_file():  # its status says nothing: the converter reports success in any case
        raise RuntimeError(f"MNN's converter failed (status {converter.returncode}): {output.decode(errors='replace')}")


def _output(process: "subprocess.Popen[bytes]") -> bytes:
    """Wait for the end of a process; return what it printed."""
    while True:
        interrupts.check()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=_POLL_SECONDS)[0]
