"""`--on`: features, folds and runs of a sweep that workers compute are those of one process."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import drawings, refused, strict_json, vggft
from disturbed import DEADLY, DISTURBED, POISON
from tiny import TINY, StandIn

from featurize.cache import shards
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.runner import Step
from vggft.workspace import filling, on_workers, views
from vggft.workspace.on_workers import FATAL, Job, Written
from vggft.workspace.workspace import Workspace


def same_features(one, other):
    """See that two workspaces have the same images, and the same rows to the last bit; return the number of images."""
    one, other = Workspace(one, TINY), Workspace(other, TINY)
    known = [[replace(sample, mtime_ns=0) for sample in work.dataset.samples] for work in (one, other)]
    assert known[0] == known[1]
    digests = [sample.digest for sample in one.dataset.accepted()]
    assert one.cache().layers == other.cache().layers
    for layer in one.cache().layers:
        assert np.array_equal(one.cache().read(layer, digests), other.cache().read(layer, digests))
    return len(digests)


@pytest.fixture
def here(monkeypatch):
    """Compute in this process with the engine that the workers have."""
    for module in (filling, views):
        monkeypatch.setattr(module, "start_engine", lambda architecture, *rest, **options: StandIn(architecture))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """30 drawings, a file that is no picture, and one that ends the process that decodes it."""
    folder = drawings(tmp_path_factory.mktemp("on") / "data", 15, "birds", "bugs")
    (folder / "birds" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    return folder


def test_workers_compute_what_one_process_computes(data, here, tmp_path, monkeypatch):
    monkeypatch.setattr(on_workers, "_FEWEST", 4)
    alone = vggft("featurize", data, "-w", tmp_path / "alone", "--json", "--views", 1)
    done = vggft("featurize", data, "-w", tmp_path / "on", "--json", "--views", 1, "--on", "local:2", network=DISTURBED)
    assert done.returncode == alone.returncode == 3, done.stderr
    assert "on 2 workers of local:2: about" in done.stderr
    same = ("images", "computed", "rejected", "splits", "layers", "views", "engine")
    found, expected = strict_json(done.stdout), strict_json(alone.stdout)
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    assert found["engine"] == "stand-in"
    assert same_features(tmp_path / "on", tmp_path / "alone") == 30
    on, one = (Workspace(tmp_path / name, TINY) for name in ("on", "alone"))
    assert len(on.cache().positions.shards) >= 6  # a task is a shard, and there was work for both
    view = replace(on.settings.fingerprint, probe="view-1")
    trained = [sample.digest for sample in on.dataset.accepted("train")]
    assert np.array_equal(on.cache(view).read("block3_pool", trained), one.cache(view).read("block3_pool", trained))
    again = vggft(
        "featurize", data, "-w", tmp_path / "on", "--json", "--views", 1, "--on", "local:2", network=DISTURBED
    )
    assert strict_json(again.stdout)["computed"] == 0


@pytest.mark.slow
def test_a_layer_is_computed_from_the_cached_one_below_it(data, here, tmp_path):
    for name, address in (("alone", ()), ("on", ("--on", "local:2"))):
        for layer in ("block2_pool", "block3_pool"):
            network = DISTURBED if address else TINY
            done = vggft("featurize", data, "-w", tmp_path / name, "--layers", layer, *address, network=network)
            assert done.returncode == 3, done.stderr
        assert Workspace(tmp_path / name, TINY).cache().computed_from("block3_pool") == "block2_pool"
    assert same_features(tmp_path / "on", tmp_path / "alone") == 30


@pytest.mark.slow
def test_a_picture_that_ends_its_readers_is_found_and_rejected_by_name(data, here, tmp_path, monkeypatch):
    monkeypatch.setattr(on_workers, "_FEWEST", 8)
    shutil.copytree(data, tmp_path / "data")
    poison = tmp_path / "data" / "bugs" / "poison.png"
    poison.write_bytes(next((data / "bugs").iterdir()).read_bytes() + POISON)
    command = ("featurize", tmp_path / "data", "-w", tmp_path / "work", "--json")
    done = vggft(*command, "--on", "local:2", network=DISTURBED)
    assert done.returncode == 3, done.stderr
    assert f"{poison}: {FATAL}" in done.stderr
    found = strict_json(done.stdout)
    assert (found["images"], found["computed"], found["rejected"]) == (30, 30, 2)
    rejected = {sample.path: sample.reason for sample in Workspace(tmp_path / "work", TINY).dataset.rejected}
    assert rejected["bugs/poison.png"].startswith(FATAL)
    assert set(rejected) == {"bugs/poison.png", "birds/broken.png"}  # nothing that was decoded beside it is blamed
    tried = []
    decoder = filling.decoder
    monkeypatch.setattr(
        filling, "decoder", lambda fingerprint: lambda data: (tried.append(data), decoder(fingerprint)(data))[1]
    )
    again = strict_json(vggft(*command).stdout)  # in this process, which it would end
    assert (again["computed"], again["rejected"]) == (0, 2)
    assert not any(POISON in data for data in tried)
    assert len(tried) == 1
    retried = strict_json(vggft(*command, "--rehash").stdout)  # the decoder of this process is not disturbed
    assert (retried["computed"], retried["rejected"]) == (1, 1)


@pytest.mark.slow
def test_workers_that_die_whatever_they_compute_blame_no_picture(tmp_path, monkeypatch):
    data = drawings(tmp_path / "data", 3, "birds", "bugs")
    monkeypatch.setenv(DEADLY, "1")
    said = refused("featurize", data, "-w", tmp_path / "work", "--on", "local:2", network=DISTURBED)
    assert said.startswith("error: local:2: workers die on every task")
    monkeypatch.delenv(DEADLY)
    done = vggft("featurize", data, "-w", tmp_path / "work", "--on", "local:2", "--json", network=DISTURBED)
    assert (strict_json(done.stdout)["computed"], strict_json(done.stdout)["rejected"]) == (6, 0)


def job(work):
    return Job(TINY, Fingerprint.of(TINY), work.cache_folder, Step(TINY.cached), None, "auto", 512)


def test_what_a_worker_cannot_see_or_read_is_an_error_that_names_it(data, here, tmp_path):
    vggft("featurize", data, "-w", tmp_path / "work")
    work = Workspace(tmp_path / "work", TINY)
    sample = work.dataset.accepted()[0]
    files, fingerprint, step = {sample.digest: [data / sample.path]}, work.settings.fingerprint, Step(TINY.cached)
    blind = Written([], {sample.digest: "no file"}, "", "node7")
    with pytest.raises(VggftError, match=rf"{sample.path}: node7 cannot decode it \(no file\), and this machine can"):
        on_workers._rejected(fingerprint, step, files, blind)
    with pytest.raises(VggftError, match=r"node7 has written 0000\.h5 into .*, and it is not there"):
        on_workers._index(work.cache(), Written(["0000"], {}, "", "node7"))
    shutil.move(work.cache_folder, tmp_path / "elsewhere")
    with pytest.raises(VggftError, match=r"not there\. All machines must see the same folder"):
        on_workers.compute_shard(job(work), files)


def test_a_damaged_shard_from_a_worker_is_not_indexed(data, here, tmp_path):
    vggft("featurize", data, "-w", tmp_path / "work")
    cache = Workspace(tmp_path / "work", TINY).cache()
    name = next(iter(cache.positions.shards))
    other = cache.shards / f"{'0' * 64}.h5"
    other.write_bytes(shards.path(cache.shards, name).read_bytes()[:1000])
    with pytest.raises(VggftError, match="damaged"):
        cache.adopt("0" * 64)
    assert "0" * 64 not in cache.positions.shards


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("featurize", "data", "--on", "4"), "expected the address of a Dask scheduler"),
        (("featurize", "data", "--on", "local:2", "--part", "1/2"), "--part with --on"),
        (("compare", "--on", "local:2"), "--on without --cv"),
        (("finetune", "--on", "local:2"), "--on without --sweep"),
        (("compare", "--cv", 2, "--on", "many"), "expected the address of a Dask scheduler"),
        (("finetune", "--sweep", "lr=1,2", "--on", "many"), "expected the address of a Dask scheduler"),
    ],
)
def test_on_in_the_wrong_place_is_refused(command, message, tmp_path):
    assert message in refused(*command, cwd=tmp_path)
    assert not any(tmp_path.iterdir())
