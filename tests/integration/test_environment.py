"""Keras's and matplotlib's configuration in the environment has no effect on vggft."""

import json
import os
import subprocess
import sys

import pytest
from conftest import shards, vggft
from processes import vggft_apart
from small_tuning import head as head_model
from tiny import TINY

from featurize import backend
from featurize.errors import VggftError
from finetune.network import assemble
from vggft import Experiment
from vggft.steps import doctor
from vggft.workspace.workspace import Workspace


@pytest.mark.slow
def test_settings_of_keras_and_of_a_notebook(featurized, tmp_path):
    """The same features, bit for bit, whatever keras.json says, and whatever matplotlib is told to draw with."""
    settings = {"floatx": "float16", "epsilon": 0.5, "backend": "tensorflow", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    # module://matplotlib_inline.backend_inline is such a name where only the notebook has that package.
    unusual = {"KERAS_HOME": str(tmp_path), "MPLBACKEND": "nonsense"}
    words = ("featurize", featurized[0] / "data", "--engine", "keras", "-w")
    for done in (vggft_apart(*words, tmp_path / "unusual", env=unusual), vggft(*words, tmp_path / "usual")):
        assert done.returncode == 0, done.stderr
    assert shards(tmp_path / "unusual") == shards(tmp_path / "usual")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "Is a directory"),
        ("pipe", "not a regular file"),
        ("[1]", "not a JSON object"),
        ('{"floatx": 5}', "floatx is 5, expected float16 or float32 or float64"),
        (
            '{"image_data_format": ["channels_last"]}',
            "image_data_format is .'channels_last'., expected channels_first or",
        ),
        ('{"epsilon": 1}', "epsilon is 1, expected a number such as 1e-7"),
        ('{"backend": null}', "backend is None, expected a name"),
    ],
)
def test_settings_on_which_keras_fails_are_named(tmp_path, monkeypatch, content, problem):
    """Before Keras reads them: its errors do not name the file, and of a pipe it would wait for ever."""
    path = tmp_path / "keras.json"
    if content is None:
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(backend, "_load_matplotlib", lambda: None)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    with pytest.raises(VggftError, match=rf"{path}: .*\(.*{problem}.*\)\. Correct the file, or delete it"):
        backend.load_keras()


def test_doctor_adds_no_advice_to_an_error_that_has_some(tmp_path, monkeypatch, ui):
    def refuse():
        raise VggftError("keras.json: Correct the file.")

    monkeypatch.setattr(doctor, "load_keras", refuse)
    report = doctor.run(Workspace(tmp_path / "work", TINY), ui)
    expected = {"name": "backend", "status": "fail", "found": "keras.json: Correct the file.", "advice": ""}
    assert expected in report["checks"]
    assert not report["ok"]


@pytest.mark.parametrize("content", [None, "", "{", '{"floatx": "float16", "epsilon": 0.5, "backend": "jax"}'])
def test_settings_that_keras_accepts_or_ignores(tmp_path, monkeypatch, content):
    """Also a file that another process has just begun to write."""
    if content is not None:
        (tmp_path / "keras.json").write_text(content)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(backend, "_load_matplotlib", lambda: None)
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setattr(backend, "load_quietly", lambda name: pytest.fail("Keras is loaded", pytrace=False))
    with pytest.raises(pytest.fail.Exception, match="Keras is loaded"):
        backend.load_keras()


def test_a_program_with_another_backend_of_matplotlib():
    """In Python, where the setting is the program's own: the error names it, not Keras's backend."""
    done = subprocess.run(
        [sys.executable, "-c", "from featurize.backend import load_keras; load_keras()"],
        env={**os.environ, "MPLBACKEND": "nonsense"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "matplotlib does not start (MPLBACKEND is 'nonsense')" in done.stderr
    assert "KERAS_BACKEND" not in done.stderr


@pytest.mark.slow
def test_a_program_that_computes_in_16_bits(trained, again, weights):
    """The same head and network, whatever policy the program has set for its own models."""
    import keras

    results = trained[2]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        experiment = Experiment(again.root, TINY)
        head = experiment.fit_heads(head=["avg-256", "max-linear"], epochs=8, retrain=True, cv=0)
        tuned = head_model("max")
        network = assemble(weights, "caffe", TINY.size, tuned)
        assert {layer.compute_dtype for layer in network.layers[1:]} == {network.input.dtype} == {"float32"}
        assert keras.config.dtype_policy().name == "mixed_float16"  # still the program's
    finally:
        keras.config.set_dtype_policy(before)
    expected = {row["name"]: row["validation"]["log_loss"] for row in results["head"]["heads"]}
    for row in head["heads"]:
        assert abs(row["validation"]["log_loss"] - expected[row["name"]]) < 1e-4
