"""The names of frames cut from videos, and the video that a name tells: clip-00012.400.jpg is clip.mp4 after 12.4 seconds."""

import re

# Where two files of this name go into one folder, vggft adds digits of the sha256 to one of them.
_NAME = re.compile(r"(.+)-\d{5,}\.\d{3}(-[0-9a-f]{8,64})?\.jpg", re.DOTALL)


def frame_name(video: str, seconds: float) -> str:
    """Return the name of a frame's file.

    Args:
        video: name of the video, without its suffix.
        seconds: time since the start of the video, from 0; it is rounded to milliseconds.
    """
    milliseconds = round(seconds * 1000)
    return f"{video}-{milliseconds // 1000:05d}.{milliseconds % 1000:03d}.jpg"


def video_of(path: str) -> str | None:
    """Return the name of the video that a file was cut from; None for any other file.

    Args:
        path: of the file, with forward slashes; its folders do not matter, because frames are sorted into class folders.
    """
    match = _NAME.fullmatch(path.rpartition("/")[2])
    return match[1] if match else None
