"""Batches are the same from memory, from the cache and from pixels."""

import hashlib
import threading
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
from conftest import make_classes
from small_tuning import examples, head, program, source
from tiny import TINY

from featurize.backbone.vgg16 import VGG16
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.pixels import images
from finetune import network as networks
from finetune.examples import Examples, Rows, Source, cached_bytes, from_cache, from_pixels, require_memory, windows
from finetune.plan import Plan
from finetune.train import order, train

INPUTS = np.arange(103 * 3).reshape(103, 3).astype(np.float16)


def batches(rows, chosen, size):
    return [batch.tolist() for batch in rows.batches(chosen, size)]


@pytest.mark.parametrize("window", [7, 14, 98, 105, 700])
def test_streamed_batches_are_those_from_memory(window):
    for epoch in (1, 2):
        chosen = order(Plan(), epoch, 103)  # a permutation of all images: windows do not bound what meets in a batch
        streamed = batches(Rows(source(INPUTS), window), chosen, 7)
        assert streamed == batches(Rows(source(INPUTS)), chosen, 7)
        assert streamed == [INPUTS[chosen[i : i + 7]].tolist() for i in range(0, 103, 7)]


def test_memory_holds_two_windows():
    """One that is trained on, and one that is read meanwhile, by another thread."""
    asked, threads = [], set()

    def pieces(positions):
        asked.append(len(positions))
        threads.add(threading.current_thread())
        yield np.arange(len(positions)), INPUTS[positions]

    sources = [Source(pieces, n, (3,), np.float16) for n in (103, 20)]
    assert windows(sources, memory=6 * 50, batch_size=8) == [24, 24]
    rows = Rows(sources[0], 24)
    assert not asked
    stream = rows.batches(np.arange(103), 8)
    next(stream)
    assert sum(asked) <= 48
    for _ in range(3):  # into the second window
        next(stream)
    assert sum(asked) <= 72
    list(stream)
    assert sum(asked) == 103
    assert max(asked) == 24
    assert threading.current_thread() not in threads


def test_what_fits_is_read_once():
    asked = []

    def pieces(positions):
        asked.append(len(positions))
        yield np.arange(len(positions)), INPUTS[positions]

    sources = [Source(pieces, n, (3,), np.float16) for n in (103, 20)]
    assert windows(sources, memory=6 * 123, batch_size=8) == [None, None]
    told = []
    rows = Rows(sources[0], None, told.append)
    for _ in range(3):
        assert len(batches(rows, np.arange(103), 8)) == 13
    assert asked == told == [103]


def test_what_streams_from_a_real_cache_stays_within_memory(tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), VGG16)
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(160)]
    for first in range(0, 160, 80):
        values = np.zeros((80, 14, 14, 512), np.float16)
        cache.write(digests[first : first + 80], {"block4_pool": values}, {})
    found = from_cache(cache, "block4_pool", digests)
    memory = 8_000_000
    (window,) = windows([found], memory, 4)
    cache.read("block4_pool", digests[:1])  # its file is open, and checked
    tracemalloc.start()
    for _ in Rows(found, window).batches(np.random.default_rng(0).permutation(160), 4):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert memory / 2 < peak < memory + 10_000_000  # and a piece of 8 MB on its way


def test_nobody_waits_for_a_window_that_nobody_wants():
    """After Ctrl-C the prompt is back before the rest of a long window is read."""
    read = []

    def pieces(positions):
        for i in range(len(positions)):
            read.append(i)
            time.sleep(0.02)
            yield np.array([i]), INPUTS[positions[i : i + 1]]

    stream = Rows(Source(pieces, 103, (3,), np.float16), 50).batches(np.arange(103), 10)
    next(stream)
    before = len(read)
    stream.close()
    assert len(read) <= before + 3


def test_too_little_memory():
    least = 2 * 8 * cached_bytes(VGG16, "block4_pool", 64)
    assert least == 2 * 8 * 4 * 4 * 512 * 2
    require_memory(least, cached_bytes(VGG16, "block4_pool", 64), 8)
    with pytest.raises(VggftError, match=r"--memory: 0\.3 MB is too little for two batches of 8 images \(0\.3 MB\)"):
        require_memory(least - 1, cached_bytes(VGG16, "block4_pool", 64), 8)


def test_trouble_while_reading_ahead_is_raised():
    def pieces(positions):
        if 60 in positions:
            raise VggftError("the disk is gone")
        yield np.arange(len(positions)), INPUTS[positions]

    stream = Rows(Source(pieces, 103, (3,), np.float16), 20).batches(np.arange(103), 10)
    with pytest.raises(VggftError, match="the disk is gone"):
        list(stream)


def test_rows_of_the_cache_in_any_order_and_twice(tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16, size=32), VGG16)
    rng = np.random.default_rng(0)
    values = rng.random((10, 2, 2, 512)).astype(np.float16)
    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(10)]
    for first in (0, 4, 8):
        part = slice(first, first + 4)
        cache.write(digests[part], {"block4_pool": values[part]}, {})
    wanted = [*digests, digests[3]]  # two files with the same bytes
    found = from_cache(cache, "block4_pool", wanted)
    assert (found.n, found.row_bytes) == (11, 2 * 2 * 512 * 2)
    chosen = np.array([10, 9, 0, 3, 5])
    (read,) = Rows(found, 5).batches(chosen, 5)
    np.testing.assert_array_equal(read, values[[3, 9, 0, 3, 5]])


def test_pixels(tmp_path):
    data = make_classes(tmp_path / "data", a=3)
    paths = sorted(data.rglob("*.png"))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    decode = partial(images.decode_resized, size=32)
    found = from_pixels({d: [p] for d, p in zip(digests, paths, strict=True)}, decode, 32, [*digests, digests[0]])
    expected = np.stack([decode(paths[i].read_bytes()) for i in (0, 2, 0)])
    np.testing.assert_array_equal(next(Rows(found, 3).batches(np.array([3, 2, 0]), 3)), expected)
    paths[1].unlink()
    with pytest.raises(VggftError, match=f"{paths[1]}: cannot be read"):
        Rows(found)


@pytest.mark.slow
def test_training_does_not_see_where_its_inputs_come_from(weights, small_features):
    plan = Plan(1, 5, learning_rate=1e-4)

    def trained(window):
        network = networks.assemble(weights, "caffe", TINY.size, head("max", scaler=True))
        rows = Rows(source(small_features["block2_pool"]), window)
        data = Examples(rows, np.arange(12) % 2)
        train(program(network, "block2_pool", plan, data.targets, weights), (data, data), plan)
        return network.get_layer("block3_conv1").get_weights()[0]

    assert np.array_equal(trained(None), trained(5))
    assert examples(INPUTS, np.zeros(103)).rows.window is None
