"""Everything but the image and the layer that decides a cached number."""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property

from featurize.errors import VggftError
from featurize.images import DECODER_VERSION, RESIZE_FILTERS
from featurize.weights import PUBLISHED_DIGEST

PREPROCESSINGS = ("caffe", "raw")


@dataclass(frozen=True)
class Fingerprint:
    """How pixels become features.

    Attributes:
        weights: digest of the convolutions' weights (`featurize.weights.digest`).
        size: side of the square picture in pixels.
        resize: a key of `featurize.images.RESIZE_FILTERS`.
        preprocess: "caffe" (BGR, minus the ImageNet means: what the published weights were trained with) or "raw"
            (RGB from 0 to 255).
        decoder: version of the decoder.
        dtype: of the stored numbers.
    """

    weights: str = PUBLISHED_DIGEST
    size: int = 224
    resize: str = "bilinear"
    preprocess: str = "caffe"
    decoder: int = DECODER_VERSION
    dtype: str = "float16"

    def __post_init__(self) -> None:
        if self.preprocess not in PREPROCESSINGS:
            raise VggftError(f"--preprocess {self.preprocess!r}: expected {' or '.join(PREPROCESSINGS)}.")
        if self.resize not in RESIZE_FILTERS:
            raise VggftError(f"resize filter {self.resize!r}: expected one of {', '.join(RESIZE_FILTERS)}.")

    @property
    def json(self) -> str:
        """Canonical JSON of all attributes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the sha256 of `json`: names the folder of the cache."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:16]
