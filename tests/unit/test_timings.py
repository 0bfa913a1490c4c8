"""Featurizing time, summed over the recorded runs."""

import pytest

from featurize.cache import timings
from featurize.cache.timings import Timing

FIRST = Timing("block4_pool block5_pool", "", "mnn", 100, 20.0)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], None),
        ([FIRST], 0.2),
        ([Timing("block5_conv1", "block4_pool", "mnn", 100, 5.0)], None),  # what came before is not known
        ([FIRST, Timing("block5_conv1", "block4_pool", "mnn", 100, 5.0)], 0.25),  # adds what it took
        ([FIRST, Timing("block1_pool", "", "mnn", 100, 2.0)], 0.22),  # does not make the others look cheaper
        ([FIRST, Timing("block4_pool block5_pool", "", "mnn", 50, 16.0)], 36 / 150),  # once more, or for new images
        ([FIRST, Timing("block5_pool", "", "mnn", 100, 19.0)], 0.2),  # new images, for which less was asked
        ([FIRST, Timing("block4_pool block5_conv1 block5_pool", "", "mnn", 50, 11.0)], 0.22),  # and more
        ([Timing("block5_conv1", "block4_pool", "mnn", 100, 5.0), FIRST], 0.25),
        ([FIRST, Timing("block4_pool block5_pool", "", "mnn", 0, 1.0)], 0.2),
        ([Timing("pooled", "", "mnn", 100, 18.0)], 0.18),
        ([Timing("pooled", "", "mnn", 100, 18.0), FIRST], 0.2),  # then all of the last layer
        ([FIRST, Timing("pooled", "block5_pool", "pooling", 100, 1.0)], 0.2),
        ([Timing("block1_pool", "", "mnn", 100, 2.0), Timing("pooled", "", "mnn", 100, 18.0)], 0.2),
        ([Timing("block4_pool", "", "mnn", 100, 16.0), Timing("pooled", "block4_pool", "mnn", 100, 3.0)], 0.19),
    ],
)
def test_seconds_an_image(tmp_path, runs, expected):
    for run in runs:
        timings.add(tmp_path, run)
    assert timings.read(tmp_path) == runs
    assert timings.seconds_an_image(tmp_path, "block5_pool") == (expected and pytest.approx(expected))
