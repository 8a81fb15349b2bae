"""Figures as SVG text: the same bytes for the same numbers, narrow enough for a phone, colours that everyone can tell apart."""

import html
import io
import re
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH = 4.4  # inches: at the width of a phone its text is still about 11 pixels high
# Okabe and Ito's colours, darkened where they are too pale on white; the page puts its own in their place
PAPER, INK, LINE, BAND = "#ffffff", "#24292f", "#d0d7de", "#eef1f4"
SERIES = ("#0072b2", "#d55e00", "#008a66", "#a8508a")
PAGE_COLOURS = {PAPER: "none", INK: "currentColor", LINE: "var(--line)", BAND: "var(--band)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)
}
MARKERS = ("o", "s", "^", "D")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "xledit",
    "svg.fonttype": "none",
    "figure.constrained_layout.h_pad": 0.1,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def inline(svg: str, name: str, label: str) -> str:
    """Return SVG text to be put into a page: ids that begin with ``name``, the page's colours, ``label`` for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page, which has it already
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for colour, own in PAGE_COLOURS.items():
        svg = svg.replace(colour, own)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label, quote=True)}" ', 1).rstrip()


def to_svg(figure: Figure) -> str:
    """Return a figure's SVG text without date and creator, so that the same figure gives the same bytes."""
    figure.patch.set_facecolor(PAPER)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return re.sub(r"[ \t]+$", "", file.getvalue(), flags=re.MULTILINE)
