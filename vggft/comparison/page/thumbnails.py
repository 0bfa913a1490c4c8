"""Thumbnails: small WebP pictures of bounded size."""

import base64
import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featurize import runner
from featurize.data.dataset import Sample
from featurize.process import interrupts
from vggft.workspace.backbone import decoder
from vggft.workspace.filling import files_of
from vggft.workspace.workspace import Workspace

# Side in pixels and WebP quality, the best first: an image gets the first that fits its share of the bytes. At the last one,
# photographs take 250 to 500 bytes.
_SIZES = ((160, 75), (128, 65), (96, 60), (72, 50), (56, 40), (40, 30), (32, 20))
_LARGEST = 6_000  # bytes of one; more shows no more
_AHEAD = 32  # pictures that are decoded ahead: 5 MB


def encode(
    workspace: Workspace, samples: Sequence[Sample], most: int, progress: Callable[[int], None]
) -> dict[str, str]:
    """Return digest → thumbnail, in Base64, of what the network sees: pictures resized to a square.

    Files that are missing, have changed or cannot be read have none.

    Args:
        most: bytes of all together, in Base64; no image gets more than an equal share.
        progress: called with the number of images done.
    """
    files = files_of(workspace.dataset.root, samples)
    share = min(_LARGEST, most * 3 // 4 // max(1, len(files)))
    encoded = {}
    pictures = runner.decoded(files, decoder(workspace.settings.fingerprint), _AHEAD)
    for done, (digest, picture) in enumerate(pictures, start=1):
        interrupts.check()
        if not isinstance(picture, str):
            encoded[digest] = base64.b64encode(smallest_loss(picture, share)).decode()
        progress(done)
    return encoded


def smallest_loss(picture: NDArray[np.uint8], share: int) -> bytes:
    """Return the best WebP of a picture, uint8 (height, width, 3), with at most `share` bytes, or the worst."""
    image, data = Image.fromarray(picture), b""
    for side, quality in _SIZES:
        file = io.BytesIO()
        image.resize((side, side), Image.Resampling.BOX, reducing_gap=2.0).save(file, "WEBP", quality=quality, method=4)
        data = file.getvalue()
        if len(data) <= share:
            break
    return data
