"""The command that messages suggest to train a head again: as printed, it trains that head."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from vggft.prediction import models


@pytest.mark.parametrize(
    ("views", "head", "command"),
    [
        (0, "max-256", "vggft head --head max-256 -w work"),
        (0, "mine-units8", "vggft head --head mine-units8 --grid FILE -w work"),
        (0, "max-256-views2", "vggft featurize 'my data' --views 2 -w work && vggft head --head max-256 -w work"),
        (2, "max-256-views2", "vggft head --head max-256 -w work"),
        (4, "max-256-views2", "vggft head --head max-256 --views 2 -w work"),
        (4, "max-256", "vggft head --head max-256 --views 0 -w work"),
    ],
)
def test_it_names_views_grid_and_workspace(views, head, command):
    workspace = SimpleNamespace(root=Path("work"), settings=SimpleNamespace(views=views, data="my data"))
    assert models.training(workspace, head) == command
