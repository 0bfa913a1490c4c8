"""One video file: its decoded frames with their times, and skipping ahead to the next one that is needed.

PyAV is imported by the functions that read videos, because it is an optional package.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import extras
from featurize.video.damage import Damage

if TYPE_CHECKING:
    import av


# Containers in which a seek ends at a keyframe of known time. The times of others, such as MPEG-TS, are guesses after a seek.
_SEEKABLE = ("mov", "matroska")
# A jump ends this long before the frame that is needed: an index has the times of decoding, which lie before those of display.
_REORDERING = 1_000  # milliseconds
_GAP = 1_000  # milliseconds; times that go back by more are those of another recording that was appended

_TAG_TIME = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")
_UNKNOWN_CODEC = re.compile(r"\(Video: ([^\s,]+)( \((\w+))?")
# What FFmpeg prints of files that it does not open, and what that means.
_MEANINGS = {
    "moov atom not found": "the file is incomplete: its index (the moov atom) is missing",
    "Impossible to open": "a list of other files, which are not opened; name these instead",
}


class NotVideoError(VggftError):
    """A file that is no video, or none that can be decoded here; the message is a reason without the file's name."""


@dataclass(frozen=True)
class Frame:
    """A decoded frame.

    Attributes:
        milliseconds: time of display since the first frame, from 0, rounded.
        picture: as decoded: not upright, in the video's own pixel format.
    """

    milliseconds: int
    picture: "av.VideoFrame"


def require_package() -> None:
    """Check that PyAV is installed.

    Raises:
        VggftError: it is not.
    """
    extras.require("reading videos", ("av",), "video")


class Video:
    """An open video file, a context manager.

    A file is known by its contents: neither its name nor other files that it refers to are used.

    Attributes:
        duration: in milliseconds, as the header says; None where it does not.
        damage: what could not be decoded, in words; set once `frames` has ended, empty if everything was decoded.
        complete: False where an error ended the reading, which may not happen again.
        decoded: number of frames that were decoded so far.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            NotVideoError: it has no frames that can be decoded here.
            OSError: it cannot be read.
        """
        self.damage, self.complete = "", True
        self.decoded = 0
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_nameless(path))
            self._container = stack.enter_context(_opened(file))
            self._indexed = self._container.format.name.startswith(_SEEKABLE)
            self._stream = self._chosen()
            self._stack = stack.pop_all()
        self._time_base = self._stream.time_base or 1
        self.duration = self._duration()
        self._zero: int | None = None  # time of the first frame, in units of the time base
        self._read = 0  # time of the last packet that was read
        self._last, self._end = -1, 0  # times of the last frame and of its end, in milliseconds
        self._jumps, self._jumped = self._indexed, False
        self._target: int | None = None  # the time that a jump must not have passed, until it is known that it has not

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _chosen(self) -> "av.VideoStream":
        """Return the stream that players show, ready to be decoded."""
        from av.stream import Discard, Disposition

        name = self._container.format.name
        stream: Any = self._container.streams.best("video")
        if name.endswith("_pipe"):
            raise NotVideoError(f"a picture ({name.removesuffix('_pipe').upper()}), not a video")
        if stream is None or stream.disposition & Disposition.attached_pic:
            kinds = sorted({each.type for each in self._container.streams if each is not stream})
            raise NotVideoError(f"no video in it, only {' and '.join(kinds)}" if kinds else "no video in it")
        for other in self._container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        stream.thread_type = "AUTO"
        if name.startswith("matroska"):  # it reads its index only now
            self._rewind()
        return stream  # type: ignore[no-any-return]

    def _duration(self) -> int | None:
        """Return the duration of the video, which may be shorter than the sound; without one, that of the file."""
        stream = self._stream
        tag = _TAG_TIME.fullmatch(stream.metadata.get("DURATION", ""))
        if stream.duration is not None:
            return round(stream.duration * self._time_base * 1000)
        end = (int(tag[1]) * 60 + int(tag[2])) * 60 + float(tag[3]) if tag else (self._container.duration or 0) / 1e6
        if not end:
            return None
        first = (stream.start_time or 0) * self._time_base if self._container.format.name.startswith("matroska") else 0
        return round((end - float(first)) * 1000)  # in Matroska, it is the time at which the video ends

    @property
    def pixel_ratio(self) -> float:
        """Width of a pixel divided by its height."""
        ratio = self._stream.sample_aspect_ratio
        return float(ratio) if ratio and ratio > 0 else 1.0

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in the order of display, each at least a millisecond after the one before it.

        A frame that is damaged is left out. Between two frames, `skip_to` may be called.
        """
        trouble = Damage()
        offset, restart = 0, True
        while restart:
            restart = False
            for picture in self._pictures(trouble):
                time = self._time(picture) + offset
                if self._target is not None:
                    if time > self._target:
                        break
                    self._target = None
                if time < self._last - _GAP and not self._indexed:
                    offset += self._last + 1 - time
                    time = self._last + 1
                if time > self._last:
                    length = round((picture.duration or 0) * self._time_base * 1000)
                    self._end = time + (length or time - max(0, self._last))
                    self._last = time
                    yield Frame(time, picture)
                    if self._jumped:  # the rest of what was decoded before the jump is not needed
                        self._jumped, restart = False, True
                        break
            if self._target is not None and not restart:  # the jump went too far, or to where the file is damaged
                self._target, self._jumps, trouble = None, False, Damage()
                why = self._rewind()
                if why:
                    trouble.end(why)
                restart = not why
        self.damage = trouble.text(self._end, self.duration) if self._last >= 0 else "no frame in it can be decoded"
        self.complete = not trouble.end_reason

    def _pictures(self, trouble: Damage) -> Iterator["av.VideoFrame"]:
        """Yield decoded pictures that are not damaged, up to the end or to what ends the file early."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                self._read = max(self._read, packet.dts or packet.pts or 0)
                pictures = packet.decode()
            except (
                StopIteration,
                IndexError,
            ):  # the latter at the end, of streams that were not there when the file was opened
                return
            except av.error.InvalidDataError:
                trouble.add(self._last)
                continue
            except (av.error.FFmpegError, OSError) as error:
                trouble.end(getattr(error, "strerror", None) or str(error))
                return
            for picture in pictures:
                self.decoded += 1
                if picture.is_corrupt:
                    trouble.add(self._last)
                else:
                    yield picture

    def _rewind(self) -> str:
        """Go back to the beginning of the file; return why that fails, and an empty text where it does not."""
        import av

        try:
            self._container.seek(0, backward=True)
        except (av.error.FFmpegError, OSError) as error:
            return getattr(error, "strerror", None) or str(error)
        return ""

    def _time(self, picture: "av.VideoFrame") -> int:
        """Return a picture's time since the first one, in milliseconds; by the frame rate where the file has no times."""
        ticks = picture.pts if picture.pts is not None else picture.dts
        if ticks is None:
            rate = self._stream.guessed_rate or self._stream.average_rate or 25
            return round((self.decoded - 1) * 1000 / rate)
        if self._zero is None:
            self._zero = ticks
        return round((ticks - self._zero) * self._time_base * 1000)

    def skip_to(self, milliseconds: int) -> None:
        """Jump ahead where the file's index has a keyframe between what was read and the frame of a time.

        Frames before that time may still follow. Nothing is lost where a jump is not possible.
        """
        import av

        if not self._jumps or self._zero is None:
            return
        ticks = self._zero + int((milliseconds - _REORDERING) / 1000 / self._time_base)
        index = self._stream.index_entries
        position = index.search_timestamp(ticks)
        if position < 0 or index[position].timestamp <= self._read:
            return
        self._jumped, self._target = True, milliseconds
        try:
            self._container.seek(index[position].timestamp, stream=self._stream, backward=True)
        except (av.error.FFmpegError, OSError):
            self._target = -1  # it may have gone anywhere, so whatever follows is too far


