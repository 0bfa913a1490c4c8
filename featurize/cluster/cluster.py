"""A Dask cluster that runs functions for this process: one that exists, or worker processes that are started here.

Functions and arguments are pickled. Whoever reaches the port of a scheduler or a worker can run code there; so the workers that
are started here accept only connections with a certificate that exists in the memory of these processes. Dask
(`dask.distributed`) is imported only where a cluster is used.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import logging
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from featurize.cluster import local_worker
from featurize.cluster.address import local_workers
from featurize.errors import VggftError
from featurize.process import cores, interrupts

Item = TypeVar("Item")
Result = TypeVar("Result")

PACKAGES = "'vggft[dask]'"
# A task is given up once this many workers have died with it; where a scheduler is not started here, it decides (4 by default).
DEATHS = 2
IN_FLIGHT = 2  # tasks for each worker: one runs, the next is there when it ends

_CONNECTING = 10  # seconds
_LOOK = 0.2  # seconds between two looks for a signal
_COUNTING = 2.0  # seconds between two counts of the workers
_CLOSING = 5  # seconds
_SILENT = logging.CRITICAL + 1


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """The result of a task; None if every worker that ran it died."""

    item: Item
    result: Result | None


def require() -> None:
    """Check that Dask is installed.

    Raises:
        VggftError: it is not.
    """
    if importlib.util.find_spec("distributed") is None:
        raise VggftError(f"--on needs dask.distributed. Run: pip install {PACKAGES}")


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
        require()
        self._say = say
        self._open = contextlib.ExitStack()
        self._connected: Any = None
        self._workers, self._counted = self._local or 0, -_COUNTING
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
        self._connected = None

    @property
    def workers(self) -> int:
        """The number of workers that are alive, counted at most every two seconds; of `local:N`, N before the first task."""
        if self._connected is not None and time.monotonic() - self._counted >= _COUNTING:
            with self._names_loss():
                self._workers = len(self._client.nthreads())
            self._counted = time.monotonic()
        return self._workers

    def run(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Done[Item, Result]]:
        """Call a function with each item on some worker, and yield the results as they come.

        A worker runs one task at a time, on as many cores as it has threads; twice as many tasks as there are workers are in
        flight. A task whose worker dies runs again on another one, so a function has to have the same effect when it is called
        again.

        Raises:
            VggftError: the scheduler is gone.
            Exception: what the function raises.
        """
        client, waiting = self._client, iter(items)
        in_flight: dict[Any, Item] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            while True:
                while len(in_flight) < IN_FLIGHT * max(1, self.workers):
                    try:
                        item = next(waiting)
                    except StopIteration:
                        break
                    with self._names_loss():
                        future = client.submit(_call, function, item, pure=False)
                    in_flight[future] = item
                    future.add_done_callback(ended.put)
                if not in_flight:
                    return
                yield self._next(ended, in_flight)
        finally:
            if in_flight and client.status == "running":
                client.cancel(list(in_flight))

    def _next(self, ended: "queue.SimpleQueue[Any]", in_flight: dict[Any, Item]) -> Done[Item, Any]:
        """Wait for a task to end."""
        while True:
            interrupts.check()
            with contextlib.suppress(queue.Empty):
                future = ended.get(timeout=_LOOK)
                return Done(in_flight.pop(future), self._result(future))
            if self.workers:
                self._waits = False
            elif not self._waits:
                self._waits = True
                self._say(f"waiting for a worker at {self.address}")

    def _result(self, future: Any) -> Any:
        from distributed.scheduler import KilledWorker

        if future.status in ("cancelled", "lost"):
            raise self._lost()
        try:
            return future.result()
        except KilledWorker:
            return None
        except (ModuleNotFoundError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                raise
            lacking = f" ({error})" if isinstance(error, ModuleNotFoundError) else ""
            raise VggftError(
                f"{self.address}: the scheduler or a worker cannot import what it needs{lacking}. Install the same version of "
                "vggft, with the same extras, for the Python of the scheduler and of all workers."
            ) from None

    @property
    def _client(self) -> Any:
        if self._connected is None:
            with contextlib.ExitStack() as opened:
                address = self.address if self._local is None else opened.enter_context(_started(self._local))
                self._connected = opened.enter_context(_connected(address))
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


_ONE_AT_A_TIME = threading.Lock()


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function, on a worker."""
    worker: Any = importlib.import_module("distributed").get_worker()
    with _ONE_AT_A_TIME:
        cores.limit(worker.state.nthreads)
        return function(item)


@contextlib.contextmanager
def _started(number: int) -> Iterator[Any]:
    """Start worker processes on this machine, with the cores shared among them; they end with this process."""
    import dask

    distributed: Any = importlib.import_module("distributed")

    environment = dict(os.environ)  # Dask changes it, for the processes that it starts
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.http.routes": [],  # nothing to see for others on this machine
        "distributed.worker.http.routes": [],
    }
    with tempfile.TemporaryDirectory(prefix="vggft-", ignore_cleanup_errors=True) as folder, dask.config.set(settings):
        try:
            cluster = distributed.LocalCluster(
                n_workers=number,
                threads_per_worker=max(1, cores.usable() // number),
                memory_limit=0,  # vggft bounds the memory that pictures take; Dask would end workers on a guess
                dashboard_address="127.0.0.1:0",
                silence_logs=_SILENT,
                security=True,
                protocol="tls",
                local_directory=folder,
                preload=[local_worker.__name__],
            )
            try:
                yield cluster
            finally:
                with contextlib.suppress(Exception):  # what does not end now ends with this process
                    cluster.close(timeout=_CLOSING)
        finally:
            os.environ.clear()
            os.environ.update(environment)


@contextlib.contextmanager
def _connected(address: Any) -> Iterator[Any]:
    """Connect to a scheduler: of a cluster started here, or at an address.

    Raises:
        VggftError: it cannot be reached.
    """
    distributed: Any = importlib.import_module("distributed")
    if isinstance(address, str):
        _require_scheduler(address)
    logger = logging.getLogger("distributed.client")
    level = logger.level
    client = distributed.Client(address, timeout=_CONNECTING, set_as_default=False)
    logger.setLevel(_SILENT)  # it prints a traceback where a scheduler ends; `Cluster` raises an error
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.close(timeout=_CLOSING)
        logger.setLevel(level)


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
        asyncio.run(attempt())
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        certificates = " The certificates for tls:// are those of Dask's configuration (distributed.comm.tls)."
        raise VggftError(
            f"--on {address}: no connection to a Dask scheduler ({error}). Start one with `dask scheduler`, and workers with "
            f"`dask worker`.{certificates if address.startswith('tls:') else ''}"
        ) from None
