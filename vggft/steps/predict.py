"""Class and score of each image, by a named model or the recommended one; written as they come, but for --json."""

import contextlib
from typing import Any

import numpy as np

from featurize.errors import VggftError
from vggft.prediction import band, inputs, judging, models, output, scoring
from vggft.prediction.band import Band
from vggft.prediction.models import Model
from vggft.prediction.output import Outlet, Prediction, Rejection
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui
from vggft.workspace.filling import decoder
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: PredictOptions, ui: Ui) -> dict[str, Any]:
    """Predict every image among the files and folders, and those that standard input lists.

    Raises:
        VggftError: options that contradict each other or the model, a path that does not exist, no files at all, no model
            yet, or an unknown one.
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
    choice = models.chosen(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    method = choice.method
    predictions: list[dict[str, Any]] = []  # filled for --json only, as are the rejections: there may be many files
    rejections: list[dict[str, Any]] = []
    files = rejected = 0
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_outlet(options, ui))
        scorer = judging.from_pixels(method, workspace)
        ui.say(f"model: {method.name} ({choice.why})")
        unsure = _band(workspace, method, ui)
        found = scoring.scored(inputs.files(options.paths), decoder(workspace.settings.fingerprint), scorer)
        stack.enter_context(contextlib.closing(found))
        advance = None if ui.lines_are_progress else stack.enter_context(ui.progress("predicting"))
        for one in found:
            if one.probabilities is None:
                ui.warn(f"rejected {one.path}: {one.reason}")
                rejection = Rejection(one.path, one.reason)
                write(rejection)
                rejected += 1
                if ui.json:
                    rejections.append(rejection.as_json())
            else:
                falling = np.argsort(-one.probabilities, kind="stable")
                p = {method.classes[i]: float(one.probabilities[i]) for i in falling}
                score = float(one.probabilities.max())
                prediction = Prediction(one.path, p, options.top, unsure.unsure(score) if unsure else None)
                write(prediction)
                if ui.json:
                    predictions.append(prediction.as_json())
            files += 1
            if advance:
                advance(files)
    if not files:
        where = ", ".join("standard input" if path == inputs.STDIN else str(path) for path in options.paths)
        raise VggftError(f"{where}: no files there. Expected images, or folders of images.")
    return {
        "model": method.name,
        "unsure_below": unsure.threshold if unsure else None,
        "unsure_band": unsure.as_json() if unsure else None,
        "predictions": predictions,
        "rejected": rejections if ui.json else rejected,
    }


def _outlet(options: PredictOptions, ui: Ui) -> contextlib.AbstractContextManager[Outlet]:
    if options.csv:
        return output.rows(ui, options.top)
    return output.json_lines(ui) if options.json_lines else contextlib.nullcontext(output.lines(ui))


def _band(workspace: Workspace, method: Model, ui: Ui) -> Band | None:
    """Choose the unsure band, and say it; None where the validation predictions are not there, which is said, too."""
    try:
        kept = method.validation_predictions(workspace)
    except VggftError as error:
        ui.warn(f"{error} Without it nobody knows which predictions are unsure: none is marked")
        return None
    chosen = band.choose(kept.probabilities, kept.targets)
    ui.say(str(chosen))
    return chosen
