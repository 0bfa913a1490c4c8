"""Seconds to train heads on cached features: the baseline, one head, twelve heads, the classic head with and without a cache.

    python -m benchmarks.head_speed FOLDER [--images 2000] [--rounds 3] [--pixels 96] [--json]

FOLDER contains class folders of photographs, or train/ and validate/ with class folders. `--images` random crops of them, all of
one photograph in one group, are featurized; this is not timed. Then, in alternating rounds, each in its own process:

- `vggft head --head logistic-max` with its search for C, `--head max-256`, and all twelve pooled heads; dense heads for 50 epochs
  without early stopping, so that all take the same number of steps;
- the classic head for a few epochs from the cache;
- the classic head on the frozen network without a cache: Keras's `fit` over `--pixels` pictures with
  `image_dataset_from_directory`, which computes the frozen layers in every epoch.

Times are those of the whole command, including the start of Python and Keras, and the training times that it reports. The time of
50 epochs of the classic head is extrapolated from a few epochs.
"""

import argparse
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from heads.specs import CLASSIC, POOLED_HEADS

EPOCHS = 50
FEW = 3  # measured epochs of the classic head
SUFFIXES = {".jpg", ".jpeg", ".png"}

COMMANDS: dict[str, tuple[str, ...]] = {
    "logistic-max, search included": ("--head", "logistic-max"),
    "max-256 alone": ("--head", "max-256", "--epochs", str(EPOCHS), "--patience", str(EPOCHS)),
    "twelve pooled heads": (
        *(word for spec in POOLED_HEADS for word in ("--head", spec.name)),
        *("--epochs", str(EPOCHS), "--patience", str(EPOCHS)),
    ),
    f"classic, {FEW} epochs": ("--head", CLASSIC.name, "--epochs", str(FEW), "--patience", str(EPOCHS)),
}


def main() -> None:
    """Parse the command line; run as the parent process, or as the measurement without a cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=96, help="pictures per epoch without a cache (default 96)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--without-cache", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.without_cache:
        print(json.dumps(without_cache(options.folder)))
        return
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as folder:
        result = compare(options.folder, Path(folder), options)
    print(json.dumps(result) if options.json else table(result))


def cut(source: Path, folder: Path, images: int) -> None:
    """Write random crops of the photographs in `source`, 60 to 95% of each side, some mirrored, to class folders."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{source}: no pictures")
    rng = random.Random(0)
    for number in range(images):
        path = paths[number % len(paths)]
        with Image.open(path) as picture:
            photograph = picture.convert("RGB")
        share = rng.uniform(0.6, 0.95)
        width, height = (round(side * share) for side in photograph.size)
        left, top = rng.randint(0, photograph.width - width), rng.randint(0, photograph.height - height)
        crop = photograph.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            crop = ImageOps.mirror(crop)
        class_folder = folder / path.parent.name
        class_folder.mkdir(parents=True, exist_ok=True)
        crop.save(class_folder / f"{number % len(paths):06}-{number // len(paths)}.jpg", quality=90)


