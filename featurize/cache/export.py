"""One plain HDF5 file of features, labels, splits and paths, for people with h5py: no plug-in is needed to read it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurize import durable, interrupts
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset
from featurize.errors import VggftError

EXPORT_VERSION = 1
_ROWS_AT_ONCE = 256
_STRINGS = h5py.string_dtype("utf-8")


def complete_layers(cache: FeatureCache, dataset: Dataset) -> list[str]:
    """Return the layers of which every accepted image has a row.

    Raises:
        VggftError: there is none.
    """
    digests = [sample.digest for sample in dataset.accepted()]
    found = [layer for layer in cache.layers if not cache.missing([layer], digests)]
    if not found:
        raise VggftError(f"{cache.folder}: no layer is there for all {len(digests)} images. Run first: vggft featurize")
    return found


def export(
    cache: FeatureCache, dataset: Dataset, layers: Sequence[str], file: Path, progress: Callable[[int], None]
) -> None:
    """Write one row an accepted sample, in the manifest's order.

    The file holds `label` (position in `classes`, int64), `split`, `path`, `digest` (text), `classes`, and under
    `features/` a dataset a layer, (rows, height, width, filters), compressed with gzip; attributes `version`, `data`
    (the folder that paths are relative to) and `fingerprint` (JSON).

    Args:
        cache: where the features are.
        dataset: which samples.
        layers: which layers; every accepted sample has them.
        file: must not exist.
        progress: called with the number of rows written so far, all layers together.

    Raises:
        VggftError: the file exists, its folder does not, the disk is full, or the cache is damaged.
    """
    if file.exists():
        raise VggftError(f"{file}: exists already. Name another file, or move this one away.")
    if not file.parent.is_dir():
        raise VggftError(f"{file}: there is no folder {file.parent}. Make it, or name another file.")
    samples = dataset.accepted()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.vggft.tmp")
    try:
        try:
            with h5py.File(temporary, "w", locking=False) as out:
                out.attrs["version"] = EXPORT_VERSION
                out.attrs["data"] = _bytes(str(dataset.root))
                out.attrs["fingerprint"] = cache.fingerprint.json
                out["classes"] = _texts(dataset.classes)
                out["label"] = np.asarray(dataset.targets(samples), np.int64)
                for name in ("split", "path", "digest"):
                    out[name] = _texts([getattr(sample, name) for sample in samples])
                done = 0
                for layer in layers:
                    for first in range(0, len(samples), _ROWS_AT_ONCE):
                        interrupts.check()
                        piece = samples[first : first + _ROWS_AT_ONCE]
                        rows = cache.read(layer, [sample.digest for sample in piece])
                        if first == 0:
                            shape = (len(samples), *rows.shape[1:])
                            kept = out.create_dataset(
                                f"features/{layer}",
                                shape,
                                rows.dtype,
                                chunks=(1, *shape[1:]),
                                compression="gzip",
                                compression_opts=1,
                            )
                        kept[first : first + len(piece)] = rows
                        done += len(piece)
                        progress(done)
            durable.sync_file(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync_folder(file.parent)
    except OSError as error:
        raise VggftError(f"{file}: cannot be written ({error.strerror or error}). Nothing was left there.") from None


def _texts(values: Sequence[str]) -> Any:
    return np.array([_bytes(value) for value in values], dtype=_STRINGS)


def _bytes(value: str) -> bytes:
    """Encode as UTF-8; file names that are no Unicode keep their bytes."""
    return value.encode("utf-8", "surrogateescape")
