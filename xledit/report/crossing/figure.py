"""Crossing of facts, crossing of edits and alignment against tokens seen, with intervals over seeds: one figure."""

import itertools
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xledit.report.common.drawing import INK, SERIES, STYLE, WIDTH, to_svg
from xledit.report.common.numbers import or_nan
from xledit.report.crossing.findings import KINDS, MEASURES, Row, Value, crossing_of, kinds_of, main_method, mean_over, of_kind

LINES = ("-", "--", ":")


def crossing(found: Sequence[Row]) -> str:
    """Return the figure: a row of panels per measure, a column per kind of names.

    Colours are shares told in both, kinds of line are balances, bands are intervals over seeds.
    """
    method = main_method(found)
    measures: dict[str, Value] = {
        "facts cross": MEASURES["facts that cross"],
        f"edits cross ({method})": crossing_of(method),
        "unification": MEASURES["unification"],
    }
    kinds = kinds_of(found)
    with mpl.rc_context(STYLE), mpl.rc_context({"axes.titlesize": 9, "font.size": 8, "legend.fontsize": 8}):
        figure = Figure(figsize=(WIDTH * 1.6, 2.0 * len(measures) + 0.8), layout="constrained")
        panels = figure.subplots(len(measures), len(kinds), sharex=True, sharey="row", squeeze=False)
        for across, (label, value) in zip(panels, measures.items(), strict=True):
            for axes, names in zip(across, kinds, strict=True):
                _lines(axes, of_kind(found, names), value)
            across[0].set_ylabel(label)
        for axes, names in zip(panels[0], kinds, strict=True):
            axes.set_title(f"names {KINDS[names]}")
        for axes in panels[-1]:
            axes.set_xlabel("1,000 tokens seen")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return to_svg(figure)


def _lines(axes: Axes, found: Sequence[Row], value: Value) -> None:
    axes.axhline(0, color=INK, linewidth=0.6)
    for everywhere, colour in zip(sorted({row.everywhere for row in found}), itertools.cycle(SERIES), strict=False):
        for english, line in zip(sorted({row.english for row in found}), itertools.cycle(LINES), strict=False):
            own = [row for row in found if (row.everywhere, row.english) == (everywhere, english)]
            if not own:
                continue
            groups = [[row for row in own if row.place == place] for place in sorted({row.place for row in own})]
            tokens = [sum(row.tokens for row in group) / len(group) / 1000 for group in groups]
            means = [mean_over(group, value) for group in groups]
            centre, low, high = ([or_nan(getattr(mean, end)) for mean in means] for end in ("value", "low", "high"))
            axes.plot(tokens, centre, line, color=colour, linewidth=1.6, label=f"{everywhere:.0%} told in both, {english:.0%} English")
            axes.fill_between(tokens, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.tick_params(length=0)
