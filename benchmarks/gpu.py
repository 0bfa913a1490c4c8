"""Everything that a GPU is there for, measured in one go: features, heads, fine-tuning from the cache, their errors.

    python -m benchmarks.gpu FOLDER [--images N] [--weights FILE] [--quick] [--json FILE]

FOLDER holds JPEG photographs in class folders, at any depth. They are copied until there are N files, each with a few bytes
of its own after its end, so that each has its own digest and none is found in the cache; copies of one photograph stay in
one split. Keras runs on KERAS_BACKEND (jax, torch or tensorflow). No network is used. On an H100, under eight minutes;
with --quick a few images of 64 pixels, in half a minute, on a CPU too. Measured, as medians of rounds taken in turn:

- the engine alone, on decoded pictures, in float16 (mixed precision) and in float32;
- files → features in a cache committed on disk, in the best precision of the device; the same with an engine that costs
  nothing; the same with nothing but the writing;
- Keras's `predict` and plain PyTorch (`benchmarks/gpu_contenders.py`) on the same files, outputs in memory;
- decoding alone, in as many processes as cores: the limit; and in processes and in threads, as vggft does it;
- errors of what is stored (float16): float32 and mixed precision against the definition in float64 on 16 pictures, beside
  what the rounding to float16 does alone;
- `vggft head` and three epochs of `vggft finetune` from the cache, beside an epoch of Keras's `fit` from pixels.

A part that fails is reported, and the others go on; the exit status is then 1.
"""

import argparse
import importlib.metadata
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_contenders import CORES, OUTPUTS, TorchProcess, fit_from_pixels, keras_predict
from benchmarks.machine import machine
from featurize import backend, engines, runner
from featurize.backbone import network, weights
from featurize.backbone.architecture import Architecture
from featurize.backbone.vgg16 import VGG16
from featurize.backbone.weights import Weights
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import durable, forms
from featurize.engines import KerasEngine
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION
from featurize.pixels import images
from featurize.pixels.decoding import Decoder
from featurize.runner import Step

PACKAGES = "vggft keras jax torch tensorflow numpy h5py hdf5plugin pillow".split()
TUNING_BATCH = 64
QUICK_SIDE = 64  # pixels: a twelfth of the work


