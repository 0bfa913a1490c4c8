"""Worker processes on this machine: fresh interpreters that serve the tasks of a scheduler, and are replaced when they die.

A process says on standard output that it serves, and exits when its standard input closes, so also when its parent dies. Dask's
own supervisor is not used: it gives up a worker that dies while it starts, and imports the caller's main module into each.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from featurize.errors import VggftError
from featurize.process import cores, interrupts

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from featurize.cluster import processes; processes.serve()"
_SERVES = b"serves\n"
_FAILURES = 3  # processes that die in a row before they serve
_ENDING = 5  # seconds until a process that does not end is killed
# Of a scheduler and workers on this machine: nothing to see for others on it, and no samples of stacks and of the event loop, 100
# and 50 a second, which nobody looks at and which took about a tenth of the processor time.
SETTINGS = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}


class Processes:
    """A number of worker processes; `replace_dead` is to be called now and then."""

    def __init__(self, number: int, share: int, scheduler: str, security: Any, folder: Path) -> None:
        """Start them.

        Args:
            share: of the cores, for each.
            scheduler: address that they connect to.
            security: Dask's certificates for it.
            folder: for temporary files and for what they print.
        """
        certificates = security.get_tls_config_for_role("worker")
        settings = {
            "scheduler": scheduler,
            "cores": share,
            "folder": str(folder),
            "tls": {"ca": certificates["ca_file"], "certificate": certificates["cert"], "key": certificates["key"]},
        }
        self._settings = json.dumps(settings).encode() + b"\n"
        self._command = [sys.executable, "-c", _START, json.dumps([str(Path(__file__).parents[2]), *sys.path])]
        # NumPy would start a thread for each core in every process.
        self._environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "DASK_LOGGING__DISTRIBUTED": "critical"}
        self._printed = folder / "stderr.txt"
        self._failed = 0
        self._all = [self._start() for _ in range(number)]

    def _start(self) -> subprocess.Popen[bytes]:
        # In a new session, so that a terminal's Ctrl-C does not end it before this process does.
        with self._printed.open("ab") as stderr:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=self._environment,
                start_new_session=True,
            )
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):  # it has died: `replace_dead` says why
            process.stdin.write(self._settings)
            process.stdin.flush()
        return process

    def replace_dead(self) -> None:
        """Start a new process for each that has died.

        Raises:
            VggftError: several in a row died before they served a task: others would, too.
        """
        for i, process in enumerate(self._all):
            if process.poll() is None:
                continue
            assert process.stdout
            served = process.stdout.read() == _SERVES
            self._failed = 0 if served else self._failed + 1
            if self._failed == _FAILURES:
                lines = self._printed.read_text(errors="replace").split("\n")
                last = next((line for line in reversed(lines) if line.strip()), f"exit code {process.returncode}")
                raise VggftError(f"--on local:{len(self._all)}: a worker process does not start ({last}).")
            _close(process)
            self._all[i] = self._start()

    def close(self) -> None:
        """End all processes. After a signal, nobody waits for what they still do."""
        for process in self._all:
            if interrupts.heard():
                process.kill()
            assert process.stdin
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        for process in self._all:
            try:
                process.wait(_ENDING)
            except subprocess.TimeoutExpired:  # in the middle of a task
                process.kill()
            _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    process.wait()


def serve() -> None:
    """Serve tasks until standard input closes; for worker processes."""
    settings = json.loads(sys.stdin.buffer.readline())
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(settings))


async def _serve(settings: Any) -> None:
    import distributed
    from dask import config

    dask: Any = distributed
    config.set(SETTINGS)
    cores.limit(settings["cores"])
    tls = settings["tls"]
    security = dask.Security(
        require_encryption=True, tls_ca_file=tls["ca"], tls_worker_cert=tls["certificate"], tls_worker_key=tls["key"]
    )
    worker = dask.Worker(
        settings["scheduler"],
        host="127.0.0.1",
        nthreads=1,  # it runs one task at a time, on as many cores as it may use
        memory_limit=0,  # vggft bounds the memory that pictures take; Dask would end workers on a guess
        local_directory=settings["folder"],
        dashboard=False,
        dashboard_address="127.0.0.1:0",
        security=security,
    )
    threading.Thread(target=_end_with_parent, args=(settings["folder"],), daemon=True).start()
    async with worker:
        replies = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # what libraries print
        replies.write(_SERVES)
        await worker.finished()


def _end_with_parent(folder: str) -> None:
    """Exit once the parent has closed standard input, or has died; its folder is then removed here."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
