"""Throughput in images per second, from files on disk: vggft's engines and Keras's `model.predict`.

    python -m benchmarks.engines FOLDER [--rounds 5] [--images 64] [--engines winograd,mnn,keras] [--json]

FOLDER contains photographs at any depth. The outputs block4_pool and block5_pool of VGG16 are computed for the same files by

- Keras: `model.predict` over `keras.utils.image_dataset_from_directory`, batches of 32, results in memory, no autotuning;
- vggft with each engine: `featurize.runner`, from files to a cache on disk.

Each contender runs in its own process, with one untimed warm-up round for loading and tracing. Rounds alternate (A B C A B C …),
so that other load on the machine affects all contenders. Errors are relative errors of the cached float16 features against Keras
in float32, from the same decoded pictures.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

from benchmarks.machine import machine
from featurize import engines, runner
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.backend import load_keras
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.options.choices import EngineName
from featurize.pixels import images
from vggft.workspace import backbone

PREDICT = "keras predict"
LAYERS = VGG16.cached
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}  # all that image_dataset_from_directory reads
PACKAGES = ("vggft", "tensorflow", "keras", "numpy", "pillow", "scipy", "numba", "MNN")


def main() -> None:
    """Parse the command line; run as the parent process or as a contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64, help="maximum number of images (default 64)")
    parser.add_argument("--engines", default="winograd,mnn,keras")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        compete(options.contender, options.folder)
        return
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as folder:
        select(options.folder, Path(folder), options.images)
        result = compare(Path(folder), options.rounds, options.engines.split(","))
    print(json.dumps(result) if options.json else table(result))


def select(source: Path, folder: Path, number: int) -> None:
    """Copy up to `number` distinct pictures, evenly selected from `source`, to `folder/pictures/all`."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = paths[:: max(1, len(paths) // number)][:number]
    distinct = {hashlib.sha256(path.read_bytes()).digest(): path for path in paths}
    (folder / "pictures" / "all").mkdir(parents=True)
    for i, path in enumerate(distinct.values()):
        shutil.copy(path, folder / "pictures" / "all" / f"{i:05}{path.suffix.lower()}")
    if not distinct:
        sys.exit(f"{source}: no pictures")


def compare(folder: Path, rounds: int, names: list[str]) -> dict[str, Any]:
    """Start all contenders, run the rounds, and return the results. Contenders exit with this process, see `listen`."""
    count = len(files(folder))
    children: dict[str, subprocess.Popen[str]] = {}
    results: dict[str, dict[str, Any]] = {}
    for name in (PREDICT, *names):
        command = [sys.executable, "-m", "benchmarks.engines", str(folder), "--contender", name]
        children[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        results[name] = reply(name, children[name]) | {"rounds": []}
        print(f"{name}: {results[name].get('skipped', 'warmed up')}", file=sys.stderr)
    running = [name for name in children if "skipped" not in results[name]]
    for _ in range(rounds):
        for name in running:
            print("go", file=children[name].stdin, flush=True)
            results[name]["rounds"].append(count / reply(name, children[name])["seconds"])
        print("images/s:", *(f"{name} {results[name]['rounds'][-1]:.2f}" for name in running), file=sys.stderr)
    for name in running:
        ratios = [a / b for a, b in zip(results[name]["rounds"], results[PREDICT]["rounds"], strict=True)]
        results[name]["images_per_second"] = statistics.median(results[name]["rounds"])
        results[name]["times_predict"] = statistics.median(ratios)
    versions = {d.name: d.version for name in PACKAGES for d in importlib.metadata.distributions(name=name)}
    return {"machine": machine(), "versions": versions, "images": count, "contenders": results}


def reply(name: str, child: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for the next line from a contender."""
    line = child.stdout.readline() if child.stdout else ""
    if not line:
        sys.exit(f"{name} ended with status {child.wait()}")
    return dict(json.loads(line))


