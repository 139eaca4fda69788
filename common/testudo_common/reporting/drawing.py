"""The drawing surface of reports' figures: palette, panels, and SVG that may stand inline beside others.

The same report gives the same bytes: a fixed salt for ids, no date, no settings of the person's own.
Palette: Okabe and Ito 2008, "Color Universal Design", readable with the common colour blindnesses.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from testudo_common.markup import Markup, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#1f2933", "#52606d", "#d9dee3"
BETTER, WORSE = "#0072B2", "#D55E00"
WIDTH_INCHES = 9.6
LONGEST_LABEL = 34
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "legend.frameon": False,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure for the page: the SVG, what it shows in words for who cannot see it, and how to read it."""

    svg: Markup
    caption: str


def shorten(label: str, longest: int = LONGEST_LABEL) -> str:
    """A label that leaves room for the drawing."""
    clean = printable(label)
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


@contextmanager
def style(key: str) -> Iterator[None]:
    """The reports' own matplotlib style, whatever the person has set; ``key`` salts the ids."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams["svg.hashsalt"] = key
        yield


def panels(
    count: int, height_inches: float, *, sharex: bool = False, sharey: bool = True, extra_inches: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with some panels, up to three in a row, none left empty.

    Args:
        count: Panels.
        height_inches: Of one row.
        sharex: Whether panels share the x axis.
        sharey: Whether panels share the y axis.
        extra_inches: Added once, for a legend.
    """
    from matplotlib.figure import Figure

    columns = count if count < 4 else 2 if count == 4 else 3
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(WIDTH_INCHES, rows * height_inches + extra_inches), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    grid = figure.subplots(rows, columns, sharex=sharex, sharey=sharey, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def render(figure: Figure, key: str, description: str) -> Markup:
    """The figure as an ``<svg>`` element for HTML.

    Args:
        figure: Drawn.
        key: Put before every id, since two inline SVGs share one document's ids.
        description: What a screen reader says.
    """
    buffer = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", metadata=nothing)
    written = buffer.getvalue()
    root = re.search(r'<svg [^>]*viewBox="([0-9. -]+)"[^>]*>', written)
    if root is None:
        raise AssertionError("matplotlib wrote an SVG without a viewBox")
    inner = re.sub(r"<[^>]*>", partial(_own_ids, key), written[root.end() :].rstrip())
    label = escape(printable(description))
    return Markup(f'<svg role="img" aria-label="{label}" viewBox="{root[1]}">{inner}')


def standing_alone(svg: Markup) -> str:
    """What :func:`render` made for the inside of a page, as a file of its own."""
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" font-family="sans-serif"'
    return str(svg).replace("<svg ", f"<svg {spaces} ", 1)


def _own_ids(key: str, element: re.Match[str]) -> str:
    """One tag with its id, and what it refers to, under ``key``; in the page's font; text is left alone."""
    prefixed = re.sub(r'(\bid="|url\(#|\bhref="#)', lambda found: f"{found[1]}{key}-", element[0])
    return re.sub(r"font-family: [^;\"]*;? ?", "", prefixed)
