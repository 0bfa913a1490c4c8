"""The Python interface in a program with threads and forks: models are made once, and nothing of the process changes."""

import os
import select
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny import TINY, StandIn

from featurize.errors import VggftError
from vggft import Experiment
from vggft.prediction import inference, network_model
from vggft.ui.console import Ui

PICTURES = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)


class Threaded(StandIn):
    """An engine that computes in a thread of its own, as those for CPUs do."""

    def __init__(self):
        super().__init__(TINY)
        self._pool = ThreadPoolExecutor(1)

    def __call__(self, *arguments):
        return self._pool.submit(super().__call__, *arguments).result()


@pytest.fixture
def starts(monkeypatch):
    """Engines are threads, and this is the list of those that were started."""
    started = []

    def start(*arguments):
        started.append(Threaded())
        return started[-1]

    monkeypatch.setattr(inference, "start_engine", start)
    return started


def in_threads(function, number=4):
    """Call a function at once in several threads; return what it returned."""
    together = threading.Barrier(number, timeout=20)

    def call(_):
        together.wait()
        return function()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(call, range(number)))


def in_a_fork(function):
    """Return the bytes that a function returns in a forked process; fail if there are none within 20 seconds."""
    end, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, function())
        except BaseException as error:
            os.write(theirs, repr(error).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    ready = select.select([end], [], [], 20)[0]
    if not ready:
        os.kill(child, 9)
    os.waitpid(child, 0)
    with os.fdopen(end, "rb") as file:
        assert ready, "the forked process hangs"
        return file.read()


def test_threads_share_what_is_made_once(trained, starts, monkeypatch):
    experiment, tuned = Experiment(trained[0].root, TINY), trained[2]["finetune"]["name"]
    loaded, between = [], network_model.between
    monkeypatch.setattr(network_model, "between", lambda *arguments: loaded.append(1) or between(*arguments))
    network_model._load.cache_clear()
    before = [os.fstat(number).st_ino for number in (1, 2)]
    for name in ("logistic-max", tuned):
        first, *others = in_threads(lambda name=name: experiment.model(name).predict(PICTURES))
        assert all(np.array_equal(first, other) for other in others)
    assert (len(starts), len(loaded)) == (1, 1)
    assert [os.fstat(number).st_ino for number in (1, 2)] == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_model_that_predicted_predicts_in_a_fork(trained, starts):
    model = Experiment(trained[0].root, TINY).model("logistic-max")
    expected = model.predict(PICTURES)
    assert in_a_fork(lambda: model.predict(PICTURES).tobytes()) == expected.tobytes()
    assert len(starts) == 1  # in this process


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_tensorflow_does_not_hang_in_a_fork(trained, starts):
    model = Experiment(trained[0].root, TINY).model(trained[2]["finetune"]["name"])
    model.predict(PICTURES)

    def message():
        try:
            return model.predict(PICTURES).tobytes()
        except VggftError as error:
            return str(error).encode()

    assert b"forked from one that used them" in in_a_fork(message)


class Replaced:
    """A stream as notebooks and windowed programs have: no terminal, no descriptor, no `isatty`."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize("make", [lambda: None, Replaced])
def test_standard_streams_of_other_programs(trained, starts, monkeypatch, make):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, make())
    experiment = Experiment(trained[0].root, TINY, quiet=False)
    assert experiment.model().predict(PICTURES).shape == (3, 2)
    ui = Ui()
    with ui.progress("computing", 2) as advance:
        advance(1)
    ui.table("table", ("a", "b"), [("x", "1")])
    ui.warn("careful")
    assert sys.stdout is None or "table" in sys.stdout.text
    assert sys.stderr is None or "warning: careful" in sys.stderr.text
