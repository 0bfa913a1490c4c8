"""Everything but the image and the layer that decides a cached number."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError
from featurize.options import Checked
from featurize.options.choices import FULL_PRECISION, PREPROCESS, Precision, Preprocess
from featurize.pixels.images import DECODER_VERSION, RESIZE_FILTERS
from featurize.pixels.perturbations import PERTURBATIONS


@dataclass(frozen=True)
class Fingerprint(Checked):
    """How pixels become features.

    Attributes:
        weights: digest of the convolutions' weights (`featurize.backbone.weights.digest`).
        size: side of the square picture in pixels.
        resize: a key of `featurize.pixels.images.RESIZE_FILTERS`.
        preprocess: "caffe" (BGR, minus the ImageNet means: what the published weights were trained with) or "raw"
            (RGB from 0 to 255).
        decoder: version of the decoder.
        dtype: of the stored numbers.
        precision: of the computation, a Keras dtype policy: "float32" (also any engine within a relative error of
            1e-3 of it) or "mixed_float16" (GPUs).
        probe: a key of `featurize.pixels.perturbations.PERTURBATIONS`: how pictures are changed before the network sees them;
            empty: not at all. "Probe" is the word of the file format: renaming it would invalidate cached features.
    """

    weights: str
    size: int
    resize: str = "bilinear"
    preprocess: Preprocess = PREPROCESS
    decoder: int = DECODER_VERSION
    dtype: Literal["float16"] = "float16"
    precision: Precision = FULL_PRECISION
    probe: str = ""

    @classmethod
    def of(cls, architecture: Architecture, **settings: Any) -> "Fingerprint":
        """Return that of an architecture's published weights and usual input size, with other settings as given."""
        return replace(cls(architecture.digest, architecture.size), **settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in RESIZE_FILTERS:
            raise VggftError(f"resize filter {self.resize!r}: expected one of {', '.join(RESIZE_FILTERS)}.")
        if self.probe and self.probe not in PERTURBATIONS:
            raise VggftError(f"perturbation {self.probe!r}: expected one of {', '.join(PERTURBATIONS)}.")

    @property
    def json(self) -> str:
        """Canonical JSON of all attributes, precision and probe only where they are not the usual ones."""
        values = asdict(self)
        if not self.probe:
            del values["probe"]
        if self.precision == FULL_PRECISION:
            del values["precision"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the sha256 of `json`: names the folder of the cache."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:16]
