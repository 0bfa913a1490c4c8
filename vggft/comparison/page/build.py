"""Making the page of a comparison: thumbnails, heat maps and the network's picture are added to what is measured."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featurize.wording import counted
from vggft.comparison.page import gallery, thumbnails
from vggft.comparison.page.gallery import Gallery
from vggft.comparison.page.page import Page
from vggft.comparison.plots.plot import Plot
from vggft.comparison.report.record import Record
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def build(workspace: Workspace, record: Record, plots: Sequence[Plot], ui: Ui) -> bytes:
    """Return the HTML file. Image files that are gone leave a gap in it, and a warning."""
    pictures = Gallery(record, gallery.positions(record))
    samples = pictures.samples
    page = Page(record, plots, pictures, _network(workspace, record))
    with ui.progress("thumbnails", len(samples)) as advance:
        small = thumbnails.encode(workspace, samples, page.room, advance)
    missing = sum(sample.digest not in small for sample in samples)
    if missing:
        note = (
            f"{counted(missing, 'image')} without a thumbnail: the files are missing, have changed or cannot be read."
        )
        ui.warn(note)
        page = replace(page, notes=[note])
    return replace(page, gallery=replace(pictures, thumbnails=small)).render()


def _network(workspace: Workspace, record: Record) -> str | None:
    """Return the picture of the network as SVG; None where there is no network, or a run of an earlier version."""
    name = record.comparison.contrast.network
    path = workspace.finetune / name / "network.svg" if name else Path()
    return path.read_text(encoding="utf-8") if path.is_file() else None
