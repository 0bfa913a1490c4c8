"""Texts in figures: names as they are, in any script that an installed font has."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

# Fonts with letters that matplotlib's own lacks.
_MORE_FONTS = (
    *(f"Noto Sans CJK {region}" for region in ("JP", "SC", "TC", "KR")),
    *("Noto Sans", "Hiragino Sans", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS"),
)


@contextlib.contextmanager
def texts(style: Any = None) -> Iterator[None]:
    """Draw in a style (matplotlib's rcParams) in which names are no formulas; letters that no font has are boxes."""
    import matplotlib as mpl
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    family = ["DejaVu Sans", *(font for font in _MORE_FONTS if font in installed)]
    own: Any = {"font.family": family, "text.parse_math": False}  # a class may be called $x$
    with mpl.rc_context({**own, **(style or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield
