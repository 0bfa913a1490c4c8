"""Class and score of each image, with the best model or a named one."""

import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.dataset import Sample
from featurize.engines import CPU_BATCH
from featurize.errors import VggftError
from featurize.scan import files_below
from vggft import methods
from vggft.console import Ui
from vggft.features import decoder
from vggft.workspace import Workspace


def run(workspace: Workspace, paths: Sequence[Path], model: str | None, ui: Ui) -> dict[str, Any]:
    """Predict every image among the files and folders.

    Raises:
        VggftError: a path that does not exist, no model yet, or an unknown one.
    """
    for path in paths:
        if not path.exists():
            raise VggftError(f"{path}: no such file or folder.")
    found = methods.load(workspace)
    if model is None and not found.fresh:
        methods.fresh_heads(workspace)  # raises, and says which step is missing
    method = found.named(model) if model else found.best
    scorer = method.from_pixels(workspace)
    decode = decoder(workspace.settings.fingerprint)
    ui.say(f"model: {method.name}")

    predictions: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    with ThreadPoolExecutor() as pool:
        for batch in _batches(_files(paths), CPU_BATCH):
            usable = []
            pictures = pool.map(lambda file: _picture(file[0], file[1], decode), batch)
            for (path, _), picture in zip(batch, pictures, strict=True):
                if isinstance(picture, str):
                    rejected.append({"path": str(path), "reason": picture})
                    ui.warn(f"rejected {path}: {picture}")
                else:
                    usable.append((path, picture))
            if not usable:
                continue
            scores = scorer(np.stack([picture for _, picture in usable]))
            for (path, _), p in zip(usable, scores, strict=True):
                top = int(np.argmax(p))
                predictions.append(
                    {
                        "path": str(path),
                        "label": method.classes[top],
                        "score": float(p[top]),
                        "probabilities": dict(zip(method.classes, map(float, p), strict=True)),
                    }
                )
                ui.print(f"{method.classes[top]:>12}  {p[top]:.4f}  {path}")
    if not predictions and not rejected:
        raise VggftError(f"{', '.join(map(str, paths))}: no files there. Expected images, or folders of images.")
    return {"model": method.name, "predictions": predictions, "rejected": rejected}


def _batches(files: Iterator[tuple[Path, str]], size: int) -> Iterator[list[tuple[Path, str]]]:
    while batch := list(islice(files, size)):
        yield batch


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Yield every file, with a reason where it is none that could be opened."""
    for path in paths:
        if path.is_dir():
            for sample in files_below(path, path, Sample("", "")):
                yield path / sample.path, sample.reason
        else:
            regular = stat.S_ISREG(path.stat().st_mode)
            yield path, "" if regular else "not a regular file (a pipe, socket or device)"


def _picture(path: Path, reason: str, decode: runner.Decoder) -> NDArray[np.uint8] | str:
    if reason:
        return reason
    try:
        data = path.read_bytes()
    except OSError as error:
        return runner.unreadable(error)
    return runner.decode_or_reason(data, decode)
