"""Export of features, labels, splits and paths to one HDF5 file that h5py reads without plug-ins."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featurize.cache import shards
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import interrupts

EXPORT_VERSION = 1
_ROWS_AT_ONCE = 256
_STRINGS = h5py.string_dtype("utf-8")


def complete_layers(cache: FeatureCache, dataset: Dataset) -> list[str]:
    """Return the layers that are cached for all accepted images.

    Raises:
        VggftError: there is no such layer.
    """
    digests = dataset.accepted().digests
    layers = [layer for layer in cache.layers if not cache.missing([layer], digests)]
    if not layers:
        raise VggftError(
            f"{cache.folder}: no layer is cached for all {len(digests)} images. Run first: vggft featurize"
        )
    return layers


def export(
    cache: FeatureCache, dataset: Dataset, layers: Sequence[str], file: Path, progress: Callable[[int], None]
) -> None:
    """Write one row per accepted sample, in the order of the manifest.

    Datasets of the file: `label` (index into `classes`, int64), `split`, `path`, `digest` (text), `classes`, and
    `features/<layer>` (rows, height, width, filters), of `POOLED` (rows, 2, filters), compressed with gzip. Attributes:
    `version`, `data` (the folder that paths are relative to) and `fingerprint` (JSON).

    Args:
        cache: the cached features.
        dataset: the samples.
        layers: the layers to export, cached for all accepted samples.
        file: the new file; it must not exist.
        progress: called with the number of rows written so far, over all layers.

    Raises:
        VggftError: the file exists, its folder does not exist, the disk is full, or the cache is damaged.
    """
    if file.exists():
        raise VggftError(f"{file}: the file exists. Choose another name, or move it away.")
    if not file.parent.is_dir():
        raise VggftError(f"{file}: no such folder: {file.parent}. Create it, or choose another file.")
    samples = dataset.accepted()
    durable.sweep_beside(file)
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
                count = 0
                for layer in layers:
                    for first in range(0, len(samples), _ROWS_AT_ONCE):
                        interrupts.check()
                        chunk = samples[first : first + _ROWS_AT_ONCE]
                        rows = cache.read(layer, [sample.digest for sample in chunk])
                        if first == 0:
                            shape = (len(samples), *rows.shape[1:])
                            features = out.create_dataset(
                                f"features/{layer}",
                                shape,
                                rows.dtype,
                                chunks=shards.chunk(layer, shape),
                                compression="gzip",
                                compression_opts=1,
                            )
                        features[first : first + len(chunk)] = rows
                        count += len(chunk)
                        progress(count)
            durable.sync_file(temporary)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        durable.sync_folder(file.parent)
    except OSError as error:
        raise VggftError(
            f"{file}: cannot be written ({error.strerror or error}). Free some space or fix the permissions, and export again."
        ) from None


def _texts(values: Sequence[str]) -> Any:
    return np.array([_bytes(value) for value in values], dtype=_STRINGS)


def _bytes(value: str) -> bytes:
    """Encode as UTF-8; bytes of file names that are not valid UTF-8 are kept."""
    return value.encode("utf-8", "surrogateescape")
