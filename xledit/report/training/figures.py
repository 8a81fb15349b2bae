"""A training run to SVG text: the loss by language and the share of facts recalled, against tokens seen."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from xledit.report.common.drawing import LINE, MARKERS, SERIES, STYLE, WIDTH, to_svg
from xledit.report.common.numbers import or_nan
from xledit.report.training.tables import KINDS, recalled
from xledit.training.catalog import row
from xledit.training.results import CheckpointRecall, Pretrained

DASHES = ("-", "--", ":", "-.")
# how many lines colours and dashes can tell apart
NAMED = len(SERIES) * len(DASHES)
# colour, marker and dashes of each of KINDS: facts told elsewhere share a colour
LOOKS = (
    (SERIES[0], MARKERS[0], "-"),
    (SERIES[1], MARKERS[1], "-"),
    (SERIES[2], MARKERS[2], "-"),
    (SERIES[2], "v", "--"),
    (SERIES[3], MARKERS[3], "-"),
)
# distance between the marks of neighbouring lines, a share of the axis
SHIFT = 0.012


def losses(run: Pretrained) -> str:
    """Return the loss (nats per token) of each language at each checkpoint. The languages of which most was read have a name."""
    by_size = sorted(run.taken, key=lambda code: (-run.taken[code], code))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes = figure.subplots()
        for number, code in enumerate(by_size):
            points = [(stretch.tokens, or_nan(stretch.languages[code])) for stretch in run.losses if code in stretch.languages]
            tokens, values = zip(*points, strict=True) if points else ((), ())
            if number < NAMED:
                look: dict[str, Any] = {
                    "color": SERIES[number % len(SERIES)],
                    "linestyle": DASHES[number // len(SERIES)],
                    "label": row(code).name,
                }
            else:
                look = {"color": LINE, "zorder": 1, "label": "others" if number == NAMED else None}
            axes.plot(tokens, values, linewidth=1.5, **look)
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_ylabel("loss, nats per token")
        _against_tokens(axes)
        figure.legend(loc="outside lower center", ncols=3, handlelength=2.2, columnspacing=1.2)
        return to_svg(figure)


def recall(checkpoints: Sequence[CheckpointRecall]) -> str:
    """Return the share of facts recalled in a known wording at each checkpoint, by where they are told: mean, least and most language."""
    tokens = [checkpoint.tokens for checkpoint in checkpoints]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.subplots()
        for place, ((status, names_alike, label), (colour, marker, dashes)) in enumerate(zip(KINDS, LOOKS, strict=True)):
            shares = [recalled(checkpoint.recall, status, wording="known", names_alike=names_alike).share for checkpoint in checkpoints]
            beside = [number + SHIFT * (place - 2) * tokens[-1] for number in tokens]
            axes.vlines(beside, [share.low for share in shares], [share.high for share in shares], color=colour, linewidth=1.2, alpha=0.7)
            axes.plot(
                beside,
                [share.value for share in shares],
                color=colour,
                marker=marker,
                markersize=5,
                linestyle=dashes,
                linewidth=1.6,
                label=label,
                clip_on=False,
            )
        axes.set_ylim(bottom=0)
        axes.set_ylabel("share of facts recalled")
        _against_tokens(axes)
        figure.legend(loc="outside lower center", ncols=1, handlelength=2.2, title="told")
        return to_svg(figure)


def _against_tokens(axes: Axes) -> None:
    axes.set_xlabel("tokens seen")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(length=0)
