"""Folds and the runs of a sweep that workers train are those of one process, also when a worker is killed."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import strict_json, vggft
from tiny import TINY

from vggft.comparison import fold_tasks
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.nested import NestedCrossValidation
from vggft.prediction import models
from vggft.steps import sweep
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.slow

SWEEP = ("finetune", "--sweep", "seed=1,2", "--epochs", 2, "--json")


@pytest.fixture(scope="module")
def tuned(featurized, tmp_path_factory):
    """24 drawings with two heads and a network of one epoch."""
    base = tmp_path_factory.mktemp("outer")
    shutil.copytree(featurized[0] / "work", base / "work")
    heads = ("head", "--epochs", 5, "--head", "logistic-max", "--head", "max-linear")
    for arguments in (heads, ("finetune", "--epochs", 1, "--name", "net")):
        done = vggft(*arguments, "-w", base / "work", "--quiet")
        assert done.returncode == 0, done.stderr
    return base / "work"


def copies(tuned, tmp_path):
    return [Path(shutil.copytree(tuned, tmp_path / name)) for name in ("alone", "on")]


def folds_of(work):
    files = sorted((work / "report" / "cv").glob("*/fold-*.npz"))
    return [FoldResult.read(path, 12, 2) for path in files]


def kill_a_worker_after(seconds):
    """Kill a worker process of this one, once it has worked for some seconds."""

    def kill():
        for _ in range(600):
            children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            pids = [int(pid) for path in children for pid in path.read_text().split()]
            found = [pid for pid in pids if b"processes.serve()" in Path(f"/proc/{pid}/cmdline").read_bytes()]
            if found:
                time.sleep(seconds)
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])
                return
            time.sleep(0.1)

    killed = []
    threading.Thread(target=kill, daemon=True).start()
    return killed


def not_here(*arguments):
    """Take the place of training in this process; workers have their own."""
    raise AssertionError("trained in this process")


def test_folds_on_workers_are_those_of_one_process(tuned, tmp_path, monkeypatch):
    alone, on = copies(tuned, tmp_path)
    command = ("compare", "--cv", 2, "--quick", "--json")
    expected = strict_json(vggft(*command, "-w", alone).stdout)
    killed = kill_a_worker_after(8)
    monkeypatch.setattr(NestedCrossValidation, "train", not_here)
    done = vggft(*command, "-w", on, "--on", "local:2")
    assert done.returncode == 0, done.stderr
    assert killed
    found = strict_json(done.stdout)
    for name in ("images", "use", "contrast", "heads_ranked_by"):
        assert found[name] == pytest.approx(expected[name]) if name == "images" else found[name] == expected[name]
    assert (on / "report" / "predictions.csv").read_bytes() == (alone / "report" / "predictions.csv").read_bytes()
    for one, other in zip(folds_of(alone), folds_of(on), strict=True):
        assert (one.head, one.network, one.unchanged) == (other.head, other.network, other.unchanged)
        for name, probabilities in one.probabilities.items():
            np.testing.assert_allclose(probabilities, other.probabilities[name], atol=1e-6)
    assert not list((on / "report" / "cv").glob("*/fold-*/"))  # nothing is left of the folds' workspaces


def test_runs_of_a_sweep_on_workers_are_those_of_one_process(tuned, tmp_path, monkeypatch):
    alone, on = copies(tuned, tmp_path)
    expected = strict_json(vggft(*SWEEP, "-w", alone).stdout)
    monkeypatch.setattr(sweep, "_train", not_here)
    done = vggft(*SWEEP, "-w", on, "--on", "local:2")
    assert done.returncode == 0, done.stderr
    found = strict_json(done.stdout)
    by_name = {run["name"]: run["validation"]["log_loss"] for run in expected["sweep"]}
    assert {run["name"]: run["validation"]["log_loss"] for run in found["sweep"]} == pytest.approx(by_name, abs=1e-6)
    assert found["failed"] == []
    again = strict_json(vggft(*SWEEP, "-w", on, "--on", "local:2").stdout)
    assert sorted(again["kept"]) == sorted(by_name)
    here = models.load_runs(Workspace(on, TINY), on_damage=lambda error: pytest.fail(str(error)))
    assert len(here) == 3


def test_a_worker_that_finds_other_folds_is_refused(tuned, monkeypatch):
    job = fold_tasks._Job(TINY, tuned, 2, None, tuned / "report" / "cv" / "0123456789abcdef")
    with pytest.raises(Exception, match="finds other folds"):
        fold_tasks._train(job, 0)
