"""Predicting images with a named or the recommended model; results are written as they come, except with --json."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from featurize.data.folders import ignored
from featurize.errors import VggftError
from vggft.prediction import band, inference, inputs, output, scoring, selection
from vggft.prediction.band import Band
from vggft.prediction.model import Model
from vggft.prediction.output import Prediction, Rejection, Writer
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui
from vggft.workspace.filling import decoder
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: PredictOptions, ui: Ui) -> dict[str, Any]:
    """Predict every image among the files and folders, and those that standard input lists.

    Raises:
        VggftError: options that contradict each other or the model, a path that does not exist, no files at all, or no such
            model.
    """
    forms = {"--csv": options.csv, "--json": ui.json, "--json-lines": options.json_lines}
    chosen_forms = [form for form, chosen in forms.items() if chosen]
    if len(chosen_forms) > 1:
        raise VggftError(f"{' with '.join(chosen_forms)}: standard output holds one of them. Choose one.")
    classes = workspace.settings.classes
    if options.top > len(classes):
        raise VggftError(
            f"--top {options.top}: expected 1 to {len(classes)}, the number of classes ({', '.join(classes)})."
        )
    inputs.require(options.paths)
    choice = selection.choose(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    model = choice.model
    predictions: list[dict[str, Any]] = []  # filled for --json only, as are the rejections: there may be many files
    rejections: list[dict[str, Any]] = []
    notes: list[Path] = []
    files = rejected = 0
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_writer(options, ui))
        scorer = inference.from_pixels(model, workspace)
        ui.say(f"model: {model.name} ({choice.reason})")
        if choice.age:
            ui.warn(choice.age)
        unsure_band = choose_band(model, ui)
        scored_files = scoring.scored(
            inputs.files(options.paths, notes.append), decoder(workspace.settings.fingerprint), scorer
        )
        stack.enter_context(contextlib.closing(scorer))
        stack.enter_context(contextlib.closing(scored_files))
        total = (
            _total(options) if ui.shows_progress and not ui.lines_are_progress else None
        )  # a walk through all folders
        advance = None if ui.lines_are_progress else stack.enter_context(ui.progress("predicting", total))
        for scored in scored_files:
            if scored.probabilities is None:
                ui.warn(f"rejected {scored.path}: {scored.reason}")
                rejection = Rejection(scored.path, scored.reason)
                write(rejection)
                rejected += 1
                if ui.json:
                    rejections.append(rejection.as_json())
            else:
                falling = np.argsort(-scored.probabilities, kind="stable")
                p = {model.classes[i]: float(scored.probabilities[i]) for i in falling}
                unsure = unsure_band.unsure(float(scored.probabilities.max())) if unsure_band else None
                prediction = Prediction(scored.path, p, options.top, unsure)
                write(prediction)
                if ui.json:
                    predictions.append(prediction.as_json())
            files += 1
            if advance:
                advance(files)
    if scorer.note:
        ui.warn(scorer.note)
    if notes:
        ui.say(ignored(notes))
    _require(files, options)
    return {
        "model": model.name,
        "stale": bool(choice.age),
        "unsure_below": unsure_band.threshold if unsure_band else None,
        "unsure_band": unsure_band.as_json() if unsure_band else None,
        "predictions": predictions,
        "rejected": rejections if ui.json else rejected,
    }


def _require(files: int, options: PredictOptions) -> None:
    if not files:
        where = ", ".join("standard input" if path == inputs.STDIN else str(path) for path in options.paths)
        raise VggftError(f"{where}: no files there. Expected images, or folders of images.")


def _total(options: PredictOptions) -> int | None:
    """Return the number of files; None where standard input lists some."""
    return None if inputs.STDIN in options.paths else sum(1 for _ in inputs.files(options.paths))


def _writer(options: PredictOptions, ui: Ui) -> contextlib.AbstractContextManager[Writer]:
    if options.csv:
        return output.rows(ui, options.top)
    return output.json_lines(ui) if options.json_lines else contextlib.nullcontext(output.lines(ui))


def choose_band(model: Model, ui: Ui) -> Band | None:
    """Choose the unsure band and report it; None, with a warning, where the validation predictions cannot be used."""
    try:
        validation = model.validation_predictions()
    except VggftError as error:
        ui.warn(f"{error} Without them no prediction can be marked as unsure.")
        return None
    chosen = band.choose(validation.probabilities, validation.targets)
    ui.say(str(chosen))
    return chosen
