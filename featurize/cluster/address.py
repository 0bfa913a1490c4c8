"""The address of a cluster, as `--on` takes it: that of a Dask scheduler, or local:N."""

import re

from featurize.errors import VggftError

_MOST_LOCAL = 1_000  # worker processes started here
_LOCAL = re.compile(r"local:(\d{1,4})")
_REMOTE = re.compile(r"[a-z]+://.+")


def local_workers(address: str) -> int | None:
    """Return how many worker processes an address asks for; None if it is the address of a scheduler.

    Raises:
        VggftError: it is neither.
    """
    match = _LOCAL.fullmatch(address)
    if match and 1 <= int(match[1]) <= _MOST_LOCAL:
        return int(match[1])
    if match or not _REMOTE.fullmatch(address):
        raise VggftError(
            f"--on {address}: expected the address of a Dask scheduler, such as tcp://host:8786 or tls://host:8786, or local:N "
            f"for N worker processes on this machine (at most {_MOST_LOCAL})."
        )
    return None
