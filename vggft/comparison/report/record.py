"""The comparison as data: every number that is shown, as JSON and CSV, and the predictions that the numbers come from.

Its files keep older words of vggft: a "method" in them is a model, a "probe" a perturbation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featurize.disk import checked, forms
from heads.metrics import CALIBRATION_BINS
from vggft.comparison import costs, statistics, verdict
from vggft.comparison.advice import Advice
from vggft.comparison.comparison import Comparison
from vggft.comparison.costs import Cost
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.perturbations import UNPERTURBED, PerturbedPredictions
from vggft.comparison.report import sentences
from vggft.comparison.verdict import Pair
from vggft.prediction.mistakes import mistakes
from vggft.prediction.selection import REPORT

CLASSES_SHOWN = 20  # with more there is no table of classes in the terminal, and no confusion matrix in compare.csv


@dataclass(frozen=True)
class Record:
    """Everything that `vggft compare` reports.

    Attributes:
        provenance: manifest, fingerprint, versions.
        ranked_by: what the heads are ranked by (`heads.search.Criterion`).
        costs: model → cost.
        featurizing: seconds of featurizing the training and validation images, shared by all models; None if not known.
        perturbed: None where perturbed images were left out; perturbed_split: the split that they come from.
        advice: what to do next.
        stale: models made from an earlier state of the data, which were not compared.
        left_out: models that were not compared for other reasons, with these.
        validation: fresh model → validation log-loss.
        folds: the results of nested cross-validation.
    """

    comparison: Comparison
    provenance: Mapping[str, str]
    ranked_by: str
    costs: Mapping[str, Cost]
    featurizing: float | None
    perturbed: PerturbedPredictions | None = None
    perturbed_split: str = ""
    advice: Sequence[Advice] = ()
    stale: Sequence[str] = ()
    left_out: Sequence[str] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    folds: Sequence[FoldResult] = ()

    @property
    def in_focus(self) -> list[str]:
        """The models of the workspace whose costs and perturbations are shown: the two compared first, and the baseline."""
        contrast = self.comparison.contrast
        names = dict.fromkeys((contrast.network, contrast.head, self.comparison.baseline))
        return [name for name in names if name and name in self.costs]

    def as_json(self) -> dict[str, Any]:
        """Return all numbers, nothing rounded."""
        comparison, predictions = self.comparison, self.comparison.predictions
        return {
            "measured_on": predictions.source,
            "provenance": dict(self.provenance),
            "validation_log_loss": dict(self.validation),
            "heads_ranked_by": self.ranked_by,
            "images": len(predictions.samples),
            "groups": len({sample.group for sample in predictions.samples}),
            "classes": list(predictions.classes),
            "recommendation": sentences.recommendation(comparison),
            "outcome": comparison.verdict.outcome.value,
            "use": comparison.use,
            "images_needed": comparison.verdict.images_needed,
            "images_needed_cap": verdict.CAP,
            "images_count_as": statistics.effective([sample.group for sample in predictions.samples]),
            "images_at_least": verdict.FEWEST,
            "log_loss_that_matters": verdict.RELEVANT,
            "contrast": self._contrast(),
            "methods": [self._with_cost(row.as_json()) for row in comparison.rows],
            "misclassified": misclassified(comparison),
            "pairs": [pair_json(pair) for pair in comparison.pairs],
            "no_p_value": sentences.no_p_value(comparison.no_p_value),
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
            "probes": self._perturbations(),
            "offers": [sentences.advise(advice) for advice in self.advice],
            "stale": list(self.stale),
            "left_out": list(self.left_out),
            "folds": [{"fold": k, **result.as_json()} for k, result in enumerate(self.folds, start=1)],
        }

    def _contrast(self) -> dict[str, Any]:
        """Return the best network against the best head; without a network there are no differences."""
        comparison = self.comparison
        pair = comparison.first if comparison.contrast.network else None
        return {
            "head": comparison.predictions.head,
            "tuned": comparison.predictions.network,
            "in_workspace": dict(comparison.in_workspace),
            "log_loss_difference": pair and pair.log_loss_difference,
            "log_loss_difference_interval": pair and list(pair.log_loss_interval),
            "accuracy_difference": pair and pair.accuracy_difference,
            "accuracy_difference_interval": pair and list(pair.accuracy_interval),
            "p_value": pair and pair.p_value,
        }

    def _with_cost(self, row: dict[str, Any]) -> dict[str, Any]:
        cost = self.costs.get(row["name"])
        return {**row, "cost": cost.as_json() if cost else None}

    def _perturbations(self) -> dict[str, Any] | None:
        if self.perturbed is None:
            return None
        models = {
            model: {
                name: {
                    "accuracy": self.perturbed.accuracy(model, name),
                    **({} if name == UNPERTURBED else {"changed": self.perturbed.changed(model, name)}),
                }
                for name in predicted
            }
            for model, predicted in self.perturbed.predicted.items()
        }
        return {
            "images": len(self.perturbed.samples),
            "measured_on": self.perturbed_split,
            "left_out": self.perturbed.left_out,
            "methods": models,
        }


def misclassified(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the mistakes of the model to use (`vggft.prediction.mistakes`)."""
    predictions, p = comparison.predictions, comparison.used_row.candidate.probabilities
    return mistakes([sample.path for sample in predictions.samples], predictions.targets, p, predictions.classes)


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


