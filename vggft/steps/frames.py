"""Cutting frames from videos into one folder, as JPEG files whose names tell video and time; a run that was stopped continues."""

import contextlib
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featurize.disk import durable
from featurize.disk.transfer import located
from featurize.errors import VggftError, reason
from featurize.process import interrupts, places
from featurize.video import picture, selection
from featurize.video.lists import Lists, Progress, Source, VideoRecord, as_json, identity
from featurize.video.selection import Kept
from featurize.video.video import NotVideoError, Video, require_package
from featurize.wording import counted
from vggft.steps.options import FramesOptions
from vggft.ui.console import Advance, Ui
from vggft.workspace import holder
from vggft.workspace.workspace import Workspace

# In folders, files with these suffixes are taken for videos; a file that is named is opened whatever its suffix.
SUFFIXES = frozenset(
    (
        *".mp4 .m4v .mov .qt .3gp .3g2 .mkv .webm .avi .divx .wmv .asf .flv .f4v .ogv .ogm".split(),
        *".mpg .mpeg .mpe .m2v .vob .ts .mts .m2ts .mxf .dv .h264 .264 .hevc .h265 .265 .ivf .y4m .rm .rmvb".split(),
    )
)
_LOCK, _HOLDER = ".frames.lock", ".frames.lock.txt"


def run(workspace: Workspace, options: FramesOptions, ui: Ui) -> dict[str, Any]:
    """Cut frames from each video, and leave near-duplicates out.

    Raises:
        VggftError: PyAV is not installed, no video is there or can be read, a video's frames in the folder were cut with other
            options, or the folder cannot be written.
    """
    require_package()
    out = options.out
    paths = _paths(options.videos)
    _require_folder(out)
    failed: list[dict[str, str]] = []
    sources = list(_sources(paths, failed, ui))
    if not sources:
        first = failed[0]
        others = f" Nor can the other {counted(len(failed) - 1, 'file')}." if len(failed) > 1 else ""
        raise VggftError(f"{first['path']}: {first['reason']}. Expected a video.{others}")
    for each in failed:
        ui.warn(f"{each['path']}: {each['reason']}")
    with _alone(out):
        lists = Lists(out)
        _require_same_options(sources, lists, options, out)
        _restart(sources, lists, ui)
        cut = _Cut(lists, options)
        finished = {}
        with ui.progress("cutting frames", _seconds_left(sources, lists), "s of video") as advance:
            for source in sources:
                finished[source.identity] = cut.video(source, advance)
    for source in sources:
        record = finished[source.identity]
        if record.damage:
            ui.warn(f"{source.path}: {record.damage}")
            failed.append({"path": str(source.path), "reason": record.damage})
    _report(cut, list(finished.values()), out, ui)
    if failed:
        ui.warn(f"{len(failed)} of {counted(len(paths), 'file')} could not be read, or not to the end")
    return {
        "folder": str(out),
        "written": cut.written,
        "videos": [as_json(record) for record in finished.values()],
        "failed": failed,
    }


def _report(cut: "_Cut", records: Sequence[VideoRecord], out: Path, ui: Ui) -> None:
    for record in records:
        similar = f", {counted(record.similar, 'near-duplicate')} left out" if record.similar else ""
        ui.print(f"{record.name}: {counted(record.frames, 'frame')}{similar}")
    already = sum(record.frames for record in records) - cut.written
    there = f" ({counted(already, 'frame')} already there)" if already else ""
    ui.print(f"wrote {counted(cut.written, 'frame')} into {out}{there}")
    if cut.written:
        ui.say(f"next: vggft sort {shlex.quote(str(out))}, or put the frames into one folder for each class")


