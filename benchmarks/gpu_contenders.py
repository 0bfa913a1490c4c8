"""What `benchmarks/gpu.py` compares with: Keras's `predict`, Keras's `fit` from pixels, and plain PyTorch.

Each reads the same files, computes in the same precision and keeps its outputs in memory. PyTorch runs in a process of its
own, which `benchmarks/gpu.py` starts:

    python -m benchmarks.gpu_contenders FOLDER WEIGHTS.npz SIDE
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.backbone.vgg16 import VGG16
from featurize.backbone.weights import Arrays
from featurize.backend import load_keras
from featurize.options.choices import MIXED_PRECISION

OUTPUTS = ("block4_pool", "block5_pool")
CORES = os.cpu_count() or 1
KERAS_BATCH = 64
TORCH_BATCH = 128


def keras_pictures(
    paths: Sequence[Path], prepare: Callable[[Any], Any], targets: NDArray[Any] | None, size: int, side: int
) -> Any:
    """Return batches of `size`, as Keras's documentation makes them without TensorFlow: a PyDataset, decoded in threads."""
    keras = load_keras()

    class Pictures(keras.utils.PyDataset):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__(workers=CORES, use_multiprocessing=False, max_queue_size=2 * CORES)

        def __len__(self) -> int:
            return math.ceil(len(paths) / size)

        def __getitem__(self, number: int) -> Any:
            part = slice(number * size, (number + 1) * size)
            load, to_array = keras.utils.load_img, keras.utils.img_to_array
            rows = [to_array(load(path, target_size=(side, side), interpolation="bilinear")) for path in paths[part]]
            x = prepare(np.stack(rows))
            return (x,) if targets is None else (x, targets[part])

    return Pictures()


def keras_predict(arrays: Arrays, paths: Sequence[Path], precision: str, side: int) -> Callable[[], object]:
    """Return a round of `model.predict` of Keras's own VGG16 over files; pictures travel as float32."""
    keras = load_keras()
    vgg16 = keras.applications.vgg16
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        full = keras.applications.VGG16(include_top=False, weights=None, input_shape=(side, side, 3))
    finally:
        keras.config.set_dtype_policy(before)
    for layer, numbers in arrays.items():
        full.get_layer(layer).set_weights(numbers)
    model = keras.Model(full.input, [full.get_layer(layer).output for layer in OUTPUTS])
    pictures = keras_pictures(paths, vgg16.preprocess_input, None, KERAS_BATCH, side)
    return lambda: model.predict(pictures, verbose=0)


def fit_from_pixels(
    network: Any, precision: str, splits: Sequence[tuple[Sequence[Path], NDArray[Any]]], batch: int
) -> Any:
    """Return one epoch of Keras's `fit` over files, validation included, of an assembled network whose lower part is frozen.

    Args:
        precision: of the convolutions; the head stays in float32, as in vggft's training.
        splits: paths and targets of training and validation.
    """
    keras = load_keras()
    if precision == MIXED_PRECISION:
        for layer in network.layers:
            if layer.name in VGG16.names:
                layer.dtype_policy = precision
    binary, side = network.output_shape[-1] == 1, network.input_shape[1]
    loss = "binary_crossentropy" if binary else "sparse_categorical_crossentropy"
    network.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss, metrics=["accuracy"])
    short = [keras_pictures(paths[:batch], np.asarray, targets[:batch], batch, side) for paths, targets in splits]
    training, validation = (keras_pictures(paths, np.asarray, targets, batch, side) for paths, targets in splits)
    network.fit(short[0], validation_data=short[1], epochs=1, verbose=0)  # compiles
    return lambda: network.fit(training, validation_data=validation, epochs=1, verbose=0)


