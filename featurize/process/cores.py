"""The cores that this process may use: threads beyond their number only take turns."""

import os

# What TensorFlow, JAX and PyTorch read as they are imported; they would start a thread for each core of the machine.
_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC", "OMP_NUM_THREADS")


class _Limit:
    number: int | None = None


def usable() -> int:
    """Return how many cores this process may use: a batch queue or a container may grant fewer than the machine has."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return granted if _Limit.number is None else min(granted, _Limit.number)


def limit(number: int) -> None:
    """Use at most `number` cores in this process from now on; the first limit holds. To be called before Keras is imported."""
    if _Limit.number is not None:
        return
    _Limit.number = number
    for name in _VARIABLES:
        os.environ[name] = str(number)
