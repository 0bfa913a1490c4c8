"""NumPy archives (.npz) from anywhere: nothing is unpickled, and no array is larger than its bytes in the file."""

import io
import math
import zipfile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def read(data: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an archive that `numpy.savez` wrote, by name.

    Raises:
        ValueError: anything else; also a compressed archive, whose arrays could be of any size.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                _check_size(archive, member)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"no archive of arrays ({error})") from None


def _check_size(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array is not larger than its bytes in the archive.

    Raises:
        ValueError: it is, or is compressed.
    """
    if member.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{member.filename} is compressed")
    with archive.open(member) as file:
        read_header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
        raise ValueError(f"{member.filename} has the shape {shape}, but {member.file_size} bytes")
