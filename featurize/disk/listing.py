"""The folders in a folder of records, where one that cannot be listed is an error: `Path.glob` finds nothing there."""

from pathlib import Path

from featurize.errors import VggftError, reason


def folders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, sorted by path, without hidden ones; none where there is no such folder.

    Raises:
        VggftError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise VggftError(f"{folder}: cannot be read ({reason(error)}). Fix its permissions.") from None
