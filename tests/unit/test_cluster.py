"""Running functions on workers: addresses, results, workers that die, Ctrl-C, and schedulers that are not there."""

import asyncio
import importlib.util
import os
import signal
import socket
import time

import pytest

from featurize.cluster import cluster, processes
from featurize.cluster.address import local_workers
from featurize.cluster.cluster import Cluster
from featurize.errors import VggftError
from featurize.process import cores, interrupts


def worker_of(number):
    """Return how many cores a task may use, and its process; 3 ends it, 5 is an error."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 5:
        raise VggftError("five")
    return cores.usable(), os.getpid()


def sampled_by_dask(_):
    """Return whether Dask samples the stacks of this worker, and the milliseconds between two looks at its event loop."""
    import distributed

    callbacks = distributed.get_worker().periodic_callbacks
    return "profile" in callbacks, callbacks["tick"].callback_time


@pytest.mark.parametrize(
    ("address", "workers"), [("local:1", 1), ("local:1000", 1000), ("tcp://host:8786", None), ("tls://[::1]:1", None)]
)
def test_an_address_is_a_scheduler_or_a_number_of_processes(address, workers):
    assert local_workers(address) == workers


@pytest.mark.parametrize("address", ["local:0", "local:1001", "local:", "local:two", "host:8786", "", "4"])
def test_other_addresses_are_refused(address):
    with pytest.raises(VggftError, match=r"--on .*expected the address of a Dask scheduler.*or local:N for N worker"):
        local_workers(address)


@pytest.mark.parametrize("name", ["distributed", "cryptography"])
def test_without_a_package_of_dask_the_error_says_what_to_install(name, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == name else find(wanted))
    with pytest.raises(VggftError, match=rf"--on needs .*not installed: {name}\. Run: pip install 'vggft\[dask\]'"):
        Cluster("local:2", print)


@pytest.mark.slow
def test_each_task_has_a_result_and_one_whose_workers_die_has_none(monkeypatch):
    environment = dict(os.environ)
    with Cluster("local:2", print) as workers:
        assert workers.workers == 2
        results = {done.item: done.result for done in workers.run(worker_of, [0, 1, 2, 4])}
        assert results.keys() == {0, 1, 2, 4}
        share = max(1, cores.usable() // 2)
        assert {result[0] for result in results.values()} == {share}
        assert os.getpid() not in {result[1] for result in results.values()}
        # One ends its workers; those that Dask had given to the same worker are not blamed.
        died = {done.item: done.died for done in workers.run(worker_of, [0, 3, 1, 2, 4])}
        assert died == {0: False, 1: False, 2: False, 3: True, 4: False}
        (after,) = workers.run(worker_of, [6])  # a new process has taken the place of the dead one
        assert after.result[0] == share
        (sampled,) = workers.run(sampled_by_dask, [0])
        assert sampled.result == (False, 1000)  # samples took a tenth of the processor time
        with pytest.raises(VggftError, match="five"):
            list(workers.run(worker_of, [5]))
        (pid,) = {done.result[1] for done in workers.run(worker_of, [7])}
        with monkeypatch.context() as closed:  # a result is fetched while the scheduler dies
            closed.setattr(cluster, "_ended", lambda future: cluster._Ended(error=OSError("Stream is closed")))
            with pytest.raises(VggftError, match="the connection to the Dask scheduler is lost"):
                list(workers.run(worker_of, [8]))
    assert dict(os.environ) == environment
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.slow
def test_ctrl_c_ends_the_wait_for_results(monkeypatch):
    with Cluster("local:1", print) as workers:
        results = workers.run(time.sleep, [0, 60])
        next(results)
        began = time.monotonic()
        monkeypatch.setattr(interrupts._Heard, "signal", True)
        with pytest.raises(KeyboardInterrupt):
            next(results)
        monkeypatch.setattr(interrupts._Heard, "signal", False)
    assert time.monotonic() - began < 20


def count(path):
    """Write into a file for a minute, as long as the work is wanted."""
    if path is None:
        return
    for _ in range(600):
        with path.open("a") as file:
            file.write("x")
        interrupts.check()
        time.sleep(0.1)


@pytest.mark.slow
def test_work_that_nobody_waits_for_any_more_ends(tmp_path):
    path = tmp_path / "count"
    with Cluster("local:1", print) as workers:
        results = workers.run(count, [None, path])
        next(results)
        while not path.exists():
            time.sleep(0.1)
        results.close()  # cancels what is in flight, as Dask does where this process has gone
        time.sleep(2)
        before = path.stat().st_size
        time.sleep(1)
        assert path.stat().st_size == before
        (after,) = workers.run(worker_of, [0])  # the worker is free
        assert after.result


def test_processes_that_do_not_start_are_an_error_with_their_last_words(monkeypatch):
    monkeypatch.setattr(processes, "_START", "print('first'); raise SystemExit('no such library')")
    with (
        Cluster("local:2", print) as workers,
        pytest.raises(VggftError, match=r"--on local:2: a worker process does not start \(no such library\)"),
    ):
        list(workers.run(worker_of, [0]))


def test_a_notebook_has_an_event_loop_of_its_own(monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECTING", 0.5)

    async def cell():
        Cluster("tcp://127.0.0.1:1", print).__enter__()

    with pytest.raises(VggftError, match="no connection to a Dask scheduler") as error:
        asyncio.run(cell())
    assert "event loop" not in str(error.value)


@pytest.mark.parametrize("scheme", ["tcp", "tls", "nonsense"])
def test_no_scheduler_at_an_address_is_an_error_before_anything_else(scheme, monkeypatch, capfd):
    monkeypatch.setattr(cluster, "_CONNECTING", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            VggftError, match=rf"--on {address}: no connection to a Dask scheduler \(.+dask worker`"
        ) as error:
            Cluster(address, print).__enter__()
    assert ("certificates" in str(error.value)) == (scheme == "tls")
    assert capfd.readouterr() == ("", "")
