"""The words that settings choose from, once, cheap to import; and a setting that several stages share."""

from typing import Annotated, Literal

from featurize.options import Option

EngineName = Literal["auto", "keras", "winograd", "mnn"]

# "caffe": BGR minus the ImageNet means, which the published weights were trained with. "raw": RGB from 0 to 255.
Preprocess = Literal["caffe", "raw"]
PREPROCESS: Preprocess = "caffe"  # of a new workspace

# Of a computation, as a Keras dtype policy. With 16-bit convolutions block4_pool moved by up to 0.0014 and block5_pool by up to
# 0.0019 (relative error, 16 photographs, weights and activations rounded throughout): beyond the 0.001 that engines promise.
Precision = Literal["float32", "mixed_float16"]
FULL_PRECISION: Precision = "float32"
MIXED_PRECISION: Precision = "mixed_float16"

SHARD_ROWS = 512  # images in a file of the cache, at most: two such files are in memory at a time

SEEDS = 2**32 - 1  # the largest seed that NumPy and scikit-learn take
Seed = Annotated[int, Option("Seed of initial weights, order of images and dropout.", least=0, most=SEEDS)]

ClassWeight = Annotated[
    Literal["balanced"] | None, Option("Class weighting; balanced: inversely to the number of training images.")
]

MOST_VIEWS = 32  # changed copies of a training picture

LayoutName = Literal["auto", "classes", "splits"]
Layout = Annotated[
    LayoutName | None,
    Option(
        "What the folders in DATA are: classes, or splits with class folders in them (other folders are ignored); auto: "
        "inferred from their names.",
        default="that of the workspace; auto in a new one",
    ),
]
