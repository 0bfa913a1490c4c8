"""Outputs of a frozen layer for files: from the cache, else computed from the deepest cached layer below, else from pixels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.cache.feature_cache import FeatureCache
from featurize.engines import CPU_BATCH, Engine
from featurize.errors import VggftError
from vggft.workspace.backbone import decoder

Files = Mapping[str, Sequence[Path]]  # digest → files with these bytes


class FrozenOutputs:
    """What a model reads, for any files. Nothing is kept.

    Attributes:
        note: what went wrong without changing an output, or empty.
    """

    note = ""

    def __init__(self, cache: FeatureCache, layer: str | None, start: Callable[[], Engine]) -> None:
        """Get ready.

        Args:
            cache: where features may be.
            layer: whose outputs are wanted; None: decoded pictures.
            start: returns a running engine with the cache's weights; called when an output has to be computed.
        """
        self._cache = cache
        self._layer = layer
        self._start = start

    def __call__(self, files: Files) -> dict[str, NDArray[Any]]:
        """Return digest → output, float16 (height, width, filters), or picture, uint8 (size, size, 3). All are in memory.

        Raises:
            VggftError: a file that has to be decoded is missing, has changed or cannot be decoded; no weights, or no engine.
        """
        if self._layer is None:
            return dict(self._pictures(files))
        outputs: dict[str, NDArray[Any]] = {}
        names = self._cache.architecture.names[: self._cache.architecture.position(self._layer) + 1]
        for below in (name for name in reversed(names) if name in self._cache.layers):
            lacking = [digest for digest in files if digest not in outputs]
            missing = set(self._cache.missing([below], lacking))
            outputs |= self._recalled(below, [digest for digest in lacking if digest not in missing])
        pictures = dict(self._pictures({digest: paths for digest, paths in files.items() if digest not in outputs}))
        return outputs | self._computed(pictures, None)

    def _recalled(self, below: str, digests: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return outputs from cached ones of that layer or of one below; none where the cache's files are damaged."""
        if not digests:
            return {}
        try:
            rows = dict(zip(digests, self._cache.read(below, digests), strict=True))
        except VggftError as error:
            self.note = f"some features were computed again: {error}"
            return {}
        return rows if below == self._layer else self._computed(rows, below)

    def _computed(self, inputs: Mapping[str, NDArray[Any]], below: str | None) -> dict[str, NDArray[Any]]:
        """Run the frozen layers, and round as the cache does."""
        if not inputs:
            return {}
        assert self._layer is not None  # else nothing has to be computed
        outputs = self._start()(np.stack(list(inputs.values())), [self._layer], below)[0]
        with np.errstate(over="ignore"):
            return dict(zip(inputs, outputs.astype(np.float16), strict=True))

    def _pictures(self, files: Files) -> list[tuple[str, NDArray[np.uint8]]]:
        pictures = []
        for digest, picture in runner.decoded(files, decoder(self._cache.fingerprint), CPU_BATCH):
            if isinstance(picture, str):
                raise VggftError(
                    f"{files[digest][0]}: {picture}. Its heat map needs the picture: restore it, and run the command again."
                )
            pictures.append((digest, picture))
        return pictures
