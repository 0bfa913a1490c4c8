"""Reading features for heads: pooling in any order; NaN and infinity are refused."""

import numpy as np
import pytest
from tiny import TINY

from featurize.errors import VggftError
from heads import features
from vggft.steps import head
from vggft.steps.options import HeadOptions
from vggft.workspace.workspace import Workspace


def test_features_that_are_no_numbers_are_named(copied, ui):
    workspace = Workspace(copied / "work", TINY)
    samples = workspace.dataset.accepted("train")
    cache = workspace.cache()
    maps = cache.read("block3_pool", [s.digest for s in workspace.dataset.accepted()])
    digests = [s.digest for s in workspace.dataset.accepted()]
    for path in cache.shards.iterdir():
        path.unlink()
    (cache.folder / "index.h5").unlink()
    for bad in (np.nan, np.inf):
        spoilt = maps.copy()
        spoilt[digests.index(samples[3].digest), 2, 2, 7] = bad
        for path in cache.shards.iterdir():
            path.unlink()
        fresh = workspace.cache()
        fresh.write(digests, {"block3_pool": spoilt}, {"engine": "test"})
        fresh.save_index()
        with pytest.raises(VggftError, match=samples[3].path):
            head.run(workspace, HeadOptions.of(epochs=1), ui)
    assert not (workspace.heads / "leaderboard.csv").exists()


def test_reading_pools_in_any_order(featurized):
    workspace = Workspace(featurized[0] / "work", TINY)
    samples = workspace.dataset.accepted()[::-1]
    told = []
    read = features.read(
        workspace.cache(), samples, workspace.dataset.targets(samples), ["flatten", "max"], told.append
    )
    maps = workspace.cache().read("block3_pool", [s.digest for s in samples])
    assert np.array_equal(read.pooled["flatten"], maps.reshape(24, -1))
    assert read.pooled["flatten"].dtype == np.float16
    assert np.array_equal(read.pooled["max"], maps.max(axis=(1, 2)))
    assert told[-1] == len(read) == 24
    assert list(read.targets) == [1] * 12 + [0] * 12
