"""A grid of linear heads on a frozen network, trained together, as DINOv2's linear evaluation does.

After https://github.com/facebookresearch/dinov2/blob/main/dinov2/eval/linear.py: 13 learning rates times 4 kinds of features, 52
heads that see the same augmented pictures; one pass of the frozen network a batch; SGD with momentum 0.9, no weight decay,
learning rates times batch size / 256, falling to 0 along a cosine; batches of 128, 10 epochs; the head with the best validation
accuracy counts. Changed for this comparison:

- The network is VGG16. DINOv2 concatenates the class tokens of the last block or of the last four, with or without the average of
  the last block's patches. VGG16 has no class token: these are the averages of the last block's output or of those of the last
  four, with or without the maxima of the last block.
- An epoch is one pass over the training pictures, where DINOv2 takes 1250 batches, and validation follows each.
- Where the time is limited, there are as many batches as fit by the seconds of the first one, so that the cosine ends in time.
- Of heads with the same accuracy, the one with the lowest log-loss counts, not the first.
"""

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.entry import PICTURES, TRAIN, VALIDATE, Entry, classes, listed, main
from benchmarks.contenders.torch_weights import MEAN, STD, vgg16

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
KINDS = (
    (1, False),
    (1, True),
    (4, False),
    (4, True),
)  # blocks whose averages count, and whether the last block's maxima do
BATCH, EPOCHS = 128, 10
_USED = 0.9  # of the time that is left, by plan: the seconds of a batch vary


def population(entry: Entry) -> None:
    """Train all heads, then judge the best."""
    grid = Grid(entry)
    *_, best = train(entry, grid, entry.task.epochs or EPOCHS)
    entry.say("population", heads=len(grid.heads))
    entry.judge("best", partial(grid.predict, best))


def race(entry: Entry) -> None:
    """Train all heads; judge the best after each epoch."""
    grid = Grid(entry)
    for number, best in enumerate(train(entry, grid, EPOCHS), 1):
        entry.judge(f"epoch {number}", partial(grid.predict, best))


class Grid:
    """A frozen network and its linear heads.

    Attributes:
        heads: linear layers, one for each kind of features and each learning rate.
        groups: what the optimizer gets: their parameters and learning rates.
    """

    def __init__(self, entry: Entry) -> None:
        import torch
        from torch import nn

        torch.manual_seed(entry.task.seed)
        self._layers = vgg16(entry.task.weights).features.eval().requires_grad_(False)
        self._validation = entry.task.data / VALIDATE
        train = entry.task.data / TRAIN
        self.batch = min(BATCH, len(listed(train)[0]))
        widths = [sum((128, 256, 512, 512)[-blocks:]) + 512 * maxima for blocks, maxima in KINDS]
        self.heads = [nn.Linear(width, len(classes(train))) for width in widths for _ in RATES]
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        rates = [rate * self.batch / 256 for _ in KINDS for rate in RATES]
        self.groups = [{"params": head.parameters(), "lr": rate} for head, rate in zip(self.heads, rates, strict=True)]

    def outputs(self, images: Any) -> list[Any]:
        """Return the logits of each head."""
        kinds = self._features(images)
        return [head(kinds[number // len(RATES)]) for number, head in enumerate(self.heads)]

    def best(self) -> int:
        """Return the number of the head with the best validation accuracy."""
        targets = listed(self._validation)[1]
        found = self._probabilities(self._validation)  # (heads, images, classes)
        accuracy = (found.argmax(-1) == targets).mean(1)
        losses = -np.log(np.maximum(found[:, np.arange(len(targets)), targets], 1e-30)).mean(1)
        return int(np.lexsort((losses, -accuracy))[0])

    def predict(self, head: int, folder: Path) -> NDArray[Any]:
        """Return the probabilities of a head for the pictures of a folder with class folders."""
        return self._probabilities(folder)[head]

    def _probabilities(self, folder: Path) -> NDArray[Any]:
        import torch

        with torch.inference_mode():
            found = [torch.stack(self.outputs(images)).softmax(-1) for images, _ in loader(folder, self.batch)]
            return torch.cat(found, 1).numpy()

    def _features(self, images: Any) -> list[Any]:
        """Return the features of each of `KINDS`."""
        import torch

        averages = []
        with torch.no_grad():
            for layer in self._layers:
                images = layer(images)
                if isinstance(layer, torch.nn.MaxPool2d):
                    averages.append(images.mean((2, 3)))
            maxima = images.amax((2, 3))
            return [torch.cat(averages[-blocks:] + [maxima] * wanted, 1) for blocks, wanted in KINDS]


def train(entry: Entry, grid: Grid, epochs: int) -> Iterator[int]:
    """Train all heads until the epochs are done or the time is up; yield the number of the best head after each epoch."""
    from torch.nn.functional import cross_entropy
    from torch.optim import SGD
    from torch.optim.lr_scheduler import CosineAnnealingLR

    batches = loader(entry.task.data / TRAIN, grid.batch, augmented=True)
    optimizer, step, steps = SGD(grid.groups, momentum=0.9, weight_decay=0), 0, epochs * len(batches)
    while step < steps:
        began = time.perf_counter()
        for images, targets in batches:
            if entry.seconds_left <= 0:
                return
            optimizer.zero_grad()
            sum(cross_entropy(each, targets) for each in grid.outputs(images)).backward()
            optimizer.step()
            step += 1
            if step == 1:
                steps = min(steps, _fitting(entry, len(batches), grid.batch, time.perf_counter() - began))
                schedule = CosineAnnealingLR(optimizer, steps)
            schedule.step()
            if step == steps:
                break
        best = grid.best()
        entry.epoch(time.perf_counter() - began)
        yield best


def _fitting(entry: Entry, epoch: int, batch: int, seconds: float) -> float:
    """Return how many batches fit into the time that is left, with validation after each epoch; one at least.

    Args:
        epoch: batches of an epoch; seconds: of the first batch.
    """
    validation = len(listed(entry.task.data / VALIDATE)[0]) / batch
    fitting = _USED * entry.seconds_left / seconds / (1 + validation / epoch)
    return max(1.0, fitting // 1)


def loader(folder: Path, batch: int, augmented: bool = False) -> Any:
    """Return batches of the pictures of a folder with class folders, prepared as DINOv2 does."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    bicubic = transforms.InterpolationMode.BICUBIC
    crop = (
        [transforms.RandomResizedCrop(224, interpolation=bicubic), transforms.RandomHorizontalFlip()]
        if augmented
        else [transforms.Resize(256, interpolation=bicubic), transforms.CenterCrop(224)]
    )
    prepare = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    pictures = ImageFolder(folder, prepare, is_valid_file=lambda path: Path(path).suffix.lower() in PICTURES)
    workers = len(os.sched_getaffinity(0))
    return DataLoader(pictures, batch, shuffle=augmented, drop_last=augmented, num_workers=workers)


if __name__ == "__main__":
    main({"population": population, "race": race})