def compete(name: str, folder: Path) -> None:
    """Run as a contender: warm up, reply, then run and time a round for each line on standard input."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # output that libraries print must not mix with the replies
    requests: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=listen, args=(requests,), daemon=True).start()
    try:
        run_round, description = predict(folder) if name == PREDICT else vggft(name, folder)
    except VggftError as error:  # not installed
        run_round, description = time.time, {"skipped": str(error)}
    print(json.dumps(description), file=replies)
    while requests.get():
        start = time.perf_counter()
        run_round()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=replies)


def listen(requests: "SimpleQueue[str]") -> None:
    """Queue the parent's requests. Exit when the parent exits, even during a round."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def predict(folder: Path) -> tuple[Callable[[], object], dict[str, Any]]:
    """Return a round of Keras as in its documentation; also save Keras's outputs for vggft's pixels as the reference."""
    keras = load_keras()
    import tensorflow as tf

    vgg16 = keras.applications.vgg16
    full = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    for layer, numbers in weights.load(VGG16, weights.locate(VGG16)).arrays.items():
        full.get_layer(layer).set_weights(numbers)
    model = keras.Model(full.input, [full.get_layer(layer).output for layer in LAYERS])
    pictures = np.stack([images.decode_resized(path.read_bytes(), 224) for path in files(folder)])
    reference = model.predict(vgg16.preprocess_input(pictures.astype(np.float32)), verbose=0)
    np.savez(folder / "reference.npz", **dict(zip(LAYERS, reference, strict=True)))
    dataset = keras.utils.image_dataset_from_directory(
        folder / "pictures", label_mode=None, image_size=(224, 224), batch_size=32, shuffle=False, verbose=False
    )
    # With tf.data's autotuning, predict returns only at the next wake-up of its thread, after 10 ms · 2ⁿ: 64 images were finished
    # after 9.0 s, and predict returned after 10.2 s. Turning autotuning off made nothing else slower.
    options = tf.data.Options()
    options.autotune.enabled = False
    prepared = dataset.map(vgg16.preprocess_input, num_parallel_calls=os.cpu_count()).prefetch(2).with_options(options)
    run_round = partial(model.predict, prepared, verbose=0)
    run_round()
    return run_round, {}


def vggft(name: str, folder: Path) -> tuple[Callable[[], object], dict[str, Any]]:
    """Return a round of vggft with one engine, and a description with the errors of the cached features."""
    fingerprint = Fingerprint.of(VGG16, precision=engines.choose(VGG16, cast(EngineName, name)).precision)
    engine = engines.create(name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)
    work = {hashlib.sha256(path.read_bytes()).hexdigest(): [path] for path in files(folder)}
    cache_folder = folder / name

    def run_round() -> None:
        shutil.rmtree(cache_folder, ignore_errors=True)
        cache = FeatureCache(cache_folder, fingerprint, VGG16)
        runner.run(work, LAYERS, backbone.decoder(fingerprint), engine, cache)
        cache.save_index()

    run_round()
    errors = {}
    for layer, expected in np.load(folder / "reference.npz").items():
        rows = zip(FeatureCache(cache_folder, fingerprint, VGG16).read(layer, list(work)), expected, strict=True)
        errors[layer] = max(float(np.linalg.norm(row - true) / np.linalg.norm(true)) for row, true in rows)
    return run_round, {"engine": engine.name, "precision": fingerprint.precision, "largest_relative_error": errors}


def files(folder: Path) -> list[Path]:
    """Return the selected pictures."""
    return sorted((folder / "pictures" / "all").iterdir())


def table(result: dict[str, Any]) -> str:
    """Format the result for display."""
    lines = [result["machine"], ", ".join(f"{name} {version}" for name, version in result["versions"].items())]
    lines.append(f"\n{result['images']:>4} images     images/s  × predict   largest error: {', '.join(LAYERS)}")
    for name, row in result["contenders"].items():
        errors = ", ".join(f"{value:.1e}" for value in row.get("largest_relative_error", {}).values())
        speeds = f"{row['images_per_second']:>8.2f}  {row['times_predict']:>9.2f}" if row["rounds"] else "skipped"
        lines.append(f"{name:<14} {speeds}   {errors}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
