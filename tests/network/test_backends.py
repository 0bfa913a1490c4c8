"""Equality and resuming on JAX and PyTorch, where they are installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


TESTS_OF_BACKENDS = ("TINY-block2_pool", "VGG16-block4_pool", "sgd", "adam", "mixed", "killed_and_interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_equality_and_resuming(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        pytest.skip("these tests already run on another backend")
    files = [TESTS / "network" / "test_equality.py", TESTS / "resilience" / "test_resume.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", "-k", " or ".join(TESTS_OF_BACKENDS), *files]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed == len(TESTS_OF_BACKENDS), done.stdout
    assert "skipped" not in done.stdout