def _nameless(path: Path) -> Any:
    """Open a file so that FFmpeg does not see its name, which may look like an address, a pattern or a format."""
    durable.require_regular(path)
    if not path.stat().st_size:
        raise NotVideoError("the file is empty")
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb", buffering=0)


def _opened(file: Any) -> "av.container.InputContainer":
    """Open a container.

    FFmpeg's messages are collected meanwhile: PyAV's exceptions do not name a codec that is missing. They are not collected
    during decoding, whose threads would wait for Python.
    """
    import av

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EACCES, "a video that refers to other files")

    av.logging.set_level(av.logging.WARNING)
    try:
        with av.logging.Capture(local=False) as messages:
            try:
                container: av.container.InputContainer = av.open(
                    file,
                    "r",
                    container_options={"protocol_whitelist": "none"},
                    metadata_errors="replace",
                    io_open=refuse,
                )
            except (av.error.FFmpegError, ValueError) as error:
                raise NotVideoError(_why(error, messages)) from None
    finally:
        av.logging.set_level(None)
    stream: Any = container.streams.best("video")
    if stream is not None and stream.codec_context is None:
        container.close()
        codec = next((match for *_, text in messages if (match := _UNKNOWN_CODEC.search(text))), None)
        name = f"codec {codec[3] if codec[1] == 'none' and codec[3] else codec[1]}" if codec else "codec"
        raise NotVideoError(
            f"its {name} cannot be decoded: FFmpeg has no decoder for it here. Convert it to H.264 first"
        )
    return container


def _why(error: Exception, messages: list[tuple[int, str, str]]) -> str:
    """Return why a file was not opened, in words."""
    logged = " ".join(text.strip() for *_, text in messages)
    for message, meaning in _MEANINGS.items():
        if message in logged:
            return meaning
    return f"not a video that FFmpeg can read ({getattr(error, 'strerror', None) or error})"
