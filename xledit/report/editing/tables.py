"""Results to rows: plain data for the page, the terminal, metrics.json and DVC's plots."""

import math
from collections.abc import Sequence
from statistics import fmean

import msgspec

from xledit.evaluation.intervals import Estimate
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import Likeness, UpdateGeometry, VectorGeometry
from xledit.report.common.numbers import DECIMALS, NAN, Measured, or_nan


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One edited model asked in one language: ``measured`` by metric, and ``transfer`` by metric, empty if the language was edited."""

    method: str
    edit: str
    probe: str
    crosses: bool
    measured: dict[str, Measured]
    transfer: dict[str, Measured]


class GroupRow(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one label of one edited model, asked in one language."""

    group: str
    num_facts: int
    row: MatrixRow


class PaperRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of arXiv 2601.17397's tables (shares, not per cent), with the net transfer of reliability beside ``trans``.

    ``parts`` has the paper's measures and their mean by probe language.
    """

    edit: str
    parts: dict[str, tuple[float, ...]]
    trans: float
    transfer: dict[str, Measured]


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The texts with which the unedited model (``before``) and each edited one (``after``, by edit) continue one prompt. Untrusted."""

    language: str
    prompt: str
    target_new: str
    target_true: str
    before: str
    after: dict[str, str]


def measured(estimate: Estimate | None, floor: Estimate | None = None) -> Measured:
    """Return an estimate and its floor as floats, NaN where there is none."""
    if estimate is None:
        return Measured(NAN)
    return Measured(or_nan(estimate.value), or_nan(estimate.low), or_nan(estimate.high), or_nan(floor.value) if floor is not None else NAN)


def matrix(cells: Sequence[CellSummary]) -> list[MatrixRow]:
    """Return one row per method, edit and probe language, with every metric."""
    return [
        MatrixRow(
            method=cell.method,
            edit=cell.edit,
            probe=probe,
            crosses=probe not in cell.edit_languages,
            measured={name: measured(metrics[name], cell.floor.get(probe, {}).get(name)) for name in _in_order(metrics)},
            transfer={name: measured(estimate) for name, estimate in cell.transfer.get(probe, {}).items()},
        )
        for cell in cells
        for probe, metrics in _probes(cell)
    ]


def group_rows(cells: Sequence[CellSummary]) -> list[GroupRow]:
    """Return the rows of facts that share a label, label by label, each with the rows of ``matrix``; edits in one language."""
    cells = [cell for cell in cells if len(cell.edit_languages) == 1]
    labels = list(dict.fromkeys((group.label, group.value) for cell in cells for group in cell.groups))
    rows = []
    for label, value in labels:
        for cell in cells:
            for group in cell.groups:
                if (group.label, group.value) == (label, value):
                    alike = msgspec.structs.replace(cell, metrics=group.metrics, floor=group.floor, transfer=group.transfer)
                    rows += [GroupRow(group=f"{label}: {value}", num_facts=group.num_facts, row=row) for row in matrix([alike])]
    return rows


def paper_rows(cells: Sequence[CellSummary]) -> list[PaperRow]:
    """Return the paper's table for the cells of one method, the unedited model first."""

    def parts(metrics: dict[str, Estimate]) -> tuple[float, ...]:
        shares = [measured(metrics.get(name)).value for name in shown_in("paper")]
        return *shares, sum(shares) / len(shares)

    floors = {probe: parts(metrics) for probe, metrics in _probes(cells[0], floor=True)}
    reliabilities = [floor[0] for floor in floors.values()]
    floor_trans = min(reliabilities) / max(reliabilities) if max(reliabilities) > 0 else 0.0
    rows = [PaperRow(edit="unedited", parts=floors, trans=floor_trans, transfer={})]
    return rows + [
        PaperRow(
            edit=cell.edit,
            parts={probe: parts(metrics) for probe, metrics in _probes(cell)},
            trans=measured(cell.trans).value,
            transfer={probe: measured(net.get("reliability")) for probe, net in cell.transfer.items()},
        )
        for cell in cells
    ]


def headline(cells: Sequence[CellSummary]) -> list[list[str]]:
    """Return the headline table as rows of text, header first: each metric with its floor, and the net transfer of efficacy."""
    shown = shown_in("headline")
    rows = [["method", "edit", "probe", *(f"{label} (floor)" for label in shown.values()), "net transfer [95 %]"]]
    for row in matrix(cells):
        net = row.transfer.get("efficacy")
        values = [row.measured.get(name, Measured(NAN)) for name in shown]
        rows.append(
            [
                row.method,
                row.edit,
                row.probe,
                *(f"{_two(value.value)} ({_two(value.floor)})" for value in values),
                f"{_two(net.value)} [{_two(net.low)}, {_two(net.high)}]" if net else "",
            ]
        )
    return rows


