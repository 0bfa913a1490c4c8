"""The cache: what is written comes back, what is damaged is named, and nothing else is believed."""

import hashlib

import h5py
import numpy as np
import pytest

from featurize import index
from featurize.cache import FeatureCache
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint

SHAPES = {"block4_pool": (4, 4, 8), "block5_pool": (2, 2, 8)}


def digest(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def row(layer: str, i: int) -> np.ndarray:
    return np.random.default_rng([len(layer), i, *layer.encode()]).random(SHAPES[layer]).astype(np.float16)


def fill(cache, numbers, layers=tuple(SHAPES)):
    numbers = list(numbers)
    cache.write([digest(i) for i in numbers], {name: np.stack([row(name, i) for i in numbers]) for name in layers}, {})


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint())
    fill(cache, range(20))
    fill(cache, range(20, 50))
    cache.save_index()
    return cache


def check(cache, numbers, layer="block5_pool"):
    found = cache.read(layer, [digest(i) for i in numbers])
    assert np.array_equal(found, np.stack([row(layer, i) for i in numbers]))
    assert found.dtype == np.float16


def test_rows_come_back_in_any_order_and_repeatedly(cache, tmp_path):
    for opened in (cache, FeatureCache(tmp_path, Fingerprint())):
        for layer in SHAPES:
            check(opened, [49, 0, 20, 19, 20, 20, 3], layer)
            check(opened, range(50), layer)


def test_missing(cache):
    fill(cache, [100], ["block4_pool"])
    asked = [digest(i) for i in (100, 3, 200, 200)]
    assert cache.missing(list(SHAPES), asked) == [digest(100), digest(200)]
    assert cache.missing(["block4_pool"], asked) == [digest(200)]
    assert cache.missing(["block3_pool"], asked[:2]) == [digest(100), digest(3)]
    with pytest.raises(VggftError, match="no block5_pool for 1 of 2 images"):
        cache.read("block5_pool", [digest(3), digest(100)])


def test_the_index_is_used_and_remade(cache, tmp_path):
    stored = index.load(cache.folder / "index.h5")
    assert stored is not None
    assert set(stored.layers) == set(SHAPES)
    for damage in (b"", b"nothing"):
        (cache.folder / "index.h5").write_bytes(damage)
        check(FeatureCache(tmp_path, Fingerprint()), range(50))
    (cache.folder / "index.h5").unlink()
    assert FeatureCache(tmp_path, Fingerprint()).layers == ["block4_pool", "block5_pool"]
    check(FeatureCache(tmp_path, Fingerprint()), range(50))


def test_an_index_with_one_flipped_number_is_not_believed(cache):
    path = cache.folder / "index.h5"
    with h5py.File(path, "r+") as file:
        file["block5_pool/row"][7] += 1
    assert index.load(path) is None


def test_an_index_that_points_at_other_rows_gives_no_numbers(cache, tmp_path):
    wrong = index.load(cache.folder / "index.h5")
    wrong.layers["block5_pool"].row[:] = wrong.layers["block5_pool"].row[::-1].copy()
    wrong.save(cache.folder / "index.h5")  # with a right checksum
    with pytest.raises(VggftError, match="out of step with its shards"):
        FeatureCache(tmp_path, Fingerprint()).read("block5_pool", [digest(i) for i in range(50)])


def test_a_shard_that_the_index_does_not_know_is_found(cache, tmp_path):
    before = (cache.folder / "index.h5").read_bytes()
    fill(cache, range(50, 60))
    assert (cache.folder / "index.h5").read_bytes() == before  # as after a kill: the shard is there, the index is not
    check(FeatureCache(tmp_path, Fingerprint()), range(60))


def test_a_deleted_shard_is_missed(cache, tmp_path):
    shards = list(cache.folder.glob("shards/*.h5"))
    shards[0].unlink()
    opened = FeatureCache(tmp_path, Fingerprint())
    assert len(opened.missing(["block5_pool"], [digest(i) for i in range(50)])) in (20, 30)


def test_any_flipped_byte_is_noticed(cache, tmp_path):
    rng = np.random.default_rng(0)
    for shard in cache.folder.glob("shards/*.h5"):
        sound = shard.read_bytes()
        for _ in range(30):
            damaged = bytearray(sound)
            damaged[rng.integers(len(sound))] ^= 1 << int(rng.integers(8))
            shard.write_bytes(damaged)
            with pytest.raises(VggftError, match=shard.name):
                FeatureCache(tmp_path, Fingerprint()).read("block5_pool", [digest(i) for i in range(50)])
        shard.write_bytes(sound[:-10])
        with pytest.raises(VggftError, match="damaged"):
            FeatureCache(tmp_path, Fingerprint()).read("block5_pool", [digest(i) for i in range(50)])
        shard.write_bytes(sound)


def test_shards_are_a_function_of_their_rows(cache, tmp_path):
    again = FeatureCache(tmp_path / "again", Fingerprint())
    fill(again, range(20))
    fill(again, range(20, 50))
    names = [sorted(p.name for p in c.folder.glob("shards/*.h5")) for c in (cache, again)]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_layout_of_a_shard(cache):
    path = next(p for p in cache.folder.glob("shards/*.h5") if h5py.File(p)["digest"].shape[0] == 20)
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()
    with h5py.File(path) as file:
        assert file["digest"].shape == (20, 32)
        assert file["digest"].dtype == np.uint8
        assert bytes(file["digest"][3]).hex() == digest(3)
        assert file["block4_pool"].shape == (20, 4, 4, 8)
        assert file["block4_pool"].dtype == np.float16
        assert file["block4_pool"].chunks == (1, 4, 4, 8)
        assert file.attrs["fingerprint"] == Fingerprint().json


@pytest.mark.parametrize(
    "other",
    [
        Fingerprint(preprocess="raw"),
        Fingerprint(weights="0" * 64),
        Fingerprint(size=160),
        Fingerprint(resize="nearest"),
    ],
)
def test_another_fingerprint_never_sees_old_numbers(cache, tmp_path, other):
    assert len(FeatureCache(tmp_path, other).missing(["block5_pool"], [digest(i) for i in range(50)])) == 50
    assert other.key != Fingerprint().key


def test_opening_writes_nothing(tmp_path):
    cache = FeatureCache(tmp_path / "none", Fingerprint())
    assert cache.missing(["block5_pool"], [digest(1)]) == [digest(1)]
    cache.save_index()
    assert not (tmp_path / "none").exists()
