"""Heads against tuned networks: what they say of the same images, which one to use, and the files that hold every number."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from featurize.errors import VggftError
from heads import folds, search
from heads.search import Result
from vggft.comparison import candidates, costs, nested, perturbations, verdict
from vggft.comparison.comparison import Comparison, compare_candidates
from vggft.comparison.costs import Cost
from vggft.comparison.perturbations import Probed
from vggft.comparison.report import curves, record, tables, tradeoff
from vggft.comparison.report.record import Record
from vggft.prediction import models
from vggft.prediction.models import Model, Models
from vggft.steps.options import DEFAULT_WORKSPACE, CompareOptions
from vggft.ui.console import Ui, duration
from vggft.workspace.workspace import Workspace

_FOLDS = 5  # that are offered


def run(workspace: Workspace, options: CompareOptions, ui: Ui) -> dict[str, Any]:
    """Compare all fresh methods and write the report.

    Raises:
        VggftError: nothing to compare yet (the message says what to run), or a report folder that cannot be written.
    """
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    left_out: list[str] = []

    def leave_out(what: str) -> None:
        left_out.append(what)
        ui.warn(f"left out: {what}")

    with workspace.writing():
        found = models.load(workspace, on_damage=lambda error: leave_out(str(error)))
        _require(workspace, found)
        folder = workspace.report_folder()
        split: Literal["test", "validation"] = "validation"
        chosen: Sequence[Mapping[str, Any]] = ()
        if options.cv:
            folded = nested.Folds(workspace, found, options.cv, leave_out, ui)
            said, chosen = folded.evidence()
            head, network = found.heads[0], folded.network
            unchanged = all(one["unchanged"] for one in chosen)
        else:
            split = "test" if workspace.dataset.accepted("test") else "validation"
            said = candidates.on_split(workspace, found, split, leave_out, ui)
            head, network = found.named(said.head), found.named(said.network)
            unchanged = network.unchanged
        compared = compare_candidates(said, head.name, network.name, unchanged)
        too_few = compared.contrast.effective < verdict.FEWEST and not options.cv
        offers = _offers(workspace, found) if too_few or not said.fair else ()
        if options.cv:
            offers = _out_of_fold(compared, head.name, network.name)
        if compared.verdict.use == network.name and network.unchanged:
            offers = (
                f"But {network.name} kept epoch 0: it is the head still. Tune again, with another --seed or rate.",
            )
        compared_methods = [m for m in found.fresh if options.cv or any(m.name == c.name for c in said.candidates)]
        probed = None if options.quick else _probe(workspace, compared_methods, split, ui)
        kept = Record(
            comparison=compared,
            provenance={**models.provenance(workspace), **models.versions()},
            ranked_by=search.criterion([method.made for method in found.heads if isinstance(method.made, Result)]),
            names={said.head: head.name, said.network: network.name},
            costs=_measure(workspace, compared_methods, not options.quick, ui),
            featurizing=costs.featurizing(workspace),
            probed=probed,
            probed_on=split,
            offers=offers,
            stale=[method.name for method in found.stale],
            left_out=left_out,
            validation=models.judged(found),
            chosen=chosen,
        )
        result = record.write(folder, kept)
        histories = {method.name: method.history for method in found.fresh if method.history}
        baselines = {
            method.name: (method.validation.log_loss, method.validation.accuracy)
            for method in found.fresh
            if not method.history
        }
        curves.plot(folder / "curves.png", histories, baselines)
        tradeoff.plot(folder / "tradeoff.png", kept)
    tables.show(kept, ui)
    ui.print(f"vggft predict uses {compared.verdict.use} until something else is trained.")
    ui.print(f"report: {folder} (compare.json, compare.csv, pairs.csv, predictions.csv, …)")
    return {**result, "report": str(folder)}


def _probe(workspace: Workspace, compared: Sequence[Model], split: str, ui: Ui) -> Probed | None:
    """Let methods predict changed pictures; what stands in the way of that must not lose the comparison."""
    samples = workspace.dataset.accepted("test" if split == "test" else "validate")
    try:
        return perturbations.probe(workspace, compared, samples, ui)
    except VggftError as error:
        ui.warn(f"changed pictures are left out: {error}")
        return None


def _measure(workspace: Workspace, compared: Sequence[Model], timed: bool, ui: Ui) -> Mapping[str, Cost]:
    """Return what methods cost, without latencies where those cannot be measured."""
    try:
        return costs.measure(workspace, compared, timed, ui)
    except VggftError as error:
        ui.warn(f"latency is not measured: {error}")
        return costs.measure(workspace, compared, False, ui)


def _require(workspace: Workspace, found: Models) -> None:
    """See that there is a head and a network of the workspace's present state.

    Raises:
        VggftError: there is not; it names what is there, and what it was made from.
    """
    for kind, fresh, command in (("head", found.heads, "head"), ("tuned network", found.networks, "finetune")):
        if fresh:
            continue
        stale = [method for method in found.stale if method.tuned == (command == "finetune")]
        if not stale:
            raise VggftError(f"{workspace.root}: nothing to compare: no {kind} here yet. Run first: vggft {command}")
        now = models.provenance(workspace)
        said = "; ".join(f"{method.name}: {_difference(now, method.provenance)}" for method in stale[:3])
        more = f" (and {len(stale) - 3} more)" if len(stale) > 3 else ""
        raise VggftError(
            f"{workspace.root}: nothing to compare: every {kind} here is stale, made from another state of the data. {said}"
            f"{more}. Train again: vggft {command}"
        )


def _difference(now: Mapping[str, str], made: Mapping[str, Any]) -> str:
    """Say in what the state a method was made from differs."""
    if made.get("fingerprint") != now["fingerprint"]:
        return f"features of fingerprint {made.get('fingerprint')}, now {now['fingerprint']}"
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


def _offers(workspace: Workspace, found: Models) -> Sequence[str]:
    """Say how to get a verdict from more images that chose nothing."""
    dataset = workspace.dataset
    samples = [*dataset.accepted("train"), *dataset.accepted("validate")]
    number = folds.most(np.asarray(dataset.targets(samples)), [sample.group for sample in samples], _FOLDS)
    default = workspace.root.resolve() == DEFAULT_WORKSPACE.resolve()
    where = "" if default else f" -w {shlex.quote(str(workspace.root))}"
    reserve = f"vggft featurize {shlex.quote(str(workspace.settings.data))} --test 0.2{where}"
    if number < 2:
        return [f"To be sure, add images, reserve some that choose nothing, and train again: {reserve}"]
    took = duration(nested.estimate(workspace, found, number))
    return [
        f"To be sure, judge every image out of its fold, with all choices made anew in each: vggft compare --cv {number}{where} "
        f"(about {took} here),",
        f"or reserve images that choose nothing, and train again: {reserve}",
    ]
