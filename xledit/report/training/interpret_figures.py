"""Analyses of states to SVG text: the paper's measure and the controlled ones by depth, each beside its null."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xledit.interpret.results import Depth, Representations
from xledit.report.common.drawing import LINE, SERIES, STYLE, WIDTH, to_svg
from xledit.report.common.numbers import or_nan
from xledit.report.training.interpret import Analysed, depths
from xledit.training.catalog import row


def states(analysed: Sequence[Analysed]) -> str:
    """Return a panel per model: cosine of language means, translation retrieval and CKA by depth, dashed where they are nulls."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.9 * len(analysed) + 0.7), layout="constrained")
        panels = figure.subplots(len(analysed), squeeze=False)[:, 0]
        for axes, model in zip(panels, analysed, strict=True):
            _states(axes, model.states)
            axes.set_title(model.title)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, handlelength=2.2, columnspacing=1.0)
        return to_svg(figure)


def lens(model: Representations) -> str:
    """Return the probability of the answer by depth (logit lens): in the asked language and the two nearest others, nulls dotted."""
    gain = {code: max(reading.others[code] - reading.others_null[code] for reading in model.lens) for code in model.lens[0].others}
    nearest = sorted(gain, key=lambda code: -gain[code])[:2]
    shown = [("as asked", [reading.asked for reading in model.lens], [reading.asked_null for reading in model.lens])]
    shown += [
        (row(code).name, [reading.others[code] for reading in model.lens], [reading.others_null[code] for reading in model.lens])
        for code in nearest
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        places = [reading.depth for reading in model.lens]
        for (label, values, null), colour in zip(shown, SERIES, strict=False):
            axes.plot(places, values, color=colour, linewidth=1.8, label=label)
            axes.plot(places, null, color=colour, linewidth=1.2, linestyle=":")
        axes.set_yscale("symlog", linthresh=1e-3)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("probability of the answer")
        _by_depth(axes)
        figure.legend(loc="outside lower center", ncols=3, title="dotted: another fact's object")
        return to_svg(figure)


def _states(axes: Axes, model: Representations) -> None:
    rows = depths(model)
    places = [depth.depth for depth in rows]

    def draw(name: str, null: str, label: str, colour: str) -> None:
        axes.plot(places, _means(rows, name), color=colour, linewidth=1.8, label=label)
        axes.plot(places, _means(rows, null), color=colour, linewidth=1.4, linestyle=":", label=f"{label}: null")

    draw("means", "means_unrelated", "cosine of means (paper)", SERIES[0])
    draw("cka", "cka_shuffled", "linear CKA", SERIES[1])
    axes.plot(places, _means(rows, "retrieval"), color=SERIES[2], linewidth=1.8, label="translation found")
    axes.axhline(model.chance, color=SERIES[2], linewidth=1.4, linestyle=":", label="translation found: null")
    axes.plot(places, [depth.language for depth in rows], color=LINE, linewidth=1.8, label="language told", zorder=1)
    axes.axhline(1 / len(model.languages), color=LINE, linewidth=1.4, linestyle=":", label="language told: null", zorder=1)
    axes.set_ylim(0, 1.03)
    _by_depth(axes)


def _by_depth(axes: Axes) -> None:
    axes.set_xlabel("layers passed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(length=0)


def _means(rows: Sequence[Depth], name: str) -> list[float]:
    return [or_nan(getattr(depth, name).mean) for depth in rows]
