"""Heads against tuned networks on the same images: which one to use, and a report that holds every number."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from featurize.errors import VggftError
from heads import folds
from vggft.cli.command import DEFAULT_WORKSPACE
from vggft.comparison import candidates, costs, nested, perturbations, verdict
from vggft.comparison.comparison import Comparison, compare_candidates
from vggft.comparison.costs import Cost
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.nested import NestedCrossValidation
from vggft.comparison.perturbations import PerturbedPredictions
from vggft.comparison.report import curves, record, tables, tradeoff
from vggft.comparison.report.record import Record
from vggft.prediction import models
from vggft.prediction.model import Model
from vggft.prediction.models import Models
from vggft.steps.fold_trainers import StepTrainers
from vggft.ui.console import Ui, duration
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace

_FOLDS = 5  # that are offered


@dataclass(frozen=True)
class Options:
    """How to compare.

    Attributes:
        folds: number of outer folds of nested cross-validation; 0: none.
        quick: leave out perturbed pictures and latency, which take longest.
    """

    folds: int = 0
    quick: bool = False


def run(workspace: Workspace, options: Options, ui: Ui) -> dict[str, Any]:
    """Compare all fresh models and write the report.

    Raises:
        VggftError: nothing to compare yet (the message says what to run), or a report folder that cannot be written.
    """
    if options.folds < 0 or options.folds == 1:
        raise VggftError(f"--cv {options.folds}: expected 2 folds or more, such as {_FOLDS}.")
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    left_out: list[str] = []

    def leave_out(what: str) -> None:
        left_out.append(what)
        ui.warn(f"left out: {what}")

    with workspace.writing():
        present = models.load(workspace, on_damage=lambda error: leave_out(str(error)))
        _require(workspace, present)
        folder = workspace.report_folder()
        split: Literal["test", "validation"] = "validation"
        results: Sequence[FoldResult] = ()
        if options.folds:
            nested_folds = NestedCrossValidation(workspace, present, options.folds, StepTrainers(), leave_out, ui)
            predictions, results = nested_folds.predict()
            head, network = present.heads[0].name, nested_folds.network
            unchanged = all(result.unchanged for result in results)
        else:
            split = "test" if workspace.dataset.accepted("test") else "validation"
            predictions = candidates.on_split(workspace, present, split, leave_out, ui)
            head = predictions.head
            network = next(model for model in present.networks if model.name == predictions.network)
            unchanged = network.unchanged
        compared = compare_candidates(predictions, head, network.name, unchanged)
        too_few = compared.contrast.effective < verdict.FEWEST and not options.folds
        offers = _offers(workspace, present) if too_few or not predictions.fair else ()
        if options.folds:
            offers = _out_of_fold(compared, head, network.name)
        if compared.verdict.use == network.name and network.unchanged:
            offers = (
                f"But {network.name} kept epoch 0: it is the head still. Tune again, with another --seed or rate.",
            )
        names = {candidate.name for candidate in predictions.candidates}
        compared_models = [model for model in present.fresh if options.folds or model.name in names]
        kept = Record(
            comparison=compared,
            provenance={**provenance.current(workspace), **provenance.versions()},
            ranked_by=present.heads_ranked_by,
            names={predictions.head: head, predictions.network: network.name},
            costs=_measure(workspace, compared_models, not options.quick, ui),
            featurizing=costs.featurizing(workspace),
            perturbed=None if options.quick else _perturb(workspace, compared_models, split, ui),
            perturbed_split=split,
            offers=offers,
            stale=[model.name for model in present.stale],
            left_out=left_out,
            validation=present.validation_log_loss,
            folds=results,
        )
        result = record.write(folder, kept)
        curves.plot(folder / "curves.png", present.fresh)
        tradeoff.plot(folder / "tradeoff.png", kept)
    tables.show(kept, ui)
    ui.print(f"vggft predict uses {compared.verdict.use} until other models are trained.")
    ui.print(f"report: {folder} (compare.json, compare.csv, pairs.csv, predictions.csv, …)")
    return {**result, "report": str(folder)}


def _perturb(workspace: Workspace, compared: Sequence[Model], split: str, ui: Ui) -> PerturbedPredictions | None:
    """Let models predict perturbed pictures. A failure must not lose the rest of the comparison."""
    samples = workspace.dataset.accepted("test" if split == "test" else "validate")
    try:
        return perturbations.predict(workspace, compared, samples, ui)
    except VggftError as error:
        ui.warn(f"perturbed pictures are left out: {error}")
        return None


def _measure(workspace: Workspace, compared: Sequence[Model], timed: bool, ui: Ui) -> Mapping[str, Cost]:
    """Return the costs of models, without latencies where those cannot be measured."""
    try:
        return costs.measure(workspace, compared, timed, ui)
    except VggftError as error:
        ui.warn(f"latency is not measured: {error}")
        return costs.measure(workspace, compared, False, ui)


def _require(workspace: Workspace, present: Models) -> None:
    """Require a fresh head and a fresh network.

    Raises:
        VggftError: there is none of the one or the other. The message says what the stale ones were made from.
    """
    kinds: Sequence[tuple[str, Sequence[Model], str]] = (
        ("head", present.heads, "head"),
        ("tuned network", present.networks, "finetune"),
    )
    for kind, fresh, command in kinds:
        if fresh:
            continue
        stale = [model for model in present.stale if model.tuned == (command == "finetune")]
        if not stale:
            raise VggftError(f"{workspace.root}: nothing to compare: no {kind} here yet. Run first: vggft {command}")
        state = provenance.current(workspace)
        reasons = "; ".join(f"{model.name}: {_difference(state, model.provenance)}" for model in stale[:3])
        more = f" (and {len(stale) - 3} more)" if len(stale) > 3 else ""
        raise VggftError(
            f"{workspace.root}: nothing to compare: every {kind} here is stale, made from an earlier state of the data. {reasons}"
            f"{more}. Train again: vggft {command}"
        )


def _difference(state: Mapping[str, str], recorded: Mapping[str, Any]) -> str:
    """Return in words what a model was made from, where that is not the present state."""
    if recorded.get("fingerprint") != state["fingerprint"]:
        return f"features of fingerprint {recorded.get('fingerprint')}, now {state['fingerprint']}"
    return "other images, labels or splits"


def _out_of_fold(compared: Comparison, head: str, network: str) -> Sequence[str]:
    """Say where the head and network of the workspace themselves, out of fold, clearly differ from each other."""
    for pair in compared.pairs:
        low, high = pair.log_loss_interval
        if {pair.a, pair.b} == {head, network} and not low <= 0 <= high:
            better, worse = (pair.a, pair.b) if high < 0 else (pair.b, pair.a)
            return [
                f"But in the same folds {better} itself was clearly better than {worse} (log-loss "
                f"{abs(pair.log_loss_difference):.4f} lower): few validation images choose badly. See compare.csv for all."
            ]
    return ()


def _offers(workspace: Workspace, present: Models) -> Sequence[str]:
    """Say how to get a verdict from more images that chose nothing."""
    dataset = workspace.dataset
    samples = [*dataset.accepted("train"), *dataset.accepted("validate")]
    number = folds.most(np.asarray(dataset.targets(samples)), [sample.group for sample in samples], _FOLDS)
    default = workspace.root.resolve() == DEFAULT_WORKSPACE.resolve()
    where = "" if default else f" -w {shlex.quote(str(workspace.root))}"
    reserve = f"vggft featurize {shlex.quote(str(workspace.settings.data))} --test 0.2{where}"
    if number < 2:
        return [f"To be sure, add images, reserve some that choose nothing, and train again: {reserve}"]
    took = duration(nested.estimate(workspace, present, number))
    return [
        f"To be sure, judge every image out of its fold, with all choices made anew in each: vggft compare --cv {number}{where} "
        f"(about {took} here),",
        f"or reserve images that choose nothing, and train again: {reserve}",
    ]
