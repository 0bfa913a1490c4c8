"""The files that all contenders read: one folder of labelled pictures, divided once into train, validate and unseen."""

import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.contenders.entry import TRAIN, UNSEEN, VALIDATE, classes, listed

_SHARES = {UNSEEN: 0.25, VALIDATE: 0.15}  # of each class; the rest trains


def divide(source: Path, target: Path, images: int | None = None, side: int | None = None) -> tuple[Path, Path]:
    """Copy pictures to `target/data/{train,validate}/CLASS` and `target/unseen/CLASS`; return the folders data and unseen.

    Args:
        source: class folders; or folders of splits with class folders inside: `train`, one that begins with "val", and `test`,
            whose images are the unseen ones. These splits are kept; if one is missing, the images of all are divided again.
        images: the most in train and validate together, taken evenly from all classes; unseen ones stay.
        side: write PNG files of this width and height instead, and one unseen image of a class: every program reads the same
            numbers from them.
    """
    data, unseen = target / "data", target / UNSEEN
    splits = {path.name: path for path in sorted(source.iterdir()) if path.is_dir() and classes(path)}
    given = {UNSEEN: splits.get("test"), TRAIN: splits.get(TRAIN)}
    given[VALIDATE] = next((path for name, path in splits.items() if name.startswith("val")), None)
    folders = [folder for folder in given.values() if folder]
    parts = _given(given) if len(folders) == len(given) else _drawn(folders or [source])
    _require_alike(source, parts)
    targets = {TRAIN: data / TRAIN, VALIDATE: data / VALIDATE, UNSEEN: unseen}
    total = sum(len(files) for part in (TRAIN, VALIDATE) for files in parts[part].values())
    share = min(1.0, images / total) if images else 1.0
    for part, by_class in parts.items():
        for name, files in by_class.items():
            folder = targets[part] / name
            folder.mkdir(parents=True)
            kept = files if part == UNSEEN else files[: max(1, round(share * len(files)))]
            for number, file in enumerate(sorted(kept[:1] if side and part == UNSEEN else kept)):
                if side:
                    Image.open(file).convert("RGB").resize((side, side)).save(folder / f"{number:05}.png")
                else:
                    shutil.copy(file, folder / f"{number:05}{file.suffix.lower()}")
    return data, unseen


def _require_alike(source: Path, parts: dict[str, dict[str, list[Path]]]) -> None:
    """Check that every part has pictures of every class, or scores would be those of other classes."""
    names = {part: {name for name, files in by_class.items() if files} for part, by_class in parts.items()}
    if not names[TRAIN] or any(each != names[TRAIN] for each in names.values()):
        by_part = "; ".join(f"{part}: {', '.join(sorted(each)) or 'none'}" for part, each in names.items())
        sys.exit(f"{source}: expected pictures of the same classes in every part, but there are {by_part}")


def _given(folders: dict[str, Path | None]) -> dict[str, dict[str, list[Path]]]:
    return {part: _by_class([folder]) for part, folder in folders.items() if folder}


def _drawn(sources: Sequence[Path]) -> dict[str, dict[str, list[Path]]]:
    parts: dict[str, dict[str, list[Path]]] = {TRAIN: {}, **{part: {} for part in _SHARES}}
    for name, files in _by_class(sources).items():
        first = 0
        for part, share in _SHARES.items():
            number = max(1, round(share * len(files)))
            parts[part][name] = files[first : first + number]
            first += number
        parts[TRAIN][name] = files[first:]
    return parts


def _by_class(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the pictures of each class in an order drawn once."""
    by_class: dict[str, list[Path]] = {}
    for folder in folders:
        names = classes(folder)
        for file, number in zip(*listed(folder), strict=True):
            by_class.setdefault(names[number], []).append(file)
    for name, files in by_class.items():
        random.Random(name).shuffle(files)
    return dict(sorted(by_class.items()))
