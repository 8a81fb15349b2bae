"""What base and tuned models answer, as SVG text: a panel for each way of asking, a row for each kind of facts."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xledit.report.common.drawing import INK, MARKERS, SERIES, STYLE, WIDTH, to_svg
from xledit.report.training.benchmark import ASKED, KINDS_SHOWN, cell
from xledit.training.benchmark_results import Asked, Benchmark

# of the distance between two rows, what the models of one row take
SPREAD = 0.6


def answered(models: Mapping[str, Benchmark]) -> str:
    """Return the share of right answers of each model with its interval, by how facts are asked and where told; dotted: drawing."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 8.8), layout="constrained")
        panels = figure.subplots(len(ASKED), sharex=True)
        for axes, asked in zip(panels, ASKED, strict=True):
            _panel(axes, models, asked)
            axes.set_title(ASKED[asked])
        panels[-1].set_xlabel("share answered rightly")
        figure.supylabel("told", fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.0)
        return to_svg(figure)


def _panel(axes: Axes, models: Mapping[str, Benchmark], asked: Asked) -> None:
    chances = [row.chance for model in models.values() for kind in KINDS_SHOWN if (row := cell(model, kind, asked))]
    for place, (title, model) in enumerate(models.items()):
        found = [(row, height) for height, kind in enumerate(KINDS_SHOWN) if (row := cell(model, kind, asked))]
        beside = [height + SPREAD * ((place + 0.5) / len(models) - 0.5) for _row, height in found]
        colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
        axes.hlines(
            beside, [row.right.low for row, _height in found], [row.right.high for row, _height in found], color=colour, linewidth=1.4
        )
        axes.plot(
            [row.right.value for row, _height in found],
            beside,
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="none",
            label=title,
            clip_on=False,
        )
    if chances:
        axes.axvline(sum(chances) / len(chances), color=INK, linewidth=1.0, linestyle=":", label="drawing", zorder=1)
    axes.set_yticks(range(len(KINDS_SHOWN)), [_short(kind.label) for kind in KINDS_SHOWN])
    axes.set_ylim(len(KINDS_SHOWN) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.tick_params(length=0)


def _short(label: str) -> str:
    return label.replace("this language only", "this one only").replace("another language only", "another")
