"""What featurize costs besides the network: each stage alone, and all of it with an engine that computes nothing.

    python -m benchmarks.pipeline FOLDER [--images 400] [--rounds 5] [--large N] [--computed N] [--against CHECKOUT] [--json FILE]

FOLDER contains JPEG photographs at any depth. They are copied until there are as many files as asked for, each with a few bytes
of its own after its end. The engine hands out float16 outputs of block4_pool and block5_pool that Keras computed before.
Measured:

- each stage alone, in one thread: processor time an image;
- `vggft featurize` in a process of its own, confined to one processor, two, and so on: processor time and images a second;
- with --large: the same on N photographs, enlarged to 12 megapixels;
- with --against: `vggft featurize` of another checkout of vggft, in turn with this one.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine
from featurize import engines
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache import shards, zstd
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import forms
from featurize.disk.digests import pack
from featurize.pixels import images

LAYERS = VGG16.cached
BATCH = 64
LARGE = (4000, 3000)  # 12 megapixels
HERE = Path(__file__).resolve().parents[1]

# One run of `featurize` with prepared outputs. Arguments: data, workspace, outputs, processors.
RUN = """
import json, os, sys, time
from pathlib import Path
import numpy as np
data, work, outputs, processors = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(processors)])
os.cpu_count = lambda: int(processors)
from featurize.backbone.vgg16 import VGG16
from featurize.disk.digests import pack
from vggft.steps import featurize
from vggft.steps.options import FeaturizeOptions
from vggft.ui.console import Ui
from vggft.workspace import backbone
from vggft.workspace.workspace import Workspace

class Prepared:
    name, batch_size, trial, in_flight = "prepared", 64, 1, 1
    def __init__(self, *arguments):
        with np.load(outputs) as stored:
            self.outputs = list(stored.values())
    def __call__(self, inputs, layers, below=None):
        return [output[: len(inputs)] for output in self.outputs]

