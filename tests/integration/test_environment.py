"""Keras's and matplotlib's configuration in the environment has no effect on vggft."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from small_tuning import head as head_model
from tiny import TINY

from finetune.network import assemble
from vggft import Experiment

TESTS = str(Path(__file__).parents[1])
PROGRAM = """
import sys
import numpy as np
from featurize import engines
from featurize.cache.fingerprint import Fingerprint
sys.path += sys.argv[1:]
from tiny import TINY, tiny_weights
pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
(features,) = engines.KerasEngine(tiny_weights(), Fingerprint.of(TINY, size=64), 2)(pictures, ["block3_pool"])
print(features.shape, features.dtype, features.tobytes().hex())
"""


def run(*words, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_settings_of_keras(tmp_path):
    """The same features, bit for bit, whatever keras.json says."""
    settings = {"floatx": "float16", "epsilon": 0.5, "backend": "tensorflow", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    unusual = run("-c", PROGRAM, TESTS, KERAS_HOME=str(tmp_path))
    assert unusual.stdout.startswith("(2, 8, 8, 16) float32 "), unusual.stderr
    with contextlib.redirect_stdout(io.StringIO()) as usual:
        exec(PROGRAM, {})
    assert unusual.stdout == usual.getvalue()


def test_a_notebook_that_chooses_matplotlibs_backend(tmp_path):
    # module://matplotlib_inline.backend_inline is such a name where only the notebook has that package.
    done = run("-m", "vggft", "doctor", "-w", str(tmp_path), "--json", MPLBACKEND="nonsense")
    checks = {check["name"]: check["status"] for check in json.loads(done.stdout)["checks"]}
    assert checks["backend"] == "ok", done.stdout


def test_a_program_with_another_backend_of_matplotlib():
    """In Python, where the setting is the program's own: the error names it, not Keras's backend."""
    done = run("-c", "from featurize.backend import load_keras; load_keras()", MPLBACKEND="nonsense")
    assert "matplotlib does not start (MPLBACKEND is 'nonsense')" in done.stderr
    assert "KERAS_BACKEND" not in done.stderr


def test_a_program_that_computes_in_16_bits(trained, again, weights):
    """The same head and network, whatever policy the program has set for its own models."""
    import keras

    results = trained[2]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        experiment = Experiment(again.root, TINY)
        head = experiment.fit_heads(head=["avg-256", "max-linear"], epochs=8, retrain=True)
        tuned = head_model("max")
        network = assemble(weights, "caffe", TINY.size, tuned)
        assert {layer.compute_dtype for layer in network.layers[1:]} == {network.input.dtype} == {"float32"}
        assert keras.config.dtype_policy().name == "mixed_float16"  # still the program's
    finally:
        keras.config.set_dtype_policy(before)
    expected = {row["name"]: row["validation"]["log_loss"] for row in results["head"]["heads"]}
    for row in head["heads"]:
        assert abs(row["validation"]["log_loss"] - expected[row["name"]]) < 1e-4
