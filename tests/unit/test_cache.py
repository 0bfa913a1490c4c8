"""The cache: rows are read back exactly, and damaged or foreign files are rejected."""

import hashlib
import os

import h5py
import numpy as np
import pytest
from tiny import with_layers

from featurize.backbone.vgg16 import VGG16
from featurize.cache import index, shards
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.disk.digests import pack, unpack
from featurize.errors import VggftError

SHAPES = {"block4_pool": (4, 4, 8), "block5_pool": (2, 2, 8)}
NETWORK = with_layers(VGG16, block3_pool=(8, 8, 4), **SHAPES)


def digest(i: int) -> str:
    return hashlib.sha256(str(i).encode()).hexdigest()


def row(layer: str, i: int) -> np.ndarray:
    return np.random.default_rng([len(layer), i, *layer.encode()]).random(SHAPES[layer]).astype(np.float16)


def fill(cache, numbers, layers=tuple(SHAPES)):
    numbers = list(numbers)
    cache.write([digest(i) for i in numbers], {name: np.stack([row(name, i) for i in numbers]) for name in layers}, {})


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    fill(cache, range(20))
    fill(cache, range(20, 50))
    cache.save_index()
    return cache


def check(cache, numbers, layer="block5_pool"):
    found = cache.read(layer, [digest(i) for i in numbers])
    assert np.array_equal(found, np.stack([row(layer, i) for i in numbers]))
    assert found.dtype == np.float16


def test_rows_come_back_in_any_order_and_repeatedly(cache, tmp_path):
    for opened in (cache, FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)):
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
        check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(50))
    (cache.folder / "index.h5").unlink()
    assert FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).layers == ["block4_pool", "block5_pool"]
    check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(50))


def test_an_index_with_one_flipped_number_is_not_believed(cache):
    path = cache.folder / "index.h5"
    with h5py.File(path, "r+") as file:
        file["block5_pool/row"][7] += 1
    assert index.load(path) is None


def test_an_index_that_points_at_other_rows_gives_no_numbers(cache, tmp_path):
    wrong = index.load(cache.folder / "index.h5")
    wrong.layers["block5_pool"].row[:] = wrong.layers["block5_pool"].row[::-1].copy()
    wrong.save(cache.folder / "index.h5")  # with a right checksum
    with pytest.raises(VggftError, match="does not match its shards"):
        FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).read("block5_pool", [digest(i) for i in range(50)])
    check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(50))  # the next command rebuilds it


def test_a_shard_that_the_index_does_not_know_is_found(cache, tmp_path):
    before = (cache.folder / "index.h5").read_bytes()
    fill(cache, range(50, 60))
    assert (cache.folder / "index.h5").read_bytes() == before  # as after a kill: the shard is there, the index is not
    check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(60))


def damages(sound: bytes, number: int):
    """Yield damaged variants of a file: single flipped bits anywhere, cut short, emptied, lengthened."""
    rng = np.random.default_rng(0)
    for _ in range(number):
        damaged = bytearray(sound)
        damaged[rng.integers(len(sound))] ^= 1 << int(rng.integers(8))
        yield bytes(damaged)
    yield from (sound[:-10], b"", sound + b"\0", sound[: len(sound) // 2])


def test_a_deleted_shard_is_missed(cache, tmp_path):
    gone = sorted(cache.folder.glob("shards/*.h5"))[0]
    gone.unlink()
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    assert opened.lost == [gone.stem]
    assert len(opened.missing(["block5_pool"], [digest(i) for i in range(50)])) in (20, 30)


def test_any_damage_is_noticed_when_the_cache_is_opened(cache, tmp_path):
    everything = [digest(i) for i in range(50)]
    for shard in cache.folder.glob("shards/*.h5"):
        sound = shard.read_bytes()
        for damaged in damages(sound, 20):
            shard.write_bytes(damaged)
            opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
            assert list(opened.damaged) == [shard.stem]
            assert len(opened.missing(["block5_pool"], everything)) in (20, 30)
            with pytest.raises(VggftError, match="1 damaged file "):
                opened.read("block5_pool", everything)
        shard.write_bytes(sound)


@pytest.mark.slow
def test_damage_that_leaves_no_trace_in_the_file_s_time_is_noticed_when_it_is_read(cache, tmp_path):
    everything = [digest(i) for i in range(50)]
    for shard in cache.folder.glob("shards/*.h5"):
        sound, before = shard.read_bytes(), shard.stat()
        for damaged in damages(sound, 20):
            if len(damaged) != len(sound):
                continue
            FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).save_index()
            shard.write_bytes(damaged)
            os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
            opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
            assert not opened.damaged  # not read yet
            with pytest.raises(VggftError, match=f"{shard.name}: damaged"):
                opened.read("block5_pool", everything)
            assert list(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).damaged) == [
                shard.stem
            ]  # from now on nothing is believed
            shard.write_bytes(sound)
            os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).save_index()
    shard.write_bytes(damaged)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK, recheck=True).damaged) == [shard.stem]


def test_damaged_shards_are_quarantined_and_their_rows_written_again(cache, tmp_path):
    shard = sorted(cache.folder.glob("shards/*.h5"))[1]
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-1] + b"x")
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    opened.quarantine()
    assert (opened.folder / "damaged" / shard.name).read_bytes() == sound[:-1] + b"x"
    assert not shard.exists()
    lost = opened.missing(["block5_pool"], [digest(i) for i in range(50)])
    fill(opened, [i for i in range(50) if digest(i) in lost])
    opened.save_index()
    assert shard.read_bytes() == sound  # the same rows make the same file
    check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(50))


