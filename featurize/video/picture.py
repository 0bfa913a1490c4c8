"""Decoded frames as pictures: upright, with square pixels and the colours that players show; as JPEG, and as perceptual hash."""

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import av

# JPEG quality: 46.5 dB from the frame, at 0.3 of the bytes of a PNG file (docs/frames.md).
_QUALITY = 95
_LARGEST_RATIO = 10.0  # of pixels that are not square; beyond it, the header is wrong

# Videos without a colour matrix: players take BT.709 from this size on, and BT.601 below it.
_HD_WIDTH, _HD_HEIGHT = 1280, 577
_BT709, _UNSPECIFIED = 1, 2  # AVColorSpace

_SIDE = 32  # pixels of the grey picture that is hashed
_FREQUENCIES = 8  # lowest frequencies in each direction that the hash keeps: 64 bits
_LEAST = 2.0  # grey levels; smaller coefficients are noise, of which a dark or plain picture has nothing else


class Converter:
    """Turns the decoded frames of one video into pictures and hashes.

    It keeps FFmpeg's scalers, which take longer to set up than a small picture takes to scale, and the display matrix of the
    first frame: in PyAV, a frame that was asked for such data refers to itself, and its memory is freed late.
    """

    def __init__(self, pixel_ratio: float) -> None:
        """Prepare for one video. `pixel_ratio`: width of a pixel divided by its height."""
        from av.video.reformatter import Interpolation, VideoReformatter

        wrong = not 1 / _LARGEST_RATIO <= pixel_ratio <= _LARGEST_RATIO
        self._pixel_ratio = 1.0 if wrong else pixel_ratio
        self._to_rgb, self._to_grey = VideoReformatter(), VideoReformatter()
        self._area = Interpolation.AREA
        self._exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        self._matrix: tuple[int, int, int, int] | None = None

    def rgb(self, frame: "av.VideoFrame") -> NDArray[np.uint8]:
        """Return a frame as RGB (height, width, 3), upright, with square pixels, and white behind transparent ones."""
        if frame.colorspace == _UNSPECIFIED and (frame.width >= _HD_WIDTH or frame.height >= _HD_HEIGHT):
            frame.colorspace = _BT709
        transparent = any(component.is_alpha for component in frame.format.components) or frame.format.has_palette
        converted: Any = self._to_rgb.reformat(
            frame,
            width=max(1, round(frame.width * self._pixel_ratio)),
            format="rgba" if transparent else "rgb24",
            interpolation=self._exact,
            threads=1,
        ).to_ndarray()
        if transparent:
            alpha = converted[..., 3:].astype(np.uint16)
            converted = ((converted[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        if self._matrix is None:
            self._matrix = _display_matrix(frame)
        return _upright(converted, self._matrix)

    def perceptual_hash(self, frame: "av.VideoFrame") -> int:
        """Return 64 bits that frames of one look share: the signs of low frequencies of a small grey picture (pHash).

        The method is that of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), with a floor
        under the coefficients. docs/frames.md compares it with others.
        """
        scaled = self._to_grey.reformat(
            frame, width=_SIDE, height=_SIDE, format="gray", interpolation=self._area, threads=1
        )
        waves = _waves()
        coefficients = (waves @ scaled.to_ndarray().astype(np.float64) @ waves.T).ravel()
        bits = coefficients > max(float(np.median(coefficients[1:])), _LEAST)
        return int.from_bytes(np.packbits(bits).tobytes())


def _display_matrix(frame: "av.VideoFrame") -> tuple[int, int, int, int]:
    """Return a, b, c and d of the matrix (a, b, u; c, d, v; x, y, w), which moves the point (p, q) to (ap + cq, bp + dq)."""
    side_data: Any = frame.side_data
    matrix = next((bytes(each) for each in side_data if each.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    return a, b, c, d


def _upright(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Return pixels turned and mirrored as a display matrix says; other angles than right ones are rounded."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return a picture as JPEG data. Colour is halved in each direction, as in nearly all videos."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=_QUALITY, subsampling="4:2:0")
    return data.getvalue()


@cache
def _waves() -> NDArray[np.float64]:
    """Return the lowest frequencies of the orthonormal cosine transform (frequencies, side)."""
    frequency, place = np.mgrid[:_FREQUENCIES, :_SIDE]
    waves: NDArray[np.float64] = np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    waves[0] /= np.sqrt(2)
    return waves
