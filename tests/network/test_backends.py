"""Equality and resuming on JAX and PyTorch, where they are installed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("backend", "tests"),
    [
        pytest.param("jax", "TINY-block2_pool or sgd", marks=pytest.mark.slow),
        pytest.param("jax", "VGG16-block4_pool or adam or mixed or killed_and_interrupted", marks=pytest.mark.slow),
        pytest.param("torch", "TINY-block2_pool or sgd", marks=pytest.mark.slow),
        pytest.param("torch", "VGG16-block4_pool or adam or mixed or killed_and_interrupted", marks=pytest.mark.slow),
    ],
)
def test_equality_and_resuming(backend, tests):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        pytest.skip("these tests already run on another backend")
    files = [TESTS / "network" / "test_equality.py", TESTS / "resilience" / "test_resume.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "", "-k", tests, *files]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed == len(tests.split(" or ")), done.stdout
    assert "skipped" not in done.stdout