def test_a_shard_of_another_fingerprint_is_not_believed(cache, tmp_path):
    other = FeatureCache(tmp_path, Fingerprint.of(VGG16, preprocess="raw"), NETWORK)
    fill(other, range(5))
    stray = next(other.folder.glob("shards/*.h5"))
    (cache.folder / "shards" / stray.name).write_bytes(stray.read_bytes())
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    assert "not from this cache" in opened.damaged[stray.stem]
    check(opened, range(50))


def test_untouched_shards_are_not_read_again(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "check", lambda folder, name: pytest.fail("read"))
    assert not FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK).missing(
        ["block5_pool"], [digest(i) for i in range(50)]
    )


def test_rows_in_the_order_of_the_disk(cache):
    asked = [digest(i) for i in np.random.default_rng(0).permutation(50)]
    found = dict(cache.rows("block5_pool", asked, 7))
    assert sorted(found) == sorted(asked)
    assert all(np.array_equal(found[digest(i)], row("block5_pool", i)) for i in range(50))
    order = [int(cache.positions.locate("block5_pool", pack([d]))[0][0]) for d in found]
    assert order == sorted(order)


def test_a_reader_goes_on_when_files_are_replaced_under_its_feet(cache, tmp_path):
    reader = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    check(reader, [0])
    both = (
        cache.read("block4_pool", [digest(i) for i in range(50)]),
        cache.read("block5_pool", [digest(i) for i in range(50)]),
    )
    old = list(cache.folder.glob("shards/*.h5"))
    cache.write([digest(i) for i in range(50)], dict(zip(SHAPES, both, strict=True)), {})
    for path in old:
        path.unlink()
    check(reader, range(50))


def test_files_that_another_process_has_locked_are_read(cache, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    files = [path.open("rb") for path in cache.folder.rglob("*.h5")]
    for file in files:
        fcntl.flock(file, fcntl.LOCK_EX)
    check(FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK), range(50))
    for file in files:
        file.close()


def test_shards_are_a_function_of_their_rows(cache, tmp_path):
    again = FeatureCache(tmp_path / "again", Fingerprint.of(VGG16), NETWORK)
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
        assert file.attrs["fingerprint"] == Fingerprint.of(VGG16).json


@pytest.mark.parametrize(
    "other",
    [
        Fingerprint.of(VGG16, preprocess="raw"),
        Fingerprint.of(VGG16, weights="0" * 64),
        Fingerprint.of(VGG16, size=160),
        Fingerprint.of(VGG16, resize="nearest"),
    ],
)
def test_another_fingerprint_never_sees_old_numbers(cache, tmp_path, other):
    assert len(FeatureCache(tmp_path, other, NETWORK).missing(["block5_pool"], [digest(i) for i in range(50)])) == 50
    assert other.key != Fingerprint.of(VGG16).key


def test_the_fingerprint_of_the_published_weights_stays():
    """Existing caches are found by this key."""
    fingerprint = Fingerprint.of(VGG16)
    assert fingerprint.json == (
        '{"decoder":2,"dtype":"float16","preprocess":"caffe","resize":"bilinear","size":224,'
        '"weights":"d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd"}'
    )
    assert fingerprint.key == "a9f8373bf9de230e"
    assert Fingerprint.of(VGG16, decoder=1).key == "1932f5f53e4570cf"


def test_opening_writes_nothing(tmp_path):
    cache = FeatureCache(tmp_path / "none", Fingerprint.of(VGG16), NETWORK)
    assert cache.missing(["block5_pool"], [digest(1)]) == [digest(1)]
    cache.save_index()
    assert not (tmp_path / "none").exists()


def test_a_file_that_vanishes_during_the_scan_hides_no_other(cache, tmp_path, monkeypatch):
    first, second = sorted(cache.shards.iterdir())
    stamp = shards.Stamp.of

    def vanished(path):
        if path == first:
            raise FileNotFoundError
        return stamp(path)

    monkeypatch.setattr(shards.Stamp, "of", vanished)
    assert list(shards.present(cache.shards)) == [second.stem]


def test_what_is_no_shard_hides_none(cache, tmp_path):
    sound = list(shards.present(cache.shards))
    for i, make in enumerate(
        (
            lambda path: path.symlink_to("nowhere"),
            lambda path: path.symlink_to(path),
            lambda path: path.symlink_to(cache.shards / f"{sound[0]}.h5"),
        )
    ):
        make(cache.shards / f"{i:064}.h5")
    (cache.shards / "notes.h5").mkdir()
    assert list(shards.present(cache.shards)) == sound
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    assert (opened.lost, opened.damaged) == ([], {})
    check(opened, range(50))


def test_a_prune_between_the_index_and_the_shards_loses_nothing(cache, tmp_path, monkeypatch):
    present, (first, _) = shards.present, sorted(cache.positions.shards)
    pruned = []

    def meanwhile(folder):
        if not pruned:
            pruned.append(True)
            with cache.open(first) as file:
                rows = {layer: file[layer][...] for layer in shards.layers_of(file)}
                digests = unpack(shards.digests_of(file))
            cache.write(digests, rows, {"engine": "another"})
            cache.forget([first])  # as prune does: the index first
            shards.path(cache.shards, first).unlink()
        return present(folder)

    monkeypatch.setattr(shards, "present", meanwhile)
    opened = FeatureCache(tmp_path, Fingerprint.of(VGG16), NETWORK)
    assert (opened.lost, opened.lost_rows, opened.damaged) == ([], {}, {})
    check(opened, range(50))
