"""Averages and maxima of the last layer: their values, their shards, and that heads read the same from them as from maps."""

import hashlib

import h5py
import numpy as np
import pytest
from tiny import TINY, StandIn

from featurize import runner
from featurize.backbone.architecture import POOLED
from featurize.backbone.vgg16 import VGG16
from featurize.cache import shards, zstd
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.pooled import averages_and_maxima
from featurize.cache.shards import Damaged
from featurize.data.dataset import Sample
from featurize.disk.digests import pack
from featurize.engines import PoolingEngine, rate
from featurize.errors import VggftError
from heads import features
from heads.head import pool

ALL = ["avg", "max", "avgmax"]


def maps_of(n, shape=(4, 4, 16)):
    return np.maximum(np.random.default_rng(n).normal(0, 3, (n, *shape)), 0).astype(np.float32)


def test_what_the_network_calls_its_layers_has_no_pooled_one():
    assert VGG16.layer(POOLED).shape(224) == (2, 512)
    assert VGG16.position(POOLED) == len(VGG16.layers)
    assert POOLED not in VGG16.names
    with pytest.raises(VggftError, match="--unfreeze 'pooled': unknown layer"):
        VGG16.split_point(POOLED)
    assert [VGG16.read_by_heads(kept) for kept in (VGG16.cached, [POOLED], [POOLED, "block5_pool"])] == [
        "block5_pool",
        POOLED,
        POOLED,
    ]


def test_averages_and_maxima_are_those_of_the_maps_as_the_cache_stores_them():
    maps = maps_of(20, (7, 7, 32))
    found, stored = averages_and_maxima(maps), maps.astype(np.float16)
    assert (found.shape, found.dtype) == ((20, 2, 32), np.float16)
    assert np.array_equal(found, averages_and_maxima(stored))
    exact = stored.astype(np.float64).mean(axis=(1, 2))
    assert np.abs(found[:, 0] - exact).max() <= 2**-11 * exact.max()
    assert np.array_equal(found[:, 1], stored.max(axis=(1, 2)))