def write(folder: Path, record: Record, more: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Write compare.json, compare.csv, predictions.csv and, if they have rows, pairs.csv and probes.csv; return the JSON object.

    Args:
        more: other files: name → content, or None for one that an earlier comparison may have left and this one has not.
    """
    result = record.as_json()
    folder.mkdir(exist_ok=True)
    files: dict[str, bytes | None] = {**more, "probes.csv": None, "pairs.csv": None}
    files |= {"predictions.csv": forms.csv_bytes(*_predictions(record.comparison))}
    if record.perturbed is not None:
        files["probes.csv"] = forms.csv_bytes(*_perturbed_predictions(record.comparison, record.perturbed))
    pairs = [_flat(pair) for pair in result["pairs"]]
    if pairs:
        files["pairs.csv"] = forms.csv_bytes(list(pairs[0]), [list(pair.values()) for pair in pairs])
    rows = [_table_row(row, result) for row in result["methods"]]
    header = list(dict.fromkeys(key for row in rows for key in row))
    files["compare.csv"] = forms.csv_bytes(header, [[row.get(key, "") for key in header] for row in rows])
    for name, content in files.items():
        if content is None and checked.is_as_written(folder / name):
            (folder / name).unlink()
    contents = {name: content for name, content in files.items() if content is not None}
    checked.write_checked(folder, {**contents, REPORT: forms.json_bytes(result)})
    return result


def _table_row(row: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return all numbers of a model as one row, with the confusion matrix where it is small."""
    perturbations = (result["probes"] or {"methods": {}})["methods"].get(row["name"], {})
    per_class = {
        f"class.{label}.{key}": value
        for label, scores in zip(result["classes"], row["per_class"], strict=True)
        for key, value in scores.items()
    }
    metrics = {key: value for key, value in row.items() if key not in ("per_class", "confusion", "cost")}
    flat = {"measured_on": result["measured_on"], **_flat(metrics), **_flat(row["cost"] or {})}
    flat["featurize_seconds"] = result["featurize_seconds"]
    if perturbations:
        flat["probes_measured_on"] = result["probes"]["measured_on"]
        flat |= _flat({f"probe.{name}": values for name, values in perturbations.items()})
    if len(result["classes"]) <= CLASSES_SHOWN:
        flat |= {
            f"confusion.{true}/{predicted}": number  # no folder, and so no class, has a slash in its name
            for true, counts in zip(result["classes"], row["confusion"], strict=True)
            for predicted, number in zip(result["classes"], counts, strict=True)
        }
    return {key: "" if value is None else value for key, value in {**flat, **per_class}.items()}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries and intervals as columns: `a.b`, `x_low`, `x_high`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        elif isinstance(value, list):
            flat |= {f"{key}_low": value[0], f"{key}_high": value[1]}
        else:
            flat[key] = "" if value is None else value
    return flat


def _predictions(comparison: Comparison) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Return one row per model and image."""
    predictions = comparison.predictions
    classes = predictions.classes
    header = ["path", "digest", "group", "label", "fold", "method", "predicted", *(f"p_{name}" for name in classes)]
    fold = [""] * len(predictions.samples) if predictions.fold is None else (predictions.fold + 1).tolist()
    rows = (
        (s.path, s.digest, s.group, s.label, k, c.name, classes[int(p.argmax())], *p.tolist())
        for c in (row.candidate for row in comparison.rows)
        for s, k, p in zip(predictions.samples, fold, c.probabilities, strict=True)
    )
    return header, rows


def _perturbed_predictions(
    comparison: Comparison, perturbed: PerturbedPredictions
) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
    """Return one row per model, perturbation and image."""
    classes = comparison.predictions.classes
    rows = (
        (s.path, s.digest, s.label, model, name, classes[int(position)], float(perturbed.scores[model][name][i]))
        for model, by_perturbation in perturbed.predicted.items()
        for name, positions in by_perturbation.items()
        for i, (s, position) in enumerate(zip(perturbed.samples, positions, strict=True))
    )
    return ["path", "digest", "label", "method", "probe", "predicted", "score"], rows
