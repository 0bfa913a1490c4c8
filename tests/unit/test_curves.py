"""Learning curves of unusual runs, rendered: a single point, a name that is long."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest
from PIL import Image

from finetune import store
from vggft.comparison.plots import curves
from vggft.ui.visible import shortened


@pytest.fixture
def run(trained):
    (found,) = store.load_all(trained[0].finetune)
    return found


def texts(plot):
    return [text.text for text in ElementTree.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]


def size(plot, tmp_path):
    (tmp_path / "plot.png").write_bytes(plot.png)
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.convert("L").getextrema()[0] < 50  # it is not blank
        return picture.size


def test_a_run_that_diverged_in_its_first_epoch(run, tmp_path):
    diverged = replace(run, history=run.history[:1], best_epoch=0, ended="diverged", diverged=(1, 1))
    for plot, quantity in zip(curves.draw_run(diverged), ("loss", "accuracy"), strict=True):
        assert {"epoch", quantity, "validation", "epoch 0, kept", run.name} <= set(texts(plot))
        assert size(plot, tmp_path) == (660, 440)


def test_runs_of_a_sweep(run, tmp_path):
    odd = replace(run, settings=replace(run.settings, name="$x$-" + "long" * 40), history=run.history[:1], best_epoch=0)
    plot = curves.draw_runs([run, odd])
    assert {run.name, odd.name, "seconds of training", "validation log-loss"} <= set(texts(plot))
    assert size(plot, tmp_path) == (1100, 660)
    title = next(text for text in texts(curves.draw_run(odd)[0]) if "$x$" in text)
    assert title == shortened(odd.name, 60)
