"""The formats: how each is written, and how its own runtime predicts with the file.

Nothing is reported to anyone. ONNX Runtime (1.29 and later) and OpenVINO's Python package report their use by default; see
`load_onnxruntime` and `load_openvino`.
"""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backend import load_keras, load_quietly
from featurize.errors import VggftError
from featurize.process import descriptors, extras, interrupts
from vggft.export.choices import FormatName, StoredPrecision
from vggft.export.network import INPUT

OUTPUT = "probabilities"

# Facts about the model that are written into the file, where its format has room for them: name → text, number, list or None.
About = Mapping[str, Any]

# Inputs float32 (n, …) → class probabilities (n, classes).
Run = Callable[[NDArray[np.float32]], NDArray[Any]]

_AT_ONCE = 4  # images predicted at a time: 16 took 290 MB more in ONNX Runtime


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of the file's name; empty for a folder.
        modules: needed to write and to check it.
        library: what Hugging Face calls the library that loads it.
        tensorflow: True where Keras writes it only on TensorFlow.
        write: writes a network (skops: a pipeline), and facts about it, with weights of a precision to a new path.
        load: loads the file in its own runtime, ready to predict.
    """

    name: FormatName
    suffix: str
    modules: tuple[str, ...]
    library: str
    tensorflow: bool
    write: Callable[[Any, Path, About, StoredPrecision], None]
    load: Callable[[Path], Run]
    precisions: tuple[StoredPrecision, ...] = ("float32",)

    def predict(self, path: Path, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) that the file gives in its own runtime, for inputs of any numeric type."""
        run = self.load(path)
        batches = []
        for first in range(0, len(inputs), _AT_ONCE):
            interrupts.check()
            batches.append(run(inputs[first : first + _AT_ONCE].astype(np.float32)))
        return np.concatenate(batches).astype(np.float64)

    def files(self, out: Path) -> list[Path]:
        """Return all files or folders that are written for `out`, which is the last."""
        return [out.with_suffix(".bin"), out] if self.name == "openvino" else [out]

    def require(self, precision: StoredPrecision = "float32") -> None:
        """Check that the format has a precision, and that it can be written and checked here.

        Raises:
            VggftError: it has not, a package is missing, or Keras's backend cannot write it.
        """
        if precision not in self.precisions:
            others = [
                f"{each.name} ({', '.join(each.precisions[1:])})"
                for each in FORMATS.values()
                if len(each.precisions) > 1
            ]
            raise VggftError(
                f"--format {self.name} --precision {precision}: expected {' or '.join(self.precisions)}. Other precisions are "
                f"possible with {' and '.join(others)}."
            )
        extras.require(f"--format {self.name}", self.modules, "export")
        if self.tensorflow and (backend := load_keras().backend.backend()) != "tensorflow":
            raise VggftError(
                f"--format {self.name} with KERAS_BACKEND={backend}: Keras writes it only on TensorFlow. Set "
                "KERAS_BACKEND=tensorflow for this command (models need not be trained again), or use --format keras."
            )


def chosen(out: Path, name: FormatName | None) -> Format:
    """Return the format of that name; without a name, the one that the suffix of `out` tells.

    Raises:
        VggftError: the suffix is none of a format, or not that of the named one.
    """
    suffixes = {each.suffix: each for each in FORMATS.values() if each.suffix}
    if name is None:
        if out.suffix not in suffixes:
            expected = ", ".join(f"{suffix} ({each.name})" for suffix, each in suffixes.items())
            raise VggftError(
                f"{out}: the name does not tell the format. Expected a name that ends in {expected}, or --format "
                f"{'|'.join(FORMATS)}."
            )
        return suffixes[out.suffix]
    named = FORMATS[name]
    if named.suffix and out.suffix != named.suffix:
        raise VggftError(f"{out}: expected a name that ends in {named.suffix} for --format {name}.")
    if not named.suffix and out.suffix in suffixes:
        raise VggftError(f"{out}: expected the name of a folder for --format {name}, without {out.suffix}.")
    return named


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of converters; in the command line, also what they print."""
    with descriptors.hidden(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _write_keras(network: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    network.save(path)


def _load_keras(path: Path) -> Run:
    network = load_keras().saving.load_model(path, compile=False)
    return lambda pixels: np.asarray(network.predict_on_batch(pixels))


def _write_saved_model(network: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    def serve(pixels: Any) -> Any:
        return network(pixels, training=False)

    archive = load_keras().export.ExportArchive()  # `network.export` of Keras 3.15 writes every weight twice
    with _quiet():
        archive.add_endpoint("serve", serve, _signature(network))
        archive.write_out(path, verbose=False)


def _signature(network: Any) -> list[Any]:
    return [load_keras().layers.InputSpec(shape=network.input_shape, dtype="float32", name=INPUT)]


def _load_saved_model(path: Path) -> Run:
    loaded = load_quietly("tensorflow").saved_model.load(str(path))
    return lambda pixels: np.asarray(loaded.serve(pixels))


def _write_onnx(network: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    import onnx

    with _quiet():  # without a signature, Keras refuses a network that was never called
        network.export(path, format="onnx", verbose=False, input_signature=_signature(network))
    model = onnx.load(path)
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
    output.name = OUTPUT
    for value in (model.graph.input[0], output):
        value.type.tensor_type.shape.dim[0].dim_param = "n"
    known = {name: value for name, value in about.items() if value is not None}
    onnx.helper.set_model_props(
        model, {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}
    )
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_onnxruntime() -> Any:
    """Import ONNX Runtime without its usage reports, as its Privacy.md says how.

    A program that has imported it before has decided for itself; of what vggft does, only essential events are reported then.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, as it starts
    onnxruntime = load_quietly("onnxruntime")
    onnxruntime.disable_telemetry_events()  # on Windows, the variable is not read
    return onnxruntime