class _Cut:
    """Cuts one video after the other.

    Attributes:
        written: number of frames that this run wrote.
    """

    def __init__(self, lists: Lists, options: FramesOptions) -> None:
        self._lists, self._options = lists, options
        self._read = 0  # milliseconds of video, before this one
        self.written = 0

    def video(self, source: Source, advance: Advance) -> VideoRecord:
        """Write the frames of a video that are not there yet, and return its row."""
        record = self._lists.record(source.identity)
        if record is None:
            record = self._lists.begin(source, self._options.selection)
        if record.state == "begun":
            begun = self._lists.progress(record)
            try:
                with Video(source.path) as video:
                    record = self._frames(video, record, begun, advance)
            except (NotVideoError, OSError) as error:  # it could be opened before
                record = replace(record, damage=f"cannot be read: {reason(error)}")
            self._read += (source.duration or 0) - (begun.last or 0)
        return record

    def _frames(self, video: Video, record: VideoRecord, begun: Progress, advance: Advance) -> VideoRecord:
        options, begun_at = self._options, begun.last or 0
        kept, frames, similar, left_out = Kept(begun.hashes), begun.frames, begun.similar, 0
        converter = picture.Converter(video.pixel_ratio)
        every = None if options.changes else round((options.every or options.EVERY) * 1000)

        def tell(milliseconds: int) -> None:
            advance((self._read + max(0, milliseconds - begun_at)) // 1000, what=f"cutting {record.name}")

        for frame in selection.offered(video, every, begun.last, tell):
            a_hash = None if options.keep_similar else converter.perceptual_hash(frame.picture)
            if a_hash is not None and kept.alike(a_hash):
                left_out += 1
                continue
            data = picture.jpeg(converter.rgb(frame.picture))
            self.written += self._lists.put(record, frame.milliseconds, data, a_hash, left_out)
            if a_hash is not None:
                kept.add(a_hash)
            frames, similar, left_out = frames + 1, similar + left_out, 0
        record = replace(record, frames=frames, similar=similar + left_out, damage=video.damage)
        return self._lists.finish(record) if video.complete else record


def _paths(given: Sequence[Path]) -> list[Path]:
    """Return the files that were named, and the videos in the folders, in name order.

    Raises:
        VggftError: a path does not exist, or a folder has no videos.
    """
    paths: list[Path] = []
    for path in given:
        if not os.path.lexists(path):
            raise VggftError(f"{path}: no such file or folder. Expected a video, or a folder of videos.")
        if not path.is_dir():
            paths.append(path)
            continue
        below = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(path)
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        )
        if not below:
            raise VggftError(
                f"{path}: no videos in it. Expected files whose names end in .mp4, .mov, .mkv or the like."
            )
        paths += below
    return list(dict.fromkeys(map(located, paths)))


def _sources(paths: Sequence[Path], failed: list[dict[str, str]], ui: Ui) -> Iterator[Source]:
    """Open each file and yield those that are videos, each content once; add the others and why to `failed`."""
    known: dict[str, Path] = {}
    for path in paths:
        interrupts.check()
        try:
            with Video(path) as video:
                source = Source(path, identity(path), str(path.stat().st_mtime_ns), video.duration)
        except (NotVideoError, OSError) as error:
            failed.append({"path": str(path), "reason": reason(error)})
            continue
        if source.identity in known:
            ui.say(f"{path}: a copy of {known[source.identity]}, which is cut once")
            continue
        known[source.identity] = path
        yield source


def _seconds_left(sources: Sequence[Source], lists: Lists) -> int | None:
    """Return how much of the videos is still to be read; None where the duration of one is not known."""
    left = 0
    for source in sources:
        record = lists.record(source.identity)
        if record is None or record.state == "begun":
            if source.duration is None:
                return None
            left += source.duration - (lists.progress(record).last or 0 if record else 0)
    return left // 1000


def _require_folder(out: Path) -> None:
    """Check that frames may be written to a folder, which need not exist.

    Raises:
        VggftError: something else is in its place.
    """
    in_the_way = places.in_the_way(places.resolved(out))
    if in_the_way is not None:
        raise VggftError(f"{in_the_way}: not a folder. The last argument must be the folder for the frames; add one.")


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Create the folder, and hold its lock, which ends with the process.

    Raises:
        VggftError: another process holds it (named), or the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(out / _LOCK, fallback_to_soft=False)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        process = holder.name(out / _HOLDER)
        raise VggftError(f"{out}: {process} is writing frames here. Wait for it, or choose another folder.") from None
    except (OSError, NotImplementedError) as error:  # the latter on file systems without locks
        raise VggftError(f"{out}: cannot be written or locked ({reason(error)}). Choose another folder.") from None
    try:
        durable.sweep_beside(out / _HOLDER)
        holder.write(out / _HOLDER)
        yield
    finally:
        holder.remove(out / _HOLDER)
        lock.release()


def _require_same_options(sources: Sequence[Source], lists: Lists, options: FramesOptions, out: Path) -> None:
    """Check that no video has frames in the folder that were cut with other options: they would be mixed.

    Raises:
        VggftError: one has.
    """
    for source in sources:
        record = lists.changed(source) or lists.record(source.identity)
        if record is not None and record.options != options.selection:
            raise VggftError(
                f"{source.path}: its frames in {out} were cut with other options ({record.options}; now: {options.selection}). "
                "Use the same options, or another folder."
            )


def _restart(sources: Sequence[Source], lists: Lists, ui: Ui) -> None:
    """Begin those videos again that were not read whole, and have changed since.

    Raises:
        VggftError: the lists cannot be written.
    """
    for source in sources:
        record = lists.changed(source)
        if record is not None:
            lists.restart(record, source)
            ui.warn(
                f"{source.path}: has changed since part of it was cut as {record.name}. It is cut again under that name, also "
                "frames that were moved away."
            )
