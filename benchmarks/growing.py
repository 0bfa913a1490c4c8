"""Folders with any number of distinct labelled pictures, made from one folder; and how a measure grows with that number."""

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.contenders.entry import TRAIN, VALIDATE, listed

SIDE = 96  # pixels of a thumbnail: files of about 3 kB, so that a million fit on a disk


def mixed(data: Path) -> list[Path]:
    """Return the pictures of `data/{train,validate}/CLASS` so that the first N contain about the same share of each folder.

    The first picture of each folder comes before the second of any.
    """
    places: list[tuple[float, Path]] = []
    for split in (TRAIN, VALIDATE):
        for _, group in itertools.groupby(listed(data / split)[0], lambda path: path.parent):
            paths = list(group)
            places += [(number / len(paths), path) for number, path in enumerate(paths)]
    return [path for _, path in sorted(places)]


def fewest(data: Path) -> int:
    """Return the smallest number of pictures with one of each class in train and one in validate."""
    return len({path.parent for path in mixed(data)})


def lay_out(data: Path, target: Path, sizes: Sequence[int]) -> dict[int, Path]:
    """Write a folder like `data` for each number of pictures in `sizes`, and return size → folder.

    Pictures are repeated where there are too few. Bytes appended to each file make it distinct and change no pixel. The files of
    smaller folders are hard links to those of the largest.
    """
    pictures = mixed(data)
    largest = target / str(max(sizes))
    names = []
    for number in range(max(sizes)):
        source = pictures[number % len(pictures)]
        names.append(Path(source.relative_to(data).parent, f"{number:07}{source.suffix}"))
        path = largest / names[-1]
        if number < len(pictures):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes() + str(number).encode())
    for size in set(sizes) - {max(sizes)}:
        for folder in {name.parent for name in names[:size]}:
            (target / str(size) / folder).mkdir(parents=True)
        for name in names[:size]:
            os.link(largest / name, target / str(size) / name)
    return {size: target / str(size) for size in sorted(set(sizes))}


def thumbnails(data: Path, target: Path, number: int) -> Path:
    """Write small JPEG files of the first pictures of `mixed`, in the same folders, and return `target`."""
    for path in mixed(data)[:number]:
        small = (target / path.relative_to(data)).with_suffix(".jpg")
        small.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
        whole.thumbnail((SIDE, SIDE))
        whole.save(small, quality=80)
    return target


def exponent(measured: Mapping[int, float]) -> float | None:
    """Return the slope of the logarithm of a measure over that of the number of images, by least squares: 1 is proportional.

    Args:
        measured: number of images → measure.

    Returns:
        None for fewer than two numbers of images, or a measure that is not positive.
    """
    if len(measured) < 2 or min(measured.values()) <= 0:
        return None
    images, values = np.log(list(measured)), np.log(list(measured.values()))
    return float(np.polyfit(images, values, 1)[0])
