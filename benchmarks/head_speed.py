"""Seconds to train heads on cached features: the baseline, one pooled head, all twelve, the classic with and without a cache.

    python benchmarks/head_speed.py FOLDER [--images 2000] [--rounds 3] [--pixels 96] [--json]

FOLDER holds class folders of photographs (or train/ and validate/ with them). So many pictures are cut from them at random,
all pieces of one photograph a group, and featurized once, which does not count. Then, in turn, round after round, each in a
process of its own:

- `vggft head --head logistic-max`, its search included; `--head max-256`; all twelve pooled heads; for 50 epochs each,
  early stopping off, so that all take as many steps;
- the classic head for a few epochs from the cache;
- the classic head on the frozen network without a cache: Keras's `fit` over so many `--pixels` pictures with
  `image_dataset_from_directory`, every frozen layer computed in every epoch.

Times are those of the whole command, Python's and Keras's start included, and those that the command reports as training.
The classic's 50 epochs are reckoned from the few that were measured.
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

from heads.specs import CLASSIC, POOLED

EPOCHS = 50
FEW = 3  # epochs of the classic that are measured
SUFFIXES = {".jpg", ".jpeg", ".png"}

COMMANDS: dict[str, tuple[str, ...]] = {
    "logistic-max, search included": ("--head", "logistic-max"),
    "max-256 alone": ("--head", "max-256", "--epochs", str(EPOCHS), "--patience", str(EPOCHS)),
    "twelve pooled heads": (
        *(word for spec in POOLED for word in ("--head", spec.name)),
        *("--epochs", str(EPOCHS), "--patience", str(EPOCHS)),
    ),
    f"classic, {FEW} epochs": ("--head", CLASSIC.name, "--epochs", str(FEW), "--patience", str(EPOCHS)),
}


def main() -> None:
    """Parse the command line; run as the parent, or as the one without a cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=96, help="pictures of an epoch without a cache (default 96)")
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
    """Write pieces of the photographs below `source`, 60 to 95% of each side, some mirrored, to class folders."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        sys.exit(f"{source}: no pictures there")
    rng = random.Random(0)
    for number in range(images):
        path = paths[number % len(paths)]
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
        share = rng.uniform(0.6, 0.95)
        width, height = (round(side * share) for side in whole.size)
        left, top = rng.randint(0, whole.width - width), rng.randint(0, whole.height - height)
        piece = whole.crop((left, top, left + width, top + height))
        if rng.random() < 0.5:
            piece = ImageOps.mirror(piece)
        place = folder / path.parent.name
        place.mkdir(parents=True, exist_ok=True)
        piece.save(place / f"{number % len(paths):06}-{number // len(paths)}.jpg", quality=90)


def compare(source: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Make the features, run all in turn, and return the seconds of each round."""
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
    pixels: list[float] = []  # seconds an image
    for _ in range(options.rounds):
        for name, arguments in COMMANDS.items():
            began = time.perf_counter()
            found = vggft("head", "-w", work, "--retrain", *arguments)
            wall[name].append(time.perf_counter() - began)
            reading[name].append(found["seconds"].pop("reading"))
            training[name].append(sum(found["seconds"].values()))
        command = [sys.executable, __file__, str(few), "--without-cache"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        pixels.append(json.loads(done.stdout.splitlines()[-1]))
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
    """Run the command line; return what it said as JSON."""
    command = [sys.executable, "-m", "vggft", *map(str, arguments), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def without_cache(folder: Path) -> float:
    """Return seconds an image of one epoch of Keras's `fit`: frozen network and classic head, from files."""
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
    began = time.perf_counter()
    network.fit(data, epochs=1, verbose=0)
    return (time.perf_counter() - began) / sum(1 for _ in folder.glob("*/*"))


def table(result: dict[str, Any]) -> str:
    """Return medians and ratios as text."""

    def median(values: Sequence[float]) -> float:
        return statistics.median(values)

    rounds = len(result["pixels_seconds_an_image"])
    lines = [f"{result['images']} images, {rounds} rounds in turn, medians; {result['machine']}", ""]
    lines.append(f"{'':34}{'whole command':>16}{'reading':>12}{'training':>12}")
    for name in COMMANDS:
        values = [median(result[what][name]) for what in ("wall", "reading", "training")]
        lines.append(f"{name:34}{values[0]:14.1f} s{values[1]:10.1f} s{values[2]:10.1f} s")
    one, twelve = "max-256 alone", "twelve pooled heads"
    for what in ("wall", "training"):
        ratio = median([b / a for a, b in zip(result[what][one], result[what][twelve], strict=True)])
        lines.append(f"twelve heads to one, {'whole command' if what == 'wall' else what}: {ratio:.2f}")
    few = f"classic, {FEW} epochs"
    cached = [r + t / FEW * EPOCHS for r, t in zip(result["reading"][few], result["training"][few], strict=True)]
    epochs = [seconds * result["images"] * EPOCHS for seconds in result["pixels_seconds_an_image"]]
    lines.append(
        f"classic, {EPOCHS} epochs from the cache, reckoned from {FEW} (reading counted once): {median(cached):.0f} s"
    )
    lines.append(
        f"classic, {EPOCHS} epochs without a cache, reckoned from one over {result['pixels']} pictures: {median(epochs):.0f} s"
    )
    ratio = median([b / a for a, b in zip(cached, epochs, strict=True)])
    lines.append(f"without a cache to from the cache: {ratio:.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
