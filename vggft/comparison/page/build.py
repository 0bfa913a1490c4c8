"""Making the page of a comparison: thumbnails, heat maps and the network's picture are added to what was measured."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from featurize.disk import checked
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
from vggft.workspace.filling import as_it_was
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
    shown = gallery.of(record)
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
    """Return the heat maps of the network and the head that are compared, each of the class that it predicts.

    Where these are the same model, only those of the head.
    """
    contrast = record.comparison.contrast
    network = contrast.network if record.comparison.difference else None
    names = [name for name in (network, contrast.head) if name]
    rows = {row.name: row for row in record.comparison.rows}
    first = dict(zip(shown.positions[:HEAT_MAPS].tolist(), shown.samples, strict=False))
    root, start = workspace.dataset.root, PerProcess(partial(start_its_engine, workspace))

    def maps(name: str, positions: Sequence[int]) -> HeatMaps:
        predicted = rows[name].candidate.probabilities[positions].argmax(axis=1).tolist()
        samples = [first[i] for i in positions]
        images = CachedImages(workspace, workspace.cache(), samples, ())
        with ui.progress(f"heat maps of {name}", len(samples)) as advance:
            found = explainer.maps(models.named(name), images, predicted, start, advance)
        return HeatMaps(name, {sample.digest: heat for sample, heat in zip(samples, found, strict=True)})

    of_models = []
    for name in names:
        try:
            try:
                of_models.append(maps(name, list(first)))
            except VggftError:  # perhaps only because of files that are gone, where the cache does not suffice
                present = [i for i, sample in first.items() if as_it_was(root / sample.path, sample.digest)]
                of_models.append(maps(name, present))
        except VggftError as error:
            ui.warn(f"no heat maps of {name}: {error}")
    return of_models


def _network(workspace: Workspace, record: Record, models: Models) -> str | None:
    """Return the picture of the tuned network, or of the head on the frozen one, as SVG; None where none is as written."""
    name = record.comparison.contrast.network
    if name:
        path = workspace.finetune / name / picture.SVG
        return path.read_text(encoding="utf-8") if checked.is_as_written(path) else None
    fingerprint, architecture, head = workspace.settings.fingerprint, workspace.architecture, models.heads[0].head
    layers = stages.of(architecture, fingerprint.preprocess, fingerprint.size, head, architecture.top)
    return picture.draw(head.name, layers, architecture.top).svg
