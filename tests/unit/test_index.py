"""The index: the positions that the shards give, shared by layers with the same rows, or rebuilt."""

import hashlib
import tracemalloc

import h5py
import numpy as np
import pytest
from tiny import with_layers

from featurize.backbone.vgg16 import VGG16
from featurize.cache import index, shards
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.index import Index
from featurize.disk import arrays
from featurize.disk.digests import DIGEST
from featurize.disk.stamp import Stamp
from featurize.errors import VggftError

NETWORK = with_layers(VGG16, block4_pool=(1, 1, 2), block5_pool=(1, 1, 2))
BOTH = ("block4_pool", "block5_pool")


def random_digests(rng, number):
    return np.frombuffer(rng.bytes(number * DIGEST.itemsize), DIGEST)


def made(shards_of, first=None):
    """Return an index of shards: (layers, digests) each; `first`: an index that it continues."""
    result = first or Index()
    for layers, digests in shards_of:
        number = len(result.shards)
        result.add(f"{number:064x}", Stamp(number, number + 1, number + 2), layers, digests)
    return result


def positions(shards_of, layer):
    """Return digest → (shard, row) as a dictionary gives it: the first one stays."""
    found = {}
    for number, (layers, digests) in enumerate(shards_of):
        for row in range(len(digests)) if layer in layers else ():
            found.setdefault(digests[row : row + 1].tobytes(), (number, row))
    return found


def check(stored, shards_of):
    everything = np.concatenate([digests for _, digests in shards_of])
    assert stored.images() == len(np.unique(everything))
    for layer in BOTH:
        expected = positions(shards_of, layer)
        shard, row = stored.locate(layer, everything)
        asked = [everything[i : i + 1].tobytes() for i in range(len(everything))]
        assert list(zip(shard.tolist(), row.tolist(), strict=True)) == [expected.get(key, (-1, -1)) for key in asked]
        rows = stored.rows(layer)
        assert len(rows.digest) == len(expected)
        assert (np.sort(rows.digest) == rows.digest).all()


@pytest.fixture
def mixed():
    """Shards of both layers and of one, with digests that end with zeros, and digests that several shards have."""
    rng = np.random.default_rng(0)
    parts = [random_digests(rng, n).copy() for n in (50, 30, 40, 1)]
    parts[0].view(np.uint8).reshape(-1, DIGEST.itemsize)[::7, -3:] = 0
    parts[1][:10], parts[2][:20] = parts[0][5:15], parts[0][10:30]
    return [(BOTH, parts[0]), (BOTH[:1], parts[1]), (BOTH[1:], parts[2]), (BOTH, parts[3]), (BOTH, parts[0][:5])]


def test_positions_are_those_of_the_first_shard_with_the_digest(mixed, tmp_path):
    whole = made(mixed)
    check(whole, mixed)
    one_by_one = Index()
    for number in range(len(mixed)):
        made(mixed[number : number + 1], one_by_one)
        for layer in one_by_one.layer_names:
            one_by_one.rows(layer)  # merges
    check(one_by_one, mixed)
    one_by_one.save(tmp_path / "index.h5")
    loaded = index.load(tmp_path / "index.h5")
    assert loaded.shards == one_by_one.shards
    check(loaded, mixed)
    check(made(mixed[4:], made(mixed[:4])), mixed)


def test_layers_with_the_same_rows_share_their_arrays(tmp_path):
    rng = np.random.default_rng(1)
    made([(BOTH, random_digests(rng, 1_000)), (BOTH, random_digests(rng, 1_000))]).save(tmp_path / "index.h5")
    loaded = index.load(tmp_path / "index.h5")
    assert loaded.rows(BOTH[0]) is loaded.rows(BOTH[1])
    assert 2_000 * 40 < (tmp_path / "index.h5").stat().st_size < 2_000 * 42 + 4_000
    made([(BOTH, random_digests(rng, 10))], loaded)
    assert loaded.rows(BOTH[0]) is loaded.rows(BOTH[1])  # also after more rows of both
    loaded.add("f" * 64, Stamp(1, 2, 3), BOTH[:1], random_digests(rng, 10))
    assert len(loaded.rows(BOTH[0]).digest) == len(loaded.rows(BOTH[1]).digest) + 10


def test_times_before_1970_and_large_inodes_are_kept(tmp_path):
    stored = Index()
    stored.add("0" * 64, Stamp(5, -1_000_000_007, 2**64 - 1), BOTH, random_digests(np.random.default_rng(0), 3))
    stored.save(tmp_path / "index.h5")
    assert index.load(tmp_path / "index.h5").shards == stored.shards


def test_arrays_in_chunks_are_damage(mixed, tmp_path):
    """With a checksum that is right: of another program, or a later version."""
    stored, path = made(mixed), tmp_path / "index.h5"

    def fill(file):
        file.attrs["version"] = index.INDEX_VERSION
        file["shards"], file["stamps"] = np.array(list(stored.shards), "S64"), np.zeros((len(mixed), 3), np.uint64)
        group = file.create_group(BOTH[0])
        for name, values in (("shard", stored.rows(BOTH[0]).shard), ("row", stored.rows(BOTH[0]).row)):
            group.create_dataset(name, data=values, chunks=(8,), compression="gzip")
        group["digest"] = stored.rows(BOTH[0]).digest.view(np.uint8).reshape(-1, DIGEST.itemsize)

    arrays.write(path, fill)
    assert index.load(path) is None


