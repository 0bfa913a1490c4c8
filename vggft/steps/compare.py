"""Comparing heads, and tuned networks if there are any, on the same images: the recommendation, and a report of all numbers."""

import contextlib
import shlex
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from featurize.cluster.cluster import Cluster
from featurize.errors import VggftError
from featurize.process import interrupts
from heads import folds
from vggft.comparison import advice, candidates, costs, fold_tasks, nested, perturbations, plots
from vggft.comparison.advice import Advice, CrossValidate, ReserveTest, Tune, TuneAgain
from vggft.comparison.comparison import Comparison, Contrast, compare_candidates
from vggft.comparison.costs import Cost
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.nested import NestedCrossValidation
from vggft.comparison.page.build import build
from vggft.comparison.page.page import FILE
from vggft.comparison.perturbations import PerturbedPredictions
from vggft.comparison.report import record, terminal
from vggft.comparison.report.record import Record
from vggft.comparison.verdict import FEWEST
from vggft.prediction import models
from vggft.prediction.model import Model
from vggft.prediction.models import Models
from vggft.steps.fold_trainers import StepTrainers
from vggft.steps.options import CompareOptions
from vggft.ui.console import Ui
from vggft.workspace import maps, provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

Split = Literal["test", "validation"]

_FOLDS = 5  # of the nested cross-validation that is advised


def run(workspace: Workspace, options: CompareOptions, ui: Ui) -> dict[str, Any]:
    """Compare all fresh models and write the report.

    Raises:
        VggftError: nothing to compare yet (the message names the command to run), or a report folder that cannot be written.
    """
    left_out: list[str] = []

    def leave_out(what: str) -> None:
        left_out.append(what)
        ui.warn(f"left out: {what}")

    with workspace.writing():
        everything = models.load(workspace, on_damage=lambda error: leave_out(str(error)))
        present = _readable(workspace, everything, leave_out)
        _require(workspace, present, options.cv, ui)
        folder = workspace.report_folder()
        split: Split = "test" if workspace.dataset.accepted("test") and not options.cv else "validation"
        results: Sequence[FoldResult] = ()
        if options.cv:
            comparison, results = _nested(workspace, present, options, leave_out, ui)
        else:
            comparison = _on_split(workspace, present, split, leave_out, ui)
        names = {candidate.name for candidate in comparison.predictions.candidates}
        featurizing = costs.featurizing(workspace, ui)
        compared = [model for model in present.fresh if options.cv or model.name in names]
        reported = Record(
            comparison=comparison,
            provenance={**provenance.current(workspace), **provenance.versions()},
            ranked_by=present.heads_ranked_by,
            perturbed=None if options.quick else _perturb(workspace, compared, split, ui),
            perturbed_split=split,
            costs=_measure(workspace, compared, featurizing, not options.quick, ui),
            featurizing=featurizing,
            advice=_advise(workspace, present, comparison),
            stale=[model.name for model in present.stale],
            left_out=left_out,
            validation=everything.validation_log_loss,
            folds=results,
        )
        drawn = plots.draw(reported, present.fresh)
        html = build(workspace, reported, drawn, present, ui, heat=not options.quick)
        interrupts.check()  # from here on, the report is written as a whole
        result = record.write(folder, reported, {**plots.files(drawn), FILE: html})
    terminal.show(reported, ui)
    if options.quick:
        ui.say("--quick: the report has no perturbed images, latency and heat maps. vggft compare adds them.")
    ui.print(f"vggft predict uses {comparison.use} until other models are trained.")
    ui.print(f"report: {folder / FILE} (beside it: compare.json, compare.csv, predictions.csv, plots)")
    if options.open and not webbrowser.open((folder / FILE).absolute().as_uri()):
        ui.warn("no browser could be started")
    return {**result, "report": str(folder), "page": str(folder / FILE)}


def _readable(workspace: Workspace, present: Models, leave_out: Callable[[str], None]) -> Models:
    """Return the models without heads whose inputs are not cached any more."""
    needing = [model.name for model in present.heads if "flatten" in model.poolings]
    if not needing or not maps.lacking(workspace):
        return present
    needed = f"needs {workspace.architecture.top}, but {maps.reason(workspace)}: {maps.command(workspace)}"
    for name in needing:
        leave_out(f"{name}: {needed}")
    return replace(present, heads=tuple(model for model in present.heads if model.name not in needing))


def _on_split(
    workspace: Workspace, present: Models, split: Split, leave_out: Callable[[str], None], ui: Ui
) -> Comparison:
    """Compare the models of the workspace on one of its splits."""
    predictions = candidates.on_split(workspace, present, split, leave_out, ui)
    network = next((model for model in present.networks if model.name == predictions.network), None)
    if network is None:
        return compare_candidates(predictions, Contrast(predictions.head))
    return compare_candidates(predictions, Contrast(predictions.head, network.name, network.start, network.unchanged))


