"""Results to SVG text: the same bytes for the same numbers, narrow enough for a phone, colours that everyone can tell apart."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry, VectorGeometry
from xledit.report.common.drawing import BAND, INK, LINE, MARKERS, SERIES, STYLE, WIDTH, to_svg
from xledit.report.common.numbers import or_nan
from xledit.report.editing.runs import perplexity_ratios
from xledit.report.editing.tables import matrix, over_layers, pair_names

HIGHEST = 1e6  # where a perplexity that is not finite is drawn
APART = 0.38  # between the outermost marks of a row, of the distance of two rows


def transfer(cells: Sequence[CellSummary]) -> str:
    """Return a panel per method: its metrics by edit and probe language, with intervals, the floor as a tick."""
    methods = list(dict.fromkeys(cell.method for cell in cells))
    heights = [len([row for row in matrix(cells) if row.method == method]) for method in methods]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.95 + sum(0.55 + 0.36 * height for height in heights)), layout="constrained")
        panels = figure.subplots(len(methods), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, method in zip(panels, methods, strict=True):
            _transfer_panel(axes, [cell for cell in cells if cell.method == method])
            axes.set_title(method)
        panels[-1].set_xlabel("share of facts")
        marks: list[Artist] = [
            Line2D([], [], color=SERIES[number], marker=MARKERS[number], linewidth=1.6, label=f"{label}, 95 % interval")
            for number, label in enumerate(shown_in("figure").values())
        ]
        marks.append(Line2D([], [], color=INK, marker="|", markersize=11, markeredgewidth=1.6, linewidth=0, label="floor (unedited)"))
        marks.append(Patch(facecolor=BAND, label="language not edited"))
        figure.legend(handles=marks, loc="outside lower center", ncols=2, handlelength=1.6, columnspacing=1.2)
        return to_svg(figure)


def _transfer_panel(axes: Axes, cells: Sequence[CellSummary]) -> None:
    rows, metrics = matrix(cells), tuple(shown_in("figure"))
    for place, row in enumerate(rows):
        if row.crosses:
            axes.axhspan(place - 0.5, place + 0.5, color=BAND, linewidth=0, zorder=0)
        if place and rows[place - 1].edit != row.edit:
            axes.axhline(place - 0.5, color=LINE, linewidth=1)
        for number, metric in enumerate(metrics):
            share, height = row.measured[metric], place + APART * (number / max(len(metrics) - 1, 1) - 0.5)
            colour, marker = SERIES[number], MARKERS[number]
            axes.plot([share.low, share.high], [height] * 2, color=colour, linewidth=1.8, solid_capstyle="butt")
            axes.plot(share.value, height, color=colour, marker=marker, markersize=5.5, clip_on=False)
            axes.plot(share.floor, height, color=INK, marker="|", markersize=11, markeredgewidth=1.6, clip_on=False)
    axes.set_yticks(range(len(rows)), [f"{row.edit} → {row.probe}" for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.tick_params(length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def sequence(cells: Sequence[CellSummary]) -> str:
    """Return three panels over the number of facts stored: recall, perplexity, weight norm. A line that ends in a cross collapsed."""
    titles = (
        "recall: newest (thin), earlier (thick)",
        "perplexity over the unedited model's, worst language",
        "norm of the most changed weight over its own",
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
        panels = figure.subplots(3, 1, sharex=True)
        for number, cell in enumerate(cells):
            colour = SERIES[number % len(SERIES)]
            done = [check.num_facts for check in cell.checks]
            lines = (
                [or_nan(check.kept) for check in cell.checks],
                [min(max(perplexity_ratios(cell.checks, place).values()), HIGHEST) for place in range(len(cell.checks))],
                [max((norm for norm in check.weight_norms.values() if norm is not None), default=math.nan) for check in cell.checks],
            )
            panels[0].plot(done[1:], [check.fresh for check in cell.checks[1:]], color=colour, linewidth=0.7)
            for axes, line in zip(panels, lines, strict=True):
                axes.plot(done, line, color=colour, linewidth=1.9, label=f"{cell.method}, {cell.edit}")
                if cell.checks[-1].collapsed:
                    axes.plot(done[-1], line[-1], color=colour, marker="x", markersize=9, markeredgewidth=2.2, clip_on=False)
        for axes, title in zip(panels, titles, strict=True):
            axes.set_title(title, fontsize=10)
        panels[0].set_ylim(-0.02, 1.02)
        panels[1].set_yscale("log")
        panels[1].minorticks_off()
        panels[2].set_xlabel("facts stored")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=1.6)
        return to_svg(figure)


def cosines(vectors: Sequence[VectorGeometry], what: str) -> str:
    """Return centred cosines of keys or value changes by layer: same fact across languages, reworded, and the null's spread."""
    rows = [row for row in vectors if row.what == what]
    layers = [row.layer for row in rows]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, pair in enumerate(rows[0].across):
            likenesses = [row.across[pair] for row in rows]
            low = [likeness.centred_different - likeness.centred_different_sd for likeness in likenesses]
            high = [likeness.centred_different + likeness.centred_different_sd for likeness in likenesses]
            _band(axes, layers, low, high, f"different facts, {pair}: ± 1 sd")
            values, errors = (
                [likeness.centred_same for likeness in likenesses],
                [2 * likeness.centred_same_error for likeness in likenesses],
            )
            axes.errorbar(
                layers,
                values,
                errors,
                color=SERIES[number % 2],
                marker=MARKERS[number % 2],
                linewidth=1.8,
                label=f"same fact, {pair}: ± 2 se",
            )
        for number, code in enumerate(rows[0].reworded):
            values = [row.reworded[code].centred_same for row in rows]
            place = 2 + number % 2
            axes.plot(
                layers,
                values,
                color=SERIES[place],
                marker=MARKERS[place],
                linestyle="--",
                linewidth=1.5,
                label=f"same fact reworded, {code}",
            )
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks(layers)
        axes.set_xlim(min(layers) - 0.4, max(layers) + 0.4)
        axes.set_xlabel("layer")
        axes.set_ylabel("centred cosine")
        axes.tick_params(length=0)
        entries = sorted(
            zip(*axes.get_legend_handles_labels(), strict=True), key=lambda entry: ("different" in entry[1], "reworded" in entry[1])
        )
        figure.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=2, handlelength=1.6, columnspacing=1.2)
        return to_svg(figure)


