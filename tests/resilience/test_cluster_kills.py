"""SIGKILL to workers, to the process that gives them work, and to a scheduler; Ctrl-C; TLS."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import drawings, refused, shards, strict_json, vggft, wait_for_shards
from disturbed import PAUSE
from processes import TINY_MAIN, wait_until
from tiny import TINY, StandIn

from vggft.workspace import filling
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
ON_MAIN = TINY_MAIN.replace("from tiny import TINY", "from disturbed import DISTURBED as TINY")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 drawings."""
    return drawings(tmp_path_factory.mktemp("killed") / "data", 15, "birds", "bugs", "flowers", "fruit")


@pytest.fixture
def undisturbed(data, tmp_path, monkeypatch):
    """The same computed in this process."""
    monkeypatch.setattr(filling, "start_engine", lambda architecture, *rest, **options: StandIn(architecture))
    assert vggft("featurize", data, "-w", tmp_path / "undisturbed").returncode == 0
    return Workspace(tmp_path / "undisturbed", TINY)


def start(*arguments, pause="0.5", **environment):
    """Start the command line in a fresh interpreter and a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", ON_MAIN, *map(str, arguments)],
        env={**os.environ, PAUSE: pause, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def workers_of(process):
    """Return the pids of the worker processes that a process has started."""
    children = Path(f"/proc/{process.pid}/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    return [pid for pid in pids if b"processes.serve()" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def same(work, undisturbed):
    """See that a workspace has all rows of the undisturbed one, to the last bit."""
    work = Workspace(work, TINY)
    digests = [sample.digest for sample in undisturbed.dataset.accepted()]
    assert work.dataset.identity == undisturbed.dataset.identity
    for layer in TINY.cached:
        assert np.array_equal(work.cache().read(layer, digests), undisturbed.cache().read(layer, digests))


def test_workers_killed_at_random_cost_nothing_but_time(data, undisturbed, tmp_path):
    rng = random.Random(5)
    process = start("featurize", data, "-w", tmp_path / "work", "--shard", 4, "--on", "local:2", "--json", pause="1")
    wait_for_shards(tmp_path / "work", 2, process)
    killed = 0
    while process.poll() is None:
        found = workers_of(process)
        if found and killed < 6:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(found), signal.SIGKILL)
                killed += 1
        time.sleep(rng.random() * 2)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert killed >= 3
    assert (strict_json(out)["computed"], strict_json(out)["rejected"]) == (60, 0)
    same(tmp_path / "work", undisturbed)


def test_the_process_that_gives_work_is_killed(data, undisturbed, tmp_path):
    process = start("featurize", data, "-w", tmp_path / "work", "--shard", 4, "--on", "local:2", pause="1")
    wait_for_shards(tmp_path / "work", 3, process)
    found = workers_of(process)
    assert len(found) == 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(map(alive, found)):  # they end with their parent
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kept = shards(tmp_path / "work")
    assert len(kept) >= 3
    again = strict_json(vggft("featurize", data, "-w", tmp_path / "work", "--json").stdout)  # in one process
    assert again["reused"] == 4 * len(kept)
    assert again["computed"] == 60 - again["reused"]
    assert kept.items() <= shards(tmp_path / "work").items()
    same(tmp_path / "work", undisturbed)


def test_ctrl_c_of_a_terminal_reaches_all_processes_and_one_answers(data, tmp_path):
    process = start("featurize", data, "-w", tmp_path / "work", "--shard", 4, "--on", "local:2", "--json", pause="1")
    wait_for_shards(tmp_path / "work", 2, process)
    found = workers_of(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "kept" in strict_json(out)["error"]
    assert "Traceback" not in err
    assert not any(map(alive, found))


def free_port():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@contextlib.contextmanager
def cluster(scheme="tcp", workers=2, **environment):
    """A scheduler and workers as Dask's own commands start them."""
    port = free_port()
    address = f"{scheme}://127.0.0.1:{port}"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
        PAUSE: "0.5",
        **environment,
    }
    # The scheduler's environment has what the tests import, too; a worker disturbs itself as one of `local:N` does.
    worker = (
        "import sys; sys.orig_argv.append('processes.serve()'); from distributed.cli.dask_worker import main; main()"
    )
    commands = [
        ["-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard"],
        *[["-c", worker, address, "--no-nanny", "--nthreads", "1", "--no-dashboard"] for _ in range(workers)],
    ]
    running = []
    try:
        for command in commands:
            running.append(subprocess.Popen([sys.executable, *command], env=env, stderr=subprocess.DEVNULL))
            if len(running) == 1:
                wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, running[0])
        yield address, running
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_scheduler_that_dies_leaves_all_shards(data, undisturbed, tmp_path):
    with cluster() as (address, running):
        process = start("featurize", data, "-w", tmp_path / "work", "--shard", 4, "--on", address, "--json")
        wait_for_shards(tmp_path / "work", 3, process)
        running[0].kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (
        f"{address}: the connection to the Dask scheduler is lost. What workers have finished is kept."
        in strict_json(out)["error"]
    )
    assert "Traceback" not in err
    kept = shards(tmp_path / "work")
    assert len(kept) >= 3
    with cluster(workers=1) as (address, _):
        process = start("featurize", data, "-w", tmp_path / "work", "--on", address, "--json", pause="0")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert strict_json(out)["reused"] == 4 * len(kept)
    same(tmp_path / "work", undisturbed)


def test_tls_with_the_certificates_of_dasks_configuration(data, undisturbed, tmp_path, monkeypatch):
    from distributed import Security

    secret = Security.temporary()
    files = {"ca": secret.tls_ca_file, "cert": secret.tls_client_cert, "key": secret.tls_client_key}
    for name, text in files.items():
        (tmp_path / f"{name}.pem").write_text(text)
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    names = {f"{prefix}CA_FILE": str(tmp_path / "ca.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        names[f"{prefix}{role}__CERT"], names[f"{prefix}{role}__KEY"] = (
            str(tmp_path / f"{n}.pem") for n in ("cert", "key")
        )
    with cluster("tls", 1, **names) as (address, _):
        assert "no connection" in refused("featurize", data, "-w", tmp_path / "work", "--on", address)
        assert not (tmp_path / "work").exists()
        process = start("featurize", data, "-w", tmp_path / "work", "--on", address, "--json", pause="0", **names)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert strict_json(out)["computed"] == 60
    same(tmp_path / "work", undisturbed)
