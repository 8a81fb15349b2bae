"""Crossing of facts, crossing of edits and alignment against tokens seen, with intervals over seeds: one figure."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xledit.report.common.drawing import INK, SERIES, STYLE, WIDTH, to_svg
from xledit.report.common.numbers import or_nan
from xledit.report.crossing.findings import MEASURES, Row, Value, crossing_of, mean_over

LINES = {True: "-", False: ":"}


def crossing(found: Sequence[Row]) -> str:
    """Return the figure: a row of panels per measure, a column per balance; colours are shares told in both, dotted are own letters."""
    method = next(iter(found[0].edits))
    measures: dict[str, Value] = {
        "facts cross": MEASURES["facts that cross"],
        f"edits cross ({method})": crossing_of(method),
        "unification": MEASURES["unification"],
    }
    balances = sorted({row.english for row in found})
    with mpl.rc_context(STYLE), mpl.rc_context({"axes.titlesize": 9, "font.size": 8}):
        figure = Figure(figsize=(WIDTH * 1.6, 2.0 * len(measures) + 0.8), layout="constrained")
        panels = figure.subplots(len(measures), len(balances), sharex=True, sharey="row", squeeze=False)
        for across, (label, value) in zip(panels, measures.items(), strict=True):
            for axes, english in zip(across, balances, strict=True):
                _lines(axes, [row for row in found if row.english == english], value)
            across[0].set_ylabel(label)
        for axes, english in zip(panels[0], balances, strict=True):
            axes.set_title(f"{english:.0%} English")
        for axes in panels[-1]:
            axes.set_xlabel("1,000 tokens seen")
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        return to_svg(figure)


def _lines(axes: Axes, found: Sequence[Row], value: Value) -> None:
    axes.axhline(0, color=INK, linewidth=0.6)
    for colour, everywhere in zip(SERIES, sorted({row.everywhere for row in found}), strict=False):
        for names_alike in (True, False):
            own = [row for row in found if row.everywhere == everywhere and row.names_alike == names_alike]
            places = sorted({row.place for row in own})
            groups = [[row for row in own if row.place == place] for place in places]
            tokens = [sum(row.tokens for row in group) / len(group) / 1000 for group in groups]
            means = [mean_over(group, value) for group in groups]
            label = f"{everywhere:.0%} told in both, names {'alike' if names_alike else 'in own letters'}"
            axes.plot(tokens, [or_nan(mean.value) for mean in means], LINES[names_alike], color=colour, linewidth=1.6, label=label)
            if names_alike:
                low, high = ([or_nan(getattr(mean, end)) for mean in means] for end in ("low", "high"))
                axes.fill_between(tokens, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.tick_params(length=0)
