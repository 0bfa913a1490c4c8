"""The stamp of a file, which tells whether it has changed without reading it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stamp:
    """Size in bytes, modification time in ns and inode of a file; if they are unchanged, so is the file."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Return the stamp of a file.

        Raises:
            OSError: the file cannot be accessed.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)
