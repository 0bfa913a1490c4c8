"""How many modified copies are found as near-duplicates, and how many different pictures are taken for some.

    python -m benchmarks.near_duplicates FOLDER [--images 40]

FOLDER contains class folders. The first line of the result counts the near-duplicates among the pictures themselves, which are
few where the pictures are different. The other lines say how many of evenly selected pictures stay together with a modified
copy of theirs. The constants in `heads.near_duplicates` come from these numbers.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from featurize import engines
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Sample
from featurize.pixels import images
from heads import near_duplicates
from heads.features import Features
from heads.head import pool


def crop(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that crops each side by `share` of the shorter side."""
    return lambda picture: ImageOps.crop(picture, round(share * min(picture.size)))


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "saved at JPEG quality 75": (lambda picture: picture, 75),
    "saved at JPEG quality 30": (lambda picture: picture, 30),
    "half the size": (lambda picture: picture.resize((picture.width // 2, picture.height // 2)), 92),
    "30% brighter": (lambda picture: ImageEnhance.Brightness(picture).enhance(1.3), 92),
    "2.5% cut off each side": (crop(0.025), 92),
    "5% cut off each side": (crop(0.05), 92),
    "10% cut off each side": (crop(0.1), 92),
    "mirrored": (ImageOps.mirror, 92),
    "without colour": (lambda picture: picture.convert("L").convert("RGB"), 92),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    fingerprint = Fingerprint.of(VGG16)
    name = engines.choose(VGG16, precision=fingerprint.precision).name
    engine = engines.create(name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)

    files = {path.read_bytes(): path for path in sorted(options.folder.rglob("*")) if path.is_file()}
    decoded = {data: picture for data in files if (picture := decode(data)) is not None}
    labels = [files[data].parent.name for data in decoded]
    originals = pooled(engine, list(decoded.values()))
    grouping = near_duplicates.together(features(originals, labels))[1]
    print(f"{len(labels)} different pictures: {grouping.joined} have a near-duplicate among the others")
    selected = list(range(0, len(decoded), max(1, len(decoded) // options.images)))[: options.images]
    sources = [list(decoded)[i] for i in selected]
    print(f"copies of {len(selected)} pictures that are found:")
    for label, (change, quality) in COPIES.items():
        copies = pooled(engine, [images.decode_resized(copy(data, change, quality), 224) for data in sources])
        everything = features(np.concatenate([originals, copies]), [*labels, *(labels[i] for i in selected)])
        groups = near_duplicates.together(everything)[0].groups
        found = [groups[i] == groups[len(labels) + n] for n, i in enumerate(selected)]
        print(f"  {label:26} {np.mean(found):4.0%}")


def decode(data: bytes) -> NDArray[np.uint8] | None:
    """Decode and resize as in featurize; return None for files that cannot be decoded."""
    try:
        return images.decode_resized(data, 224)
    except images.Unreadable:
        return None


def copy(data: bytes, change: Callable[[Image.Image], Image.Image], quality: int) -> bytes:
    """Return a modified copy of a picture as JPEG data."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        opaque = Image.new("RGBA", picture.size, "white")
        opaque.alpha_composite(picture.convert("RGBA"))
    change(opaque.convert("RGB")).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def pooled(engine: Any, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return average-pooled features (n, 512)."""
    parts = [
        pool(engine(np.stack(pictures[first : first + 16]), [VGG16.top])[0].astype(np.float16), "avg")
        for first in range(0, len(pictures), 16)
    ]
    return np.concatenate(parts)


def features(values: NDArray[np.float32], labels: list[str]) -> Features:
    """Return average-pooled features with their samples."""
    samples = [Sample(f"{label}/{i}", label, "train", str(i), str(i)) for i, label in enumerate(labels)]
    return Features({"avg": values}, np.unique(labels, return_inverse=True)[1], samples)


if __name__ == "__main__":
    main()
