"""Pooled features of the files of a folder, chunk by chunk, through the cache of a workspace.

A later `vggft featurize` of the same pictures finds their features there, wherever they have been moved.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize import engines
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Sample
from featurize.data.scan import hashed
from featurize.engines import Engine
from featurize.options.choices import SHARD_ROWS
from featurize.process import interrupts
from heads import features
from vggft.labelling.classifier import POOLING
from vggft.ui.console import Ui
from vggft.workspace import earlier
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import Filling, fill, require
from vggft.workspace.workspace import Workspace

# The first chunk is small, so that suggestions come early. As long as a chunk takes less than `_CHUNK_SECONDS`, the next one is
# twice as large: few files in the cache, and another command waits less than a minute for the lock.
FIRST_CHUNK = 16
_CHUNK_SECONDS = 15.0
# Between two chunks, nobody holds the lock of the workspace for more than the 0.2 s after which a waiting command tries again.
_PAUSE = 0.5


class PooledFeatures:
    """Pooled features of files, as far as they are computed.

    One thread calls `advance`; others may read `present` and `rows`.

    Attributes:
        files: relative to the folder, with forward slashes.
        present: whether a file's features are there, bool (files,).
        unreadable: position of a file → why it has no features.
        writing: the lock of the workspace is held.
    """

    def __init__(self, workspace: Workspace, root: Path, files: Sequence[str], ui: Ui) -> None:
        """Read and compute nothing yet.

        Args:
            workspace: whose cache is used. It need not exist: the next `vggft featurize` continues with what is computed here.
            root: the folder that files are relative to.
            files: in the order in which they are wanted.
            ui: shows progress of the engine.
        """
        self.files = files
        self.present = np.zeros(len(files), bool)
        self.unreadable: dict[int, str] = {}
        self.writing = False
        self._workspace, self._root, self._ui = workspace, root, ui
        self._pooled: NDArray[np.float32] | None = None
        self._waiting: dict[int, None] = dict.fromkeys(range(len(files)))
        self._chunk = FIRST_CHUNK
        self._layers: list[str] = []
        self._weights_file: Path | None = None
        self._cache: FeatureCache | None = None
        self._engine: Engine | None = None
        self._released = 0.0  # when the lock was released last

    @property
    def complete(self) -> bool:
        """True once every file has features or a reason why not."""
        return not self._waiting

    def rows(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the pooled features (n, inputs) of files that are `present`."""
        assert self._pooled is not None
        return self._pooled[positions]

    def advance(self, labelled: Collection[int] = (), undecided: Callable[[int], bool] = lambda position: True) -> None:
        """Read or compute the features of a chunk of files; cached features are not computed again.

        Half of the chunk has labels, because nothing is learned without them, and half needs suggestions.

        Args:
            labelled: positions of files that have a label.
            undecided: whether the file at a position needs a suggestion.

        Raises:
            VggftError: the workspace cannot be used, there are no weights, no engine or no disk space, or the network's outputs
                are outside the range of float16.
        """
        cache = self._open()
        positions = self._next(labelled, undecided)
        digests = self._digests(positions)
        lacking = cache.missing(self._layers, list(digests))
        rejected: Mapping[str, str] = {}
        began = time.monotonic()
        if lacking:
            rejected = self._fill(cache, {digest: digests[digest] for digest in lacking})
        if time.monotonic() - began < _CHUNK_SECONDS:
            self._chunk = min(2 * self._chunk, SHARD_ROWS)
        for digest, reason in rejected.items():
            self.unreadable |= dict.fromkeys(digests.pop(digest), reason)
        self._read(cache, digests)
        for position in positions:
            del self._waiting[position]

    def _open(self) -> FeatureCache:
        """Return the cache, with the settings of the workspace or, before it exists, those that featurize would choose."""
        if self._cache is None:
            workspace, architecture = self._workspace, self._workspace.architecture
            fingerprint, layers = None, architecture.cached
            if workspace.exists or workspace.lost:
                fingerprint, layers = workspace.settings.fingerprint, workspace.settings.layers
                self._weights_file = workspace.settings.weights_file_path
            else:
                earlier.refuse_foreign_files(workspace.root)
                fingerprint = Fingerprint.of(architecture, precision=engines.choose(architecture).precision)
            self._layers = list(dict.fromkeys((*layers, architecture.read_by_heads(layers))))
            self._cache = workspace.cache(fingerprint)
        return self._cache

    def _next(self, labelled: Collection[int], undecided: Callable[[int], bool]) -> list[int]:
        learnable = islice((position for position in labelled if position in self._waiting), self._chunk // 2)
        in_order = chain(learnable, filter(undecided, self._waiting), self._waiting)
        return list(islice(dict.fromkeys(in_order), self._chunk))

    def _digests(self, positions: Sequence[int]) -> dict[str, list[int]]:
        """Return digest → positions of the files with these bytes; what cannot be read is `unreadable`."""
        digests: dict[str, list[int]] = defaultdict(list)
        with interrupts.threads() as pool:
            samples = pool.map(self._hashed, (self.files[position] for position in positions))
            for position, sample in zip(positions, samples, strict=True):
                if sample.digest:
                    digests[sample.digest].append(position)
                else:
                    self.unreadable[position] = sample.reason
        return digests

    def _hashed(self, file: str) -> Sample:
        sample = Sample(file, "")
        try:
            return hashed(self._root, replace(sample, size=(self._root / file).stat().st_size))
        except OSError as error:
            return replace(sample, status="rejected", reason=f"cannot be read: {error.strerror}")

    def _fill(self, cache: FeatureCache, digests: Mapping[str, Sequence[int]]) -> Mapping[str, str]:
        """Compute features; return digest → reason of those that cannot be decoded.

        The lock of the workspace is held for one chunk, as for every writer of its cache. Other commands run between chunks.
        """
        paths = {digest: [self._root / self.files[i] for i in positions] for digest, positions in digests.items()}
        filling = Filling(paths, self._layers, self._weights_file)
        architecture = self._workspace.architecture
        if self._engine is None:  # before the lock: it may take ten seconds
            self._engine = start_engine(
                architecture, cache.fingerprint, self._weights_file, ui=self._ui, images=len(self._waiting)
            )
        time.sleep(max(0.0, self._released + _PAUSE - time.monotonic()))
        try:
            with self._workspace.writing(new=True):
                self.writing = True
                cache.refresh()
                require(cache, filling)
                return fill(cache, filling, self._ui, self._engine).rejected
        finally:
            self.writing = False
            self._released = time.monotonic()

    def _read(self, cache: FeatureCache, digests: Mapping[str, Sequence[int]]) -> None:
        positions = np.array([i for copies in digests.values() for i in copies], np.intp)
        if not len(positions):
            return
        samples = [Sample(self.files[i], "", digest=digest) for digest, copies in digests.items() for i in copies]
        pooled = features.read(cache, samples, [0] * len(samples), [POOLING]).pooled[POOLING]
        if self._pooled is None:  # the system gives memory to rows as they are written
            self._pooled = np.zeros((len(self.files), pooled.shape[1]), np.float32)
        self._pooled[positions] = pooled
        self.present[positions] = True  # after the rows, which other threads read
