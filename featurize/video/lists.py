"""What was written into a folder of frames: videos.csv, a row a video, and frames.csv, a row a frame, from which a run continues.

A video is known by its contents, whatever its path. One that was not read whole, such as a download before its end, is known by
its path as well: when its file has changed, it is cut again under the same name. A video's row is written before its first frame
and again when it is finished; a frame's row is appended after its file. A frame that a killed process wrote without its row is
written again, to the same bytes.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from featurize.data.frames import frame_name, video_of
from featurize.disk import durable, forms
from featurize.errors import VggftError, damaged, reason
from featurize.options.records import Count, build

VIDEOS, FRAMES = "videos.csv", "frames.csv"
_COLUMNS = ("file", "video", "seconds", "hash", "similar")

# Bytes. Three such pieces and the size tell one video from another: hashing hours of video takes minutes.
_PIECE = 1 << 20

# Of a video's name in those of its frames: with time, process and suffix, the name of a temporary file has at most 255.
_MOST_BYTES = 200


@dataclass(frozen=True)
class Source:
    """A video that was given.

    Attributes:
        identity: digest of its contents.
        modified: when its file was last changed, in nanoseconds since 1970.
        duration: in milliseconds; None where its header does not say.
    """

    path: Path
    identity: str
    modified: str
    duration: int | None


@dataclass(frozen=True)
class VideoRecord:
    """A row of videos.csv.

    Attributes:
        name: of the video in the names of its frames.
        path: where the video was.
        identity, modified: as in `Source`.
        options: those that decide which frames are kept, in words.
        frames, similar: number of frames that were kept, and of near-duplicates that were left out; 0 until it is finished.
        damage: what could not be decoded, in words.
    """

    name: str
    path: str
    identity: str
    modified: str
    options: str
    state: Literal["begun", "finished"] = "begun"
    frames: Count = 0
    similar: Count = 0
    damage: str = ""

    @property
    def whole(self) -> bool:
        """Whether all of the video was read."""
        return self.state == "finished" and not self.damage


@dataclass
class Progress:
    """How far a video was read: time of the last frame that was kept, in milliseconds, hashes and numbers."""

    last: int | None
    hashes: list[int]
    frames: int
    similar: int


def identity(path: Path) -> str:
    """Return a digest of a file's size and of its beginning, middle and end; OSError if it cannot be read."""
    with durable.open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        digest = hashlib.sha256(str(size).encode())
        for place in (0, max(0, size // 2 - _PIECE // 2), max(0, size - _PIECE)):
            file.seek(place)
            digest.update(file.read(_PIECE))
    return digest.hexdigest()


class Lists:
    """The lists in a folder of frames; only one process at a time may use them."""

    def __init__(self, folder: Path) -> None:
        """Read the lists, and repair what a killed process left.

        Raises:
            VggftError: a list is damaged, or the folder cannot be written.
        """
        self._folder = folder
        durable.sweep_files(folder, lambda name: name in (VIDEOS, FRAMES) or video_of(name) is not None)
        self._videos = {record.identity: record for record in self._read_videos()}
        self._rows: dict[str, list[dict[str, str]]] = {}  # of unfinished videos
        self._taken = {_compared(record.name) for record in self._videos.values()}
        self._taken |= {_compared(name) for name in (video_of(path.name) for path in folder.iterdir()) if name}
        unfinished = {record.name for record in self._videos.values() if record.state == "begun"}
        for row in self._read_frames():
            if row["video"] in unfinished:
                self._rows.setdefault(row["video"], []).append(row)

    def record(self, an_identity: str) -> VideoRecord | None:
        """Return the row of a video; None where it is new."""
        return self._videos.get(an_identity)

    def changed(self, source: Source) -> VideoRecord | None:
        """Return the row of a video that was not read whole, and whose file has changed since; None where there is none."""
        record = self._videos.get(source.identity) or next(
            (each for each in self._videos.values() if each.path == str(source.path) and not each.whole), None
        )
        if record is None or record.whole:
            return None
        same = (record.identity, record.modified) == (source.identity, source.modified)
        return None if same else record

    def restart(self, record: VideoRecord, source: Source) -> VideoRecord:
        """Begin a video that has changed again, under the name that it has: frames of both belong to one group.

        Its rows are removed. Its frames stay: they are written again only where they are not there.

        Raises:
            VggftError: the lists cannot be written.
        """
        rows = [list(row.values()) for row in self._read_frames() if row["video"] != record.name]
        forms.write_csv(self._folder / FRAMES, _COLUMNS, rows)
        self._rows.pop(record.name, None)
        del self._videos[record.identity]
        return self._write(VideoRecord(record.name, str(source.path), source.identity, source.modified, record.options))

    def begin(self, source: Source, options: str) -> VideoRecord:
        """Give a new video a name that no other one has, and write its row.

        Raises:
            VggftError: it cannot be written.
        """
        name = next(name for name in _names(source.path.stem) if _compared(name) not in self._taken)
        self._taken.add(_compared(name))
        return self._write(VideoRecord(name, str(source.path), source.identity, source.modified, options))

    def progress(self, record: VideoRecord) -> Progress:
        """Return how far an unfinished video was read.

        Raises:
            VggftError: its rows are damaged.
        """
        rows = self._rows.get(record.name, [])
        try:
            times = [round(float(row["seconds"]) * 1000) for row in rows]
            hashes = [int.from_bytes(bytes.fromhex(row["hash"])) for row in rows if row["hash"]]
            if any(a_hash >= 1 << 64 for a_hash in hashes):
                raise ValueError("a hash of more than 64 bits")
            return Progress(times[-1] if times else None, hashes, len(rows), sum(int(row["similar"]) for row in rows))
        except (ValueError, OverflowError) as error:  # OverflowError: an infinite time
            raise self._damaged(FRAMES, error) from None

    def put(self, record: VideoRecord, milliseconds: int, data: bytes, a_hash: int | None, similar: int) -> bool:
        """Write a frame and its row; return False where the same frame was there.

        Args:
            similar: number of near-duplicates that were left out since the frame before it.

        Raises:
            VggftError: it cannot be written, or another file has its name.
        """
        path = self._folder / frame_name(record.name, milliseconds / 1000)
        new = not os.path.lexists(path)
        if new:
            durable.write_bytes(path, data)
        elif path.is_symlink() or not path.is_file() or path.read_bytes() != data:
            raise VggftError(
                f"{path}: another file has the name of a frame, and no file is overwritten. Move it away and run the same "
                "command again."
            )
        text_hash = "" if a_hash is None else f"{a_hash:016x}"
        row = forms.csv_bytes((path.name, record.name, f"{milliseconds / 1000:.3f}", text_hash, str(similar)), ())
        frames = self._folder / FRAMES
        try:
            with frames.open("ab") as file:
                file.write(row)
            durable.sync_file(frames)
        except OSError as error:
            raise VggftError(
                f"{frames}: cannot be written ({reason(error)}). Frames written so far are kept: free some space, and run the "
                "same command again."
            ) from None
        return new

    def finish(self, record: VideoRecord) -> VideoRecord:
        """Write that all frames of a video are there."""
        return self._write(replace(record, state="finished"))

    def _write(self, record: VideoRecord) -> VideoRecord:
        self._videos[record.identity] = record
        header = [field.name for field in fields(VideoRecord)]
        forms.write_csv(self._folder / VIDEOS, header, [list(asdict(each).values()) for each in self._videos.values()])
        return record

    def _read_videos(self) -> list[VideoRecord]:
        numbers = ("frames", "similar")
        try:
            rows = forms.parse_csv(durable.read_bytes(self._folder / VIDEOS))
            return [build(VideoRecord, row | {name: int(row[name]) for name in numbers}) for row in rows]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(VIDEOS, error) from None

    def _read_frames(self) -> list[dict[str, str]]:
        """Read frames.csv, or create it; a last row that a killed process wrote in part is cut off."""
        path, header = self._folder / FRAMES, forms.csv_bytes(_COLUMNS, ())
        try:
            data = durable.read_bytes(path)
            if not data.startswith(header):
                raise ValueError("other columns")
            whole = data[: forms.whole_rows(data)]
            rows = forms.parse_csv(whole)
        except FileNotFoundError:
            durable.write_bytes(path, header)
            return []
        except (OSError, ValueError) as error:
            raise self._damaged(FRAMES, error) from None
        if whole != data:
            durable.write_bytes(path, whole)
        return rows

    def _damaged(self, name: str, error: Exception) -> VggftError:
        return damaged(self._folder / name, error, "Restore it, or choose another folder for the frames.")


def _compared(name: str) -> str:
    """Return the form in which names are compared: file systems may take upper case for lower case, and é for é."""
    return unicodedata.normalize("NFC", name).casefold()


def _names(stem: str) -> Iterator[str]:
    """Yield names for a video: its own, then with numbers; never hidden ones, which featurize would pass over."""
    stem = stem.lstrip(".") or "video"
    number = 1
    while True:
        end = "" if number == 1 else f"-{number}"
        shortened = stem
        while len(os.fsencode(shortened + end)) > _MOST_BYTES:
            shortened = shortened[:-1]
        yield shortened + end
        number += 1


def as_json(record: VideoRecord) -> dict[str, Any]:
    """Return what `--json` shows of a video."""
    return {key: value for key, value in asdict(record).items() if key not in ("identity", "modified", "state")}