def metrics_tree(cells: Sequence[CellSummary]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the few numbers of reports/metrics.json by method and edit: means over the edited languages, net transfers over the others."""
    tree: dict[str, dict[str, dict[str, float]]] = {}
    for cell in cells:
        own = [cell.metrics[code] for code in cell.edit_languages]
        leaves = {name: fmean([measured(metrics[name]).value for metrics in own]) for name in shown_in("dvc")}
        if cell.transfer:
            for name, leaf in shown_in("net_dvc").items():
                leaves[leaf] = fmean([measured(net.get(name)).value for net in cell.transfer.values()])
        tree.setdefault(cell.method, {})[cell.edit] = leaves
    return tree


def transfer_plot(cells: Sequence[CellSummary]) -> list[dict[str, str | float]]:
    """Return the data of DVC's bar charts: one uniquely labelled row per method, edit and probe language."""
    return [
        {"cell": f"{row.method} {row.edit}->{row.probe}"}
        | {name: row.measured[name].value for name in shown_in("dvc")}
        | {f"floor_{name}": row.measured[name].floor for name in shown_in("figure")}
        for row in matrix(cells)
    ]


def cosine_plot(vectors: Sequence[VectorGeometry]) -> list[dict[str, str | float]]:
    """Return the data of DVC's cosine chart: centred cosines by layer, the nulls among them."""
    return [
        {"layer": row.layer, "object": f"{row.what}: {label}", "cosine": round(cosine, DECIMALS)}
        for row in vectors
        for label, cosine in (
            *((f"same fact, {pair}", likeness.centred_same) for pair, likeness in row.across.items()),
            *((f"different facts, {pair}", likeness.centred_different) for pair, likeness in row.across.items()),
            *((f"same fact reworded, {code}", likeness.centred_same) for code, likeness in row.reworded.items()),
            *((f"different facts, {code}", spread.centred_mean) for code, spread in row.within.items()),
            ("random, one standard deviation", row.random),
        )
    ]


def above_null(likeness: Likeness) -> float:
    """Return how many standard deviations of the null the mean centred cosine of the same fact stands above it."""
    return (likeness.centred_same - likeness.centred_different) / likeness.centred_different_sd if likeness.centred_different_sd else NAN


def pair_names(updates: Sequence[UpdateGeometry]) -> list[str]:
    """Return the names of the compared pairs of updates of one method: this run's first, then the same facts, then the nulls."""
    names = list(dict.fromkeys(name for update in updates for name in update.pairs))
    return sorted(names, key=lambda name: (not name.startswith("run"), not name.endswith(", same facts"), "different" in name, name))


def over_layers(updates: Sequence[UpdateGeometry], pair: str, field: str) -> list[float]:
    """Return one number of one comparison in each layer that has it."""
    numbers = [getattr(update.pairs[pair], field) for update in updates if pair in update.pairs]
    return [float(number) for number in numbers if number is not None]


def answers(cells: Sequence[CellSummary], number: int) -> list[Answers]:
    """Return the answers of one method's models to the first ``number`` prompts of each language, in turn from each language."""
    by_prompt: dict[tuple[str, str], Answers] = {}
    for cell in cells:
        for example in cell.examples:
            key = (example.language, example.prompt)
            entry = by_prompt.setdefault(
                key,
                Answers(
                    language=example.language,
                    prompt=example.prompt,
                    target_new=example.target_new,
                    target_true=example.target_true,
                    before=example.before,
                    after={},
                ),
            )
            entry.after[cell.edit] = example.after
    languages = list(dict.fromkeys(entry.language for entry in by_prompt.values()))
    columns = [[entry for entry in by_prompt.values() if entry.language == code][:number] for code in languages]
    return [entry for row in zip(*columns, strict=False) for entry in row]


def opens_with(text: str, answer: str) -> bool:
    """Return whether a free answer counts as this one: the rule of the exact match."""
    return text.strip().startswith(answer)


def _probes(cell: CellSummary, *, floor: bool = False) -> list[tuple[str, dict[str, Estimate]]]:
    """Return the probe languages and their metrics, edited languages first."""
    of = cell.floor if floor else cell.metrics
    return [(code, of[code]) for code in (*cell.edit_languages, *(code for code in of if code not in cell.edit_languages))]


def _in_order(metrics: dict[str, Estimate]) -> list[str]:
    order = shown_in("every")
    return [*(name for name in order if name in metrics), *(name for name in metrics if name not in order)]


def _two(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
