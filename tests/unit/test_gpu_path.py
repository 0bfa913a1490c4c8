"""What an engine on a GPU rests on, tested on a CPU: rows that travel as they are, float16 checked on the device, several
batches in flight, decoding in processes, shards compressed in parallel."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import paint
from test_runner import MeanEngine, decode, expected
from tiny import TINY, with_layers

from featurize import backend, runner
from featurize.backbone import weights as weight_files
from featurize.backbone.network import between, build
from featurize.backbone.vgg16 import VGG16
from featurize.cache import shards, zstd
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import durable
from featurize.disk.digests import pack, unpack
from featurize.engines.compiled import compiled
from featurize.errors import VggftError
from featurize.pixels import decoding, images
from featurize.process.workers import Workers
from vggft.steps import sources
from vggft.steps.options import FeaturizeOptions
from vggft.workspace.workspace import Workspace

MEANS = with_layers(VGG16, x=(1, 1, 3))
TWO = ["block2_pool", "block3_pool"]


@pytest.fixture(scope="module")
def network(weights):
    return build(weights, "caffe", 32)


def pictures(n):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), np.uint8)


def test_pictures_travel_as_uint8(network):
    part = compiled(between(network, None, TWO), half=False)
    for own, cast in zip(part(pictures(3)), part(pictures(3).astype(np.float32)), strict=True):
        assert own.dtype == np.float32
        assert np.array_equal(own, cast)


def test_float16_on_the_device_is_numpys(network):
    half = compiled(between(network, None, TWO), half=True)(pictures(3))
    full = compiled(between(network, None, TWO), half=False)(pictures(3))
    for narrow, wide in zip(half, full, strict=True):
        assert narrow.dtype == np.float16
        assert np.array_equal(narrow, wide.astype(np.float16))


def test_a_row_beyond_float16_is_nan_throughout_and_the_others_are_not(network):
    rows = np.zeros((3, *TINY.layer("block2_pool").shape(32)), np.float16)
    rows[1] = 60_000
    found = compiled(between(network, "block2_pool", ["block3_conv1"]), half=True)(rows)[0]
    wide = compiled(between(network, "block2_pool", ["block3_conv1"]), half=False)(rows)[0]
    assert wide[1].max() > 65_504
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


def test_float32_is_float32():
    keras = backend.load_keras()
    if keras.backend.backend() == "tensorflow":
        assert not backend.load_quietly("tensorflow").config.experimental.tensor_float_32_execution_enabled()
    elif keras.backend.backend() == "jax":
        assert backend.load_quietly("jax").config.jax_default_matmul_precision == "highest"
    else:
        assert not backend.load_quietly("torch").backends.cudnn.allow_tf32


class HalfEngine(MeanEngine):
    """Several batches at once; float16 rows."""

    in_flight = 3

    def __call__(self, pictures, layers, below=None):
        return [output.astype(np.float16) for output in super().__call__(pictures, layers, below)]


@pytest.fixture
def work(tmp_path):
    files = {}
    for i in range(33):
        path = paint(tmp_path / "pictures" / f"{i}.png", (0, 7 * i, 255 - 7 * i))
        files[hashlib.sha256(path.read_bytes()).hexdigest()] = [path]
    return files


@pytest.mark.parametrize(("batch", "rows"), [(4, 4), (4, 6), (8, 100)])
def test_several_batches_in_flight_keep_their_order(work, tmp_path, batch, rows):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    runner.run(work, ["x"], decode, HalfEngine(batch), cache, shard_rows=rows)
    assert np.abs(cache.read("x", list(work))[:, 0, 0] - expected(work)).max() < 0.1


def test_a_failure_in_flight_keeps_what_came_before(work, tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    with pytest.raises(RuntimeError, match="broke"):
        runner.run(work, ["x"], decode, HalfEngine(4, fail_after=4, error=RuntimeError("broke")), cache)
    there = len(work) - len(cache.missing(["x"], list(work)))
    assert there <= 16
    left = {digest: work[digest] for digest in cache.missing(["x"], list(work))}
    runner.run(left, ["x"], decode, HalfEngine(4), cache)
    assert np.abs(cache.read("x", list(work))[:, 0, 0] - expected(work)).max() < 0.1


def test_a_row_that_the_engine_found_too_large_is_named(work, tmp_path):
    class Broken(HalfEngine):
        def __call__(self, pictures, layers, below=None):
            found = super().__call__(pictures, layers, below)
            found[0][-1] = np.nan
            return found

    with pytest.raises(VggftError, match=f"digest {list(work)[7]}"):
        runner.run(work, ["x"], decode, Broken(8), FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS))


def rows_of(n, seed=0):
    values = np.maximum(np.random.default_rng(seed).normal(-1, 1, (n, 4, 4, 64)), 0).astype(np.float16)
    return pack(hashlib.sha256(bytes([seed, i])).hexdigest() for i in range(n)), {"x": values}


def test_a_shard_has_the_bytes_that_hdf5_alone_would_write(tmp_path, monkeypatch):
    assert zstd.compressor(1) is not None
    name = shards.write(tmp_path, *rows_of(40), {"fingerprint": "f"})
    monkeypatch.setattr(zstd, "compressor", lambda level: None)
    assert shards.write(tmp_path, *rows_of(40), {"fingerprint": "f"}) == name


def test_shards_are_written_side_by_side(tmp_path):
    def write(seed):
        return shards.write(tmp_path, *rows_of(40, seed), {"fingerprint": "f"})

    with ThreadPoolExecutor(3) as pool:
        names = list(pool.map(write, range(9)))
    for seed, name in enumerate(names):
        shards.check(tmp_path, name)
        with shards.open_sound(tmp_path, name, "f") as file:
            assert np.array_equal(file["x"][...], rows_of(40, seed)[1]["x"])


def test_processes_decode_what_threads_decode(work, tmp_path):
    text = tmp_path / "text\udce4 ü\n.jpg"
    text.write_text("hello")
    work[hashlib.sha256(b"hello").hexdigest()] = [text]
    named = partial(images.decode_resized, size=16)
    found = [dict(runner.decoded(work, named, 8, processes=processes)) for processes in (False, True)]
    for digest, picture in found[0].items():
        assert np.array_equal(found[1][digest], picture)
    assert found[1][hashlib.sha256(b"hello").hexdigest()].startswith("not a picture")


def test_a_decoding_process_that_is_killed_costs_no_picture(work):
    processes = decoding.Processes(partial(images.decode_resized, size=16))
    files = list(work.items())[:3]
    processes(files)
    started = processes._workers._all
    started[0].kill()
    started[0].wait()
    for _ in range(2):
        assert [picture.shape for picture in processes(files)] == [(16, 16, 3)] * 3
    assert len(started) == 2
    processes.close()
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0]


ORPHAN = """
import os, sys
from functools import partial
from pathlib import Path
from featurize.pixels import decoding, images
processes = decoding.Processes(partial(images.decode_resized, size=16))
processes([("0", [Path("nowhere")])])
print(processes._workers._all[0].pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_a_decoding_process_ends_with_its_parent():
    done = subprocess.run([sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60, check=False)
    child = Path("/proc", done.stdout.strip())
    for _ in range(100):
        if not child.exists() or "\nState:\tZ" in (child / "status").read_text():
            return
        signal.sigtimedwait([], 0.1)
    os.kill(int(child.name), signal.SIGKILL)
    pytest.fail("still there after 10 s")


@pytest.mark.slow
def test_a_run_in_processes_writes_what_a_run_in_threads_writes(work, tmp_path, monkeypatch):
    decoder, names = partial(images.decode_resized, size=16), []
    for least, folder in ((1_000, "threads"), (1, "processes")):
        monkeypatch.setattr(runner, "_MIN_PICTURES_FOR_PROCESSES", least)
        cache = FeatureCache(tmp_path / folder, Fingerprint.of(VGG16), MEANS)
        runner.run(work, ["x"], decoder, HalfEngine(4), cache, shard_rows=8)
        names.append(set(cache.positions.shards))
    assert names[0] == names[1]
    assert len(names[0]) == 5
    with pytest.raises(RuntimeError, match="broke"):
        runner.run(work, ["x"], decoder, HalfEngine(4, fail_after=1, error=RuntimeError("broke")), cache)
    cache.write(list(work), {"x": np.zeros((len(work), 1, 1, 3), np.float16)}, {})  # in this process again


def test_a_writing_process_that_is_killed_costs_no_row(tmp_path):
    cache = FeatureCache(tmp_path, Fingerprint.of(VGG16), MEANS)
    with cache.writing_in_processes(), ThreadPoolExecutor(1) as pool:
        for seed in range(3):
            packed, features = rows_of(40, seed)
            rows = {"x": features["x"][:, :1, :1, :3]}
            pool.submit(cache.write, unpack(packed), rows, {}).result()
            started = cache._workers._all
            if not seed:
                started[0].kill()
                started[0].wait()
        assert len(started) == 2
        assert started[1].poll() is None
    for seed in range(3):
        assert not cache.missing(["x"], unpack(rows_of(40, seed)[0]))


def test_what_a_worker_raises_is_raised_here(tmp_path):
    with contextlib.closing(Workers()) as workers:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            workers(durable.read_bytes, tmp_path / "nowhere")
        large = np.arange(3_000_000, dtype=np.float32).reshape(3, -1)
        for array, other in zip([large, large[:0], large[1]], workers(list, [large, large[:0], large[1]]), strict=True):
            assert np.array_equal(array, other)
            assert array.shape == other.shape


def test_a_file_of_published_weights_is_remembered_where_there_are_no_others(published, monkeypatch, tmp_path):
    file = tmp_path / "weights.npz"
    file.touch()
    monkeypatch.setattr(weight_files, "load", lambda architecture, source: published)
    options = FeaturizeOptions(tmp_path, weights=file, engine="keras")
    monkeypatch.setattr(weight_files, "available", lambda architecture: None)
    assert sources.fingerprint(options, Workspace(tmp_path / "work", VGG16), None)[1] == file.resolve()
    monkeypatch.setattr(weight_files, "available", lambda architecture: weight_files.Source("installed copy", file))
    assert sources.fingerprint(options, Workspace(tmp_path / "work", VGG16), None)[1] is None


@pytest.mark.slow
def test_the_benchmark_runs_on_a_cpu(tmp_path, hymenoptera):
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        hymenoptera,
        "--quick",
        "--images",
        "10",
        "--json",
        tmp_path / "found.json",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["failed"] == {}
    assert found["pipeline"]["vggft"]["images_per_second"] > 0
    assert found["training"]["parity"] < 2e-3
    assert done.stdout.strip().splitlines()[-1].startswith(("parity", "peak"))
