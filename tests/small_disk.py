"""Full disks: the fixture `disk` mounts a small one, and `leave` fills it."""

import contextlib
import mmap

PAGE = mmap.PAGESIZE  # the piece in which a tmpfs gives its room away


def leave(disk, pages):
    """Fill a disk up to the given number of free pages; return the file, whose deletion frees the space."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size - pages * PAGE)
    return ballast