def test_a_row_depends_neither_on_its_batch_nor_on_the_layout_in_memory():
    maps = maps_of(9, (7, 7, 32))
    found = averages_and_maxima(maps)
    alone = np.concatenate([averages_and_maxima(maps[i : i + 1]) for i in range(9)])
    channels_first = np.ascontiguousarray(maps.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert np.array_equal(alone, found)
    assert np.array_equal(averages_and_maxima(channels_first), found)


def test_numbers_beyond_float16_stay_visible():
    maps = maps_of(3)
    maps[1, 2, 2, 5], maps[2, 0, 0, 7] = 70_000, np.nan
    found = averages_and_maxima(maps)
    assert np.isfinite(found).all(axis=(1, 2)).tolist() == [True, False, False]
    assert np.isinf(found[1, :, 5]).all()


def test_an_engine_computes_pooled_beside_or_instead_of_the_last_layer():
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    inner = StandIn(TINY)
    engine = PoolingEngine(TINY, inner)
    assert (engine.name, engine.batch_size, engine.trial, engine.in_flight) == ("stand-in", 8, 8, 1)
    below, top = inner(pictures, list(TINY.cached))
    expected = averages_and_maxima(top)
    for layers in ([POOLED], ["block2_pool", POOLED], [POOLED, "block3_pool"], list(TINY.cached)):
        named = {"block2_pool": below, "block3_pool": top, POOLED: expected}
        outputs = engine(pictures, layers)
        assert all(np.array_equal(outputs[i], named[name]) for i, name in enumerate(layers))
    from_below = engine(below.astype(np.float16), [POOLED], "block2_pool")[0]
    assert np.allclose(from_below, expected, rtol=2e-3, atol=1e-3)


class Half(StandIn):
    """As on a GPU: several batches at once, and float16 rows."""

    in_flight = 3

    def __call__(self, inputs, layers, below=None):
        return [output.astype(np.float16) for output in super().__call__(inputs, layers, below)]


def test_several_batches_are_in_flight(tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (40, 32, 32, 3)).astype(np.uint8)
    names = digests_of(40)
    cache = FeatureCache(tmp_path, Fingerprint.of(TINY), TINY)
    step = runner.Step([POOLED])
    outcome = runner.compute(zip(names, pictures, strict=True), step, PoolingEngine(TINY, Half(TINY)), cache)
    assert (outcome.computed, outcome.rejected) == (40, {})
    assert np.array_equal(cache.read(POOLED, names), averages_and_maxima(StandIn(TINY)(pictures, [TINY.top])[0]))


def test_a_picture_whose_maps_are_beyond_float16_is_named(tmp_path):
    class Large(Half):
        def __call__(self, inputs, layers, below=None):
            outputs = super().__call__(inputs, layers, below)
            outputs[0][2] = np.nan
            return outputs

    pictures = np.zeros((4, 32, 32, 3), np.uint8)
    inputs = zip(digests_of(4), pictures, strict=True)
    cache = FeatureCache(tmp_path, Fingerprint.of(TINY), TINY)
    with pytest.raises(VggftError, match=f"digest {digests_of(4)[2]}: outputs of pooled are NaN"):
        runner.compute(inputs, runner.Step([POOLED]), PoolingEngine(TINY, Large(TINY)), cache)


def test_from_cached_maps_no_engine_is_needed():
    maps = maps_of(5).astype(np.float16)
    engine = PoolingEngine(TINY)
    assert np.array_equal(engine(maps, [POOLED], TINY.top)[0], averages_and_maxima(maps))
    assert rate(engine, (4, 4, 16), [POOLED], TINY.top) > 0


def digests_of(n):
    return [hashlib.sha256(bytes([i])).hexdigest() for i in range(n)]


@pytest.mark.parametrize(("n", "chunks"), [(1, 1), (63, 1), (64, 1), (150, 3)])
def test_shards_store_many_rows_a_chunk_in_the_bytes_that_hdf5_would_write(tmp_path, monkeypatch, n, chunks):
    rows = {POOLED: averages_and_maxima(maps_of(n))}
    fingerprint = Fingerprint.of(TINY)
    attributes = {"fingerprint": fingerprint.json}
    name = shards.write(tmp_path, pack(digests_of(n)), rows, attributes)
    with shards.open_known(tmp_path, name, fingerprint, TINY) as file:
        assert np.array_equal(file[POOLED][...], rows[POOLED])
        assert file[POOLED].chunks == (min(n, 64), 2, 16)
        assert file[POOLED].id.get_num_chunks() == chunks
    monkeypatch.setattr(zstd, "compressor", lambda level: None)
    assert shards.write(tmp_path, pack(digests_of(n)), rows, attributes) == name


def test_a_shard_that_lacks_chunks_is_damaged(tmp_path):
    fingerprint = Fingerprint.of(TINY)
    with h5py.File(tmp_path / f"{'0' * 64}.h5", "w") as file:
        file.attrs["version"], file.attrs["fingerprint"] = shards.SHARD_VERSION, fingerprint.json
        file["digest"] = pack(digests_of(100)).view(np.uint8).reshape(-1, 32)
        file.create_dataset(POOLED, (100, 2, 16), np.float16, chunks=(64, 2, 16))[:64] = 1
    with pytest.raises(Damaged, match="pooled has 1 of 2 chunks"):
        shards.open_known(tmp_path, "0" * 64, fingerprint, TINY)


@pytest.fixture
def cache(tmp_path):
    """Images 0 to 9 have maps, 6 to 19 averages and maxima."""
    cache = FeatureCache(tmp_path, Fingerprint.of(TINY), TINY)
    maps = maps_of(20).astype(np.float16)
    cache.write(digests_of(20)[:10], {TINY.top: maps[:10]}, {})
    cache.write(digests_of(20)[6:], {POOLED: averages_and_maxima(maps[6:])}, {})
    return cache


def samples(numbers):
    return [Sample(f"{i}.png", "a", digest=digests_of(20)[i]) for i in numbers]


def test_heads_read_the_same_from_either(cache):
    order = [19, 0, 7, 12, 5, 9]
    told = []
    read = features.read(cache, samples(order), [0] * 6, ALL, told.append)
    maps = maps_of(20)[order].astype(np.float16)
    for pooling in ALL:
        assert np.array_equal(read.pooled[pooling], features.vectors(maps, pooling))
        assert read.pooled[pooling].dtype == np.float32
        assert np.allclose(read.pooled[pooling], pool(maps, pooling), rtol=2**-11, atol=1e-7)
    assert told == [4, 6]
    flat = features.read(cache, samples([3, 9]), [0] * 2, ["flatten", "avg"]).pooled
    assert np.array_equal(flat["flatten"], maps_of(20)[[3, 9]].astype(np.float16).reshape(2, -1))
    assert np.array_equal(flat["avg"], features.vectors(maps_of(20)[[3, 9]].astype(np.float16), "avg"))


def test_what_is_read_depends_on_no_other_reader(cache):
    """Rows of two engines differ by rounding, here by more: those of `POOLED` are read wherever they are."""
    cache.write(digests_of(20)[10:], {TINY.top: maps_of(20)[10:].astype(np.float16) + np.float16(1)}, {})
    order, told = [19, 0, 7, 12], []
    alone = features.read(cache, samples(order), [0] * 4, ALL).pooled
    beside = features.read(cache, samples(order), [0] * 4, ["avg", "flatten", "avgmax", "max"], told.append).pooled
    expected = averages_and_maxima(maps_of(20))[order]
    assert np.array_equal(alone["avg"], expected[:, 0].astype(np.float32))
    for pooling in ALL:
        assert np.array_equal(beside[pooling], alone[pooling])
    assert np.array_equal(beside["flatten"], cache.read(TINY.top, [s.digest for s in samples(order)]).reshape(4, -1))
    assert told == [1, 4]


def test_what_is_missing_is_named(cache, tmp_path):
    with pytest.raises(VggftError, match=r"no block3_pool for 2 of 3 images.* Run: vggft featurize$"):
        features.read(cache, samples([3, 12, 13]), [0] * 3, ["flatten"])
    only = FeatureCache(tmp_path / "only", Fingerprint.of(TINY), TINY)
    empty = FeatureCache(tmp_path / "empty", Fingerprint.of(TINY), TINY)
    only.write(digests_of(20)[:10], {POOLED: averages_and_maxima(maps_of(10))}, {})
    only.write(digests_of(20)[18:], {TINY.top: maps_of(2).astype(np.float16)}, {})  # two of them have maps
    for lost, named in ((only, "no pooled for 1 of 1 images"), (empty, "no pooled for 3 of 3 images")):
        with pytest.raises(VggftError, match=named):
            features.read(lost, samples([3, 4, 12]), [0] * 3, ["avg"], kept=[POOLED])
    with pytest.raises(VggftError, match="no block3_pool for 3 of 3 images"):
        features.read(empty, samples([3, 4, 12]), [0] * 3, ["avg"], kept=TINY.cached)


def test_rows_that_are_no_numbers_are_named(cache):
    spoilt = averages_and_maxima(maps_of(3))
    spoilt[1, 0, 3] = np.nan
    fresh = FeatureCache(cache.folder.parent / "other", Fingerprint.of(TINY), TINY)
    fresh.write(digests_of(3), {POOLED: spoilt}, {})
    with pytest.raises(VggftError, match=r"^1\.png: the cached features are NaN"):
        features.read(fresh, samples([0, 1, 2]), [0] * 3, ["max"])
