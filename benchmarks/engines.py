"""Images a second, from files on disk: vggft's engines against Keras's `model.predict`, measured in turn.

    python benchmarks/engines.py FOLDER [--rounds 5] [--images 64] [--engines winograd,mnn,keras] [--json]

FOLDER holds photographs at any depth. Two outputs of VGG16, block4_pool and block5_pool, are computed of the same files by

- Keras: `model.predict` over `keras.utils.image_dataset_from_directory`, in batches of 32, into memory, tf.data's autotuning off;
- vggft with each engine: `featurize.runner` from the files to a cache committed on disk, which is thrown away again.

Each lives in a process of its own and runs once before it counts: loading and tracing are not in the times. The rounds
go A B C A B C …, so that whatever else the machine does meets all of them. The errors are those of the cached float16
numbers (their rounding included) against Keras in float32, from the same decoded pictures.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import re
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

from featurize import engines, runner
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.backend import load_keras
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.options.choices import EngineName
from featurize.pixels import images
from vggft.workspace import filling

PREDICT = "keras predict"
LAYERS = VGG16.cached
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}  # all that image_dataset_from_directory reads
PACKAGES = ("vggft", "tensorflow", "keras", "numpy", "pillow", "scipy", "numba", "MNN")


def main() -> None:
    """Parse the command line; run as the parent, or as one contender."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64, help="at most so many of the folder's (default 64)")
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


def select(source: Path, folder: Path, wanted: int) -> None:
    """Copy pictures, evenly spread over `source` and no two alike, to below `folder`."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    paths = paths[:: max(1, len(paths) // wanted)][:wanted]
    unlike = {hashlib.sha256(path.read_bytes()).digest(): path for path in paths}
    (folder / "pictures" / "all").mkdir(parents=True)
    for number, path in enumerate(unlike.values()):
        shutil.copy(path, folder / "pictures" / "all" / f"{number:05}{path.suffix.lower()}")
    if not unlike:
        sys.exit(f"{source}: no pictures there")


def compare(folder: Path, rounds: int, names: list[str]) -> dict[str, Any]:
    """Start every contender, run the rounds in turn, and return all that was found. `listen` ends what is started here."""
    count = len(files(folder))
    children: dict[str, subprocess.Popen[str]] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in (PREDICT, *names):
        command = [sys.executable, __file__, str(folder), "--contender", name]
        children[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        found[name] = answer(name, children[name]) | {"rounds": []}
        print(f"{name}: {found[name].get('skipped', 'warmed up')}", file=sys.stderr)
    running = [name for name in children if "skipped" not in found[name]]
    for _ in range(rounds):
        for name in running:
            print("go", file=children[name].stdin, flush=True)
            found[name]["rounds"].append(count / answer(name, children[name])["seconds"])
        print("images/s:", *(f"{name} {found[name]['rounds'][-1]:.2f}" for name in running), file=sys.stderr)
    for name in running:
        ratios = [own / keras for own, keras in zip(found[name]["rounds"], found[PREDICT]["rounds"], strict=True)]
        found[name]["images_per_second"] = statistics.median(found[name]["rounds"])
        found[name]["times_predict"] = statistics.median(ratios)
    versions = {d.name: d.version for name in PACKAGES for d in importlib.metadata.distributions(name=name)}
    return {"machine": machine(), "versions": versions, "images": count, "contenders": found}


def answer(name: str, child: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a contender's next line."""
    line = child.stdout.readline() if child.stdout else ""
    if not line:
        sys.exit(f"{name} ended with status {child.wait()}")
    return dict(json.loads(line))


def compete(name: str, folder: Path) -> None:
    """Be one contender: warm up, say so, then run a round for each line on standard input."""
    speak = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever libraries print must not end up between the answers
    orders: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=listen, args=(orders,), daemon=True).start()
    try:
        play, said = predict(folder) if name == PREDICT else vggft(name, folder)
    except VggftError as error:  # not installed
        play, said = time.time, {"skipped": str(error)}
    print(json.dumps(said), file=speak)
    while orders.get():
        began = time.perf_counter()
        play()
        print(json.dumps({"seconds": time.perf_counter() - began}), file=speak)


def listen(orders: "SimpleQueue[str]") -> None:
    """Pass the parent's orders on; when the parent is gone, end this process, even in the middle of a round."""
    for line in sys.stdin:
        orders.put(line)
    os._exit(0)


def predict(folder: Path) -> tuple[Callable[[], object], dict[str, Any]]:
    """Return a round of Keras as its documentation has it; also keep its outputs for vggft's pixels, to find errors."""
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
    # With tf.data's autotuning, predict returns only when its thread next wakes, after 10 ms · 2ⁿ: 64 images were done
    # after 9.0 s and returned after 10.2 s. That is a timer and not Keras's speed; without it, nothing else was slower.
    options = tf.data.Options()
    options.autotune.enabled = False
    prepared = dataset.map(vgg16.preprocess_input, num_parallel_calls=os.cpu_count()).prefetch(2).with_options(options)
    play = partial(model.predict, prepared, verbose=0)
    play()
    return play, {}


def vggft(name: str, folder: Path) -> tuple[Callable[[], object], dict[str, Any]]:
    """Return a round of vggft with one engine, and what is to be said of it: the errors of what it caches."""
    fingerprint = Fingerprint.of(VGG16, precision=engines.choose(VGG16, cast(EngineName, name)).precision)
    engine = engines.create(name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)
    work = {hashlib.sha256(path.read_bytes()).hexdigest(): [path] for path in files(folder)}
    place = folder / name

    def play() -> None:
        shutil.rmtree(place, ignore_errors=True)
        cache = FeatureCache(place, fingerprint, VGG16)
        runner.run(work, LAYERS, filling.decoder(fingerprint), engine, cache)
        cache.save_index()

    play()
    errors = {}
    for layer, expected in np.load(folder / "reference.npz").items():
        rows = zip(FeatureCache(place, fingerprint, VGG16).read(layer, list(work)), expected, strict=True)
        errors[layer] = max(float(np.linalg.norm(row - true) / np.linalg.norm(true)) for row, true in rows)
    return play, {"engine": engine.name, "precision": fingerprint.precision, "largest_relative_error": errors}


def files(folder: Path) -> list[Path]:
    """Return the selected pictures."""
    return sorted((folder / "pictures" / "all").iterdir())


def machine() -> str:
    """Name the processor, the number of its cores, and Python's version."""
    known = Path("/proc/cpuinfo")
    models = re.findall("model name\t: (.*)", known.read_text(encoding="utf-8")) if known.is_file() else []
    return f"{[*models, platform.machine()][0]}, {os.cpu_count()} cores, Python {platform.python_version()}"


def table(result: dict[str, Any]) -> str:
    """Lay the result out for people."""
    lines = [result["machine"], ", ".join(f"{name} {version}" for name, version in result["versions"].items())]
    lines.append(f"\n{result['images']:>4} images     images/s  × predict   largest error: {', '.join(LAYERS)}")
    for name, found in result["contenders"].items():
        errors = ", ".join(f"{value:.1e}" for value in found.get("largest_relative_error", {}).values())
        speeds = f"{found['images_per_second']:>8.2f}  {found['times_predict']:>9.2f}" if found["rounds"] else "skipped"
        lines.append(f"{name:<14} {speeds}   {errors}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
