"""Exporting a model: the file, checked in its own runtime, a description as JSON, and a model card."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from featurize.disk import forms
from featurize.errors import VggftError
from featurize.process import interrupts
from featurize.wording import counted, size
from vggft.export import card, description, formats, network, pipeline, reference, staging
from vggft.export.formats import About, Format
from vggft.export.reference import Reference
from vggft.prediction import band, models, selection
from vggft.prediction.band import Band
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import CachedImages, Model
from vggft.steps.options import ExportOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: ExportOptions, ui: Ui) -> dict[str, Any]:
    """Write the named, recommended or best model in one format.

    Raises:
        VggftError: the name does not tell the format, a package is missing, something is there already, there is no such model,
            or the file does not predict what `vggft predict` predicts.
    """
    out = options.out
    chosen = formats.chosen(out, options.format)
    beside = {kind: out.with_name(f"{out.name}.{kind}") for kind in ("json", "md")}
    targets = [*beside.values(), *chosen.files(out)]
    staging.require_free(targets)
    _ = workspace.settings  # without a workspace, the first step is featurize

    reported: set[str] = set()

    def damaged(error: VggftError) -> None:
        if str(error) not in reported:
            ui.warn(f"left out: {error}")
        reported.add(str(error))

    choice = selection.choose(workspace, options.model, damaged)
    model = choice.model
    if chosen.name == "skops":
        pipeline.require(model)
    chosen.require(options.precision)
    ui.say(f"model: {model.name} ({choice.reason})")
    if choice.age:
        ui.warn(choice.age)
    unsure = band.of_model(model, ui)
    most = reference.IMAGES if options.precision == "float32" else reference.MOST
    expected = reference.reference(workspace, model, most)
    with staging.staged(targets) as folder:
        ui.say(f"writing {chosen.name}")
        subject = _subject(workspace, model, options, expected, unsure, chosen)
        interrupts.check()
        chosen.write(subject.written, folder / out.name, subject.about, options.precision)
        interrupts.check()
        p = chosen.predict(folder / out.name, subject.inputs)
        checked = expected.check(p, options.precision, str(out))
        report = selection.current_report(workspace, models.load(workspace, damaged), damaged)
        described = description.description(workspace, model, subject.about, unsure, chosen, checked)
        described["files"] = description.checksums(folder)
        forms.write_json(folder / beside["json"].name, described)
        card.write(folder / beside["md"].name, workspace, model, described, report)
        size_on_disk = sum(path.stat().st_size for target in chosen.files(out) for path in _files(folder / target.name))
    ui.print(
        f"{out}: {model.name} as {chosen.name}, {size(size_on_disk)}; on {counted(checked['images'], 'validation image')} "
        f"its probabilities differ from vggft predict by up to {checked['largest_difference']:.2g}"
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


@dataclass(frozen=True)
class _Subject:
    """What is written (a Keras network or a scikit-learn pipeline), its inputs for the reference images, and facts about it."""

    written: Any
    inputs: NDArray[Any]
    about: About


def _subject(
    workspace: Workspace,
    model: Model,
    options: ExportOptions,
    expected: Reference,
    unsure: Band | None,
    a_format: Format,
) -> _Subject:
    if a_format.name == "skops" and isinstance(model, HeadModel):
        images = CachedImages(workspace, workspace.cache(), expected.samples, model.poolings)
        pooled = images.pooled[model.head.pooling]
        about = description.about_pipeline(model, workspace.architecture.top, unsure)
        return _Subject(pipeline.pipeline(model.head), pooled, about)
    about = description.about(workspace, model, unsure, options.precision)
    return _Subject(network.assembled(workspace, model), expected.pictures, about)


def _files(path: Path) -> list[Path]:
    return [inner for inner in path.rglob("*") if inner.is_file()] if path.is_dir() else [path]