def compare(source: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compute the features, run the rounds, and return the seconds of each round."""
    cut(source, folder / "data", options.images)
    work = folder / "work"
    vggft("featurize", folder / "data", "-w", work, "--group-by", r"(\d{6})-\d+\.jpg")
    few = folder / "few"
    for path in sorted((folder / "data").glob("*/*"))[:: max(1, options.images // options.pixels)][: options.pixels]:
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, few / path.parent.name)
    wall: dict[str, list[float]] = {name: [] for name in COMMANDS}
    training: dict[str, list[float]] = {name: [] for name in COMMANDS}
    reading: dict[str, list[float]] = {name: [] for name in COMMANDS}
    pixels: list[float] = []  # seconds per image
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            start = time.perf_counter()
            result = vggft("head", "-w", work, "--retrain", *arguments)
            wall[name].append(time.perf_counter() - start)
            reading[name].append(result["seconds"].pop("reading"))
            training[name].append(sum(result["seconds"].values()))
        command = [sys.executable, "-m", "benchmarks.head_speed", str(few), "--without-cache"]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        pixels.append(json.loads(process.stdout.splitlines()[-1]))
    return {
        "images": options.images,
        "pixels": options.pixels,
        "machine": f"{platform.machine()}, {platform.system()}",
        "wall": wall,
        "reading": reading,
        "training": training,
        "pixels_seconds_an_image": pixels,
    }


def vggft(*arguments: Any) -> Any:
    """Run a vggft command; return its JSON output."""
    command = [sys.executable, "-m", "vggft", *map(str, arguments), "--json", "--quiet"]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout)


def without_cache(folder: Path) -> float:
    """Return the seconds per image of an epoch of Keras's `fit` from files, with frozen network and classic head."""
    import numpy as np

    from featurize.backbone import weights
    from featurize.backbone.vgg16 import VGG16
    from featurize.backend import load_keras
    from finetune.network import assemble
    from heads.head import Head, Layer

    keras = load_keras()
    rng = np.random.default_rng(0)
    hidden = Layer(
        rng.normal(0, 0.01, (25088, CLASSIC.units)).astype(np.float32), np.zeros(CLASSIC.units, np.float32), "relu"
    )
    output = Layer(rng.normal(0, 0.1, (CLASSIC.units, 1)).astype(np.float32), np.zeros(1, np.float32), "sigmoid")
    head = Head("classic", "dense", "flatten", ("a", "b"), (hidden, output), CLASSIC.dropout)
    network = assemble(weights.load(VGG16, weights.locate(VGG16)), "caffe", 224, head)
    for layer in network.layers:
        layer.trainable = layer.name.startswith(("head_", "scores"))
    network.compile(keras.optimizers.Adam(CLASSIC.learning_rate), "binary_crossentropy", jit_compile=False)
    data = keras.utils.image_dataset_from_directory(folder, label_mode="binary", image_size=(224, 224), verbose=False)
    network.fit(data, epochs=1, verbose=0)  # tracing
    start = time.perf_counter()
    network.fit(data, epochs=1, verbose=0)
    return (time.perf_counter() - start) / sum(1 for _ in folder.glob("*/*"))


def table(result: dict[str, Any]) -> str:
    """Return medians and ratios as text."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    rounds = len(result["pixels_seconds_an_image"])
    lines = [f"{result['images']} images, {rounds} alternating rounds, medians; {result['machine']}", ""]
    lines.append(f"{'':34}{'whole command':>16}{'reading':>12}{'training':>12}")
    for name in COMMANDS:
        values = [median(result[column][name]) for column in ("wall", "reading", "training")]
        lines.append(f"{name:34}{values[0]:14.1f} s{values[1]:10.1f} s{values[2]:10.1f} s")
    single, twelve = "max-256 alone", "twelve pooled heads"
    for column in ("wall", "training"):
        ratio = median([b / a for a, b in zip(result[column][single], result[column][twelve], strict=True)])
        lines.append(f"ratio, twelve heads / one head, {'whole command' if column == 'wall' else column}: {ratio:.2f}")
    few = f"classic, {FEW} epochs"
    cached = [r + t / FEW * EPOCHS for r, t in zip(result["reading"][few], result["training"][few], strict=True)]
    epochs = [seconds * result["images"] * EPOCHS for seconds in result["pixels_seconds_an_image"]]
    lines.append(
        f"classic, {EPOCHS} epochs from the cache, extrapolated from {FEW} (one reading of features): {median(cached):.0f} s"
    )
    lines.append(
        f"classic, {EPOCHS} epochs without a cache, extrapolated from {result['pixels']} pictures: {median(epochs):.0f} s"
    )
    ratio = median([b / a for a, b in zip(cached, epochs, strict=True)])
    lines.append(f"ratio, without cache / with cache: {ratio:.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
