"""Seconds per epoch of fine-tuning: from cached outputs, in memory and streamed, and from pixels with Keras's `fit`.

    python -m benchmarks.finetune_speed FOLDER [--unfreeze block5] [--train 160] [--validate 80] [--batch-size 16] [--rounds 5]
                                        [--memory 20MB] [--json]

FOLDER contains class folders of photographs, or train/ and validate/ with class folders. `--train` and `--validate` images are
selected evenly from all classes and featurized, and one head is trained; neither is timed. Then one process trains alternately,
one epoch per round:

- from the cache, as `vggft finetune` does: all steps, the validation pass and the checkpoint;
- the same with only `--memory` for features, so that they are read from the cache in every epoch;
- from pixels: `fit` of the same network with the same frozen layers, over `image_dataset_from_directory`.

Batch size, optimizer and images are the same. The first epoch of each, which compiles, is not timed.
"""

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from featurize.options import number_of_bytes
from featurize.wording import size

SUFFIXES = {".jpg", ".jpeg", ".png"}
SPLITS = ("train", "validate")


def main() -> None:
    """Parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unfreeze", default="block5")
    parser.add_argument("--train", type=int, default=160)
    parser.add_argument("--validate", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--memory", type=number_of_bytes, default="20MB", help="memory for streamed features (default 20MB)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as folder:
        result = compare(options, Path(folder))
    print(json.dumps(result) if options.json else table(result))


def lay_out(source: Path, folder: Path, numbers: dict[str, int]) -> None:
    """Copy photographs to `folder/<split>/<class>`, the same number of each class."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            classes.setdefault(path.parent.name, []).append(path)
    paths = [path for row in zip(*classes.values(), strict=False) for path in row]
    if len(paths) < sum(numbers.values()):
        sys.exit(f"{source}: {len(paths)} pictures in classes of equal size, expected {sum(numbers.values())}")
    for split, number in numbers.items():
        for path in paths[:number]:
            class_folder = folder / split / path.parent.name
            class_folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, class_folder)
        del paths[:number]


def vggft(*arguments: Any) -> None:
    """Run the command line."""
    command = [sys.executable, "-m", "vggft", *map(str, arguments), "--quiet"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Prepare features and a head, train alternately, and return the seconds of each round."""
    from featurize.backbone.vgg16 import VGG16
    from vggft.workspace.workspace import Workspace

    lay_out(options.folder, folder / "data", {"train": options.train, "validate": options.validate})
    vggft("featurize", folder / "data", "-w", folder / "work")
    vggft("head", "--head", "max-256", "-w", folder / "work")
    vggft("finetune", "--epochs", "1", "--unfreeze", options.unfreeze, "-w", folder / "work")  # fills the cache
    workspace = Workspace(folder / "work", VGG16)
    epochs = {
        "cache, in memory": from_cache(workspace, options, folder / "a", 2_000_000_000),
        f"cache, streamed in {size(options.memory)}": from_cache(workspace, options, folder / "b", options.memory),
        "pixels, Keras's fit": from_pixels(workspace, options, folder / "data"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(options.rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if number:
                seconds[name].append(time.perf_counter() - start)
    machine = f"{platform.machine()}, {platform.system()}"
    return {"unfreeze": options.unfreeze, "train": options.train, "validate": options.validate, "machine": machine} | {
        "seconds": seconds
    }


def _network(workspace: Any) -> Any:
    from finetune.network import assemble
    from vggft.prediction import models
    from vggft.workspace.backbone import load_weights

    head = models.fresh_heads(workspace)[0].head
    weights = load_weights(workspace.architecture, workspace.settings.fingerprint, workspace.settings.weights_file_path)
    return assemble(
        weights, workspace.settings.fingerprint.preprocess, workspace.settings.fingerprint.size, head
    ), weights


def from_cache(workspace: Any, options: argparse.Namespace, path: Path, memory: int) -> Callable[[], None]:
    """Return a function that trains the next epoch from cached outputs and writes a checkpoint to `path`."""
    from finetune import checkpoint, examples
    from finetune.network import above
    from finetune.plan import Plan
    from finetune.train import Callbacks, State, train

    network, weights = _network(workspace)
    from finetune.program import Program

    below = workspace.architecture.split_point(options.unfreeze)
    assert below is not None
    cache = workspace.cache()
    splits = [workspace.dataset.accepted(split) for split in SPLITS]
    sources = [examples.from_cache(cache, below, [sample.digest for sample in split]) for split in splits]
    windows = examples.windows(sources, memory, options.batch_size)
    rows = [examples.Rows(source, window) for source, window in zip(sources, windows, strict=True)]
    targets = [np.asarray(workspace.dataset.targets(split), np.int64) for split in splits]
    training, validation = (examples.Examples(r, t) for r, t in zip(rows, targets, strict=True))
    part = above(network, workspace.architecture, below)
    program = Program(part, Plan(batch_size=options.batch_size), targets[0], weights)
    states: list[State] = []

    def epoch() -> None:
        def save(state: State) -> None:
            checkpoint.write(path, state)
            states[:] = [state]

        before = states[0] if states else None
        number = before.epoch + 1 if before else 1
        plan = Plan(number, options.batch_size, patience=10**6)
        train(program, (training, validation), plan, before, Callbacks(epoch=save))

    return epoch


def from_pixels(workspace: Any, options: argparse.Namespace, data: Path) -> Callable[[], None]:
    """Return a function that trains the next epoch with Keras alone."""
    from featurize.backend import load_keras
    from finetune.network import freeze
    from finetune.plan import Plan

    keras = load_keras()
    network, _ = _network(workspace)
    architecture = workspace.architecture
    freeze(network, architecture, architecture.split_point(options.unfreeze))
    plan = Plan()
    binary = network.output_shape[-1] == 1
    loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    sgd = keras.optimizers.SGD(plan.learning_rate, momentum=plan.momentum)
    network.compile(sgd, loss, metrics=["accuracy"], jit_compile=False)
    training, validation = (
        keras.utils.image_dataset_from_directory(
            data / split,
            label_mode="binary" if binary else "int",
            image_size=(224, 224),
            batch_size=options.batch_size,
            shuffle=split == "train",
            verbose=False,
        )
        for split in SPLITS
    )
    return lambda: network.fit(training, validation_data=validation, epochs=1, verbose=0)


def table(result: dict[str, Any]) -> str:
    """Return medians and ratios as text."""
    seconds = result["seconds"]
    memory, streamed, pixels = seconds
    lines = [
        f"--unfreeze {result['unfreeze']}, {result['train']} training and {result['validate']} validation images, "
        f"{len(seconds[memory])} alternating rounds, medians; {result['machine']}",
        "",
    ]
    lines += [f"{name:34}{statistics.median(rounds):8.2f} s per epoch" for name, rounds in seconds.items()]

    def ratio(numerator: str, denominator: str) -> str:
        ratios = [a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True)]
        return f"{statistics.median(ratios):.2f} (rounds: {min(ratios):.2f} to {max(ratios):.2f})"

    lines += ["", f"ratio, pixels / cache in memory: {ratio(pixels, memory)}"]
    lines += [f"ratio, streamed / in memory: {ratio(streamed, memory)}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
