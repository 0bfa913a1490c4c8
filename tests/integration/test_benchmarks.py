"""The benchmarks as a command: questions are answered on a few images, and what the contenders compute agrees."""

import json
import subprocess
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from conftest import make_classes

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
        "features,epoch",
        "--contenders",
        "vggft,keras_npy",
        "--json",
        tmp_path / "report.json",
    )
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == {"train": 20, "validate": 4, "unseen": 4}
    assert report["missing"] == {}
    assert report["ready"]["events"][0]["engine"] in ("winograd", "mnn", "keras")
    features, epoch = (report["answers"][name] for name in ("features", "epoch"))
    assert features["apart"]["keras_npy"] < 2e-3
    for name, kilobytes in (("vggft", 77), ("keras_npy", 101)):
        (run,) = features[name]
        assert run["seconds"] > 0
        assert 0 < run["disk"] / 24 < 1000 * kilobytes
    assert [len(run["epochs"]) for run in epoch["vggft"]] == [3]
    assert f"\n## {epoch['title']}\n\n{epoch['text']}" in done.stdout


@pytest.mark.slow
def test_vggft_is_scored_on_the_features_that_it_trains_on(tmp_path):
    folder = make_classes(tmp_path / "data", a=4, b=3)
    work = Experiment(tmp_path / "work")
    work.featurize(folder)
    digests = [durable.sha256(file) for file in listed(folder)[0]]
    cached = work.workspace.cache().read("block4_pool", digests)
    np.testing.assert_array_equal(vggft._outputs(work, folder), cached)


@pytest.mark.slow
def test_what_a_command_imports():
    assert starting._imports_tensorflow(["doctor"])
    assert not starting._imports_tensorflow(["--help"])


@pytest.mark.slow
def test_the_race_of_vggft_begins_with_the_first_head_on_disk(tmp_path, monkeypatch):
    data, unseen = tmp_path / "data", make_classes(tmp_path / "unseen", a=1, b=1)
    for file in sorted(make_classes(data / "train", a=6, b=6).glob("*/[45].png")):
        (data / "validate" / file.parent.name).mkdir(parents=True, exist_ok=True)
        file.rename(data / "validate" / file.parent.name / file.name)
    contender = Entry.__new__(Entry)  # leaves the descriptors of pytest alone
    contender._paused = 0.0
    contender.task = Task("race", data, unseen, tmp_path, tmp_path / "work", seconds=-1)
    judged, work = [], vggft.experiment(contender)
    monkeypatch.setattr(contender, "say", lambda event, **values: None)

    def judge(name, predict):
        heads = sorted(path.name for path in (work.workspace.heads).iterdir() if path.is_dir())
        judged.append((name, len(heads), predict(unseen).shape))

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
