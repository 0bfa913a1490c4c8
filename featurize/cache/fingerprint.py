"""The fingerprint of cached features: everything that determines them besides image and layer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError
from featurize.options import Checked, Option
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION, PREPROCESS, Precision, Preprocess
from featurize.pixels import views
from featurize.pixels.images import DECODER_VERSION, RESIZE_FILTERS
from featurize.pixels.perturbations import PERTURBATIONS

# Largest allowed relative error between cached features and the same features computed again, by the precision in which they
# were computed: an engine's error is at most 1e-3 and that of storage in float16 5e-4, and a layer computed from a cached one
# below it is within 2e-3. Computing in 16 bits was measured at 3.3e-3 at most. A wrong layer, order or preprocessing gives 0.1
# and more.
FEATURE_BOUNDS: Mapping[Precision, float] = {FULL_PRECISION: 2e-3, MIXED_PRECISION: 1e-2}


@dataclass(frozen=True)
class Fingerprint(Checked):
    """The settings that turn pixels into features.

    Attributes:
        weights: digest of the convolution weights (`featurize.backbone.weights.digest`).
        size: side of the square input in pixels.
        resize: a key of `featurize.pixels.images.RESIZE_FILTERS`.
        preprocess: "caffe" (BGR minus the ImageNet means, as the published weights were trained) or "raw" (RGB, 0 to 255).
        decoder: version of the decoder, `featurize.pixels.images.DECODER_VERSION` of the vggft that made them.
        dtype: dtype of the stored features.
        precision: precision of the computation, a Keras dtype policy: "float32", also for engines within a relative error of
            1e-3 of it, or "mixed_float16" (GPUs).
        probe: what was done to the pictures: a key of `featurize.pixels.perturbations.PERTURBATIONS`, the name of a view
            (`featurize.pixels.views`), or empty. The name "probe" is part of the file format: renaming it would invalidate
            cached features.
    """

    weights: str
    size: Annotated[int, Option(least=1, most=4096)]
    resize: str = "bilinear"
    preprocess: Preprocess = PREPROCESS
    decoder: Annotated[int, Option(least=1)] = DECODER_VERSION
    dtype: Literal["float16"] = "float16"
    precision: Precision = FULL_PRECISION
    probe: str = ""

    @classmethod
    def of(cls, architecture: Architecture, **settings: Any) -> "Fingerprint":
        """Return the fingerprint of an architecture's published weights and default input size, with other settings as given."""
        return replace(cls(architecture.digest, architecture.size), **settings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in RESIZE_FILTERS:
            raise VggftError(f"resize filter {self.resize!r}: expected one of {', '.join(RESIZE_FILTERS)}.")
        if self.probe and self.probe not in PERTURBATIONS and not views.number(self.probe):
            raise VggftError(f"perturbation {self.probe!r}: expected one of {', '.join(PERTURBATIONS)}.")

    @property
    def json(self) -> str:
        """Canonical JSON of all attributes; precision and probe are omitted if they have their defaults."""
        values = asdict(self)
        if not self.probe:
            del values["probe"]
        if self.precision == FULL_PRECISION:
            del values["precision"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the sha256 of `json`; the name of the cache folder."""
        return hashlib.sha256(self.json.encode()).hexdigest()[:16]
