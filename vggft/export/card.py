"""The model card: a page for people, in the form that Hugging Face reads."""

import json
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from featurize.disk import durable
from vggft.comparison.perturbations import UNPERTURBED
from vggft.comparison.report.tables import SOURCES
from vggft.export.formats import FORMATS
from vggft.prediction.model import Model
from vggft.prediction.network_model import NetworkModel
from vggft.ui.visible import visible
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace

_SPLITS = {"train": "training", "validate": "validation", "test": "test"}


def write(
    path: Path, workspace: Workspace, model: Model, described: Mapping[str, Any], report: Mapping[str, Any] | None
) -> None:
    """Write the card.

    Args:
        described: as `description.description` returns it, with the checksums.
        report: the last comparison, where it is of the present models and data.
    """
    durable.write_bytes(path, text(facts(workspace, model, described, report)).encode("utf-8"))


def text(shown: Mapping[str, Any]) -> str:
    """Return the card; `shown` as `facts` returns it."""
    import jinja2

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"quoted": json.dumps, "cell": _cell}
    template = environment.from_string(resources.files(__package__).joinpath("card.md.jinja").read_text("utf-8"))
    return template.render(shown)


def _cell(name: str) -> str:
    """Return a name for a table or a sentence of Markdown, in which it changes nothing else."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+!|~&" else c for c in visible(name))


def facts(
    workspace: Workspace, model: Model, described: Mapping[str, Any], report: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the template shows."""
    architecture, published = workspace.architecture, described["weights"]["published"]
    fresh = provenance.is_fresh(workspace, model.classes, model.provenance)
    return {
        **described,
        "library": FORMATS[described["format"]].library,
        "license": (architecture.license.lower() if published else "") or "unknown",
        "credit": architecture.credit if published else "",
        "architecture": architecture.name,
        "trained": _trained(model, architecture.name),
        "data": Path(workspace.settings.data).name,
        "counts": _counts(workspace) if fresh else None,
        "splits": _SPLITS,
        "validation": model.validation.as_json(),
        **_measured(model, report if fresh else None),
    }


def _trained(model: Model, architecture: str) -> str:
    """Return what the model is, as a sentence."""
    if isinstance(model, NetworkModel):
        if not model.run.moved:
            return f"A head on {architecture}, whose fine-tuning was not better than the head alone"
        return (
            f"A head and {architecture}, of which {', '.join(model.run.moved)} were fine-tuned together with the head"
        )
    kind = "A logistic regression" if model.kind == "logistic" else "A dense head"
    return f"{kind} on the features of a frozen {architecture} (transfer learning)"


def _counts(workspace: Workspace) -> dict[str, dict[str, int]]:
    """Return split → class → number of images."""
    classes = workspace.settings.classes
    counted = {split: Counter(sample.label for sample in workspace.dataset.accepted(split)) for split in _SPLITS}
    return {split: {name: labels[name] for name in classes} for split, labels in counted.items() if labels}


def _measured(model: Model, report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the last comparison measured of a model: test metrics, verdict, accuracy on perturbed images."""
    nothing: dict[str, Any] = {"test": None, "verdict": "", "measured_on": "", "perturbed": {}, "perturbed_images": 0}
    if report is None:
        return nothing
    on_test = report["measured_on"] == "test"
    rows = {row["name"]: row for row in report["methods"]}
    perturbations = report["probes"] or {"methods": {}, "images": 0}
    accuracies = {name: values["accuracy"] for name, values in perturbations["methods"].get(model.name, {}).items()}
    return {
        "test": rows.get(model.name) if on_test else None,
        "verdict": report["recommendation"],
        "measured_on": SOURCES[report["measured_on"]],
        "perturbed": {"unchanged" if name == UNPERTURBED else name: value for name, value in accuracies.items()},
        "perturbed_images": perturbations["images"],
    }