class TorchProcess:
    """Plain PyTorch, in a process of its own, that runs a round whenever it is told to."""

    def __init__(self, folder: Path, arrays: Arrays, side: int) -> None:
        """Start it and wait until it is warmed up; `skipped` says why where it is not."""
        self.skipped = "" if importlib.util.find_spec("torch") else "PyTorch is not installed"
        if self.skipped:
            return
        flat = {f"{name}/{i}": array for name, pair in arrays.items() for i, array in enumerate(pair)}
        np.savez(folder / "weights.npz", **flat)  # type: ignore[arg-type]
        words = [str(folder / "data"), str(folder / "weights.npz"), str(side)]
        command = [sys.executable, "-m", "benchmarks.gpu_contenders", *words]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self.skipped = f"its process ended with status {self._child.wait()}"
            return {}
        return dict(json.loads(line))

    def __call__(self) -> None:
        """Run a round."""
        print("go", file=self._child.stdin, flush=True)
        self._answer()
        if self.skipped:
            raise RuntimeError(self.skipped)

    def close(self) -> None:
        """End it."""
        if not self.skipped and self._child.stdin:
            self._child.stdin.close()
            self._child.wait(60)


class _Files:
    """A dataset for PyTorch's DataLoader: uint8 pictures (3, side, side), BGR."""

    def __init__(self, paths: Sequence[Path], side: int) -> None:
        self._paths, self._side = paths, side

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> Any:
        import torch

        with Image.open(self._paths[i]) as image:
            square = image.convert("RGB").resize((self._side, self._side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(square)[..., ::-1].transpose(2, 0, 1).copy())


def torch_round(paths: Sequence[Path], weights: Path, side: int) -> tuple[Callable[[], object], dict[str, Any]]:
    """Return a round of feature extraction as one writes it in PyTorch, with all that makes it fast, and what it runs on.

    The layers are those of torchvision.models.vgg16().features: channels last, half precision on a GPU, cuDNN's benchmark
    mode, a DataLoader with a worker a core whose processes stay, pinned memory.
    """
    import torch
    from torch import nn

    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if gpu else ("cpu", torch.float32)
    torch.backends.cudnn.benchmark = True
    numbers = np.load(weights)
    blocks: list[Any] = []
    parts: list[Any] = []
    for layer in VGG16.layers:
        if layer.convolution:
            conv = nn.Conv2d(layer.channels, layer.filters, 3, padding=1)
            conv.weight.data = torch.from_numpy(numbers[f"{layer.name}/0"].transpose(3, 2, 0, 1).copy())
            conv.bias.data = torch.from_numpy(numbers[f"{layer.name}/1"])
            parts += [conv, nn.ReLU(inplace=True)]
        else:
            parts.append(nn.MaxPool2d(2))
        if layer.name in OUTPUTS:
            blocks.append(nn.Sequential(*parts).to(device, dtype, memory_format=torch.channels_last).eval())
            parts = []
    means = torch.tensor(VGG16.means, device=device).reshape(1, 3, 1, 1)
    workers = CORES if len(paths) > CORES else 0
    loader = torch.utils.data.DataLoader(
        _Files(paths, side), TORCH_BATCH, num_workers=workers, pin_memory=gpu, persistent_workers=workers > 0
    )

    def play() -> list[Any]:
        outputs = []
        with torch.inference_mode():
            for pictures in loader:
                x = (pictures.to(device, non_blocking=True).float() - means).to(dtype)
                x = x.contiguous(memory_format=torch.channels_last)
                for block in blocks:
                    x = block(x)
                    outputs.append(x.cpu().numpy())
        return outputs

    play()
    device_name = torch.cuda.get_device_name() if gpu else "cpu"
    return play, {"device": device_name, "precision": str(dtype), "batch_size": TORCH_BATCH}


def main() -> None:
    """Warm PyTorch up, say so, then run a round for each line on standard input, until it ends."""
    speak = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    folder, weights, side = sys.argv[1:]
    play, about = torch_round(sorted(Path(folder).rglob("*.jpg")), Path(weights), int(side))
    print(json.dumps(about), file=speak)
    for _ in sys.stdin:
        began = time.perf_counter()
        play()
        print(json.dumps({"seconds": time.perf_counter() - began}), file=speak)


if __name__ == "__main__":
    main()
