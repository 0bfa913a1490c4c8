"""A Dask cluster that runs functions for this process: one that exists, or worker processes that are started here.

Functions and arguments are pickled. Whoever reaches the port of a scheduler or a worker can run code there; so the workers that
are started here accept only connections with a certificate that exists in the memory of these processes. Dask
(`dask.distributed`) is imported only where a cluster is used.
"""

import asyncio
import contextlib
import importlib
import logging
import queue
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from featurize.cluster.address import local_workers
from featurize.cluster.processes import SETTINGS, Processes
from featurize.errors import VggftError
from featurize.process import cores, extras, interrupts

Item = TypeVar("Item")
Result = TypeVar("Result")

# A task is given up once this many workers have died with it; where a scheduler is not started here, it decides (4 by default).
_DEATHS = 2
_IN_FLIGHT = 2  # tasks for each worker: one runs, the next is there when it ends

_CONNECTING = 10  # seconds
_LOOK = 0.2  # seconds between two looks for a signal
_COUNTING = 2.0  # seconds between two counts of the workers
_CLOSING = 5  # seconds
_TURN = 1.0  # seconds for which a task waits until the one before it on its worker ends
_READERS = 32  # threads that read results, most of them at once
_SILENT = logging.CRITICAL + 1


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """The result of a task; `died`: every worker that ran it died, so that there is none."""

    item: Item
    result: Result | None
    died: bool = False


class Cluster:
    """Workers that run functions for this process. To be used as a context.

    Workers of `local:N` start with the first task; a scheduler elsewhere is connected to on entering.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        """Start nothing yet.

        Args:
            address: of a scheduler, or `local:N`.
            say: called with messages for the user.

        Raises:
            VggftError: Dask is not installed, or no such address.
        """
        self.address = address
        self._local = local_workers(address)
        # Dask makes the certificates of `local:N` with cryptography.
        extras.require("--on", ("distributed", "cryptography"), "dask")
        self._say = say
        self._open = contextlib.ExitStack()
        self._connected: Any = None
        self._processes: Processes | None = None
        self._connections = 0
        self._counted = -_COUNTING
        self._waits = False

    def __enter__(self) -> Self:
        """Connect to a scheduler.

        Raises:
            VggftError: there is none, or it refuses.
        """
        if self._local is None:
            _ = self._client
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()
        self._connected = self._processes = None

    @property
    def workers(self) -> int:
        """The number of workers: N of `local:N`, else those that are connected, counted at most every two seconds."""
        return self._local or self._count()

    def _count(self) -> int:
        """Return how many workers are connected."""
        if self._connected is not None and time.monotonic() - self._counted >= _COUNTING:
            with self._names_loss():
                self._connections = len(self._client.nthreads())
            self._counted = time.monotonic()
        return self._connections

    def run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Done[Item, Result]]:
        """Call a function with each item on some worker, and yield the results as they come.

        A worker runs one task at a time, on as many cores as it has threads; twice as many tasks as there are workers are in
        flight. A task whose worker dies runs again on another one, so a function has to have the same effect when it is called
        again. A task is blamed for the death of workers only if they also die while nothing else runs.

        Raises:
            VggftError: the scheduler is gone, or vggft is missing or another version on a worker.
            Exception: what the function raises; a `VggftError` names the machine.
        """
        suspected = []
        for done in self._run(function, items):
            if done.died:
                suspected.append(done.item)
            else:
                yield done
        for item in suspected:
            yield self.run_alone(function, item)

    def run_alone(self, function: Callable[[Item], Result], item: Item) -> Done[Item, Result]:
        """As `run`, of one item, while no other task of this process runs."""
        (done,) = self._run(function, [item])
        return done

    def _run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Done[Item, Result]]:
        client, waiting, here = self._client, iter(items), version("vggft")
        in_flight: dict[Any, Item] = {}
        ended: queue.SimpleQueue[tuple[Any, _Ended]] = queue.SimpleQueue()
        # A thread reads a result, because that may take as long as the task: if the worker that has it dies, the task runs again.
        with interrupts.threads(_READERS) as readers:

            def read(future: Any) -> None:
                readers.submit(lambda: ended.put((future, _ended(future))))

            try:
                while True:
                    while len(in_flight) < _IN_FLIGHT * max(1, self.workers):
                        try:
                            item = next(waiting)
                        except StopIteration:
                            break
                        with self._names_loss():
                            future = client.submit(_call, here, function, item, pure=False)
                        in_flight[future] = item
                        future.add_done_callback(read)
                    if not in_flight:
                        return
                    future, end = self._next(ended)
                    future.release()
                    yield self._done(in_flight.pop(future), end)
            finally:
                if in_flight and client.status == "running":
                    client.cancel(list(in_flight))

    def _next(self, ended: "queue.SimpleQueue[tuple[Any, _Ended]]") -> "tuple[Any, _Ended]":
        """Wait for a task to end."""
        while True:
            interrupts.check()
            if self._processes:
                self._processes.replace_dead()
            with contextlib.suppress(queue.Empty):
                return ended.get(timeout=_LOOK)
            if self._processes or self._count():
                self._waits = False
            elif not self._waits:
                self._waits = True
                self._say(f"waiting for a worker at {self.address}")

    def _done(self, item: Item, end: "_Ended") -> Done[Item, Any]:
        """Return the result of a task, or raise what it raised."""
        from distributed.scheduler import KilledWorker

        if end.cancelled or isinstance(end.error, OSError):  # not the task's own: `_call` makes a VggftError of that
            raise self._lost() from end.error
        if isinstance(end.error, KilledWorker):
            return Done(item, None, died=True)
        unknown = isinstance(end.error, ModuleNotFoundError)  # on a worker; a scheduler says it in words
        if unknown or (isinstance(end.error, RuntimeError) and "deserialization" in str(end.error)):
            lacking = f" ({end.error})" if unknown else ""
            raise VggftError(
                f"{self.address}: the scheduler or a worker cannot import what it needs{lacking}. Install the same version of "
                "vggft, with the same extras, for the Python of the scheduler and of all workers."
            )
        if end.error is not None:
            raise end.error
        return Done(item, end.result)

    @property
    def _client(self) -> Any:
        if self._connected is None:
            with contextlib.ExitStack() as opened:
                scheduler: Any = self.address
                if self._local is not None:
                    scheduler, self._processes = opened.enter_context(_started(self._local))
                self._connected = opened.enter_context(_connected(scheduler))
                self._open = opened.pop_all()
        return self._connected

    @contextlib.contextmanager
    def _names_loss(self) -> Iterator[None]:
        """Raise a VggftError where the scheduler cannot be reached any more."""
        try:
            yield
        except OSError:  # Dask's errors of connections are such
            raise self._lost() from None
        except Exception:
            if self._connected.status == "running":
                raise
            raise self._lost() from None

    def _lost(self) -> VggftError:
        return VggftError(
            f"{self.address}: the connection to the Dask scheduler is lost. What workers have finished is kept. Run the command "
            "again to continue, with --on once there is a scheduler, or without."
        )


@dataclass(frozen=True)
class _Ended:
    """How a task has ended: with a result, an error, or because the connection is lost."""

    result: Any = None
    error: Exception | None = None
    cancelled: bool = False


def _ended(future: Any) -> _Ended:
    try:
        return _Ended(future.result())
    except Exception as error:
        return _Ended(error=error, cancelled=future.cancelled())


_ONE_AT_A_TIME = threading.Lock()


def _call(expected: str, function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function, on a worker; `expected`: the version of vggft."""
    distributed: Any = importlib.import_module("distributed")
    worker = distributed.get_worker()
    key = worker.get_current_task()

    def require_wanted() -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state != "executing" or worker.status.name not in ("running", "paused"):
            raise VggftError("the process that submitted this task has ended.")

    try:
        if version("vggft") != expected:
            raise VggftError(f"vggft {version('vggft')}, expected {expected}. Install the same version everywhere.")
        if not _ONE_AT_A_TIME.acquire(timeout=_TURN):  # another worker may be free by now
            raise distributed.Reschedule
        try:
            with interrupts.asking(require_wanted):
                require_wanted()
                cores.limit(worker.state.nthreads)
                return function(item)
        finally:
            _ONE_AT_A_TIME.release()
    except (VggftError, OSError) as error:
        raise VggftError(f"worker on {socket.gethostname()}: {error}") from None


