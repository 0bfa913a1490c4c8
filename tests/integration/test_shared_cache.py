"""`featurize --cache`: workspaces share features, and none deletes or disturbs what another one uses."""

import shutil
import sys

import pytest
from conftest import make_classes, refused, snapshot, strict_json, vggft
from tiny import TINY

from featurize.cache import sharing
from featurize.errors import VggftError
from vggft.steps import featurize
from vggft.steps.options import FeaturizeOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def computed(data, work, *options):
    done = vggft("featurize", data, "-w", work, *options, "--json")
    assert done.returncode == 0, done.stderr
    return strict_json(done.stdout)["computed"]


def prune(work):
    done = vggft("cache", "prune", "--yes", "-w", work, "--json")
    assert done.returncode == 0, done.stderr
    return strict_json(done.stdout)["rows"]


@pytest.fixture
def pair(copied):
    """A workspace, and another one with another split that uses its cache."""
    first, second = copied / "work", copied / "second"
    assert computed(copied / "data", second, "--cache", first / "cache", "--validation", "0.5") == 0
    return copied / "data", first, second


def test_a_second_workspace_computes_nothing_again(pair):
    data, first, second = pair
    assert not (second / "cache").exists()
    assert Workspace(second, TINY).cache_folder == first / "cache"
    assert computed(data, second) == 0  # the folder is remembered
    assert vggft("head", "--head", "logistic-max", "-w", second).returncode == 0
    found = strict_json(vggft("cache", "info", "-w", second, "--json").stdout)
    assert (found["shared_with"], found["fingerprints"][0]["images"]) == ([str(first)], 24)
    assert vggft("cache", "verify", "-w", second).returncode == 0


def test_prune_keeps_what_the_others_use(pair):
    data, first, second = pair
    fewer = data.with_name("fewer")
    shutil.copytree(data, fewer)
    for path in sorted(fewer.rglob("*.png"))[::4]:
        path.unlink()
    for smaller, larger in ((first, second), (second, first)):
        assert computed(fewer, smaller) == 0
        assert prune(smaller) == 0
        assert (
            not Workspace(larger, TINY)
            .cache()
            .missing(["block3_pool"], [s.digest for s in Workspace(larger, TINY).dataset.samples])
        )
        assert computed(data, smaller) == 0
    raw = data.with_name("raw")
    assert computed(data, raw, "--cache", first / "cache", "--preprocess", "raw") == 24
    for work in (first, second, raw):
        assert prune(work) == 0
        assert computed(data, work) == 0
    found = strict_json(vggft("cache", "info", "-w", first, "--json").stdout)
    assert [entry["in_use"] for entry in found["fingerprints"]] == [True, True]
    for work in (first, second, raw):
        computed(fewer, work)
    assert prune(raw) == 2 * 2 * 6 / 2  # both fingerprints, six images each, whichever workspace asks


def test_prune_refuses_where_a_user_cannot_be_read(pair):
    _, first, second = pair
    second.rename(second.with_name("moved"))
    before = snapshot(first / "cache")
    message = refused("cache", "prune", "--yes", "-w", first)
    assert f"{second}, which uses the features in {first / 'cache'}, is not there" in message
    assert snapshot(first / "cache") == before
    assert vggft("cache", "info", "-w", first).returncode == 0
    (first / "cache" / sharing.USERS).unlink()
    assert prune(first) == 0


def test_prune_refuses_where_a_user_is_damaged(pair):
    _, first, second = pair
    (second / "workspace.json").write_text("{")
    message = refused("cache", "prune", "--yes", "-w", first)
    assert f"{second} uses the features in {first / 'cache'}, too, and cannot be read" in message


def test_a_workspace_that_was_moved_keeps_its_features(pair):
    data, first, second = pair
    moved = second.rename(second.with_name("moved"))
    with sharing.locked(first / "cache", pytest.fail), Workspace(moved, TINY).writing():
        pass  # another process computes: it is not waited for
    assert sharing.users(first / "cache") == [second]
    with Workspace(moved, TINY).writing():
        pass
    users = first / "cache" / sharing.USERS
    assert sharing.users(first / "cache") == [second, moved]
    users.write_text(f"{moved}\n")  # as the refusal of prune says
    for path in sorted(data.rglob("*.png"))[::4]:
        path.unlink()
    assert computed(data, first) == 0
    assert prune(first) == 0
    assert vggft("head", "--head", "logistic-max", "-w", moved).returncode == 0
    assert sharing.users(first / "cache") == [moved]


def test_prune_refuses_while_a_user_writes(pair):
    _, first, second = pair
    with Workspace(second, TINY).writing():
        assert f"{second}: process" in refused("cache", "prune", "--yes", "-w", first)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_computing_waits_for_another_workspace(pair, capsys):
    data, first, second = pair
    make_classes(data, bugs=1)
    import fcntl

    lock = (first / "cache" / sharing.LOCK).open("w")

    class Console(Ui):
        def say(self, message):
            super().say(message)
            if message.startswith("waiting: another vggft process is writing in"):
                lock.close()

    fcntl.flock(lock, fcntl.LOCK_EX)  # as another process holds it
    temporary = next((first / "cache").glob("*/shards")) / ".x.h5.1.vggft.tmp"
    temporary.touch()
    ui = Console()
    featurize.run(Workspace(second, TINY), FeaturizeOptions(data), ui)
    assert "waiting: another vggft process" in capsys.readouterr().err
    assert temporary.exists()  # the other process was writing it
    assert computed(data, first) == 0
    assert not temporary.exists()


def test_folders_that_are_no_cache_are_refused(copied):
    data, new = copied / "data", copied / "new"
    (copied / "notes").mkdir()
    (copied / "notes" / "mine.txt").touch()
    (copied / "file").touch()
    before = snapshot(copied)
    for folder, why in {
        copied / "work": "name that folder",
        copied / "notes": r"contains something else \(mine.txt\)",
        copied / "file": "not a folder",
        data / "cache": "overlap",
        new / "heads": "overlap",
        copied: "overlap",
    }.items():
        with pytest.raises(VggftError, match=why):
            featurize.run(Workspace(new, TINY), FeaturizeOptions(data, cache=folder), Ui(quiet=True))
    assert snapshot(copied) == before


def test_a_workspace_changes_its_cache(pair):
    data, first, second = pair
    apart = data.with_name("apart")
    assert computed(data, second, "--cache", apart) == 24
    assert computed(data, second, "--cache", second / "cache") == 24
    assert Workspace(second, TINY).settings.cache is None
    assert strict_json(vggft("cache", "info", "-w", first, "--json").stdout)["shared_with"] == []
