"""Predicting images with a named or the recommended model; results are written as they come, except with --json.

With --into, each file then goes into the folder of its class (`vggft.sorting`).
"""

import contextlib
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.folders import ignored
from featurize.errors import VggftError
from featurize.wording import counted
from vggft.prediction import band, grey, inference, inputs, output, scoring, selection
from vggft.prediction.band import Band
from vggft.prediction.model import Model
from vggft.prediction.output import Prediction, Rejection, Writer
from vggft.prediction.scoring import File, Scored, Scorer
from vggft.sorting.sorter import Sorter
from vggft.sorting.target import Target
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: PredictOptions, ui: Ui) -> dict[str, Any]:
    """Predict every image among the files and folders, and those that standard input lists.

    Raises:
        VggftError: options that contradict each other or the model, a path that does not exist, no files at all, no such
            model, or an --into that cannot hold predicted files.
    """
    _require_consistent(workspace, options, ui)
    if options.into is None:
        inputs.require(options.paths)
    choice = selection.choose(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    model = choice.model
    sorter = _sorter(workspace, options, model, ui)
    notes: list[Path] = []
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_writer(options, ui))
        scorers = grey.scorers(model, workspace) if options.grey else (inference.from_pixels(model, workspace),)
        ui.say(f"model: {model.name} ({choice.reason})")
        if choice.age:
            ui.warn(choice.age)
        unsure_band = band.of_model(model, ui)
        outcomes = _Outcomes(ui, write, sorter, unsure_band)
        given = inputs.files(options.paths, notes.append)
        files = sorter.offered(given) if sorter else given
        scored_files = _scored(files, workspace, scorers)
        for scorer in scorers:
            stack.enter_context(contextlib.closing(scorer))
        stack.enter_context(contextlib.closing(scored_files))
        total = (
            _total(options) if ui.shows_progress and not ui.lines_are_progress else None
        )  # a walk through all folders
        advance = None if ui.lines_are_progress else stack.enter_context(ui.progress("predicting", total))
        for scored, *in_grey in scored_files:
            outcomes.add(scored, model.classes, options.top, *in_grey)
            if advance:
                advance(outcomes.files)
    for note in dict.fromkeys(scorer.note for scorer in scorers if scorer.note):
        ui.warn(note)
    if notes:
        ui.say(ignored(notes))
    if not (outcomes.files or (sorter and sorter.there)):
        where = ", ".join("standard input" if path == inputs.STDIN else str(path) for path in options.paths)
        raise VggftError(f"{where}: no files there. Expected images, or folders of images.")
    predicted = outcomes.files - outcomes.rejected
    if options.grey and predicted:
        ui.say(f"in grey, another class is predicted for {outcomes.differing} of {counted(predicted, 'image')}")
    return {
        "model": model.name,
        "stale": bool(choice.age),
        "unsure_below": unsure_band.threshold if unsure_band else None,
        "unsure_band": unsure_band.as_json() if unsure_band else None,
        "predictions": outcomes.predictions,
        "rejected": outcomes.rejections if ui.json else outcomes.rejected,
        **({"differing_in_grey": outcomes.differing} if options.grey else {}),
        **(sorter.finish() if sorter else {}),
    }


@dataclass
class _Outcomes:
    """Takes each scored file to where it belongs, and counts them.

    Attributes:
        predictions, rejections: filled for --json only: there may be many files.
        differing: number of files with another class in grey.
    """

    ui: Ui
    write: Writer
    sorter: Sorter | None
    band: Band | None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    files: int = 0
    rejected: int = 0
    differing: int = 0

    def add(self, scored: Scored, classes: Sequence[str], top: int, grey: Scored | None = None) -> None:
        """Write a file's prediction, and put the file into its folder; or write why it was rejected."""
        self.files += 1
        if scored.probabilities is None:
            self.ui.warn(f"rejected {scored.path}: {scored.reason}")
            rejection = Rejection(scored.path, scored.reason)
            self.write(rejection)
            self.rejected += 1
            if self.ui.json:
                self.rejections.append(rejection.as_json())
            return
        p = _falling(scored.probabilities, classes)
        in_grey = _falling(grey.probabilities, classes) if grey and grey.probabilities is not None else None
        unsure = self.band.unsure(float(scored.probabilities.max())) if self.band else None
        prediction = Prediction(scored.path, p, top, unsure, in_grey)
        self.differing += prediction.differs_in_grey
        self.write(prediction)
        if self.sorter:
            self.sorter.put(scored.path, scored.digest, next(iter(p)), unsure=bool(unsure))
        if self.ui.json:
            self.predictions.append(prediction.as_json())


def _falling(probabilities: NDArray[np.float64], classes: Sequence[str]) -> dict[str, float]:
    """Return class → probability, the most probable first."""
    return {classes[i]: float(probabilities[i]) for i in np.argsort(-probabilities, kind="stable")}


def _scored(
    files: Iterable[File], workspace: Workspace, scorers: Sequence[Scorer]
) -> Generator[tuple[Scored, ...], None, None]:
    """Yield each file with its scores and, with a second scorer, those in grey."""
    if len(scorers) > 1:
        yield from grey.beside(files, workspace, *scorers)
        return
    with contextlib.closing(scoring.scored(files, decoder(workspace.settings.fingerprint), *scorers)) as scored_files:
        yield from ((scored,) for scored in scored_files)


def _require_consistent(workspace: Workspace, options: PredictOptions, ui: Ui) -> None:
    """Check that options do not contradict each other or the workspace's classes."""
    forms = {"--csv": options.csv, "--json": ui.json, "--json-lines": options.json_lines}
    chosen_forms = [form for form, chosen in forms.items() if chosen]
    if len(chosen_forms) > 1:
        raise VggftError(f"{' with '.join(chosen_forms)}: standard output holds one of them. Choose one.")
    classes = workspace.settings.classes
    if options.top > len(classes):
        raise VggftError(
            f"--top {options.top}: expected 1 to {len(classes)}, the number of classes ({', '.join(classes)})."
        )
    if options.how != "copy" and options.into is None:
        raise VggftError(f"--how {options.how}: expected --into FOLDER, too.")
    if options.grey and options.into is not None:
        raise VggftError(
            "--grey with --into: images are sorted as they are, not by their grey versions. Leave out one of them."
        )


def _sorter(workspace: Workspace, options: PredictOptions, model: Model, ui: Ui) -> Sorter | None:
    """Return what puts files into class folders, after checking that it can; None without --into."""
    if options.into is None:
        return None
    target = Target.of(workspace, options.into, model.classes)
    sorter = Sorter(target, options.how, ui)
    given = [path for path in options.paths if path != inputs.STDIN and not sorter.was_moved(path)]
    inputs.require(given)
    target.require_apart(given)
    if options.how == "move":
        target.require_movable(given)
    return sorter


def _total(options: PredictOptions) -> int | None:
    """Return the number of files; None where standard input lists some."""
    return None if inputs.STDIN in options.paths else sum(1 for _ in inputs.files(options.paths))


def _writer(options: PredictOptions, ui: Ui) -> contextlib.AbstractContextManager[Writer]:
    if options.csv:
        return output.rows(ui, options.top, options.grey)
    if options.json_lines:
        return output.json_lines(ui)
    return contextlib.nullcontext(output.lines(ui, options.top, options.grey))
