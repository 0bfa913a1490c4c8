"""A grid of linear heads on a frozen network, trained together, as DINOv2's linear evaluation does.

After https://github.com/facebookresearch/dinov2/blob/main/dinov2/eval/linear.py: 13 learning rates times 4 kinds of features, 52
heads that see the same augmented pictures; one pass of the frozen network a batch; SGD with momentum 0.9, no weight decay,
learning rates times batch size / 256, falling to 0 along a cosine; batches of 128, 12,500 of them (10 epochs of 1,250); the head
with the best validation accuracy counts. Changed for this comparison:

- The network is VGG16. DINOv2 concatenates the class tokens of the last block or of the last four, with or without the average of
  the last block's patches, all after the network's layer normalisation. VGG16 has no class token: these are the averages of the
  last block's output or of those of the last four, with or without the maxima of the last block, each set normalised likewise.
- An epoch is one pass over the training pictures, where DINOv2 takes 1,250 batches, and validation follows each.
- There are 12,500 batches or as many as fit into the time, so that the cosine ends in time. Each batch from the second on updates
  the estimate of how many fit, by the mean seconds of a batch so far. The first one waits for the loading processes and does not
  count.
- Of heads with the same accuracy, the one with the lowest log-loss counts, not the first.
"""

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.entry import TRAIN, VALIDATE, Entry, classes, listed, main
from benchmarks.contenders.torch_pictures import loader
from benchmarks.contenders.torch_weights import vgg16

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
KINDS = ((1, False), (1, True), (4, False), (4, True))  # blocks that are averaged; the last block's maxima, or not
BATCH, STEPS = 128, 12_500
_USED = 0.9  # of the time that is left, by plan: the seconds of a batch vary


def population(entry: Entry) -> None:
    """Train all heads, then judge the best."""
    grid = Grid(entry)
    *_, (steps, best) = train(entry, grid)
    entry.say("population", heads=len(grid.heads), steps=steps)
    entry.judge("best", partial(grid.predict, best))


def race(entry: Entry) -> None:
    """Train all heads; judge the best after each epoch."""
    grid = Grid(entry)
    for number, (_, best) in enumerate(train(entry, grid), 1):
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

    def predict(self, head: int, folder: Path) -> Any:
        """Return the probabilities of a head for the pictures of a folder with class folders."""
        return self._probabilities(folder)[head]

    def _probabilities(self, folder: Path) -> Any:
        import torch

        batches = loader(folder, self.batch, interpolation="bicubic")
        with torch.inference_mode():
            found = [torch.stack(self.outputs(images)).double().softmax(-1) for images, _ in batches]
            return torch.cat(found, 1).numpy()

    def _features(self, images: Any) -> list[Any]:
        """Return the features of each of `KINDS`."""
        import torch
        from torch.nn.functional import layer_norm

        averages = []
        with torch.no_grad():
            for layer in self._layers:
                images = layer(images)
                if isinstance(layer, torch.nn.MaxPool2d):
                    averages.append(layer_norm(images.mean((2, 3)), images.shape[1:2]))
            maxima = layer_norm(images.amax((2, 3)), images.shape[1:2])
            return [torch.cat(averages[-blocks:] + [maxima] * wanted, 1) for blocks, wanted in KINDS]


def train(entry: Entry, grid: Grid) -> Iterator[tuple[int, int]]:
    """Train all heads; after each pass over the pictures, yield the steps so far and the number of the best head."""
    from torch.nn.functional import cross_entropy
    from torch.optim import SGD
    from torch.optim.lr_scheduler import LambdaLR

    batches = loader(entry.task.data / TRAIN, grid.batch, augmented=True, interpolation="bicubic")
    validation = len(listed(entry.task.data / VALIDATE)[0]) / grid.batch
    step, steps, first = 0, STEPS, 0.0
    optimizer = SGD(grid.groups, momentum=0.9, weight_decay=0)
    schedule = LambdaLR(optimizer, lambda number: (1 + math.cos(math.pi * number / steps)) / 2)
    while step < steps:
        began = time.perf_counter()
        for images, targets in batches:
            optimizer.zero_grad()
            sum(cross_entropy(each, targets) for each in grid.outputs(images)).backward()
            optimizer.step()
            step += 1
            if step == 1:
                first = entry.clock
            else:
                steps = min(STEPS, step + _fitting(entry, step, first, (len(batches), validation)))
            schedule.step()
            if step == steps:
                break
        best = grid.best()
        entry.epoch(time.perf_counter() - began)
        yield step, best


def _fitting(entry: Entry, step: int, first: float, batches: tuple[int, float]) -> int:
    """Return how many more steps fit into the time that is left, with validation after each pass and after the last step.

    Args:
        step: steps so far; first: `Entry.clock` after the first one.
        batches: of a pass over the training pictures, and of a validation, which take as long each.
    """
    training, validation = batches
    seconds = (entry.clock - first) / (step - 1 + (step - 1) // training * validation)  # of a batch
    fitting = _USED * entry.seconds_left / seconds
    # n steps take n batches and, with the rest of this pass, at most 2 + (n - rest) / training validations
    rest = -step % training
    return max(0, int((fitting - validation * (2 - rest / training)) / (1 + validation / training)))


if __name__ == "__main__":
    main({"population": population, "race": race})
