"""torchvision's VGG16, fine-tuned as in PyTorch's tutorial on transfer learning.

After https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html, "Finetuning the ConvNet": RandomResizedCrop and
flips, batches of 4, SGD at 0.001 with momentum 0.9, a tenth of it every 7 epochs, 25 epochs, validation after each.
Changed for this comparison:

- VGG16 instead of ResNet-18. The given weights have no fully connected layers, so the head is that of the tutorial's ResNet:
  average pooling and one new linear layer.
- As many loading processes as there are cores; more of them only draw PyTorch's warning.
- The tutorial keeps the epoch with the best validation accuracy. Here each epoch is judged, and the best of them counts.

`epoch` freezes everything below block5 with `requires_grad`, as the tutorial's second part does, and has batches of 32.
"""

import os
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.entry import PICTURES, TRAIN, VALIDATE, Entry, classes, listed, main
from benchmarks.contenders.torch_weights import BLOCK5, MEAN, STD, vgg16

BATCH, EPOCHS = 4, 25  # the tutorial's
LARGE_BATCH = 32
FEATURES, FILES = "features-{}.npy", "files-{}.txt"


def race(entry: Entry) -> None:
    """Fine-tune all layers."""
    train(entry, network(entry), BATCH, EPOCHS)


def epoch(entry: Entry) -> None:
    """Fine-tune block5 and the head."""
    model = network(entry)
    freeze(model.features[:BLOCK5])
    train(entry, model, LARGE_BATCH, entry.task.epochs)


def features(entry: Entry) -> None:
    """Compute block5_pool of all pictures, unless the stored features are those of these files."""
    import torch

    base = vgg16(entry.task.weights).features.eval()
    for split in (TRAIN, VALIDATE):
        folder = entry.task.data / split
        path, names = (entry.task.work / name.format(split) for name in (FEATURES, FILES))
        text = "\n".join(map(str, listed(folder)[0]))
        if names.exists() and names.read_text() == text:
            continue
        with torch.inference_mode():
            np.save(path, torch.cat([base(images) for images, _ in loader(folder, LARGE_BATCH)]).numpy())
        names.write_text(text)


def network(entry: Entry) -> Any:
    """Return VGG16 with a new head."""
    import torch
    from torch import nn

    torch.manual_seed(entry.task.seed)
    model = vgg16(entry.task.weights)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, len(classes(entry.task.data / TRAIN)))
    return model


def freeze(layers: Any) -> None:
    """Exclude layers from training."""
    for parameter in layers.parameters():
        parameter.requires_grad = False


def loader(folder: Path, batch: int, augmented: bool = False) -> Any:
    """Return batches of the pictures of a folder with class folders, shuffled if they are augmented."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    crop = (
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
        if augmented
        else [transforms.Resize(256), transforms.CenterCrop(224)]
    )
    prepare = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    pictures = ImageFolder(folder, prepare, is_valid_file=lambda path: Path(path).suffix.lower() in PICTURES)
    return DataLoader(pictures, batch, shuffle=augmented, num_workers=len(os.sched_getaffinity(0)))


def train(entry: Entry, model: Any, batch: int, epochs: int) -> None:
    """Train what is not frozen until the epochs are done or the time is up; validate and judge after each epoch."""
    from torch import nn, optim

    loss = nn.CrossEntropyLoss()
    optimizer = optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.001, momentum=0.9)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    batches = loader(entry.task.data / TRAIN, batch, augmented=True)
    validation = loader(entry.task.data / VALIDATE, batch)
    for number in range(1, epochs + 1):
        began = time.perf_counter()
        model.train()
        for images, targets in batches:
            if entry.seconds_left <= 0:
                return
            optimizer.zero_grad()
            loss(model(images), targets).backward()
            optimizer.step()
        schedule.step()
        accuracy = np.mean(probabilities(model, validation).argmax(1) == validation.dataset.targets)
        entry.epoch(time.perf_counter() - began)
        print(f"epoch {number}: validation accuracy {accuracy:.3f}", file=sys.stderr)
        if entry.task.do == "race":
            entry.judge(f"epoch {number}", partial(predict, model))


def predict(model: Any, folder: Path) -> Any:
    """Return the probabilities of the pictures of a folder with class folders."""
    return probabilities(model, loader(folder, LARGE_BATCH))


def probabilities(model: Any, batches: Iterable[Any]) -> Any:
    """Return the probabilities of all pictures, (images, classes)."""
    import torch

    model.eval()
    with torch.inference_mode():
        return torch.cat([model(images).softmax(1) for images, _ in batches]).numpy()


if __name__ == "__main__":
    main({"race": race, "epoch": epoch, "features": features})
