"""The cores that a process may use, and what limits them."""

import os
import subprocess
import sys

import pytest

from featurize.process import cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores")
def test_only_granted_cores_count():
    """As under a batch queue, which binds a job to some cores of a machine."""
    code = (
        "import os; from featurize.process import cores; "
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); print(cores.usable())"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "1\n"


def test_a_limit_holds_for_libraries_too_and_grants_no_more_than_there_is(monkeypatch):
    monkeypatch.setattr(cores._Limit, "number", None)
    monkeypatch.setattr(os, "environ", {})
    granted = cores.usable()
    cores.limit(granted + 5)
    assert cores.usable() == granted
    monkeypatch.setattr(cores._Limit, "number", None)
    cores.limit(1)
    assert cores.usable() == 1
    cores.limit(2)  # of a worker that has been given its share of the cores already
    assert cores.usable() == 1
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == os.environ["NPROC"] == os.environ["OMP_NUM_THREADS"] == "1"
