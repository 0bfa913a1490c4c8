"""The benchmarks as a command: questions are answered on a few images, and what the contenders compute agrees."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, cwd=ROOT)


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
    done = benchmarks(*words)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == {"train": 20, "validate": 4, "unseen": 4}
    assert report["missing"] == {}
    features, epoch = report["answers"]["features"], report["answers"]["epoch"]
    assert features["apart"]["keras_npy"] < 2e-3
    for name, kilobytes in (("vggft", 77), ("keras_npy", 101)):
        (run,) = features[name]
        assert run["seconds"] > 0
        assert 0 < run["disk"] / 24 < 1000 * kilobytes
    assert [len(run["epochs"]) for run in epoch["vggft"]] == [3]
    assert f"\n## {epoch['title']}\n\n{epoch['text']}" in done.stdout


def test_mistakes_are_named_before_anything_runs(tmp_path):
    for words, message in (
        (("--questions", "speed"), "--questions speed: expected some of changes, classic,"),
        (("--contenders", "vgft"), "--contenders vgft: expected some of fastai_fine_tune,"),
        (("--python", "torch=/usr/bin/python"), "--python torch: expected some of fastai_fine_tune,"),
        (("--work", tmp_path), f"--work {tmp_path}: expected a folder that does not exist yet"),
    ):
        done = benchmarks(*words)
        assert done.returncode == 2
        assert message in done.stderr
