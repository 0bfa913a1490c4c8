"""The pipeline with a small engine: each row is stored under its own digest, also after errors and interrupts."""

import hashlib
import time

import numpy as np
import pytest
from conftest import paint
from tiny import with_layers

from featurize import runner
from featurize.backbone.vgg16 import VGG16
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.pixels import images

MEANS = with_layers(VGG16, x=(1, 1, 3))


class MeanEngine:
    """Gives each picture's mean colour as a 1×1 map: enough to tell rows apart."""

    name = "mean"
    in_flight = 1

    def __init__(self, batch_size=16, fail_after=None, error=KeyboardInterrupt):
        self.batch_size = self.trial = batch_size
        self.batches = []
        self.fail_after = fail_after
        self.error = error

    def __call__(self, pictures, layers, below=None):
        if self.fail_after is not None and len(self.batches) == self.fail_after:
            raise self.error
        self.batches.append(len(pictures))
        return [pictures.astype(np.float32).mean(axis=(1, 2), keepdims=True)]


def decode(data):
    return images.decode_resized(data, 16)


@pytest.fixture
def work(tmp_path):
    files = {}
    for i in range(33):
        path = paint(tmp_path / "pictures" / f"name {i} ü\n.png", (0, 7 * i, 255 - 7 * i))
        files[hashlib.sha256(path.read_bytes()).hexdigest()] = [path]
    return files


def expected(work):
    return np.stack([decode(paths[0].read_bytes()).mean(axis=(0, 1)) for paths in work.values()])


@pytest.mark.parametrize("batch", [1, 16, 33, 100])
def test_right_rows_at_any_batch_size(work, tmp_path, batch):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    progress = []
    outcome = runner.run(work, ["x"], decode, MeanEngine(batch), cache, progress=progress.append)
    found = cache.read("x", list(work))[:, 0, 0]
    assert np.abs(found - expected(work)).max() < 0.1
    assert outcome.computed == progress[-1] == 33


def test_shards_hold_no_more_than_asked(work, tmp_path):
    sizes = []

    class Sink:
        def write(self, digests, features, made):
            sizes.append(len(digests))

    for rows in (8, 20, 1):
        runner.run(work, ["x"], decode, MeanEngine(), Sink(), shard_rows=rows)
        assert sum(sizes) == 33
        assert max(sizes) <= rows
        sizes.clear()


def test_what_cannot_be_used_is_reported_and_the_rest_goes_on(work, tmp_path):
    (no_picture, changed, gone, copied), others = list(work)[:4], list(work)[4:]
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    hashed = hashlib.sha256(text.read_bytes()).hexdigest()
    files = {hashed: [text], **work}
    del files[no_picture]
    work[changed][0].write_bytes(work[others[0]][0].read_bytes())
    work[gone][0].unlink()
    copy = paint(tmp_path / "copy.png", (0, 0, 0))
    copy.write_bytes(work[copied][0].read_bytes())
    work[copied][0].unlink()
    files[copied] = [work[copied][0], copy]  # the first is gone, a copy is still there
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    outcome = runner.run(files, ["x"], decode, MeanEngine(), cache)
    assert outcome.rejected == {
        hashed: "not a picture: text file",
        changed: "changed while vggft was running; run featurize again",
        gone: "cannot be read: No such file or directory",
    }
    assert cache.missing(["x"], list(files)) == [hashed, changed, gone]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("engine broke")])
def test_a_stopped_run_keeps_what_it_computed(work, tmp_path, error):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        runner.run(work, ["x"], decode, MeanEngine(8, fail_after=2, error=error), cache)
    assert len(cache.missing(["x"], list(work))) == 33 - 16
    left = {d: work[d] for d in cache.missing(["x"], list(work))}
    engine = MeanEngine(8)
    runner.run(left, ["x"], decode, engine, cache)
    assert sum(engine.batches) == 17
    assert np.abs(cache.read("x", list(work))[:, 0, 0] - expected(work)).max() < 0.1


def test_an_interrupt_while_a_shard_is_handed_over(work, tmp_path, monkeypatch):
    cache, cleared = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS), []
    clear, write = runner._Shards._clear, runner._Shards._write

    def interrupted(self):
        cleared.append(self)
        if len(cleared) == 2:  # the first was the beginning
            raise KeyboardInterrupt
        clear(self)

    def late(self, parts):  # they are handed in a second time before they are written
        time.sleep(0.2)
        write(self, parts)

    monkeypatch.setattr(runner._Shards, "_clear", interrupted)
    monkeypatch.setattr(runner._Shards, "_write", late)
    with pytest.raises(KeyboardInterrupt):
        runner.run(work, ["x"], decode, MeanEngine(8), cache, shard_rows=16)
    assert cache.missing(["x"], list(work)) == list(work)[16:]
    assert np.abs(cache.read("x", list(work)[:16])[:, 0, 0] - expected(work)[:16]).max() < 0.1


def test_a_full_shard_is_written_while_the_next_one_is_computed(work, tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)

    class Watching(MeanEngine):
        def __call__(self, pictures, layers, below=None):
            deadline = time.monotonic() + 20
            while len(cache.positions.shards) < len(self.batches):
                assert time.monotonic() < deadline, "a full shard waits for the next batch"
                time.sleep(0.01)
            return super().__call__(pictures, layers, below)

    runner.run(work, ["x"], decode, Watching(8), cache, shard_rows=8)
    assert len(cache.positions.shards) == 5


@pytest.mark.parametrize("value", [np.inf, np.nan, 70_000.0])
def test_numbers_that_float16_cannot_hold(work, tmp_path, value):
    class Broken(MeanEngine):
        def __call__(self, pictures, layers, below=None):
            found = super().__call__(pictures, layers, below)
            if len(self.batches) == 2:
                found[0][3] = value
            return found

    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    with pytest.raises(VggftError, match=f"digest {list(work)[8 + 3]}"):
        runner.run(work, ["x"], decode, Broken(8), cache)
    assert len(cache.missing(["x"], list(work))) == 33 - 8
