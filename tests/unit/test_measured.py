"""Engines are measured once in each state of a machine, and the fastest one runs."""

import importlib.metadata
import json
import time

import numpy as np
import pytest
from small_tuning import fruit
from tiny import TINY

from featurize import engines
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import measured
from featurize.errors import VggftError
from vggft.ui.console import Ui
from vggft.workspace import backbone


class Clock:
    """Time, of which only engines take some."""

    now = 0.0
    strftime = staticmethod(time.strftime)

    def perf_counter(self):
        return self.now


CLOCK = Clock()


class Engine:
    """Takes some milliseconds a picture."""

    batch_size, trial, in_flight = 8, 2, 1

    def __init__(self, milliseconds, name=""):
        self.name = name
        self.calls, self._seconds = 0, milliseconds / 1000

    def __call__(self, inputs, layers, below=None):
        self.calls += len(inputs)
        CLOCK.now += len(inputs) * self._seconds
        return [np.zeros((len(inputs), 1, 1, 1), np.float32) for _ in layers]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The user's cache folder; and little time is enough."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(measured, "SECONDS", 0.06)
    monkeypatch.setattr(measured, "time", CLOCK)
    return tmp_path / "vggft" / "engines.json"


@pytest.fixture
def started(monkeypatch):
    """The engines that were started, by name: slow takes four times as long as fast, and broken does not start."""
    made = {}

    def create(name, weights, fingerprint):
        if name == "broken":
            raise VggftError("broken: it does not start.")
        made[name] = Engine({"slow": 4, "fast": 1}[name], name)
        return made[name]

    monkeypatch.setattr(backbone, "create", create)
    return made


def test_what_was_measured_is_known_in_the_same_state(place, monkeypatch):
    assert measured.known(TINY, ["slow", "fast"]) is None
    choice = engines.measure({"slow": Engine(4), "fast": Engine(1)}, TINY, 32)
    assert choice.name == "fast"
    assert not choice.unmeasured
    rates = measured.known(TINY, ["slow", "fast"])
    assert rates == pytest.approx({"slow": 250, "fast": 1000})
    assert choice.reason == "the fastest on this machine, in images/s: slow 250.0, fast 1000.0"
    (entry,) = json.loads(place.read_text()).values()
    assert entry["images_per_second"] == rates
    assert entry["processor"]
    assert entry["versions"]["vggft"] == importlib.metadata.version("vggft")
    assert measured.known(TINY, ["slow", "fast", "another"]) is None
    assert measured.known(VGG16, ["slow", "fast"]) is None
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert measured.known(TINY, ["slow", "fast"]) is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert measured.known(TINY, ["slow", "fast"]) == rates


def test_all_engines_have_their_turn_and_none_takes_all_the_time(place, weights):
    slow, fast = Engine(4), Engine(1)
    began = CLOCK.now
    measured.measure({"slow": slow, "fast": fast}, TINY, 32)
    assert CLOCK.now - began < 3 * measured.SECONDS  # two engines, and their first calls
    assert fast.calls > 2 * slow.calls >= 2 * 2 * (2 + measured.ROUNDS)


def test_an_engine_that_does_not_start_is_an_error(place, started, monkeypatch):
    """As it is wherever else it would be chosen."""
    monkeypatch.setattr(
        backbone, "choose", lambda *_: engines.Choice("slow", "probably", unmeasured=("slow", "broken"))
    )
    with pytest.raises(VggftError, match="broken: it does not start"):
        backbone.start_engine(TINY, Fingerprint.of(TINY), None, images=500)
    assert not place.exists()


BROKEN = [b"", b"[]", b'{"a": 1}', b'{"a": {"images_per_second": {"fast": "x"}}}', b"\xff", b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_no_measurement_counts_as_none(place, content):
    place.parent.mkdir()
    place.write_bytes(content)
    assert measured.known(TINY, ["fast"]) is None
    measured.measure({"fast": Engine(1)}, TINY, 32)
    assert measured.known(TINY, ["fast"])["fast"] > 0


def test_where_nothing_can_be_kept_engines_are_measured_all_the_same(place, monkeypatch):
    place.parent.write_text("a file where the folder should be")
    assert measured.measure({"fast": Engine(1)}, TINY, 32)["fast"] > 0
    monkeypatch.setattr(measured, "_file", lambda: None)  # a user without a home folder
    assert measured.measure({"fast": Engine(1)}, TINY, 32)["fast"] > 0
    assert measured.known(TINY, ["fast"]) is None


def test_only_the_latest_states_are_kept(place, monkeypatch):
    monkeypatch.setattr(measured, "_ENTRIES", 3)
    for number in range(measured._ENTRIES + 3):
        monkeypatch.setattr(measured.cores, "usable", lambda number=number: number)
        measured._keep(TINY, {"fast": 1.0})
    assert len(json.loads(place.read_text())) == measured._ENTRIES
    assert measured.known(TINY, ["fast"]) == {"fast": 1.0}


@pytest.mark.parametrize(("images", "measures"), [(499, False), (500, True)])
def test_engines_are_measured_where_there_is_enough_to_compute(place, started, monkeypatch, capsys, images, measures):
    probable = engines.Choice("slow", "probably", unmeasured=("slow", "fast"))
    monkeypatch.setattr(backbone, "choose", lambda *arguments: probable)
    engine = backbone.start_engine(TINY, Fingerprint.of(TINY), None, ui=Ui(), images=images)
    assert engine.name == ("fast" if measures else "slow")
    assert started.keys() == ({"slow", "fast"} if measures else {"slow"})
    said = capsys.readouterr().err
    assert ("measuring slow and fast: about 10 s, once on this machine" in said) == measures
    assert f"engine: {'fast (the fastest on this machine' if measures else 'slow (probably'}" in said


@pytest.mark.slow
def test_the_engines_of_this_machine(published, tmp_path, monkeypatch):
    """The real ones: the fastest is used from then on, and its features are as good as Keras's."""
    pytest.importorskip("numba", reason="the extra 'cpu' is not installed")
    pytest.importorskip("MNN", reason="the extra 'cpu' is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = engines.choose(VGG16)
    assert set(before.unmeasured) == {"winograd", "mnn"}
    engine = backbone.start_engine(VGG16, Fingerprint.of(VGG16), None, images=500)
    choice = engines.choose(VGG16)
    assert choice.name == engine.name
    assert "the fastest on this machine" in choice.reason
    pictures = fruit(224)[:2]
    expected = engines.KerasEngine(published, Fingerprint.of(VGG16), 2)(pictures, ["block5_pool"])[0]
    found = engine(pictures, ["block5_pool"])[0]
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
