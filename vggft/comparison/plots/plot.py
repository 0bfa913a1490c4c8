"""A plot: one matplotlib figure as PNG, as SVG for a file, and as SVG for a page whose colours it takes over."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vggft.comparison.comparison import Comparison
from vggft.ui.figures import texts

# Okabe and Ito's palette, which people with any colour vision can tell apart (jfly.uni-koeln.de/color, 2008).
NETWORK, HEAD, BASELINE, OTHER = "#d55e00", "#0072b2", "#009e73", "#cc79a7"

INK, _PAPER = "#1b1b1b", "#fefefe"  # colours that nothing else in a plot has
_RESOLUTION = 110  # dots per inch


def colours(comparison: Comparison) -> dict[str, str]:
    """Return the colours of the models that are compared first, and of the baseline; of ways of selecting, those they select."""
    names = {row.name: BASELINE for row in comparison.in_focus}
    for name, colour in ((comparison.predictions.head, HEAD), (comparison.predictions.network, NETWORK)):
        if name:
            names |= {name: colour, comparison.in_workspace[name]: colour}
    return names


@dataclass(frozen=True)
class Plot:
    """A plot.

    Attributes:
        name: of its files, without ending.
        title: what it shows.
        alt: what one sees in it, in words.
        png, svg: the files.
    """

    name: str
    title: str
    alt: str
    png: bytes
    svg: str

    @property
    def inline(self) -> str:
        """The SVG element for a page: transparent, lines and text in the page's own colour, ids that no other plot has."""
        element = self.svg[self.svg.index("<svg") :]
        element = element.replace(f": {INK}", ": currentColor").replace(f"fill: {_PAPER}", "fill: none")
        for before in ('id="', "url(#", 'href="#'):
            element = element.replace(before, f"{before}{self.name}-")
        return element

    @property
    def files(self) -> dict[str, bytes]:
        """File name → content."""
        return {f"{self.name}.png": self.png, f"{self.name}.svg": self.svg.encode()}


def render(name: str, title: str, alt: str, size: tuple[float, float], paint: Callable[[Any], None]) -> Plot:
    """Draw a plot.

    Args:
        size: width and height in inches.
        paint: draws on an empty matplotlib figure. Names in texts are shown as they are.
    """
    from matplotlib.figure import Figure

    style: Any = {
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": name,  # the same plot has the same bytes
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.15,
        "grid.color": INK,
        "legend.framealpha": 0,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), _PAPER),
    }
    with texts(style):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        png, svg = io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=_RESOLUTION)
        figure.set_layout_engine("none")  # the layout stays: computing it again takes more than half as long as drawing
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return Plot(name, title, alt, png.getvalue(), svg.getvalue())
