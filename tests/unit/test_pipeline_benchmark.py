"""The benchmark of the pipeline runs, and measures each stage."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_benchmark_of_the_pipeline(hymenoptera, tmp_path):
    kept = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.pipeline", hymenoptera]
    words = ["--images", "64", "--computed", "4", "--rounds", "1", "--large", "4", "--json", kept]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(kept.read_text())
    assert len(found["stages"]) == 6
    assert all(milliseconds > 0 for milliseconds in found["stages"].values())
    for name in ("featurize", "large"):
        assert all(one["images_per_second"] > 0 for one in found[name].values())
    assert "photographs of 12 megapixels; this" in done.stdout