backbone.create = Prepared
options, workspace, ui = FeaturizeOptions(Path(data), engine="keras"), Workspace(Path(work), VGG16), Ui(quiet=True)
began, used = time.perf_counter(), time.process_time()
result = featurize.run(workspace, options, ui)
print(json.dumps({"seconds": time.perf_counter() - began, "processor": time.process_time() - used, "images": result["computed"]}))
"""


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--large", type=int, default=0, metavar="N", help="photographs of 12 megapixels (default: none)"
    )
    parser.add_argument(
        "--computed",
        type=int,
        default=BATCH,
        help=f"pictures whose outputs are computed; they repeat (default: {BATCH})",
    )
    parser.add_argument("--against", type=Path, help="the folder of another checkout of vggft")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    options = parser.parse_args()
    if options.images < BATCH:
        parser.error(f"--images {options.images}: expected {BATCH} or more")
    checkouts = {"this": HERE} | ({"other": options.against.resolve()} if options.against else {})
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        data = lay_out(options.folder, place / "small", options.images)
        prepare(data, place / "outputs.npz", options.computed)
        found: dict[str, Any] = {"machine": machine(), "images": options.images}
        found["stages"] = stages(data, place)
        found["featurize"] = in_turn(checkouts, place / "small", place, options.rounds, processors())
        if options.large:
            lay_out(options.folder, place / "large", options.large, LARGE)
            most = processors()[-1:]
            found["large"] = in_turn(checkouts, place / "large", place, options.rounds, most)
    if options.json:
        forms.write_json(options.json, found)
    print(table(found))


def processors() -> list[int]:
    """Return 1, 2, 4 and so on, up to the number of processors that this process may use."""
    most = len(os.sched_getaffinity(0))
    return [*(2**i for i in range(most.bit_length()) if 2**i < most), most]


def lay_out(source: Path, folder: Path, wanted: int, size: tuple[int, int] | None = None) -> list[Path]:
    """Write `wanted` distinct JPEG files to two class folders; `size`: enlarge them to that many pixels."""
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"{source}: no JPEG photographs")
    made = []
    for i in range(wanted):
        data = paths[i % len(paths)].read_bytes()
        if size:
            file = io.BytesIO()
            with Image.open(io.BytesIO(data)) as picture:
                picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
            data = file.getvalue()
        made.append(folder / "ab"[i % 2] / f"{i:06}.jpg")
        made[-1].parent.mkdir(parents=True, exist_ok=True)
        made[-1].write_bytes(data + str(i).encode())
    return made


def prepare(paths: Sequence[Path], file: Path, computed: int = BATCH) -> None:
    """Write the outputs of a batch of pictures: those of `computed` pictures, which repeat."""
    loaded = weights.load(VGG16, weights.locate(VGG16))
    engine = engines.KerasEngine(loaded, Fingerprint.of(VGG16), min(computed, engines.CPU_BATCH))
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, computed).astype(int)]
    pictures = np.stack([images.decode_resized(path.read_bytes(), VGG16.size) for path in chosen])
    outputs = engine(pictures, LAYERS)
    narrow: dict[str, Any] = {
        name: np.resize(output.astype(np.float16), (BATCH, *output.shape[1:]))
        for name, output in zip(LAYERS, outputs, strict=True)
    }
    np.savez(file, **narrow)


def stages(paths: Sequence[Path], place: Path) -> dict[str, float]:
    """Return the processor time of each stage alone, in milliseconds an image."""
    with np.load(place / "outputs.npz") as stored:
        features: dict[str, NDArray[np.float16]] = dict(stored)
    compress = zstd.compressor(1)
    assert compress
    files = [path.read_bytes() for path in paths[:BATCH]]
    pictures = [images.decode_resized(data, VGG16.size) for data in files]
    wide = {name: output.astype(np.float32) for name, output in features.items()}
    digests = pack(hashlib.sha256(data).hexdigest() for data in files)
    folder = place / "shards"
    folder.mkdir()
    work: dict[str, Callable[[], object]] = {
        "read and hash the file": lambda: [hashlib.sha256(path.read_bytes()).digest() for path in paths[:BATCH]],
        "decode and resize": lambda: [images.decode_resized(data, VGG16.size) for data in files],
        "collect a batch": lambda: np.stack(pictures),
        "float32 to float16, and check": lambda: [
            np.isfinite(output.astype(np.float16)).all() for output in wide.values()
        ],
        "compress": lambda: [compress(row) for output in features.values() for row in output],
        "write a shard, compression included": lambda: shards.write(folder, digests, features, {}),
    }
    return {name: 1000 * processor_time(play) / BATCH for name, play in work.items()}


def processor_time(play: Callable[[], object]) -> float:
    """Return the median processor time of five calls, after one that warms up."""
    play()
    times = []
    for _ in range(5):
        began = time.process_time()
        play()
        times.append(time.process_time() - began)
    return statistics.median(times)


def in_turn(
    checkouts: dict[str, Path], data: Path, place: Path, rounds: int, numbers: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Run `featurize` of each checkout on each number of processors, in turn."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for number in numbers:
            for name, checkout in checkouts.items():
                shutil.rmtree(place / "work", ignore_errors=True)
                words = [data, place / "work", place / "outputs.npz", number]
                done = subprocess.run(
                    [sys.executable, "-c", RUN, *map(str, words)],
                    cwd=place,  # the current folder comes first on the path
                    env={**os.environ, "PYTHONPATH": str(checkout)},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(done.stderr)
                one = json.loads(done.stdout.splitlines()[-1])
                own = found.setdefault(f"{name}, {number} processor{'s' if number > 1 else ''}", {"ms": [], "rate": []})
                own["ms"].append(1000 * one["processor"] / one["images"])
                own["rate"].append(one["images"] / one["seconds"])
    return {
        key: {
            "processor_ms_per_image": statistics.median(own["ms"]),
            "images_per_second": statistics.median(own["rate"]),
            "rounds": own,
        }
        for key, own in found.items()
    }


def table(found: dict[str, Any]) -> str:
    """Lay out what was measured, for people."""
    lines = [found["machine"], ""]
    lines += [f"{name:<44} {value:8.2f} ms an image" for name, value in found["stages"].items()]
    for key, what in (("featurize", f"{found['images']} photographs"), ("large", "photographs of 12 megapixels")):
        for name, one in found.get(key, {}).items():
            ms, rate = one["processor_ms_per_image"], one["images_per_second"]
            lines.append(f"{what}; {name:<24} {ms:8.2f} ms an image of processor time, {rate:8.1f} images/s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
