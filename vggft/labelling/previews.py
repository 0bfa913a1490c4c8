"""Pictures as the page shows them: decoded by vggft's own decoder and encoded as JPEG, so that no browser interprets a file."""

import io
import threading
from collections import OrderedDict
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize.pixels import images
from featurize.pixels.decoding import contents, unreadable
from featurize.pixels.images import Unreadable
from featurize.process import cores

# Longer sides in pixels: thumbnails, two sizes of window, zoom.
SIDES = (256, 1000, 1600, 4000)
THREADS = min(4, cores.usable() + 1)  # one more than cores, because some wait for the disk

_MOST_BYTES = 64_000_000  # of previews in memory: some hundred of 1600 pixels
_QUALITY = 85


class Previews:
    """JPEG pictures of files, each made once while it is in memory."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._previews: OrderedDict[tuple[Path, int], Future[bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()  # a future that is done calls back at once

    def get(self, path: Path, side: int) -> Future[bytes]:
        """Return the JPEG of a file that will come; its exception is `Unreadable`, with the reason.

        Args:
            side: one of `SIDES`.
        """
        key = (path, side)
        with self._lock:
            future = self._previews.get(key)
            if future is None:
                future = self._previews[key] = self._pool.submit(_encoded, path, side)
                future.add_done_callback(lambda done: self._count(key, done))
            self._previews.move_to_end(key)
        return future

    def _count(self, key: tuple[Path, int], done: Future[bytes]) -> None:
        """Take a finished preview into account, and forget those that were asked for longest ago."""
        with self._lock:
            if done.cancelled() or done.exception():
                self._previews.pop(key, None)  # the file may be repaired meanwhile
                return
            self._bytes += len(done.result())
            for other, future in list(self._previews.items()):
                if self._bytes <= _MOST_BYTES:
                    break
                if future.done() and other != key:
                    del self._previews[other]
                    self._bytes -= 0 if future.exception() else len(future.result())


def _encoded(path: Path, side: int) -> bytes:
    try:
        with contents(path) as data:
            pixels = _fitting(data, side)
    except OSError as error:
        raise Unreadable(unreadable(error)) from None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _fitting(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode a picture for a side; a large JPEG 2000, of which only coarse levels are decoded, for a smaller one if need be."""
    try:
        return images.decode_fitting(data, side)
    except Unreadable as error:
        smaller = max((other for other in SIDES if other < side), default=0)
        if not smaller or not str(error).startswith("too large: JPEG 2000"):
            raise
        return _fitting(data, smaller)
