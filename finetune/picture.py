"""A network as a picture: a box for each layer with its output shape and number of parameters; what is trained is orange.

The same shapes are written as SVG and, with matplotlib, as PNG. Both have a white background, for light and dark pages.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from finetune.stages import Stage, State

SVG, PNG = "network.svg", "network.png"

_WIDTH, _MARGIN = 720, 20
_BOX, _GAP = 24, 8  # height of a box, and the space between two
_SPLIT = 26  # height of the line at the split point
# Positions of the columns: name and description begin there, shape and parameters end there.
_NAME, _WHAT, _SHAPE, _PARAMETERS = _MARGIN + 12, 210, 560, _WIDTH - _MARGIN - 12
_INK, _FAINT = "#1f2328", "#59636e"
_COLOURS: dict[State, tuple[str, str]] = {  # outline and filling
    "frozen": ("#1f6feb", "#eaf2ff"),
    "trained": ("#e36209", "#fff1e5"),
    "neither": ("#9aa4af", "#f6f8fa"),
}
_LEGEND: tuple[tuple[State, str], ...] = (
    ("frozen", "frozen"),
    ("trained", "trained"),
    ("neither", "neither: preprocessing, and layers without weights"),
)
_RESOLUTION = 160  # of the PNG, in dots per inch, where the picture has 100 units per inch
_FONT = "DejaVu Sans, Verdana, sans-serif"


@dataclass(frozen=True)
class _Box:
    x: float
    y: float
    width: float
    height: float
    state: State

    def svg(self) -> str:
        outline, filling = _COLOURS[self.state]
        return (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{self.height:g}" rx="5" fill="{filling}" '
            f'stroke="{outline}" stroke-width="2"/>'
        )

    def draw(self, axes: Any) -> None:
        from matplotlib.patches import FancyBboxPatch

        outline, filling = _COLOURS[self.state]
        style = "round,pad=0,rounding_size=5"
        corner = (self.x, self.y)
        axes.add_patch(FancyBboxPatch(corner, self.width, self.height, style, fc=filling, ec=outline, lw=2 * 0.72))


@dataclass(frozen=True)
class _Line:
    x: float
    y: float
    to_x: float
    to_y: float
    dashed: bool = False

    def svg(self) -> str:
        dashes = ' stroke-dasharray="5 4"' if self.dashed else ""
        return (
            f'<line x1="{self.x:g}" y1="{self.y:g}" x2="{self.to_x:g}" y2="{self.to_y:g}" stroke="{_FAINT}" '
            f'stroke-width="1.2"{dashes}/>'
        )

    def draw(self, axes: Any) -> None:
        style = (0, (5, 4)) if self.dashed else "solid"
        axes.plot([self.x, self.to_x], [self.y, self.to_y], color=_FAINT, lw=1.2 * 0.72, ls=style)


@dataclass(frozen=True)
class _Text:
    """A line of text; `y`: its base line."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "middle", "end"] = "start"
    size: float = 12
    colour: str = _INK
    bold: bool = False

    def svg(self) -> str:
        weight = ' font-weight="bold"' if self.bold else ""
        return (
            f'<text x="{self.x:g}" y="{self.y:g}" text-anchor="{self.anchor}" font-size="{self.size:g}" '
            f'fill="{self.colour}"{weight}>{escape(self.text)}</text>'
        )

    def draw(self, axes: Any) -> None:
        side = {"start": "left", "middle": "center", "end": "right"}[self.anchor]
        look = {"ha": side, "va": "baseline", "fontsize": self.size * 0.72, "fontweight": "bold" if self.bold else None}
        axes.text(self.x, self.y, self.text, color=self.colour, family="DejaVu Sans", parse_math=False, **look)


