"""The page: everything in the report, as one HTML file that loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurize.wording import counted
from vggft.comparison.advice import Advice
from vggft.comparison.page.gallery import Gallery
from vggft.comparison.plots.plot import Plot
from vggft.comparison.report import sentences, tables
from vggft.comparison.report.record import Record
from vggft.ui.visible import visible

FILE = "report.html"

MOST = 14_000_000  # bytes: pages of 15 MB still open at once, and can be sent by mail

_TEMPLATES = Path(__file__).parent / "templates"


def _advice(advice: Advice) -> tuple[str, str]:
    """Return what to do next, and the command that ends the sentence, which the page shows as one."""
    command: str = getattr(advice, "command", "")
    return sentences.advise(advice).removesuffix(command), command


@dataclass(frozen=True)
class Page:
    """The content of a page.

    Attributes:
        plots: in their order.
        gallery: the images.
        network: the picture of the tuned network, or of the head on the frozen one, as SVG; None where there is none.
        notes: what is missing from the page, and why.
    """

    record: Record
    plots: Sequence[Plot]
    gallery: Gallery
    network: str | None = None
    notes: Sequence[str] = ()

    @property
    def room(self) -> int:
        """How many bytes are left for thumbnails."""
        return max(0, MOST - len(replace(self, gallery=replace(self.gallery, thumbnails={})).render()))

    def render(self) -> bytes:
        """Return the HTML file."""
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        record, comparison = self.record, self.record.comparison
        environment = Environment(
            loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["visible"] = visible
        environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
        script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
        predictions = comparison.predictions
        context: dict[str, Any] = {
            "recommendation": sentences.recommendation(comparison),
            "first_pair": comparison.difference and sentences.first_pair(comparison.difference, comparison.no_p_value),
            "advice": [_advice(advice) for advice in record.advice],
            "notes": [*sentences.notes(comparison, record.ranked_by), *self.notes],
            "stale": record.stale,
            "left_out": record.left_out,
            "plots": {plot.name: plot for plot in self.plots},
            "quality": tables.quality(record, comparison.rows),
            "important": {row.name for row in comparison.in_focus},
            "costs": tables.costs(record),
            "perturbations": tables.perturbations(record),
            "by_class": tables.by_class(comparison),
            "filters": self.gallery.filters,
            "gallery": self.gallery.as_json(),
            "images": counted(len(predictions.samples), "image"),
            "shown": len(self.gallery.positions),
            "all": len(predictions.samples),
            "classes": list(predictions.classes),
            "network": self.network and base64.b64encode(self.network.encode()).decode(),
            "network_name": comparison.contrast.network or comparison.contrast.head,
            "provenance": record.provenance,
            "style": (_TEMPLATES / "page.css").read_text(encoding="utf-8"),
            "script": script,
            # The only script that a browser may run here: nothing in the name of a class or a file can become one.
            "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        }
        return environment.get_template("page.html").render(context).encode("utf-8", "backslashreplace")
