"""Which frames of a video are offered, and which of these are near-duplicates of frames that were kept."""

from collections.abc import Callable, Iterator

import numpy as np

from featurize.video.video import Frame, Video

# Frames whose hashes differ in at most this many of 64 bits are near-duplicates (docs/frames.md has the measurements).
MOST_BITS = 8


def offered(
    video: Video, every: int | None, after: int | None, tell: Callable[[int], None] = lambda milliseconds: None
) -> Iterator[Frame]:
    """Yield the first frame at or after each multiple of `every`; all frames where it is None.

    Args:
        every: milliseconds.
        after: time of the last frame that an interrupted run kept; only later ones are yielded.
        tell: called with the time of each decoded frame, also of those that are not yielded.
    """
    due = 0 if after is None else after + 1 if every is None else (after // every + 1) * every
    skipped_to = 0
    for frame in video.frames():
        tell(frame.milliseconds)
        if frame.milliseconds < due:
            if skipped_to < due:
                video.skip_to(due)
                skipped_to = due
            continue
        yield frame
        if every is not None:
            due = (frame.milliseconds // every + 1) * every


class Kept:
    """Hashes of the frames of one video that were kept: 8 bytes each."""

    def __init__(self, hashes: list[int]) -> None:
        self._hashes = np.array(hashes, np.uint64)
        self._number = len(hashes)

    def alike(self, a_hash: int) -> bool:
        """Return whether a frame is a near-duplicate of one that was kept."""
        different = np.bitwise_count(self._hashes[: self._number] ^ np.uint64(a_hash))
        return bool((different <= MOST_BITS).any())

    def add(self, a_hash: int) -> None:
        """Add a frame."""
        if self._number == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros(max(64, self._number), np.uint64)])
        self._hashes[self._number] = a_hash
        self._number += 1
