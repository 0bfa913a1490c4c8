"""Making the page of a comparison: thumbnails, heat maps and the network's picture are added to what was measured."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from featurize.process.per_process import PerProcess
from featurize.wording import counted
from finetune import picture, stages
from vggft.comparison.page import gallery, thumbnails
from vggft.comparison.page.gallery import Gallery, HeatMaps
from vggft.comparison.page.page import Page
from vggft.comparison.plots.plot import Plot
from vggft.comparison.report.record import Record
from vggft.explanation import explainer
from vggft.prediction.inference import start_its_engine
from vggft.prediction.model import CachedImages
from vggft.prediction.models import Models
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

HEAT_MAPS = 500  # images that have some, those with the highest loss: for two models about 30 s on two cores


def build(
    workspace: Workspace, record: Record, plots: Sequence[Plot], models: Models, ui: Ui, *, heat: bool = True
) -> bytes:
    """Return the HTML file. Image files that are gone leave a gap in it, and a warning.

    Args:
        heat: with heat maps of the models that are compared first. Those of nested cross-validation have none: there the images
            were predicted by other models, which are gone.
    """
    shown = Gallery(record, gallery.positions(record))
    if heat and record.comparison.predictions.source != "folds":
        shown = replace(shown, heat=_heat_maps(workspace, record, models, shown, ui))
    page = Page(record, plots, shown, _network(workspace, record, models))
    with ui.progress("thumbnails", len(shown.samples)) as advance:
        small = thumbnails.encode(workspace, shown.samples, page.room, advance)
    missing = sum(sample.digest not in small for sample in shown.samples)
    if missing:
        note = (
            f"{counted(missing, 'image')} without a thumbnail: the files are missing, have changed or cannot be read."
        )
        ui.warn(note)
        page = replace(page, notes=[note])
    return replace(page, gallery=replace(shown, thumbnails=small)).render()


def _heat_maps(workspace: Workspace, record: Record, models: Models, shown: Gallery, ui: Ui) -> list[HeatMaps]:
    """Return the heat maps of the network and the head that are compared, each of the class that it predicts."""
    names = [name for name in (record.comparison.contrast.network, record.comparison.contrast.head) if name]
    rows = {row.name: row for row in record.comparison.rows}
    samples: list[Sample] = shown.samples[:HEAT_MAPS]
    images = CachedImages(workspace, workspace.cache(), samples, ())
    start = PerProcess(partial(start_its_engine, workspace))
    found = []
    for name in names:
        predicted = rows[name].candidate.probabilities[shown.positions[:HEAT_MAPS]].argmax(axis=1)
        try:
            with ui.progress(f"heat maps of {name}", len(samples)) as advance:
                maps = explainer.maps(models.named(name), images, predicted.tolist(), start, advance)
        except VggftError as error:
            ui.warn(f"no heat maps of {name}: {error}")
            continue
        found.append(HeatMaps(name, {sample.digest: heat for sample, heat in zip(samples, maps, strict=True)}))
    return found


def _network(workspace: Workspace, record: Record, models: Models) -> str | None:
    """Return the picture of the tuned network, or of the head on the frozen one, as SVG; None for runs of earlier versions."""
    name = record.comparison.contrast.network
    if name:
        path = workspace.finetune / name / picture.SVG
        return path.read_text(encoding="utf-8") if path.is_file() else None
    fingerprint, architecture, head = workspace.settings.fingerprint, workspace.architecture, models.heads[0].head
    layers = stages.of(architecture, fingerprint.preprocess, fingerprint.size, head, architecture.top)
    return picture.draw(head.name, layers, architecture.top).svg
