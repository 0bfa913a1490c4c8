"""Keras's and matplotlib's configuration in the environment has no effect on vggft."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

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