def _load_onnx(path: Path) -> Run:
    session = load_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pixels: np.asarray(session.run([OUTPUT], {INPUT: pixels})[0])


def load_openvino() -> Any:
    """Import OpenVINO without its usage reports: without `openvino_telemetry` it has an empty class in place of them."""
    if "openvino" not in sys.modules:
        reporting = sys.modules.get("openvino_telemetry")
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it raises ImportError
        try:
            load_quietly("openvino")
        finally:
            del sys.modules["openvino_telemetry"]
            if reporting is not None:
                sys.modules["openvino_telemetry"] = reporting
    return sys.modules["openvino"]


def _write_openvino(network: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    openvino = load_openvino()
    # Not `network.export(format="openvino")`: it uses openvino.convert_model, which reports.
    with _quiet(), TemporaryDirectory() as folder:
        _write_saved_model(network, Path(folder), about, "float32")
        model = openvino.Core().read_model(folder)
        model.output(0).tensor.set_names({OUTPUT})
        for name, value in about.items():
            if value is not None:
                model.set_rt_info(value if isinstance(value, str) else json.dumps(value), ["vggft", name])
        openvino.save_model(model, path, compress_to_fp16=precision == "float16")


def _load_openvino(path: Path) -> Run:
    # By default, OpenVINO computes in bfloat16 on processors that have it.
    compiled = load_openvino().Core().compile_model(path, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    return lambda pixels: np.asarray(compiled(pixels)[0])


def _write_litert(network: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    tensorflow = load_quietly("tensorflow")
    options: dict[str, Any] = {}
    if precision != "float32":  # int8: the default of the optimised conversion
        options["optimizations"] = [tensorflow.lite.Optimize.DEFAULT]
    if precision == "float16":
        options["target_spec"] = {"supported_types": [tensorflow.float16]}
    with _quiet():
        network.export(path, format="litert", verbose=False, **options)


def _load_litert(path: Path) -> Run:
    with descriptors.hidden():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))

    def run(pixels: NDArray[np.float32]) -> NDArray[Any]:
        with descriptors.hidden():
            (probabilities,) = interpreter.get_signature_runner()(**{INPUT: pixels}).values()
        return np.asarray(probabilities)

    return run


def _write_skops(pipeline: Any, path: Path, about: About, precision: StoredPrecision) -> None:
    import skops.io

    skops.io.dump(pipeline, path)


def _load_skops(path: Path) -> Run:
    import skops.io

    pipeline = skops.io.load(path, trusted=[])
    return lambda features: np.asarray(pipeline.predict_proba(features))


FORMATS: dict[FormatName, Format] = {
    each.name: each
    for each in (
        Format("keras", ".keras", (), "keras", False, _write_keras, _load_keras),
        Format("onnx", ".onnx", ("onnx", "tf2onnx", "onnxruntime"), "onnx", True, _write_onnx, _load_onnx),
        Format(
            "openvino", ".xml", ("openvino",), "openvino", True, _write_openvino, _load_openvino, ("float32", "float16")
        ),
        Format(
            "litert",
            ".tflite",
            ("ai_edge_litert",),
            "litert",
            True,
            _write_litert,
            _load_litert,
            ("float32", "float16", "int8"),
        ),
        Format("saved_model", "", (), "tensorflow", True, _write_saved_model, _load_saved_model),
        Format("skops", ".skops", ("skops",), "sklearn", False, _write_skops, _load_skops),
    )
}
