"""Predicting images with a named or the recommended model; results are written as they come, except with --json.

With --into, each file then goes into the folder of its class (`vggft.sorting`).
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featurize.data.folders import ignored
from featurize.errors import VggftError
from vggft.prediction import band, inference, inputs, output, scoring, selection
from vggft.prediction.band import Band
from vggft.prediction.model import Model
from vggft.prediction.output import Prediction, Rejection, Writer
from vggft.prediction.scoring import Scored
from vggft.sorting.sorter import Sorter
from vggft.sorting.target import Target
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui
from vggft.workspace.filling import decoder
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
        scorer = inference.from_pixels(model, workspace)
        ui.say(f"model: {model.name} ({choice.reason})")
        if choice.age:
            ui.warn(choice.age)
        unsure_band = band.of_model(model, ui)
        outcomes = _Outcomes(ui, write, sorter, unsure_band)
        given = inputs.files(options.paths, notes.append)
        files = sorter.offered(given) if sorter else given
        scored_files = scoring.scored(files, decoder(workspace.settings.fingerprint), scorer)
        stack.enter_context(contextlib.closing(scorer))
        stack.enter_context(contextlib.closing(scored_files))
        total = (
            _total(options) if ui.shows_progress and not ui.lines_are_progress else None
        )  # a walk through all folders
        advance = None if ui.lines_are_progress else stack.enter_context(ui.progress("predicting", total))
        for scored in scored_files:
            outcomes.add(scored, model.classes, options.top)
            if advance:
                advance(outcomes.files)
    if scorer.note:
        ui.warn(scorer.note)
    if notes:
        ui.say(ignored(notes))
    if not (outcomes.files or (sorter and sorter.there)):
        where = ", ".join("standard input" if path == inputs.STDIN else str(path) for path in options.paths)
        raise VggftError(f"{where}: no files there. Expected images, or folders of images.")
    return {
        "model": model.name,
        "stale": bool(choice.age),
        "unsure_below": unsure_band.threshold if unsure_band else None,
        "unsure_band": unsure_band.as_json() if unsure_band else None,
        "predictions": outcomes.predictions,
        "rejected": outcomes.rejections if ui.json else outcomes.rejected,
        **(sorter.finish() if sorter else {}),
    }


@dataclass
class _Outcomes:
    """Takes each scored file to where it belongs, and counts them.

    Attributes:
        predictions, rejections: filled for --json only: there may be many files.
    """

    ui: Ui
    write: Writer
    sorter: Sorter | None
    band: Band | None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    files: int = 0
    rejected: int = 0

    def add(self, scored: Scored, classes: Sequence[str], top: int) -> None:
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
        falling = np.argsort(-scored.probabilities, kind="stable")
        p = {classes[i]: float(scored.probabilities[i]) for i in falling}
        unsure = self.band.unsure(float(scored.probabilities.max())) if self.band else None
        prediction = Prediction(scored.path, p, top, unsure)
        self.write(prediction)
        if self.sorter:
            self.sorter.put(scored.path, scored.digest, classes[falling[0]], unsure=bool(unsure))
        if self.ui.json:
            self.predictions.append(prediction.as_json())


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
        return output.rows(ui, options.top)
    return output.json_lines(ui) if options.json_lines else contextlib.nullcontext(output.lines(ui))