@dataclass(frozen=True)
class Picture:
    """A drawn network; `title`: for people who do not see it."""

    title: str
    height: float
    shapes: tuple[_Box | _Line | _Text, ...]

    @property
    def svg(self) -> str:
        """The picture as an SVG element, to be saved or put into an HTML page."""
        inner = "\n".join(shape.svg() for shape in self.shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {_WIDTH} {self.height:g}" width="{_WIDTH}" '
            f'font-family="{_FONT}">\n<title>{escape(self.title)}</title>\n'
            f'<rect width="{_WIDTH}" height="{self.height:g}" rx="8" fill="#ffffff"/>\n{inner}\n</svg>\n'
        )

    @property
    def png(self) -> bytes:
        """The picture as a PNG file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_WIDTH / 100, self.height / 100), facecolor="white")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, _WIDTH), ylim=(self.height, 0))
        axes.set_axis_off()
        for shape in self.shapes:
            shape.draw(axes)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=_RESOLUTION)
        return image.getvalue()

    def files(self) -> dict[str, bytes]:
        """Return file name → contents of both forms."""
        return {SVG: self.svg.encode(), PNG: self.png}


def draw(name: str, stages: Sequence[Stage], cached: str | None) -> Picture:
    """Draw a network from top to bottom.

    Args:
        name: of the model.
        stages: its layers, see `finetune.stages.of`.
        cached: name of the layer whose cached outputs training begins with; None for the pixels.
    """
    total = sum(stage.parameters for stage in stages)
    trained = sum(stage.parameters for stage in stages if stage.state == "trained")
    summary = f"{trained:,} of {total:,} parameters are trained"
    shapes: list[_Box | _Line | _Text] = [
        _Text(_MARGIN, 36, name, size=min(17, (_WIDTH - 2 * _MARGIN) / (0.7 * len(name))), bold=True),
        _Text(_MARGIN, 57, summary, size=13, colour=_FAINT),
        _Text(_NAME, 90, "layer", colour=_FAINT),
        _Text(_WHAT, 90, "computes", colour=_FAINT),
        _Text(_SHAPE, 90, "output", "end", colour=_FAINT),
        _Text(_PARAMETERS, 90, "parameters", "end", colour=_FAINT),
    ]
    y = 100.0
    for i, stage in enumerate(stages):
        shapes += _layer(stage, y)
        y += _BOX
        if i == len(stages) - 1:
            break
        below = y
        y += _GAP if stage.block == stages[i + 1].block else 2 * _GAP
        if stage.name == cached:
            y += _SPLIT
            shapes += _split(stage, (below + y) / 2)
        else:
            shapes.append(_Line(_WIDTH / 2, below + 1, _WIDTH / 2, y - 1))
    y += 2 * _GAP
    shapes += _legend(y)
    return Picture(f"The layers of {name}: {summary}", y + _BOX + _MARGIN - _GAP, tuple(shapes))


def _layer(stage: Stage, y: float) -> list[_Box | _Line | _Text]:
    line = y + _BOX / 2 + 4.5
    return [
        _Box(_MARGIN, y, _WIDTH - 2 * _MARGIN, _BOX, stage.state),
        _Text(_NAME, line, stage.name, bold=True),
        _Text(_WHAT, line, stage.what, colour=_FAINT),
        _Text(_SHAPE, line, " × ".join(f"{side:,}" for side in stage.shape), "end"),
        _Text(_PARAMETERS, line, f"{stage.parameters:,}" if stage.parameters else "–", "end"),
    ]


def _split(stage: Stage, y: float) -> list[_Line | _Text]:
    """Return the line below which nothing is computed in training."""
    text = f"outputs of {stage.name} are cached: training begins here"
    half = 3.2 * len(text) + 8  # of the space for the text
    return [
        _Line(_MARGIN, y, _WIDTH / 2 - half, y, dashed=True),
        _Text(_WIDTH / 2, y + 4.5, text, "middle"),
        _Line(_WIDTH / 2 + half, y, _WIDTH - _MARGIN, y, dashed=True),
    ]


def _legend(y: float) -> list[_Box | _Text]:
    shapes: list[_Box | _Text] = []
    x = float(_MARGIN)
    for state, text in _LEGEND:
        shapes += [_Box(x, y, 28, 16, state), _Text(x + 38, y + 12.5, text)]
        x += 38 + 8 * len(text) + 28
    return shapes