def test_a_file_whose_checksum_is_wrong_is_never_given_to_hdf5(mixed, tmp_path, monkeypatch):
    path = tmp_path / "index.h5"
    made(mixed).save(path)
    with h5py.File(path, "r+") as file:
        file["block5_pool/row"][7] += 1
    monkeypatch.setattr(h5py, "File", lambda *_, **__: pytest.fail("HDF5 has opened a damaged file"))
    assert index.load(path) is None


def written(tmp_path, number=40):
    """Return a cache with shards of ten rows: each row holds its number."""
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    for first in range(0, number, 10):
        values = np.arange(first, first + 10, dtype=np.float16).repeat(2).reshape(-1, 1, 1, 2)
        cache.write([digest(i) for i in range(first, first + 10)], dict.fromkeys(BOTH, values), {})
    cache.save_index()
    return cache


def digest(i):
    return hashlib.sha256(bytes([i])).hexdigest()


def read(tmp_path, number=40):
    asked = [digest(i) for i in range(number)]
    return FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).read("block5_pool", asked)[:, 0, 0, 0].tolist()


@pytest.mark.slow
def test_a_flipped_byte_anywhere_in_the_index_gives_no_wrong_row(tmp_path):
    path = written(tmp_path).folder / "index.h5"
    sound = path.read_bytes()
    for at in range(0, len(sound), 7):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1 << at % 8]) + sound[at + 1 :])
        assert index.load(path) is None, at
    for at in range(0, len(sound), len(sound) // 40):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 64]) + sound[at + 1 :])
        assert read(tmp_path) == list(range(40))
    for cut in (sound[:-1], sound[:-20], sound + b"\0", sound[:10], b"", sound[1:]):
        path.write_bytes(cut)
        assert index.load(path) is None


def test_a_new_shard_is_added_without_opening_the_others(tmp_path, monkeypatch):
    written(tmp_path, 30)
    known = {path.stem for path in tmp_path.glob("*/shards/*.h5")}
    other = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    values = np.arange(30, 40, dtype=np.float16).repeat(2).reshape(-1, 1, 1, 2)
    other.write(
        [digest(i) for i in range(30, 40)], dict.fromkeys(BOTH, values), {}
    )  # and killed: the index is not saved
    opened, open_known = [], shards.open_known

    def counted(folder, name, *arguments):
        opened.append(name)
        return open_known(folder, name, *arguments)

    monkeypatch.setattr(shards, "open_known", counted)
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    assert len(opened) == 1
    assert not {*opened} & known
    assert cache.missing(BOTH, [digest(i) for i in range(41)]) == [digest(40)]
    assert read(tmp_path) == list(range(40))


def test_copied_shards_have_other_stamps_and_keep_their_rows(tmp_path):
    cache = written(tmp_path)
    for path in cache.shards.iterdir():
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    opened.save_index()
    assert (opened.damaged, opened.lost) == ({}, [])
    assert index.load(opened.folder / "index.h5").shards == shards.present(opened.shards)
    assert read(tmp_path) == list(range(40))


def test_a_digest_in_two_shards_survives_the_loss_of_one(tmp_path):
    cache = written(tmp_path)
    values = np.arange(40, dtype=np.float16).repeat(2).reshape(-1, 1, 1, 2)
    cache.write([digest(i) for i in range(40)], dict.fromkeys(BOTH, values), {"engine": "another"})
    cache.save_index()
    (cache.shards / f"{next(iter(cache.positions.shards))}.h5").unlink()
    assert read(tmp_path) == list(range(40))


def test_digests_may_be_packed(tmp_path):
    cache = written(tmp_path)
    rng = np.random.default_rng(0)
    packed = np.frombuffer(b"".join(bytes.fromhex(digest(i)) for i in range(39, -1, -1)), DIGEST)
    assert cache.read("block5_pool", packed)[:, 0, 0, 0].tolist() == list(range(39, -1, -1))
    unknown = random_digests(rng, 1)
    assert cache.missing(BOTH, np.concatenate([packed, unknown, unknown])) == [unknown.tobytes().hex()]
    for indices, rows in cache.pieces("block4_pool", packed, 7):
        assert (39 - indices == rows[:, 0, 0, 0]).all()


def test_opening_makes_no_object_for_a_row(tmp_path):
    """200,000 rows in two layers: 8 MB of arrays. An object of any kind for each row would take 5 MB more."""
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    cache.shards.mkdir(parents=True)
    rng, stored = np.random.default_rng(0), Index()
    for _ in range(100):
        path = cache.shards / f"{rng.bytes(32).hex()}.h5"
        path.touch()
        stored.add(path.stem, Stamp.of(path), BOTH, random_digests(rng, 2_000))
    stored.save(cache.folder / "index.h5")
    asked = random_digests(rng, 1_000)
    tracemalloc.start()
    try:
        opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
        assert len(opened.missing(BOTH, asked)) == 1_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200_000 * 40 * 1.3, f"{peak / 1e6:.1f} MB"
    with pytest.raises(VggftError, match="no block5_pool for 1000 of 1000 images"):
        opened.read("block5_pool", asked)
