"""Training settings of dense heads."""

from dataclasses import dataclass
from typing import Annotated

from featurize.options import Option, Options
from featurize.options.choices import ClassWeight, Seed
from featurize.options.records import Count

FOLDS = 5  # of a cross-validation, where nobody says how many
FEW = 200  # validation images: with fewer, a cross-validation ranks heads by default


@dataclass(frozen=True)
class Plan(Options):
    """Settings of one training; `class_weight` as in scikit-learn; `views`: of each training image, besides the image itself."""

    epochs: Annotated[int, Option("Maximum number of epochs of a dense head; the best is kept.", least=1)] = 50
    patience: Annotated[
        int, Option("Stop a dense head after this many epochs without a lower validation log-loss.", least=1)
    ] = 15
    batch_size: Annotated[int, Option("Images in a training step.", least=1)] = 32
    seed: Seed = 0
    class_weight: ClassWeight = None
    views: Count = 0
