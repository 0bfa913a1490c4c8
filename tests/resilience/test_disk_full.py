"""Full disks: a short error, no partial files, no lost results, and a next run that computes only what is missing."""

import hashlib
import shutil
import signal
import sys
import zlib

import h5py
import numpy as np
import pytest
from conftest import make_classes, paint, refused, shards, snapshot, strict_json, vggft, wait_for_shards
from processes import start
from small_disk import PAGE, leave
from tiny import TINY

from featurize.backbone.vgg16 import VGG16
from featurize.errors import VggftError
from featurize.wording import size
from vggft.steps import featurize
from vggft.steps.options import FeaturizeOptions
from vggft.workspace import backbone
from vggft.workspace.workspace import Workspace

resource = pytest.importorskip("resource", reason="Windows has neither limits nor tmpfs")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tmpfs and prlimit are Linux's")


def check_nothing_half_written(work):
    """Check that all files of a failed first run are complete; return the number of rows."""
    for name, data in shards(work).items():
        assert name == hashlib.sha256(data).hexdigest() + ".h5"
    assert not list(work.rglob(".*"))
    assert {path.name for path in work.rglob("*") if path.is_file()} - shards(work).keys() <= {
        "checksums.json",
        "fingerprint.json",
        "index.h5",
        "lock",
        "manifest.csv",
        "splits.csv",
        "timings.csv",
    }
    return sum(len(h5py.File(path)["digest"]) for path in work.glob("cache/*/shards/*.h5"))


def same(one, other, network=TINY):
    """Return whether two workspaces have the same images, splits and features, bit for bit."""
    a, b = Workspace(one, network), Workspace(other, network)
    digests = sorted(s.digest for s in a.dataset.accepted())
    return a.dataset.identity == b.dataset.identity and all(
        np.array_equal(a.cache().read(name, digests), b.cache().read(name, digests)) for name in network.cached
    )


def disturbed(data, work, trouble):
    """Run the command, disturb it after its first shard, and return its only error."""
    process = start("featurize", data, "-w", work, "--shard", "2", "--json")
    wait_for_shards(work, 1, process)
    process.send_signal(signal.SIGSTOP)
    trouble(process)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, (out, err)
    assert "Traceback" not in err
    errors = [line for line in err.splitlines() if "error: " in line]
    assert errors == ["error: " + strict_json(out)["error"]]
    return errors[0]


def check_it_goes_on(data, work, undisturbed):
    kept, rows = shards(work), check_nothing_half_written(work)
    assert 0 < rows < 24
    found = strict_json(vggft("featurize", data, "-w", work, "--json").stdout)
    assert (found["computed"], found["reused"], found["damaged_files"]) == (24 - rows, rows, 0)
    assert kept.items() <= shards(work).items()
    assert strict_json(vggft("cache", "verify", "-w", work, "--json").stdout)["ok"]
    assert same(work, undisturbed)


@pytest.mark.slow
def test_the_disk_fills_up_in_the_middle_of_the_work(featurized, disk):
    base, work = featurized[0], disk / "work"
    error = disturbed(base / "data", work, lambda process: leave(disk, 0))
    assert "No space left on device" in error
    assert "free some space" in error
    (disk / "ballast").unlink()
    check_it_goes_on(base / "data", work, base / "work")


@pytest.mark.slow
def test_files_are_no_longer_allowed_to_grow(featurized, tmp_path):
    base, work = featurized[0], tmp_path / "work"
    limit = (resource.RLIMIT_FSIZE, (1000, 1000))
    error = disturbed(base / "data", work, lambda process: resource.prlimit(process.pid, *limit))
    assert "File too large" in error
    check_it_goes_on(base / "data", work, base / "work")


class Noise:
    """An engine whose rows hardly compress: they take more room than those of photographs, hence than was estimated."""

    name = "noise"
    batch_size = 4
    in_flight = 1
    trial = 1

    def __call__(self, pictures, layers, below=None):
        seeds = [zlib.crc32(np.ascontiguousarray(picture)) for picture in pictures]
        return [
            np.stack([np.random.default_rng(seed).random(VGG16.layer(name).shape(224), np.float32) for seed in seeds])
            for name in layers
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short", "file", "whole"),
    [
        (2, "manifest.csv", 3),
        (7, "index.h5", 3),
        (100, "shards/.*.h5", 2),  # three shards of four rows, 200 pages each
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in (
                (1, "workspace.json", 3),
                (3, "splits.csv", 3),
                (4, "checksums.json", 3),
                (300, "shards/.*.h5", 1),
            )
        ),
    ],
)
def test_a_disk_that_is_some_pages_short(disk, tmp_path, monkeypatch, ui, *, short, file, whole):
    monkeypatch.setattr(backbone, "create", lambda *_: Noise())
    data, work, undisturbed = make_classes(tmp_path / "data", a=6, b=6), disk / "work", tmp_path / "undisturbed"

    def run(work):
        return featurize.run(Workspace(work, VGG16), FeaturizeOptions(data, shard=4), ui)

    run(work)
    needed = shutil.disk_usage(disk).used // PAGE + 1  # and lock.txt, which is gone by now
    shutil.move(work, undisturbed)
    ballast = leave(disk, needed - short)
    with pytest.raises(VggftError, match=rf"/{file}: .*No space left on device.*free some space"):
        run(work)
    kept = shards(work)
    assert check_nothing_half_written(work) == 4 * len(kept) == 4 * whole
    ballast.unlink()
    again = run(work)
    assert (again["computed"], again["reused"], again["damaged_files"]) == (12 - 4 * whole, 4 * whole, 0)
    assert kept.items() <= shards(work).items()
    assert same(work, undisturbed, VGG16)


def test_refused_before_the_work(featurized, disk):
    leave(disk, 5)
    before = snapshot(disk)
    message = refused("featurize", featurized[0] / "data", "-w", disk / "work")
    room = f"{size(5 * PAGE)} free, about"
    assert all(words in message for words in ("of 24 images:", room, "--workspace", "--layers"))
    assert snapshot(disk) == before


def test_refused_on_a_full_disk_with_a_workspace_on_it(copied, disk):
    shutil.move(copied / "work", disk / "work")
    paint(copied / "data" / "bugs" / "new.png", (1, 2, 3))
    leave(disk, 0)
    before = snapshot(disk)
    message = refused("featurize", copied / "data", "-w", disk / "work")
    assert all(words in message for words in ("of 1 image:", "0 bytes free, about", "Free some space"))
    assert snapshot(disk) == before


def test_prune_makes_room_on_a_full_disk(copied, disk):
    shutil.move(copied / "work", disk / "work")
    aside = next((disk / "work" / "cache").iterdir()) / "damaged"
    aside.mkdir()
    (aside / ("0" * 64 + ".h5")).write_bytes(bytes(1_000_000))
    leave(disk, 0)
    before = shards(disk / "work")
    done = vggft("cache", "prune", "--yes", "-w", disk / "work", "--json")
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout)["bytes_freed"] >= 1_000_000
    assert shards(disk / "work") == before
    assert vggft("featurize", copied / "data", "-w", disk / "work").returncode == 0
