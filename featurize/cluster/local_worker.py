"""What a worker process of `local:N` does as it starts; Dask imports this module there and calls `dask_setup`."""

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes: the process that started this one ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
