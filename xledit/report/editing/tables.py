"""Results to rows: plain data for the page, the terminal, metrics.json and DVC's plots."""

import math
from collections.abc import Sequence

import msgspec

from xledit.evaluation.intervals import Estimate
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import Likeness, UpdateGeometry, VectorGeometry
from xledit.report.common.numbers import DECIMALS, NAN, Measured, known


class MatrixRow(msgspec.Struct, frozen=True, kw_only=True):
    """One edited model asked in one language. ``transfer`` by metric; empty unless the probe language was not edited."""

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
    """What the unedited model and each edited one said to one prompt. ``after`` is by edit. Untrusted text."""

    language: str
    prompt: str
    target_new: str
    target_true: str
    before: str
    after: dict[str, str]


def measured(estimate: Estimate | None, floor: Estimate | None = None) -> Measured:
    """Return an estimate as floats."""
    if estimate is None:
        return Measured(NAN)
    return Measured(known(estimate.value), known(estimate.low), known(estimate.high), known(floor.value) if floor is not None else NAN)


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
    labels = list(dict.fromkeys((found.label, found.value) for cell in cells for found in cell.groups))
    rows = []
    for label, value in labels:
        for cell in cells:
            for found in cell.groups:
                if (found.label, found.value) == (label, value):
                    alike = msgspec.structs.replace(cell, metrics=found.metrics, floor=found.floor, transfer=found.transfer)
                    rows += [GroupRow(group=f"{label}: {value}", num_facts=found.num_facts, row=row) for row in matrix([alike])]
    return rows


def paper_rows(cells: Sequence[CellSummary]) -> list[PaperRow]:
    """Return the paper's table for the cells of one method, the unedited model first."""

    def parts(metrics: dict[str, Estimate]) -> tuple[float, ...]:
        found = [measured(metrics.get(name)).value for name in shown_in("paper")]
        return *found, sum(found) / len(found)

    floors = {probe: parts(metrics) for probe, metrics in _probes(cells[0], floor=True)}
    reliabilities = [found[0] for found in floors.values()]
    floor_trans = min(reliabilities) / max(reliabilities) if max(reliabilities) > 0 else 0.0
    rows = [PaperRow(edit="unedited", parts=floors, trans=floor_trans, transfer={})]
    return rows + [
        PaperRow(
            edit=cell.edit,
            parts={probe: parts(metrics) for probe, metrics in _probes(cell)},
            trans=measured(cell.trans).value,
            transfer={probe: measured(found.get("reliability")) for probe, found in cell.transfer.items()},
        )
        for cell in cells
    ]


def headline(cells: Sequence[CellSummary]) -> list[list[str]]:
    """Return the headline table as text, header first: each metric with its floor, and the net transfer of efficacy."""
    shown = shown_in("headline")
    rows = [["method", "edit", "probe", *(f"{label} (floor)" for label in shown.values()), "net transfer [95 %]"]]
    for row in matrix(cells):
        found = row.transfer.get("efficacy")
        values = [row.measured.get(name, Measured(NAN)) for name in shown]
        rows.append(
            [
                row.method,
                row.edit,
                row.probe,
                *(f"{_two(value.value)} ({_two(value.floor)})" for value in values),
                f"{_two(found.value)} [{_two(found.low)}, {_two(found.high)}]" if found else "",
            ]
        )
    return rows


def metrics_tree(cells: Sequence[CellSummary]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the few numbers of reports/metrics.json by method and edit: means over the edited languages, net transfers over the others."""
    tree: dict[str, dict[str, dict[str, float]]] = {}
    for cell in cells:
        own = [cell.metrics[code] for code in cell.edit_languages]
        leaves = {name: _mean([measured(metrics[name]).value for metrics in own]) for name in shown_in("dvc")}
        if cell.transfer:
            for name, leaf in shown_in("net_dvc").items():
                leaves[leaf] = _mean([measured(found.get(name)).value for found in cell.transfer.values()])
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
        {"layer": found.layer, "object": f"{found.what}: {label}", "cosine": round(cosine, DECIMALS)}
        for found in vectors
        for label, cosine in (
            *((f"same fact, {pair}", likeness.centred_same) for pair, likeness in found.across.items()),
            *((f"different facts, {pair}", likeness.centred_different) for pair, likeness in found.across.items()),
            *((f"same fact reworded, {code}", likeness.centred_same) for code, likeness in found.reworded.items()),
            *((f"different facts, {code}", spread.centred_mean) for code, spread in found.within.items()),
            ("random, one standard deviation", found.random),
        )
    ]


def above_null(likeness: Likeness) -> float:
    """Return how many standard deviations of the null the mean centred cosine of the same fact stands above it."""
    return (likeness.centred_same - likeness.centred_different) / likeness.centred_different_sd if likeness.centred_different_sd else NAN


def pair_names(updates: Sequence[UpdateGeometry]) -> list[str]:
    """Return what updates of one method were compared: this run's first, then the same facts, then the nulls."""
    names = list(dict.fromkeys(name for found in updates for name in found.pairs))
    return sorted(names, key=lambda name: (not name.startswith("run"), not name.endswith(", same facts"), "different" in name, name))


def over_layers(updates: Sequence[UpdateGeometry], pair: str, field: str) -> list[float]:
    """Return one number of one comparison in each layer that has it."""
    return [float(getattr(found.pairs[pair], field)) for found in updates if pair in found.pairs]


def answers(cells: Sequence[CellSummary], number: int) -> list[Answers]:
    """Return what the models of one method said to the first ``number`` prompts of each language, a fact's languages together."""
    by_prompt: dict[tuple[str, str], Answers] = {}
    for cell in cells:
        for found in cell.examples:
            key = (found.language, found.prompt)
            known = by_prompt.setdefault(
                key,
                Answers(
                    language=found.language,
                    prompt=found.prompt,
                    target_new=found.target_new,
                    target_true=found.target_true,
                    before=found.before,
                    after={},
                ),
            )
            known.after[cell.edit] = found.after
    languages = list(dict.fromkeys(found.language for found in by_prompt.values()))
    columns = [[found for found in by_prompt.values() if found.language == code][:number] for code in languages]
    return [found for row in zip(*columns, strict=False) for found in row]


def opens_with(said: str, answer: str) -> bool:
    """Return whether a free answer counts as this one: the rule of the exact match."""
    return said.strip().startswith(answer)


def _probes(cell: CellSummary, *, floor: bool = False) -> list[tuple[str, dict[str, Estimate]]]:
    """Return the probe languages and their metrics, edited languages first."""
    of = cell.floor if floor else cell.metrics
    return [(code, of[code]) for code in (*cell.edit_languages, *(code for code in of if code not in cell.edit_languages))]


def _in_order(metrics: dict[str, Estimate]) -> list[str]:
    order = shown_in("every")
    return [*(name for name in order if name in metrics), *(name for name in metrics if name not in order)]


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DECIMALS)


def _two(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
