"""Pictures for contenders that use PyTorch: torchvision's `ImageFolder` with its usual preprocessing, loaded by processes."""

import os
from pathlib import Path
from typing import Any

from benchmarks.contenders.entry import PICTURES
from benchmarks.contenders.torch_weights import MEAN, STD


def loader(folder: Path, batch: int, augmented: bool = False, interpolation: str = "bilinear") -> Any:
    """Return batches of the pictures of a folder with class folders, and the numbers of their classes.

    There are as many loading processes as cores; more of them only draw a warning from PyTorch.

    Args:
        augmented: cropped and flipped at random, and shuffled; otherwise the middle, in the order of `listed`.
        interpolation: a value of torchvision's `InterpolationMode`.
    """
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    mode = transforms.InterpolationMode(interpolation)
    crop = (
        [transforms.RandomResizedCrop(224, interpolation=mode), transforms.RandomHorizontalFlip()]
        if augmented
        else [transforms.Resize(256, interpolation=mode), transforms.CenterCrop(224)]
    )
    prepare = transforms.Compose([*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    pictures = ImageFolder(folder, prepare, is_valid_file=lambda path: Path(path).suffix.lower() in PICTURES)
    return DataLoader(pictures, batch, shuffle=augmented, num_workers=len(os.sched_getaffinity(0)))
