"""The comparison as data: every number that is shown, as JSON and CSV, and the predictions that they come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featurize import durable
from heads.metrics import CALIBRATION_BINS
from vggft.comparison import costs, statistics, verdict
from vggft.comparison.comparison import Comparison
from vggft.comparison.costs import Cost
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.perturbations import UNPERTURBED, PerturbedPredictions
from vggft.comparison.verdict import Pair
from vggft.prediction.selection import REPORT

CLASSES_SHOWN = 20  # more have no table in the terminal, and no confusion matrix in compare.csv


@dataclass(frozen=True)
class Record:
    """All that `vggft compare` found.

    Attributes:
        provenance: manifest, fingerprint, versions.
        ranked_by: what the best head is best by (`heads.search.Criterion`).
        names: what the two that are compared first are called in the workspace.
        costs: model → cost.
        featurizing: seconds of featurizing the training and validation images, shared by all; None if that is not known.
        perturbed: None where perturbed pictures were left out; perturbed_split: the split that they come from.
        offers: what to do where the images do not allow a verdict.
        stale: models made from another state of the data, which were not compared.
        left_out: models that were not compared for other reasons, with these.
        validation: model → validation log-loss, of all models of the workspace's present state.
        folds: the results of nested cross-validation.
    """

    comparison: Comparison
    provenance: Mapping[str, str]
    ranked_by: str
    names: Mapping[str, str]
    costs: Mapping[str, Cost]
    featurizing: float | None
    perturbed: PerturbedPredictions | None = None
    perturbed_split: str = ""
    offers: Sequence[str] = ()
    stale: Sequence[str] = ()
    left_out: Sequence[str] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    folds: Sequence[FoldResult] = ()

    def as_json(self) -> dict[str, Any]:
        """Return all numbers, nothing rounded."""
        found, evidence = self.comparison, self.comparison.evidence
        contrast = found.contrast
        return {
            "measured_on": evidence.source,
            "provenance": dict(self.provenance),
            "validation_log_loss": dict(self.validation),
            "heads_ranked_by": self.ranked_by,
            "images": len(evidence.samples),
            "groups": len({sample.group for sample in evidence.samples}),
            "classes": list(evidence.classes),
            "recommendation": found.verdict.sentence,
            "use": found.verdict.use,
            "images_needed": found.verdict.images_needed,
            "images_needed_cap": verdict.CAP,
            "images_count_as": contrast.effective,
            "images_at_least": verdict.FEWEST,
            "log_loss_that_matters": verdict.RELEVANT,
            "contrast": {
                "head": contrast.b,
                "tuned": contrast.a,
                "in_workspace": dict(self.names),
                "log_loss_difference": contrast.log_loss_difference,
                "log_loss_difference_interval": list(contrast.log_loss_interval),
                "accuracy_difference": contrast.accuracy_difference,
                "accuracy_difference_interval": list(contrast.accuracy_interval),
                "p_value": contrast.p_value,
            },
            "methods": [self._method(row.as_json()) for row in found.rows],
            "pairs": [pair_json(pair) for pair in found.pairs],
            "no_p_value": found.no_p_value,
            "bootstrap": {
                "draws": statistics.DRAWS,
                "seed": statistics.SEED,
                "confidence": statistics.CONFIDENCE,
                "unseen": statistics.UNSEEN,
            },
            "calibration_bins": CALIBRATION_BINS,
            "log_loss_clip": float(np.finfo(np.float64).eps),
            "featurize_seconds": self.featurizing,
            "machine": costs.machine(),
            "probes": self._probes(),
            "offers": list(self.offers),
            "stale": list(self.stale),
            "left_out": list(self.left_out),
            "folds": [{"fold": k, **result.as_json()} for k, result in enumerate(self.folds, start=1)],
        }

    def _method(self, row: dict[str, Any]) -> dict[str, Any]:
        cost = self.costs.get(row["name"])
        return {**row, "cost": cost.as_json() if cost else None}

    def _probes(self) -> dict[str, Any] | None:
        if self.perturbed is None:
            return None
        methods = {
            name: {
                probe: {
                    "accuracy": self.perturbed.accuracy(name, probe),
                    **({} if probe == UNPERTURBED else {"changed": self.perturbed.changed(name, probe)}),
                }
                for probe in own
            }
            for name, own in self.perturbed.predicted.items()
        }
        return {
            "images": len(self.perturbed.samples),
            "measured_on": self.perturbed_split,
            "left_out": self.perturbed.left_out,
            "methods": methods,
        }


def pair_json(pair: Pair) -> dict[str, Any]:
    """Return a pair as JSON has it: differences are a minus b."""
    return {
        "a": pair.a,
        "b": pair.b,
        "accuracy_difference": pair.accuracy_difference,
        "accuracy_difference_interval": list(pair.accuracy_interval),
        "log_loss_difference": pair.log_loss_difference,
        "log_loss_difference_interval": list(pair.log_loss_interval),
        "only_a_right": pair.only_a,
        "only_b_right": pair.only_b,
        "only_a_right_one_a_group": pair.counted[0],
        "only_b_right_one_a_group": pair.counted[1],
        "p_value": pair.p_value,
        "p_value_uncorrected": pair.p_value_uncorrected,
    }


def write(folder: Path, record: Record) -> dict[str, Any]:
    """Write compare.json, compare.csv, pairs.csv, predictions.csv and, with probes, probes.csv; return what is in the first."""
    result = record.as_json()
    folder.mkdir(exist_ok=True)
    durable.write_csv(folder / "predictions.csv", *_predictions(record.comparison))
    if record.perturbed is not None:
        durable.write_csv(folder / "probes.csv", *_probe_predictions(record))
    else:
        (folder / "probes.csv").unlink(missing_ok=True)  # of an earlier comparison
    pairs = [_flat(pair) for pair in result["pairs"]]
    durable.write_csv(folder / "pairs.csv", list(pairs[0]), [list(pair.values()) for pair in pairs])
    rows = [_table_row(row, result) for row in result["methods"]]
    header = list(dict.fromkeys(key for row in rows for key in row))
    durable.write_csv(folder / "compare.csv", header, [[row.get(key, "") for key in header] for row in rows])
    durable.write_json(folder / REPORT, result)
    return result


def _table_row(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return one method in one row: all its numbers, the confusion matrix where it is small."""
    probes = (result["probes"] or {"methods": {}})["methods"].get(row["name"], {})
    per_class = {
        f"class.{label}.{key}": value
        for label, own in zip(result["classes"], row["per_class"], strict=True)
        for key, value in own.items()
    }
    kept = {key: value for key, value in row.items() if key not in ("per_class", "confusion", "cost")}
    flat = {"measured_on": result["measured_on"], **_flat(kept), **_flat(row["cost"] or {})}
    flat["featurize_seconds"] = result["featurize_seconds"]
    if probes:
        flat["probes_measured_on"] = result["probes"]["measured_on"]
        flat |= _flat({f"probe.{name}": own for name, own in probes.items()})
    if len(result["classes"]) <= CLASSES_SHOWN:
        flat |= {
            f"confusion.{true}/{said}": number  # no folder, and so no class, has a slash in its name
            for true, counts in zip(result["classes"], row["confusion"], strict=True)
            for said, number in zip(result["classes"], counts, strict=True)
        }
    return {key: "" if value is None else value for key, value in {**flat, **per_class}.items()}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries and intervals as columns: `a.b`, `x_low`, `x_high`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": own for inner, own in _flat(value).items()}
        elif isinstance(value, list):
            flat |= {f"{key}_low": value[0], f"{key}_high": value[1]}
        else:
            flat[key] = "" if value is None else value
    return flat


def _predictions(found: Comparison) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """One row a method and image."""
    evidence = found.evidence
    classes = evidence.classes
    header = ["path", "digest", "group", "label", "fold", "method", "predicted", *(f"p_{name}" for name in classes)]
    fold = [""] * len(evidence.samples) if evidence.fold is None else (evidence.fold + 1).tolist()
    rows = (
        (s.path, s.digest, s.group, s.label, k, c.name, classes[int(p.argmax())], *p.tolist())
        for c in (row.candidate for row in found.rows)
        for s, k, p in zip(evidence.samples, fold, c.probabilities, strict=True)
    )
    return header, rows


def _probe_predictions(record: Record) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """One row a method, probe and image."""
    perturbed, classes = record.perturbed, record.comparison.evidence.classes
    assert perturbed is not None
    rows = (
        (s.path, s.digest, s.label, method, probe, classes[int(said)], float(perturbed.scores[method][probe][i]))
        for method, own in perturbed.predicted.items()
        for probe, predicted in own.items()
        for i, (s, said) in enumerate(zip(perturbed.samples, predicted, strict=True))
    )
    return ["path", "digest", "label", "method", "probe", "predicted", "score"], rows
