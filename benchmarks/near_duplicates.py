"""Similarity of modified copies to their originals, and of different pictures: the basis of `heads.leaks.THRESHOLD`.

    python benchmarks/near_duplicates.py FOLDER [--images 60]

FOLDER contains pictures at any depth. Similarity is the cosine similarity of average-pooled block5_pool, as in `heads.leaks`. It
is measured between each picture and its nearest other picture, and between evenly selected pictures and seven modified copies.
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
from featurize.pixels import images
from heads.head import pool
from heads.leaks import THRESHOLD


def crop(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that crops each side by `share` of the shorter side."""
    return lambda picture: ImageOps.crop(picture, round(share * min(picture.size)))


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "saved at JPEG quality 30": (lambda picture: picture, 30),
    "half the size": (lambda picture: picture.resize((picture.width // 2, picture.height // 2)), 92),
    "30% brighter": (lambda picture: ImageEnhance.Brightness(picture).enhance(1.3), 92),
    "2.5% cut off each side": (crop(0.025), 92),
    "10% cut off each side": (crop(0.1), 92),
    "mirrored": (ImageOps.mirror, 92),
    "without colour": (lambda picture: picture.convert("L").convert("RGB"), 92),
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60)
    options = parser.parse_args()
    fingerprint = Fingerprint.of(VGG16)
    name = engines.choose(VGG16, precision=fingerprint.precision).name
    engine = engines.create(name, weights.load(VGG16, weights.locate(VGG16)), fingerprint)

    contents = {path.read_bytes() for path in sorted(options.folder.rglob("*")) if path.is_file()}
    decoded = {data: picture for data in sorted(contents) if (picture := decode(data)) is not None}
    originals = unit(engine, list(decoded.values()))
    similar = originals @ originals.T
    np.fill_diagonal(similar, -1)
    nearest = np.sort(similar.max(axis=1))[::-1]
    print(f"{len(nearest)} different pictures, similarity to the nearest other picture:")
    print(
        f"  highest {nearest[0]:.3f}, median {np.median(nearest):.3f}, {np.mean(nearest >= THRESHOLD):.1%} ≥ {THRESHOLD}"
    )
    selected = list(range(0, len(decoded), max(1, len(decoded) // options.images)))[: options.images]
    sources = [list(decoded)[i] for i in selected]
    print(f"copies of {len(selected)} pictures, similarity to the original:")
    for label, (change, quality) in COPIES.items():
        copies = [images.decode_resized(copy(data, change, quality), 224) for data in sources]
        similarity = (unit(engine, copies) * originals[selected]).sum(axis=1)
        detected = np.mean(similarity >= THRESHOLD)
        print(
            f"  {label:26} lowest {similarity.min():.3f}, median {np.median(similarity):.3f}, {detected:5.0%} ≥ {THRESHOLD}"
        )


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


def unit(engine: Any, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return average-pooled features (n, 512), normalised to length 1."""
    parts = [
        pool(engine(np.stack(pictures[first : first + 16]), [VGG16.top])[0].astype(np.float16), "avg")
        for first in range(0, len(pictures), 16)
    ]
    pooled = np.concatenate(parts)
    length: NDArray[np.float32] = np.linalg.norm(pooled, axis=1, keepdims=True)
    return (pooled / length).astype(np.float32)


if __name__ == "__main__":
    main()