@dataclass
class Bench:
    """The files, the weights, and how much is measured.

    Attributes:
        best: the precision that suits the device.
        found: what was measured, by name.
    """

    place: Path
    paths: list[Path]
    weights: Weights
    quick: bool
    best: str
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """How often each contender runs."""
        return 1 if self.quick else 3

    @property
    def network(self) -> Architecture:
        """VGG16; of small pictures where there is little to do."""
        return replace(VGG16, size=QUICK_SIDE) if self.quick else VGG16

    @property
    def decoder(self) -> Decoder:
        """What decodes as featurize does."""
        return partial(images.decode_resized, size=self.network.size)

    def engine(self, precision: str) -> KerasEngine:
        """Return the engine of a precision; a small batch where there is little to do."""
        return KerasEngine(self.weights, Fingerprint.of(self.network, precision=precision), 4 if self.quick else None)

    def decoded(self, number: int) -> NDArray[np.uint8]:
        """Decode pictures that are spread over all files."""
        chosen = [self.paths[i] for i in np.linspace(0, len(self.paths) - 1, number).astype(int)]
        with ThreadPoolExecutor(CORES) as pool:
            return np.stack(list(pool.map(partial(decode_file, side=self.network.size), chosen)))


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, help="files to make of the photographs (default 8192; --quick: 24)")
    parser.add_argument("--weights", type=Path, help="VGG16 weights (default: where vggft finds them)")
    parser.add_argument("--quick", action="store_true", help="a few images, one round")
    parser.add_argument("--parts", default="", help="only these, separated by commas: " + ", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    options = parser.parse_args()
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch's process needs some memory, too
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as folder:
        paths = lay_out(options.folder, Path(folder) / "data", options.images or (24 if options.quick else 8192))
        best = MIXED_PRECISION if backend.gpus() else FULL_PRECISION
        bench = Bench(
            Path(folder), paths, weights.load(VGG16, weights.locate(VGG16, options.weights)), options.quick, best
        )
        bench.found = about(bench)
        for name in PARTS:
            if name in options.parts or not options.parts:
                measure(bench, name)
            bench.found["seconds"] = time.perf_counter() - began
            if options.json:  # after each part: a run that is cut short leaves what it has
                forms.write_json(options.json, bench.found)
    print(table(bench.found))
    sys.exit(1 if bench.found["failed"] else 0)


def lay_out(source: Path, folder: Path, wanted: int) -> list[Path]:
    """Write `wanted` distinct files to `folder/<split>/<class>`: a fifth of each class's photographs go to validation."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            classes.setdefault(path.parent.name, []).append(path)
    if len(classes) < 2 or min(map(len, classes.values())) < 5:
        sys.exit(f"{source}: expected JPEG photographs in at least two class folders, five or more in each")
    columns = list(zip(*classes.values(), strict=False))  # of each class as many as of the others
    held_back = max(1, len(columns) // 5)
    validation = wanted // 5
    made = []
    for split, own, number in (
        ("validate", columns[:held_back], validation),
        ("train", columns[held_back:], wanted - validation),
    ):
        photographs = [(path.parent.name, path.read_bytes()) for column in own for path in column]
        for i in range(number):
            label, data = photographs[i % len(photographs)]
            made.append(folder / split / label / f"{i:06}.jpg")
            made[-1].parent.mkdir(parents=True, exist_ok=True)
            made[-1].write_bytes(data + f"{split} {i}".encode())
    return made


def about(bench: Bench) -> dict[str, Any]:
    """Say what this is measured on."""
    smi = shutil.which("nvidia-smi")
    query = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    card = subprocess.run([smi, *query], capture_output=True, text=True, check=False).stdout.strip() if smi else ""
    return {
        "device": card if backend.gpus() else "no GPU",
        "machine": machine(),
        "backend": backend.load_keras().backend.backend(),
        "versions": {d.name: d.version for name in PACKAGES for d in importlib.metadata.distributions(name=name)},
        "date": time.strftime("%Y-%m-%d"),
        "images": len(bench.paths),
        "weights": "published" if bench.weights.published else f"others, digest {bench.weights.digest[:12]}",
        "precision": bench.best,
        "failed": {},
    }


def measure(bench: Bench, name: str) -> None:
    """Measure one part; where it fails, say so and go on."""
    began = time.perf_counter()
    try:
        bench.found |= PARTS[name](bench)
    except Exception as error:
        traceback.print_exc()
        bench.found["failed"][name] = f"{type(error).__name__}: {error}"
    print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


def in_turn(contenders: Mapping[str, Callable[[], object]], images: int, rounds: int) -> dict[str, Any]:
    """Run all contenders once to warm up, then in turn; return images a second of each, and of each round."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, play in contenders.items():
            began = time.perf_counter()
            play()
            if number:
                rates[name].append(images / (time.perf_counter() - began))
            print(f"  {name}, round {number}: {time.perf_counter() - began:.2f} s", file=sys.stderr, flush=True)
    return {name: {"images_per_second": statistics.median(own), "rounds": own} for name, own in rates.items()}


def decode_file(path: Path, side: int) -> NDArray[np.uint8]:
    """Read and decode one file as featurize does."""
    return images.decode_resized(path.read_bytes(), side)


def only_decode(path: Path, side: int) -> None:
    """Decode one file; nothing goes back to the process that asked."""
    decode_file(path, side)


def decoding(bench: Bench) -> dict[str, Any]:
    """Decode all files and do nothing else."""
    work, alone = digests(bench), partial(only_decode, side=bench.network.size)

    def decode(processes: bool) -> None:
        for _ in runner.decoded(work, bench.decoder, 3 * engines.GPU_BATCH, processes=processes):
            pass

    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        contenders: dict[str, Callable[[], object]] = {
            "processes, pictures thrown away": lambda: pool.map(alone, bench.paths, 16),
            "processes, as vggft decodes for a GPU": partial(decode, processes=True),
            "threads, as vggft decodes for a CPU": partial(decode, processes=False),
        }
        return {"decoding": in_turn(contenders, len(bench.paths), bench.rounds)}


def digests(bench: Bench) -> dict[str, list[Path]]:
    """Return digest → file, which `vggft featurize` finds out before it computes."""
    with ThreadPoolExecutor(CORES) as pool:
        return {digest: [path] for path, digest in zip(bench.paths, pool.map(durable.sha256, bench.paths), strict=True)}


def errors(bench: Bench) -> dict[str, Any]:
    """Compare what is stored with the definition in float64: largest relative errors."""
    pictures = bench.decoded(2 if bench.quick else 16)
    true = [np.stack(column) for column in zip(*(definition(bench.weights, p) for p in pictures), strict=True)]
    found = {"rounding alone": [outputs.astype(np.float16) for outputs in true]}
    for precision in (FULL_PRECISION, MIXED_PRECISION):
        outputs = bench.engine(precision)(pictures, OUTPUTS)
        found[precision] = [array.astype(np.float16) for array in outputs]
    measured = {name: dict(zip(OUTPUTS, map(relative_error, own, true), strict=True)) for name, own in found.items()}
    # Where float32 is computed in full, it is rounded to the same float16 as the truth, but for numbers next to a boundary.
    same = [float((a == b).mean()) for a, b in zip(found[FULL_PRECISION], found["rounding alone"], strict=True)]
    return {"errors": measured, "float32_rounded_as_float64": dict(zip(OUTPUTS, same, strict=True))}


def definition(loaded: Weights, picture: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """Compute the outputs of one picture in float64, as sums over the nine places of a kernel."""
    x, outputs = network.preprocessed(picture, "caffe", loaded.architecture).astype(np.float64), []
    for layer in loaded.architecture.layers:
        height, width, channels = x.shape
        if layer.convolution:
            kernel, bias = (array.astype(np.float64) for array in loaded.arrays[layer.name])
            around = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            x = np.broadcast_to(bias, (height * width, len(bias))).copy()
            for i, j in np.ndindex(3, 3):
                x += around[i : i + height, j : j + width].reshape(-1, channels) @ kernel[i, j]
            x = np.maximum(x, 0).reshape(height, width, -1)
        else:
            x = x.reshape(height // 2, 2, width // 2, 2, channels).max((1, 3))
        if layer.name in OUTPUTS:
            outputs.append(x)
    return outputs


def relative_error(found: NDArray[Any], true: NDArray[Any]) -> float:
    """Return the largest ‖a − b‖ / ‖b‖ of a picture."""
    rows = zip(found.astype(np.float64), true.astype(np.float64), strict=True)
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in rows)


def engine_alone(bench: Bench) -> dict[str, Any]:
    """Hand an engine decoded pictures, as many batches at once as it asks for."""
    built = {MIXED_PRECISION: bench.engine(MIXED_PRECISION), FULL_PRECISION: bench.engine(FULL_PRECISION)}
    batch = next(iter(built.values())).batch_size
    pictures = bench.decoded(batch)
    batches = 1 if bench.quick else 16

    def play(engine: KerasEngine) -> None:
        with ThreadPoolExecutor(engine.in_flight) as pool:
            for _ in pool.map(lambda _: engine(pictures, OUTPUTS), range(batches)):
                pass

    contenders: dict[str, Callable[[], object]] = {name: partial(play, engine) for name, engine in built.items()}
    found = in_turn(contenders, batches * batch, bench.rounds)
    for name, engine in built.items():
        found[name]["batch_size"] = engine.batch_size
    return {"engine": found, "engine_memory": peak_memory()}


class Prepared:
    """An engine that costs nothing: it returns outputs that were computed before."""

    name, trial = "prepared", 1

    def __init__(self, engine: KerasEngine, pictures: NDArray[np.uint8]) -> None:
        """Compute what it will return, as float16."""
        self.batch_size, self.in_flight = engine.batch_size, engine.in_flight
        self._outputs = [output.astype(np.float16) for output in engine(pictures, OUTPUTS)]

    def __call__(self, inputs: NDArray[Any], layers: Sequence[str], below: str | None = None) -> list[NDArray[Any]]:
        """Return as many rows as are asked for."""
        return [output[: len(inputs)] for output in self._outputs]


def pipeline(bench: Bench) -> dict[str, Any]:
    """Files → cache on disk, beside those who keep their outputs in memory."""
    fingerprint, work, place = (
        Fingerprint.of(bench.network, precision=bench.best),
        digests(bench),
        bench.place / "cache",
    )
    engine = bench.engine(bench.best)
    prepared = Prepared(engine, bench.decoded(engine.batch_size))
    blank = np.zeros((1, 1, 1), np.uint8)

    def featurize(engine: Any, *, decode: bool) -> None:
        shutil.rmtree(place, ignore_errors=True)
        cache = FeatureCache(place, fingerprint, bench.network)
        if decode:
            runner.run(work, OUTPUTS, bench.decoder, engine, cache)
        else:
            with cache.writing_in_processes():
                runner.compute(((digest, blank) for digest in work), Step(OUTPUTS), engine, cache)
        cache.save_index()

    contenders: dict[str, Callable[[], object]] = {
        "vggft": partial(featurize, engine, decode=True),
        "vggft, free engine": partial(featurize, prepared, decode=True),
        "vggft, writing alone": partial(featurize, prepared, decode=False),
        "keras predict": keras_predict(bench.weights.arrays, bench.paths, bench.best, bench.network.size),
    }
    torch = TorchProcess(bench.place, bench.weights.arrays, bench.network.size)
    if not torch.skipped:
        contenders["pytorch"] = torch
    found = in_turn(contenders, len(bench.paths), bench.rounds)
    torch.close()
    shutil.rmtree(place, ignore_errors=True)
    found["pytorch"] = {"skipped": torch.skipped} if torch.skipped else found["pytorch"] | torch.about
    return {"pipeline": found}


def training(bench: Bench) -> dict[str, Any]:
    """Heads and fine-tuning as the commands do them, and an epoch from pixels."""
    from finetune import store
    from finetune.network import assemble, freeze
    from vggft.api import Experiment
    from vggft.prediction import models

    data = bench.place / ("data" if bench.quick else "part")
    if not bench.quick:  # every class has as many as before
        for split, number in (("train", 2048), ("validate", 512)):
            for path in sorted((bench.place / "data" / split).rglob("*.jpg"), key=lambda path: path.name)[:number]:
                (data / split / path.parent.name).mkdir(parents=True, exist_ok=True)
                os.link(path, data / split / path.parent.name / path.name)
    experiment = Experiment(bench.place / "work", bench.network)
    weights_file = bench.weights.source.place if bench.weights.source.kind == "file" else None
    seconds = {}
    began = time.perf_counter()
    experiment.featurize(data, weights=weights_file, engine="keras")
    seconds["featurize"], began = time.perf_counter() - began, time.perf_counter()
    heads = experiment.fit_heads(epochs=2, cv=0) if bench.quick else experiment.fit_heads()
    seconds["heads"], began = time.perf_counter() - began, time.perf_counter()
    batch = 4 if bench.quick else TUNING_BATCH
    experiment.finetune(epochs=3, batch_size=batch)
    seconds["finetune"] = time.perf_counter() - began
    run = store.load_all(experiment.workspace.finetune)[0]
    epochs = [epoch.seconds for epoch in run.history[1:]]

    dataset, fingerprint = experiment.workspace.dataset, experiment.workspace.settings.fingerprint
    head = models.fresh_heads(experiment.workspace)[0].head
    network = assemble(bench.weights, fingerprint.preprocess, fingerprint.size, head)
    freeze(network, VGG16, run.split_point)
    splits = []
    for split in ("train", "validate"):
        samples = dataset.accepted(split)
        order = np.random.default_rng(0).permutation(len(samples))
        targets = np.asarray(dataset.targets(samples), np.float32)
        splits.append(([dataset.root / samples[i].path for i in order], targets[order]))
    epoch = fit_from_pixels(network, run.settings.plan.precision, splits, batch)
    began = time.perf_counter()
    epoch()
    pixels = time.perf_counter() - began
    return {
        "training": {
            "images": run.images,
            "batch_size": batch,
            "precision": run.settings.plan.precision,
            "seconds": seconds,
            "heads": len(heads["heads"]) if "heads" in heads else None,
            "epochs_from_cache": epochs,
            "epoch_from_pixels": pixels,
            "times_faster": pixels / statistics.median(epochs[1:]),
            "parity": run.parity,
            "validation_accuracy": [run.start_validation.accuracy, run.validation.accuracy],
        },
        "memory": peak_memory(),
    }


def peak_memory() -> int | None:
    """Return the most bytes of device memory that this process has held; None without a GPU."""
    if not backend.gpus():
        return None
    name = backend.load_keras().backend.backend()
    if name == "jax":
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if name == "torch":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return int(backend.load_quietly("tensorflow").config.experimental.get_memory_info("GPU:0")["peak"])


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "decoding": decoding,
    "errors": errors,
    "engine": engine_alone,
    "pipeline": pipeline,
    "training": training,
}


def table(found: dict[str, Any]) -> str:
    """Lay out what was measured, for people."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        f"{found['date']}, {found['device']}; {found['machine']}; Keras on {found['backend']}",
        f"{versions}; weights: {found['weights']}; {found['images']} files; {found['seconds']:.0f} s in all",
        "",
    ]

    def row(what: str, value: str) -> None:
        lines.append(f"{what:<58} {value}")

    limit = 0.0
    for name, one in found.get("decoding", {}).items():
        row(f"decoding alone, {CORES} {name}", f"{one['images_per_second']:10,.1f} images/s")
        limit = max(limit, one["images_per_second"])
    for name, one in found.get("engine", {}).items():
        row(f"engine alone, {name}, batch {one['batch_size']}", f"{one['images_per_second']:10,.1f} images/s")
    own = found.get("pipeline", {}).get("vggft", {}).get("images_per_second")
    for name, one in found.get("pipeline", {}).items():
        if "skipped" in one:
            row(name, f"skipped: {one['skipped']}")
            continue
        rate = one["images_per_second"]
        ratio = "" if name.startswith("vggft") else f"   vggft: {own / rate:.2f} times as fast"
        row(f"{name}, {found['precision']}", f"{rate:10,.1f} images/s{ratio}")
    if own and limit:
        row("vggft's share of the faster way to decode", f"{100 * own / limit:10.0f} %")
    for name, errors in found.get("errors", {}).items():
        values = ", ".join(f"{layer} {value:.1e}" for layer, value in errors.items())
        row(f"relative error, {name}", f"     {values}")
    for layer, share in found.get("float32_rounded_as_float64", {}).items():
        row(f"{layer}: float32 rounds to the same float16 as float64", f"{100 * share:10.3f} %")
    lines += _training_lines(found["training"]) if "training" in found else []
    for key, what in (("engine_memory", "the engines"), ("memory", "everything")):
        if found.get(key):
            row(f"peak device memory, {what}", f"{found[key] / 1e9:10.2f} GB")
    lines += [f"failed: {name}: {reason}" for name, reason in found["failed"].items()]
    return "\n".join(lines)


def _training_lines(own: dict[str, Any]) -> list[str]:
    seconds, epochs = own["seconds"], own["epochs_from_cache"]
    counts = " + ".join(f"{number} {split}" for split, number in own["images"].items())
    rows = [
        (f"featurize, as a command ({counts})", f"{seconds['featurize']:10.1f} s"),
        ("default heads", f"{seconds['heads']:10.1f} s"),
        (f"finetune, 3 epochs, batch {own['batch_size']}, all included", f"{seconds['finetune']:10.1f} s"),
        (
            "an epoch from the cache (first; median of the others)",
            f"{epochs[0]:10.2f} s; {np.median(epochs[1:]):.2f} s",
        ),
        ("an epoch from pixels, Keras's fit", f"{own['epoch_from_pixels']:10.2f} s"),
        ("from the cache: times as fast", f"{own['times_faster']:10.1f}"),
        ("parity gate, largest difference of a probability", f"{own['parity']:10.1e}"),
    ]
    return [f"{what:<58} {value}" for what, value in rows]


if __name__ == "__main__":
    main()
