"""Small videos, written by PyAV: each frame is plain grey, or any picture, so that a test sees which frames it got."""

from fractions import Fraction

import numpy as np
from conftest import strict_json, vggft

STEP = 8  # grey levels between two frames of `greys`


def greys(number, size=(64, 48)):
    """Return plain pictures, each brighter than the one before it, from black again after 30."""
    return [np.full((size[1], size[0], 3), STEP * (i % 30), np.uint8) for i in range(number)]


def noise(number, size=(64, 48), seed=0):
    """Return pictures of coarse random blocks, which all look different."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(size[1] // 6, 0).repeat(size[0] // 8, 1) for _ in range(number)
    ]


def shots(*numbers, seconds=3):
    """Return pictures of shots at 10 frames a second, each a picture that is told by a number, with noise."""
    rng = np.random.default_rng(1)
    different = noise(max(numbers) + 1, (160, 120))
    return [
        np.clip(different[number] + rng.normal(0, 5, (120, 160, 3)), 0, 255).astype(np.uint8)
        for number in numbers
        for _ in range(10 * seconds)
    ]


def encode(
    path,
    pictures,
    rate=Fraction(10),
    times=None,
    codec="libx264",
    pixels="yuv420p",
    container=None,
    rotation=None,
    ratio=None,
    matrix=None,
    full=False,
    options=None,
    flags="",
):
    """Write a video.

    Args:
        times: of the pictures, in milliseconds; by the rate where there are none.
        rotation: arguments of `set_display_rotation`.
        ratio: of a pixel's width to its height.
        flags: of the MP4 file, such as faststart: its index comes first.
        matrix: number of the colour matrix (1: BT.709, 6: BT.601); full: full range.
    """
    import av

    base = Fraction(1, 1000) if times else 1 / Fraction(rate)
    height, width = pictures[0].shape[:2]
    with av.open(path, "w", format=container, options={"movflags": flags} if flags else {}) as file:
        stream = file.add_stream(codec, rate=Fraction(rate), options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.time_base = base
        if ratio:
            stream.codec_context.sample_aspect_ratio = ratio
        if rotation:
            stream.set_display_rotation(*rotation)
        if matrix:
            stream.codec_context.colorspace = matrix
        if full:
            stream.codec_context.color_range = 2
        for i, pixels_in in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels_in, format="rgba" if pixels_in.shape[2] == 4 else "rgb24")
            frame = frame.reformat(
                format=pixels, dst_colorspace={1: "ITU709"}.get(matrix, "ITU601"), dst_color_range=2 if full else 1
            )
            frame.pts, frame.time_base = times[i] if times else i, base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def cut(path, every=None, after=None):
    """Return time → grey level of the frames that are offered, and the video, which is closed."""
    from featurize.video.picture import Converter
    from featurize.video.selection import offered
    from featurize.video.video import Video

    with Video(path) as video:
        to = Converter(1)
        frames = {f.milliseconds: to.rgb(f.picture)[20, 20].mean() for f in offered(video, every, after)}
    return frames, video


def run(*arguments):
    """Run `vggft frames`, which may find that some files are no videos, and return its result."""
    done = vggft("frames", "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr
    return strict_json(done.stdout)