@contextlib.contextmanager
def _started(number: int) -> Iterator[tuple[Any, Processes]]:
    """Start a scheduler in this process, and worker processes on this machine that share its cores."""
    import dask

    distributed = _dask()
    with contextlib.ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True))
        settings = {
            **SETTINGS,
            "distributed.scheduler.allowed-failures": _DEATHS - 1,
            "distributed.comm.timeouts.connect": f"{_CONNECTING}s",  # to a worker that has died
            "temporary-directory": folder,
        }
        opened.enter_context(dask.config.set(settings))
        scheduler = distributed.LocalCluster(
            n_workers=0,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=False,
            security=True,
            protocol="tls",
        )
        opened.callback(_close_quietly, scheduler)
        share = max(1, cores.usable() // number)
        workers = Processes(number, share, scheduler.scheduler_address, scheduler.security, Path(folder))
        opened.callback(workers.close)
        yield scheduler, workers


def _dask() -> Any:
    """Import Dask, which then logs nothing: it prints tracebacks of connections that end, where `Cluster` raises errors."""
    distributed = importlib.import_module("distributed")
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(_SILENT)
    return distributed


def _close_quietly(connection: Any) -> None:
    with contextlib.suppress(Exception):  # the scheduler may be gone, and what does not end now ends with this process
        connection.close(timeout=_CLOSING)


@contextlib.contextmanager
def _connected(address: Any) -> Iterator[Any]:
    """Connect to a scheduler: of a cluster started here, or at an address.

    Raises:
        VggftError: it cannot be reached.
    """
    distributed = _dask()
    if isinstance(address, str):
        _require_scheduler(address)
    client = distributed.Client(address, timeout=_CONNECTING, set_as_default=False)
    try:
        yield client
    finally:
        _close_quietly(client)


def _require_scheduler(address: str) -> None:
    """Connect and leave again: a `Client` that finds nobody takes half a minute to give up, and prints a traceback.

    Raises:
        VggftError: it cannot be reached.
    """
    comm: Any = importlib.import_module("distributed.comm")
    security: Any = importlib.import_module("distributed.security")

    async def attempt() -> None:
        arguments = security.Security().get_connection_args("client")
        (await comm.connect(address, timeout=_CONNECTING, **arguments)).abort()

    try:
        with ThreadPoolExecutor(1) as thread:  # a notebook runs an event loop in its own
            thread.submit(lambda: asyncio.run(attempt())).result()
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        certificates = " The certificates for tls:// are those of Dask's configuration (distributed.comm.tls)."
        raise VggftError(
            f"--on {address}: no connection to a Dask scheduler ({error}). Start one with `dask scheduler`, and workers with "
            f"`dask worker`.{certificates if address.startswith('tls:') else ''}"
        ) from None