def _band(axes: Axes, layers: Sequence[int], low: Sequence[float], high: Sequence[float], label: str) -> None:
    """Fill between two lines, a little beyond the outermost layers, so that one layer has a band, too."""
    around = [layers[0] - 0.25, *layers, layers[-1] + 0.25]
    axes.fill_between(around, [low[0], *low, low[-1]], [high[0], *high, high[-1]], color=LINE, alpha=0.7, linewidth=0, label=label)


def update_cosines(updates: Sequence[UpdateGeometry]) -> str:
    """Return the cosine of two updates, a row per comparison, a mark per layer."""
    names = pair_names(updates)
    layers = [update.layer for update in updates]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.6 + 0.5 * len(names)), layout="constrained")
        axes = figure.subplots()
        for place, name in enumerate(names):
            values = over_layers(updates, name, "cosine")
            colour = SERIES[2] if "other words" in name else SERIES[0] if name.endswith(", same facts") else SERIES[1]
            marker = {SERIES[0]: "o", SERIES[1]: "s", SERIES[2]: "^"}[colour]
            axes.axhline(place, color=LINE, linewidth=0.8)
            axes.plot([0, 0], [place - 0.13, place + 0.13], color=INK, linewidth=1.2)
            axes.plot(values, [place] * len(values), color=colour, marker=marker, markersize=5.5, linewidth=0, alpha=0.85)
            axes.annotate(name, (0, place), xycoords=("axes fraction", "data"), xytext=(0, 6), textcoords="offset points", fontsize=9)
        axes.set_yticks([])
        axes.set_ylim(len(names) - 0.6, -0.8)
        axes.margins(x=0.08)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_xlabel(f"cosine of the two updates, one mark per layer ({layers[0]} to {layers[-1]})")
        axes.tick_params(length=0)
        return to_svg(figure)


def domains(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return a bar per domain: its facts, by split."""
    splits = sorted({split for by_split in counts.values() for split in by_split})
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.7 + 0.24 * len(counts)), layout="constrained")
        axes = figure.subplots()
        start = [0] * len(counts)
        for number, split in enumerate(splits):
            values = [by_split.get(split, 0) for by_split in counts.values()]
            axes.barh(range(len(counts)), values, left=start, color=SERIES[number], height=0.7, label=split)
            start = [before + value for before, value in zip(start, values, strict=True)]
        axes.set_yticks(range(len(counts)), [domain.replace("_", " ") for domain in counts])
        axes.set_ylim(len(counts) - 0.5, -0.5)
        axes.set_xlabel("facts")
        axes.tick_params(length=0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        figure.legend(loc="outside lower center", ncols=len(splits))
        return to_svg(figure)
