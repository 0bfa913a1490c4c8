"""Full disks: the fixture `disk` mounts a small one, and `leave` fills it."""

import contextlib
import mmap

PAGE = mmap.PAGESIZE  # the piece in which a tmpfs gives its room away


def leave(disk, pages):
    """Take all room of a disk but so many pages up with a file, which is returned: without it, there is room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(PAGE))
    with ballast.open("rb+") as file:
        file.truncate(ballast.stat().st_size - pages * PAGE)
    return ballast
