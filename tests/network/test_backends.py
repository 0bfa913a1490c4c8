"""Equality and resuming on JAX and PyTorch, where they are installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


TESTS_OF_BACKENDS = ("TINY-block2_pool", "VGG16-block4_pool", "adam", "mixed", "killed_and_interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_equality_and_resuming(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        pytest.skip("these tests already run on another backend")
    files = [TESTS / "network" / "test_equality.py", TESTS / "resilience" / "test_resume.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", "-k", " or ".join(TESTS_OF_BACKENDS), *files]
    # Most of the time JAX compiles; what a resumed training would compile again, it finds here.
    compiled = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = {**os.environ, **compiled, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed == len(TESTS_OF_BACKENDS), done.stdout
    assert "skipped" not in done.stdout
