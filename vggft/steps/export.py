"""Exporting a model: the file, checked in its own runtime, a description as JSON, and a model card."""

from pathlib import Path
from typing import Any

from featurize.disk import forms
from featurize.errors import VggftError
from featurize.process import interrupts, places
from featurize.wording import counted, size
from vggft.export import card, description, formats, network, pipeline, reference, staging
from vggft.prediction import models, selection
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import CachedImages
from vggft.steps.options import ExportOptions
from vggft.steps.predict import choose_band
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: ExportOptions, ui: Ui) -> dict[str, Any]:
    """Write the named, recommended or best model in one format.

    Raises:
        VggftError: the name does not tell the format, a package is missing, something is there already, there is no such model,
            or the file does not predict what `vggft predict` predicts.
    """
    out = places.expanded(options.out)
    chosen = formats.chosen(out, options.format)
    beside = {kind: out.with_name(f"{out.name}.{kind}") for kind in ("json", "md")}
    targets = [*beside.values(), *chosen.files(out)]
    staging.require_free(targets)
    _ = workspace.settings  # without a workspace, the first step is featurize

    def damaged(error: VggftError) -> None:
        ui.warn(f"left out: {error}")

    choice = selection.choose(workspace, options.model, damaged)
    model = choice.model
    written = pipeline.pipeline(model) if chosen.name == "skops" else None  # refuses other models first
    chosen.require(options.precision)
    ui.say(f"model: {model.name} ({choice.reason})")
    if choice.age:
        ui.warn(choice.age)
    band = choose_band(model, ui)
    most = reference.IMAGES if options.precision == "float32" else reference.MOST
    expected = reference.reference(workspace, model, most)
    with staging.staged(targets) as folder:
        if isinstance(model, HeadModel) and written is not None:
            images = CachedImages(workspace, workspace.cache(), expected.samples, model.poolings)
            inputs = images.pooled[model.head.pooling]
            facts = description.about_pipeline(model, band)
        else:
            written = network.assembled(workspace, model)
            inputs = expected.pictures
            facts = description.about(workspace, model, band, options.precision)
        interrupts.check()
        ui.say(f"writing {chosen.name}")
        chosen.write(written, folder / out.name, facts, options.precision)
        interrupts.check()
        p = chosen.predict(folder / out.name, inputs)
        checked = expected.check(p, options.precision, str(out))
        report = selection.current_report(workspace, models.load(workspace, damaged), damaged)
        described = description.description(workspace, model, facts, band, chosen, checked)
        described["files"] = description.checksums(folder)
        forms.write_json(folder / beside["json"].name, described)
        card.write(folder / beside["md"].name, workspace, model, described, report)
        size_on_disk = sum(path.stat().st_size for target in chosen.files(out) for path in _files(folder / target.name))
    ui.print(
        f"{out}: {model.name} as {chosen.name}, {size(size_on_disk)}; on {counted(checked['images'], 'validation image')} "
        f"its probabilities differ from vggft predict by at most {checked['largest_difference']:.1g}"
    )
    if "accuracy" in checked:
        ui.print(
            f"their accuracy is {checked['accuracy']:.4f}, that of vggft predict {checked['accuracy_of_vggft']:.4f}"
        )
    ui.print(
        f"beside it: {beside['json'].name} (classes, input, threshold, checksums) and {beside['md'].name} (model card)"
    )
    return {
        "file": str(out),
        "stale": bool(choice.age),
        "bytes": size_on_disk,
        "description": str(beside["json"]),
        "card": str(beside["md"]),
        **described,
    }


def _files(path: Path) -> list[Path]:
    return [inner for inner in path.rglob("*") if inner.is_file()] if path.is_dir() else [path]
