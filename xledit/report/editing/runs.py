"""Runs beside the default one: every method in one table, and how a model fares while it is edited batch after batch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from xledit.evaluation.checks import Check
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.report.common.numbers import NAN, Measured
from xledit.report.editing.tables import MatrixRow, matrix, measured
from xledit.storage import read_json

# `xledit run` keeps a run in RESULTS/<its name>: RECORD, and a summary per edited model in CELLS
RESULTS, RECORD, CELLS = Path("results"), "run.json", "cells"
# columns in which less is better; in all others more is
LESS = ("perplexity", "cpu_s")
# least share of facts answered word for word in the edited languages: a method below it keeps the rest by changing little
STORED = 0.5


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that one stage took, loading included: by the clock (``wall_s``) and of all processors (``cpu_s``)."""

    stage: str
    wall_s: float
    cpu_s: float


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One trial of a search: its settings and its results.

    ``exact`` and ``locality_tokens`` are shares, by language, of facts and of tokens; ``size`` is the Frobenius norm of the updates
    that the run's geometry has, None where it has none. ``score`` is None where the trial failed, which ``state`` says.
    """

    values: dict[str, Any]
    state: str
    exact: dict[str, float] = {}
    locality_tokens: dict[str, float] = {}
    score: float | None = None
    size: float | None = None


class SearchRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All trials of a search, the rule that chose among them, and the settings that it chose."""

    rule: str
    chosen: dict[str, Any]
    trials: tuple[Trial, ...]


class ModelIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a model's manifest that identify the model; ``weights`` is one hash of all its files."""

    name: str
    revision: str | None
    source: str
    family: str
    dtype: str
    num_layers: int
    num_parameters: int
    weights: str


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file run.json of a run beside the default one: its question (``what``), commit, settings that differ, model and data.

    ``uncommitted`` are files that differed from the commit. ``data`` has DVC's MD5 by path. ``timings`` are by stage. A field is None
    (``data``: empty) where it was not recorded, as in runs that were made by hand.
    """

    name: str
    what: str
    commit: str | None
    uncommitted: tuple[str, ...] | None = ()
    date: str | None
    params: dict[str, Any] | None
    model: ModelIdentity | None = None
    data: dict[str, str] | None = None
    timings: dict[str, Timing] = {}
    search: SearchRecord | None = None


class RunCells(msgspec.Struct, frozen=True, kw_only=True):
    """A run and the summaries of its edited models."""

    record: RunRecord
    cells: tuple[CellSummary, ...]

    @property
    def sequences(self) -> tuple[CellSummary, ...]:
        """The cells that were edited in several batches."""
        return tuple(cell for cell in self.cells if len(cell.checks) > 2)


def read_all(folder: Path) -> list[RunCells]:
    """Return the runs in a folder (results/), by name, that have summaries of edited models and recorded settings."""
    runs = [read(path.parent) for path in sorted(folder.glob(f"*/{RECORD}"))]
    return [run for run in runs if run.cells and run.record.params is not None]


def read(folder: Path) -> RunCells:
    """Return a run with its cells, sorted as its settings name methods and edits."""
    record = read_record(folder)
    cells = [read_json(file, CellSummary) for file in (folder / CELLS).glob("*.json")]
    params = record.params or {}
    order = [[*params.get("grid.methods", []), *params.get("grid.direct", [])], params.get("grid.edits", [])]
    cells.sort(key=lambda cell: tuple(_place(name, names) for name, names in zip((cell.method, cell.edit), order, strict=True)))
    return RunCells(record=record, cells=tuple(cells))


def read_record(folder: Path) -> RunRecord:
    """Return a run's run.json. Raises ValueError with the path when the file is missing or does not fit."""
    return read_json(folder / RECORD, RunRecord)


def _place(name: str, names: list[str]) -> tuple[int, str]:
    """Return a sort key: the place in ``names``, then alphabetically the names that are not listed."""
    return (names.index(name) if name in names else len(names), name)


class MethodRow(msgspec.Struct, frozen=True, kw_only=True):
    """One method and edit. ``own`` and ``other`` are means over the edited and the other languages (NaN without any).

    ``transfer`` and ``control`` are net transfers of preference. ``perplexity`` is that of held-out text over the unedited
    model's, by language; ``cpu_s`` is the processor's seconds per fact and language of the ``apply`` stage, NaN where not known.
    ``num_stored`` is how many facts were stored before the end or the collapse.
    """

    method: str
    edit: str
    own: dict[str, float]
    other: dict[str, float]
    transfer: Measured
    control: Measured
    perplexity: dict[str, float]
    cpu_s: float
    num_stored: int
    collapsed: bool


def method_rows(run: RunCells) -> list[MethodRow]:
    """Return one row per method and edit, in the order of the run."""
    return [_row(run.record, cell) for cell in run.cells]


def best(rows: Sequence[MethodRow], edit: str, column: str) -> str:
    """Return the method that is best in a column among the rows of an edit, '' without any.

    Models that have collapsed or store less than ``STORED`` do not count, nor does a transfer whose interval reaches zero.
    """
    sign = -1 if column in LESS else 1
    values = {
        row.method: sign * value_of(row, column)
        for row in rows
        if row.edit == edit and not row.collapsed and row.own["exact"] >= STORED and (column != "transfer" or row.transfer.low > 0)
    }
    defined = {method: value for method, value in values.items() if not math.isnan(value)}
    return max(defined, key=defined.__getitem__) if defined else ""


def value_of(row: MethodRow, column: str) -> float:
    """Return a row's number in a column."""
    plain = {"transfer": row.transfer.value, "cpu_s": row.cpu_s, "perplexity": max(row.perplexity.values(), default=NAN)}
    return plain[column] if column in plain else row.own[column]


def perplexity_ratios(checks: Sequence[Check], place: int = -1) -> dict[str, float]:
    """Return the perplexity of held-out text at one check over that of the unedited model, by language; infinite when not finite."""
    if not checks:
        return {}
    before, after = checks[0].text_nats, checks[place].text_nats
    ratios = {}
    for code, nats in before.items():
        now = after[code]
        ratios[code] = math.exp(min(now - nats, 700.0)) if now is not None and nats is not None else math.inf
    return ratios


def _row(record: RunRecord, cell: CellSummary) -> MethodRow:
    rows = matrix([cell])
    crossing = [row for row in rows if row.crosses]
    took = record.timings.get(f"apply@{cell.method}-{cell.edit}")
    stored = cell.checks[-1].num_facts if cell.checks else cell.num_facts
    return MethodRow(
        method=cell.method,
        edit=cell.edit,
        own=_means([row for row in rows if not row.crosses]),
        other=_means(crossing),
        transfer=crossing[0].transfer.get("efficacy", measured(None)) if crossing else measured(None),
        control=crossing[0].transfer.get("control", measured(None)) if crossing else measured(None),
        perplexity=perplexity_ratios(cell.checks),
        cpu_s=took.cpu_s / stored / len(cell.edit_languages) if took else NAN,
        num_stored=stored,
        collapsed=bool(cell.checks) and cell.checks[-1].collapsed,
    )


def _means(rows: Sequence[MatrixRow]) -> dict[str, float]:
    """Return the mean of each compared column over rows."""
    return {
        name: sum(row.measured.get(name, Measured(NAN)).value for row in rows) / len(rows) if rows else NAN for name in shown_in("compared")
    }
