"""Files scored twice, as they are and in grey: does a model depend on colour?

Grey is the perturbation `grey` of `featurize.pixels.perturbations`. Its features have a cache of their own, which `vggft compare`
uses, too.
"""

import itertools
from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial

from featurize.process.per_process import PerProcess
from vggft.prediction import inference, scoring
from vggft.prediction.model import Model
from vggft.prediction.scoring import File, Scored, Scorer
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace

GREY = "grey"  # the name among the perturbations


def scorers(model: Model, workspace: Workspace) -> tuple[Scorer, Scorer]:
    """Return what scores pictures as they are, and what scores their grey versions; they share one engine."""
    start = PerProcess(partial(inference.start_its_engine, workspace))
    as_it_is, in_grey = (inference.from_pixels(model, workspace, start, perturbation) for perturbation in ("", GREY))
    return as_it_is, in_grey


def beside(
    files: Iterable[File], workspace: Workspace, plain: Scorer, grey: Scorer
) -> Generator[tuple[Scored, Scored], None, None]:
    """Yield each file with its scores as it is and in grey, in order. A caller that stops early must close the generator.

    A file that is rejected in one form is rejected in both.

    Args:
        plain, grey: see `scorers`.
    """
    fingerprint = workspace.settings.fingerprint
    once, twice = itertools.tee(files)
    pairs = (
        scoring.scored(once, decoder(fingerprint), plain),
        scoring.scored(twice, decoder(replace(fingerprint, probe=GREY)), grey),
    )
    try:
        for as_it_is, in_grey in zip(*pairs, strict=True):
            if as_it_is.digest != in_grey.digest:
                changed = Scored(as_it_is.path, reason="changed while it was predicted")
                yield changed, changed
            elif as_it_is.probabilities is None or in_grey.probabilities is None:
                rejected = as_it_is if as_it_is.probabilities is None else in_grey
                yield rejected, rejected
            else:
                yield as_it_is, in_grey
    finally:
        for generator in pairs:
            generator.close()