def _nested(
    workspace: Workspace, present: Models, options: CompareOptions, leave_out: Callable[[str], None], ui: Ui
) -> tuple[Comparison, Sequence[FoldResult]]:
    """Compare the ways of selecting a head and a network by nested cross-validation."""
    with contextlib.ExitStack() as opened:
        cluster = opened.enter_context(Cluster(options.on, ui.say)) if options.on is not None else None
        nested_folds = NestedCrossValidation(workspace, present, options.cv, StepTrainers(), leave_out, ui)
        elsewhere = partial(fold_tasks.train, cluster, nested_folds, ui) if cluster else lambda folds: None
        predictions, results = nested_folds.predict(elsewhere)
    unchanged = all(result.unchanged for result in results)
    contrast = Contrast(present.heads[0].name, nested_folds.network.name, unchanged=unchanged)
    return compare_candidates(predictions, contrast), results


def _perturb(workspace: Workspace, compared: Sequence[Model], split: str, ui: Ui) -> PerturbedPredictions | None:
    """Predict perturbed images. A failure is only a warning: the rest of the comparison is kept."""
    samples = workspace.dataset.accepted("test" if split == "test" else "validate")
    try:
        return perturbations.predict(workspace, compared, samples, ui)
    except VggftError as error:
        ui.warn(f"perturbed images are left out: {error}")
        return None


def _measure(
    workspace: Workspace, compared: Sequence[Model], featurizing: float | None, timed: bool, ui: Ui
) -> Mapping[str, Cost]:
    """Return the costs of models, without latencies where those cannot be measured."""
    try:
        return costs.measure(workspace, compared, featurizing, timed, ui)
    except VggftError as error:
        ui.warn(f"latency is not measured: {error}")
        return costs.measure(workspace, compared, featurizing, False, ui)


def _require(workspace: Workspace, present: Models, folds: int, ui: Ui) -> None:
    """Require a fresh head and, for nested cross-validation, a fresh network; else warn of stale networks.

    Raises:
        VggftError: there is none. The message says what the stale ones were made from.
    """
    if not present.heads:
        raise _nothing(workspace, present, "head", "head")
    if not present.networks and folds:
        raise _nothing(workspace, present, "tuned network", "finetune")
    stale = [model for model in present.stale if model.tuned]
    if not present.networks and stale:
        ui.warn(
            f"heads alone are compared: every tuned network here is stale, made from an earlier state of the data. "
            f"{_why_stale(workspace, stale)}"
        )


def _nothing(workspace: Workspace, present: Models, kind: str, command: str) -> VggftError:
    """Return the error that there is no fresh model of a kind, which a command trains."""
    where = workspace_flag(workspace.root)
    stale = [model for model in present.stale if model.tuned == (command == "finetune")]
    if not stale:
        return VggftError(
            f"{workspace.root}: nothing to compare: no {kind} here yet. Run first: vggft {command}{where}"
        )
    return VggftError(
        f"{workspace.root}: nothing to compare: every {kind} here is stale, made from an earlier state of the data. "
        f"{_why_stale(workspace, stale)}. Train again: vggft {command}{where}"
    )


def _why_stale(workspace: Workspace, stale: Sequence[Model]) -> str:
    """Return what the first few stale models were made from."""
    reasons = "; ".join(
        f"{model.name}: {provenance.difference(workspace, model.classes, model.provenance)}" for model in stale[:3]
    )
    return reasons + (f" (and {len(stale) - 3} more)" if len(stale) > 3 else "")


def _advise(workspace: Workspace, present: Models, comparison: Comparison) -> Sequence[Advice]:
    """Return what to do next."""
    name = comparison.contrast.network
    if name is None:
        before = f"{maps.command(workspace)} && " if maps.lacking(workspace) else ""
        tune = Tune(f"{before}vggft finetune{workspace_flag(workspace.root)}")
        return [tune] if comparison.predictions.fair else [tune, _reserve(workspace)]
    if comparison.verdict.use_network and present.named(name).unchanged:
        return [TuneAgain(name)]
    if comparison.predictions.source == "folds":
        return advice.selection_unreliable(comparison)
    if comparison.predictions.fair and comparison.first and comparison.first.effective >= FEWEST:
        return []
    return _more_evidence(workspace, present)


def _more_evidence(workspace: Workspace, present: Models) -> Sequence[Advice]:
    """Return how to get a verdict from more images, which select nothing."""
    dataset = workspace.dataset
    samples = [*dataset.accepted("train"), *dataset.accepted("validate")]
    number = folds.max_folds(np.asarray(dataset.targets(samples)), [sample.group for sample in samples], _FOLDS)
    if number < 2:
        return [_reserve(workspace)]
    command = f"vggft compare --cv {number}{workspace_flag(workspace.root)}"
    return [CrossValidate(command, nested.estimate(workspace, present, number)), _reserve(workspace)]


def _reserve(workspace: Workspace) -> ReserveTest:
    data = shlex.quote(str(workspace.settings.data))
    return ReserveTest(f"vggft featurize {data} --test 0.2{workspace_flag(workspace.root)}")
