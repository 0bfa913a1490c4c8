"""The benchmarks as a command: questions are answered on a few images, and what the contenders compute agrees."""

import json
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path

import numpy as np
import pytest
from conftest import drawings
from tiny import TINY

from benchmarks import starting
from benchmarks.__main__ import parsed
from benchmarks.contenders import vggft
from benchmarks.contenders.entry import Entry, Task, listed
from featurize.disk import durable
from vggft import Experiment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_questions_are_answered_on_a_few_images(tmp_path):
    words = (
        "--quick",
        "--questions",
        "features",
        "--contenders",
        "vggft,keras_npy",
        "--json",
        tmp_path / "report.json",
    )
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == {"train": 8, "validate": 4, "unseen": 4}
    assert report["missing"] == {}
    assert report["ready"]["events"][0]["engine"] in ("winograd", "mnn", "keras")
    features = report["answers"]["features"]
    assert features["apart"]["keras_npy"] < 2e-3
    for name, kilobytes in (("vggft", 77), ("keras_npy", 101)):
        (run,) = features[name]
        assert run["seconds"] > 0
        assert 0 < run["disk"] / 12 < 1000 * kilobytes
    assert f"\n## {features['title']}\n\n{features['text']}" in done.stdout


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return a function from a task to vggft's entry, with the tiny network: 8 drawings train, 4 validate, 2 are unseen.

    What it says is in the list `said`.
    """
    data, unseen = tmp_path / "data", drawings(tmp_path / "unseen", 1, "birds", "fruit")
    for folder in sorted(drawings(data / "train", 6, "birds", "fruit").iterdir()):
        (data / "validate" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[4:]:
            file.rename(data / "validate" / folder.name / file.name)
    monkeypatch.setattr(vggft, "Experiment", partial(Experiment, architecture=TINY))

    def make(do, **fields):
        entry = Entry.__new__(Entry)  # leaves the descriptors of pytest alone
        entry._paused, entry.said = 0.0, []
        entry.task = Task(do, data, unseen, tmp_path, tmp_path / "work", **fields)
        entry.say = lambda event, **values: entry.said.append((event, values))
        return entry

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered", "untraced")
def test_epochs_of_vggft(small):
    entry = small("epoch", epochs=3)
    vggft.features(entry)
    vggft.epoch(entry)
    assert [event for event, _ in entry.said] == ["features", *["epoch"] * 3]
    assert all(values["seconds"] > 0 for _, values in entry.said[1:])


def test_vggft_is_scored_on_the_features_that_it_trains_on(small):
    entry = small("features")
    vggft.features(entry)
    work, folder = vggft.experiment(entry), entry.task.data / "train"
    digests = [durable.sha256(file) for file in listed(folder)[0]]
    cached = work.workspace.cache().read("block2_pool", digests)
    np.testing.assert_array_equal(vggft._outputs(work, folder), cached)


@pytest.mark.slow
def test_what_a_command_imports():
    assert starting._imports_tensorflow(["doctor"])
    assert not starting._imports_tensorflow(["--help"])


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered", "untraced")
def test_the_race_of_vggft_begins_with_the_first_head_on_disk(small, monkeypatch):
    contender = small("race", seconds=-1)
    judged, work = [], vggft.experiment(contender)

    def judge(name, predict):
        heads = sorted(path.name for path in (work.workspace.heads).iterdir() if path.is_dir())
        judged.append((name, len(heads), predict(contender.task.unseen).shape))

    monkeypatch.setattr(contender, "judge", judge)
    monkeypatch.setattr(Experiment, "fit_heads", partialmethod(Experiment.fit_heads, epochs=1))
    vggft.race(contender)
    assert judged == [("first head", 1, (2, 2)), ("best head", 16, (2, 2))]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--questions", "speed", "expected some of changes, classic,"),
        ("--contenders", "vgft", "expected some of fastai_fine_tune,"),
        ("--python", "torch=/usr/bin/python", "expected some of fastai_fine_tune,"),
        ("--work", "tests", "expected a folder that does not exist yet"),
    ],
)
def test_mistakes_are_named_before_anything_runs(flag, value, message, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["benchmarks", flag, value])
    with pytest.raises(SystemExit):
        parsed()
    error = capsys.readouterr().err
    assert f"error: {flag} {value.split('=')[0]}: {message}" in error
