"""Predicting from the outputs of a frozen layer: from the cache where they are, else computed, and then kept there."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from featurize.cache import estimate, sharing
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import digests_of
from featurize.disk.digests import pack
from featurize.engines import CPU_BATCH, Engine
from featurize.errors import VggftError, reason
from featurize.options.choices import SHARD_ROWS
from featurize.process.per_process import PerProcess
from featurize.wording import counted, size
from heads import features
from vggft.prediction.model import Predictor
from vggft.prediction.scoring import Scorer
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Busy, Workspace

# Bytes on disk of features of images that are not in the data set; `vggft cache prune` deletes them.
MOST_KEPT = 1_000_000_000
_IN_MEMORY = 50_000_000  # bytes of computed features at most, before they are written


class FeatureScorer(Scorer):
    """A model that reads the outputs of one frozen layer.

    It can be called from several threads. The engine starts when the first picture has to be computed.
    """

    def __init__(
        self,
        predict: Predictor,
        workspace: Workspace,
        layers: Sequence[str],
        start: Callable[[], Engine],
        opened: Callable[[], FeatureCache],
    ) -> None:
        """Get ready.

        Args:
            predict: outputs of any of `layers` → class probabilities.
            layers: the first that the cache has is read; of pictures that are not there, the outputs of the last one are
                computed.
            start: returns a running engine with the workspace's weights.
            opened: opens the cache of the workspace that these pictures belong in.
        """
        self._predict = predict
        self._workspace = workspace
        self._layers, self._layer = list(dict.fromkeys(layers)), layers[-1]
        self._engine = PerProcess(start)
        self._cache = PerProcess(opened)
        self._new: dict[str, NDArray[np.float16]] = {}  # computed, and not written yet
        self._reads = self._writes = True

    @property
    def batch_size(self) -> int:  # type: ignore[override]
        """As in `Scorer`; before the engine has started, that of engines on a CPU."""
        return self._engine().batch_size if self._engine.made else CPU_BATCH

    def __call__(self, pictures: NDArray[np.uint8], digests: Sequence[str] = ()) -> NDArray[np.float64]:
        """See `Scorer`.

        Raises:
            VggftError: there are no weights, or the engine does not start.
        """
        with np.errstate(over="ignore"):
            rows: NDArray[np.float16] = self._engine()(pictures, [self._layer])[0].astype(np.float16)
        if digests and self._writes:
            self._new |= {digest: row for digest, row in zip(digests, rows, strict=True) if np.isfinite(row).all()}
            if len(self._new) >= SHARD_ROWS or sum(row.nbytes for row in self._new.values()) > _IN_MEMORY:
                self.close()
        return self._predict(rows)

    def knows(self, digest: str) -> bool:
        """See `Scorer`; a cache that cannot be read is reported in `note`, and not tried again."""
        try:
            return self._reads and any(not self._cache().missing([layer], [digest]) for layer in self._layers)
        except (OSError, VggftError) as error:  # of the cache, not of the picture
            self._reads = self._writes = False
            why = (
                error
                if isinstance(error, VggftError)
                else f"{error.filename or self._workspace.cache_folder}: {reason(error)}"
            )
            self.note = f"features were computed again: the cache cannot be read ({why})"
            return False

    def recall(self, digests: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """See `Scorer`; damaged files of the cache are reported in `note`, and not read again."""
        if not digests:
            return {}
        predicted: dict[str, NDArray[np.float64]] = {}
        try:
            cache = self._cache()
            for layer, positions in features.sources(cache, pack(digests), self._layers, self._layer):
                if len(positions):
                    known = [digests[i] for i in positions]
                    predicted |= zip(known, self._predict(cache.read(layer, known)), strict=True)
        except VggftError as error:
            self._reads = False
            self.note = f"some features were computed again: {error}"
            return {}
        return predicted

    def close(self) -> None:
        """Write the features computed so far into the workspace's cache, unless another process is writing there: never wait."""
        if not self._new:
            return
        new, self._new = self._new, {}
        workspace = Workspace(self._workspace.root, self._workspace.architecture)  # which does not wait
        try:
            with workspace.writing(), sharing.free(workspace.cache_folder) as alone:
                if not alone:
                    raise Busy
                cache = workspace.cache(self._cache().fingerprint)
                rows = np.stack(list(new.values()))
                self._require_room(cache, len(new))
                engine = self._engine()
                attributes = {"engine": engine.name, "batch_size": str(engine.batch_size), "computed_from": "pixels"}
                cache.write(list(new), {self._layer: rows}, attributes)
                cache.save_index()
        except VggftError as error:
            self._writes = False
            why = "another vggft process is writing there" if isinstance(error, Busy) else error
            self.note = f"features of {counted(len(new), 'predicted image')} are not kept: {why}"

    def _require_room(self, cache: FeatureCache, rows: int) -> None:
        """Check that there is room for the features of more images that are not in the data set.

        Raises:
            VggftError: they would take more than `MOST_KEPT`, or more than the disk has.
        """
        needed = estimate.bytes_needed(cache, [self._layer], rows)
        estimate.require_room(cache.folder, needed, rows)
        others = 0
        if self._layer in cache.layers:
            known = digests_of(self._workspace.dataset.samples)
            others = int((~np.isin(cache.positions.rows(self._layer).digest, known)).sum())
        if estimate.bytes_needed(cache, [self._layer], others) + needed > MOST_KEPT:
            raise VggftError(
                f"those of predicted images take {size(MOST_KEPT)} already. To make room, run: vggft cache prune"
                f"{workspace_flag(self._workspace.root)}"
            )
