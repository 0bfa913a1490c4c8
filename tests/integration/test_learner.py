"""The learner of `vggft sort` in its process: suggestions, progress, and what happens when one of the two processes ends."""

import os
import shutil
import signal
import time

import pytest
from conftest import drawings, shards, strict_json, vggft
from processes import Fork, wait_until
from tiny import TINY

from featurize.backbone.vgg16 import VGG16
from vggft.labelling.learner import ProcessLearner
from vggft.labelling.suggestions import CANNOT_TELL
from vggft.workspace.workspace import Workspace


@pytest.fixture
def folder(tmp_path):
    """48 drawings in one folder; the label of each is the start of its name."""
    drawings(tmp_path / "classes", 24, "bugs", "flowers")
    (tmp_path / "photos").mkdir()
    for path in sorted((tmp_path / "classes").glob("*/*")):
        shutil.copy(path, tmp_path / "photos" / f"{path.parent.name}-{path.name}")
    return tmp_path / "photos"


def names(folder):
    """Return the files, in turn one of each class."""
    files = sorted(path.name for path in folder.iterdir())
    half = len(files) // 2
    return [name for pair in zip(files[:half], files[half:], strict=True) for name in pair]


def label(name):
    return name.split("-")[0]


def until(condition, learner, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition(learner.snapshot()):
        assert time.monotonic() < deadline, learner.snapshot()
        time.sleep(0.01)
    return learner.snapshot()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def learner(folder, tmp_path):
    learner = ProcessLearner(Workspace(tmp_path / "work", TINY), folder, names(folder))
    yield learner
    learner.close()
    assert not is_alive(learner.pid)


@pytest.mark.slow
def test_it_learns_while_decisions_come_and_go(learner, folder):
    files = names(folder)
    learner.learn({file: label(file) for file in files[:4]})
    computed = until(lambda now: now.computed == 48, learner)
    assert (computed.total, computed.suggestions, computed.learned_from) == (48, {}, 0)
    assert (computed.unreadable, computed.stopped) == ({}, "")

    decisions = {file: label(file) for file in files[:10]} | {files[10]: CANNOT_TELL, "not here": "bugs"}
    learner.learn(decisions)
    now = until(lambda now: now.learned_from == 10 and len(now.suggestions) == 37, learner)
    assert now.suggestions.keys() == set(files[11:])
    assert {suggestion.label for suggestion in now.suggestions.values()} == {"bugs", "flowers"}
    assert all(0.5 <= suggestion.probability <= 1 for suggestion in now.suggestions.values())
    assert learner.snapshot().suggestions is now.suggestions

    del decisions[files[0]]
    learner.learn(decisions)
    now = until(lambda now: now.learned_from == 9, learner)
    assert now.suggestions.keys() == {files[0], *files[11:]}
    assert os.getsid(learner.pid) != os.getsid(0), "Ctrl-C in the terminal would end it in the middle of a batch"
    learner.learn({})
    assert until(lambda now: not now.suggestions, learner).learned_from == 0


@pytest.mark.slow
def test_its_death_is_reported_and_the_suggestions_stay(learner, folder):
    learner.learn({file: label(file) for file in names(folder)[:10]})
    before = until(lambda now: now.suggestions and now.computed == 48, learner)
    os.kill(learner.pid, signal.SIGKILL)
    now = until(lambda now: now.stopped, learner)
    assert "has ended (SIGKILL, probably for lack of memory). Sorting goes on" in now.stopped
    assert now.suggestions == before.suggestions
    learner.learn({})  # no error


def begin(work, folder, started):
    """Start a learner in a process that is killed; print the pid of the learner."""
    learner = ProcessLearner(Workspace(work, TINY), folder, names(folder))
    print(learner.pid, flush=True)
    started.touch()
    time.sleep(600)


@pytest.mark.slow
def test_it_ends_with_its_parent_and_goes_on_later(folder, tmp_path):
    parent = Fork(begin, tmp_path / "work", folder, tmp_path / "started")
    wait_until((tmp_path / "started").exists, parent)
    pid = int(parent.written()[0])
    wait_until(lambda: shards(tmp_path / "work"), parent)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    kept = shards(tmp_path / "work")
    with_rest = ProcessLearner(Workspace(tmp_path / "work", TINY), folder, names(folder))
    until(lambda now: now.computed == 48, with_rest)
    with_rest.close()
    after = shards(tmp_path / "work")
    assert kept.items() <= after.items()
    done = vggft("featurize", tmp_path / "classes", "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (found["computed"], found["reused"]) == (0, 48)


@pytest.mark.slow
def test_it_waits_for_a_command_that_writes(folder, tmp_path):
    workspace = Workspace(tmp_path / "work", TINY)
    with workspace.writing(new=True):
        learner = ProcessLearner(workspace, folder, names(folder))
        now = until(lambda now: now.stopped, learner)
        assert now.stopped.startswith(f"waiting: process {os.getpid()} on ")
        assert now.computed == 0
    now = until(lambda now: now.computed == 48, learner)
    assert now.stopped == ""
    learner.close()


def test_an_error_stops_features_and_names_the_reason(folder, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "manifest.csv").write_text("mine")
    learner = ProcessLearner(Workspace(tmp_path / "work", TINY), folder, names(folder))
    assert "manifest.csv: vggft cannot prove that it wrote this" in until(lambda now: now.stopped, learner).stopped
    learner.close()


@pytest.mark.slow
def test_twenty_photographs_suffice_for_ants_and_bees(hymenoptera, tmp_path):
    """Over five orders of all photographs, 86% are right on average (docs/sorting.md)."""
    paths = sorted((hymenoptera / "train").rglob("*.jpg"))
    files = [path.relative_to(hymenoptera).as_posix() for path in paths][::2]
    files = [file for pair in zip(files, reversed(files), strict=True) for file in pair][: len(files)]
    learner = ProcessLearner(Workspace(tmp_path / "work", VGG16), hymenoptera, files)
    learner.learn({file: file.split("/")[1] for file in files[:20]})
    now = until(lambda now: now.computed == len(files) and len(now.suggestions) == len(files) - 20, learner, 500)
    learner.close()
    right = sum(suggestion.label == file.split("/")[1] for file, suggestion in now.suggestions.items())
    assert now.learned_from == 20
    assert right >= 0.8 * len(now.suggestions)
