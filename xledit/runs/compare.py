"""Two runs side by side: every number that both have, its difference with an interval, and what else differs between them.

The interval of a difference is MOVER's (Zou and Donner 2008, doi 10.1002/sim.3095): the two runs' own intervals, squared and added.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from xledit.evaluation.intervals import Estimate
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.report.editing.runs import RunCells, RunRecord
from xledit.runs.results import params_at
from xledit.runs.settings import flat

INDEPENDENT = (
    "Intervals (95 %) treat the runs as independent samples (MOVER, doi 10.1002/sim.3095): too wide where both edited the same facts. "
    "Of many that mean nothing, one in twenty excludes 0."
)
Z = 1.959964
NOT_KNOWN, NOT_SET = "not known", "not set"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One number of both runs. ``metric`` of a net transfer begins with "transfer"; ``excludes_zero``: the interval of a - b does."""

    cell: str
    language: str
    metric: str
    a: Estimate
    b: Estimate
    difference: Estimate
    excludes_zero: bool


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Runs ``a`` and ``b``. ``settings``, ``data`` and ``model`` hold what differs, by key or path, in a and in b."""

    a: str
    b: str
    commits: tuple[str | None, str | None]
    settings: dict[str, tuple[Any, Any]]
    data: dict[str, tuple[Any, Any]]
    model: dict[str, tuple[Any, Any]]
    not_known: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]
    method: str = INDEPENDENT


def compare(a: RunCells, b: RunCells) -> Comparison:
    """Return the comparison of two runs. Raises ValueError when they share no cell."""
    cells_a, cells_b = ({f"{cell.method}-{cell.edit}": cell for cell in run.cells} for run in (a, b))
    shared = [name for name in cells_a if name in cells_b]
    if not shared:
        raise ValueError(
            f"no cell in common: {a.record.name} has {', '.join(cells_a) or 'none'}; {b.record.name} has {', '.join(cells_b) or 'none'}"
        )
    methods = {cell.method for run in (a, b) for cell in run.cells}
    fields = ("commit", "params", "data", "model")
    not_known = tuple(f"{what} of {run.record.name}" for what in fields for run in (a, b) if getattr(run.record, what) is None)
    settings = [_settings(run.record, methods) for run in (a, b)]
    models = [msgspec.to_builtins(run.record.model) if run.record.model else None for run in (a, b)]
    return Comparison(
        a=a.record.name,
        b=b.record.name,
        commits=(a.record.commit, b.record.commit),
        settings=_differing(*settings),
        data=_differing(a.record.data, b.record.data),
        model=_differing(*models),
        not_known=not_known,
        only_a=tuple(name for name in cells_a if name not in cells_b),
        only_b=tuple(name for name in cells_b if name not in cells_a),
        differences=tuple(difference for name in shared for difference in _differences(name, cells_a[name], cells_b[name])),
    )


def minus(a: Estimate, b: Estimate) -> Estimate:
    """Return ``a - b`` with its interval by MOVER; all None where a value or an interval is."""
    numbers = (a.value, a.low, a.high, b.value, b.low, b.high)
    if any(number is None or math.isnan(number) for number in numbers):
        return Estimate(value=None, low=None, high=None)
    value_a, low_a, high_a, value_b, low_b, high_b = (number or 0.0 for number in numbers)
    d = value_a - value_b
    return Estimate(value=d, low=d - math.hypot(value_a - low_a, high_b - value_b), high=d + math.hypot(high_a - value_a, value_b - low_b))


def widened(share: Estimate, num_facts: int) -> Estimate:
    """Return a share of facts, with Wilson's bound where all facts agree: there the bootstrap gives an interval of no width."""
    bound = Z**2 / (num_facts + Z**2)
    if share.low == share.high and share.value in (0.0, 1.0):
        return msgspec.structs.replace(share, **({"high": bound} if share.value == 0 else {"low": 1 - bound}))
    return share


def lines(comparison: Comparison, everything: bool) -> tuple[list[str], list[list[str]]]:
    """Return lines on what differs besides the numbers, and the numbers as rows of text, header first.

    The rows are the headline's and those whose interval excludes zero, or all with ``everything``.
    """
    head = [f"A is {comparison.a}, B is {comparison.b}"]
    if comparison.commits[0] != comparison.commits[1]:
        head.append(f"commit: {' | '.join((commit or NOT_KNOWN)[:12] for commit in comparison.commits)}")
    for what, pairs in (("setting", comparison.settings), ("data", comparison.data), ("model", comparison.model)):
        head += [f"{what} {key}: {_short(left)} | {_short(right)}" for key, (left, right) in pairs.items()]
    head += [f"not known: {what}" for what in comparison.not_known]
    head += [f"only in {run}: {', '.join(cells)}" for run, cells in (("A", comparison.only_a), ("B", comparison.only_b)) if cells]
    rows = [["cell", "asked in", "metric", "A", "B", "A - B [95 %]", ""]]
    for number in comparison.differences:
        if everything or number.excludes_zero or number.metric in (*shown_in("headline"), "transfer efficacy"):
            d = number.difference
            interval = f"{_two(d.value)} [{_two(d.low)}, {_two(d.high)}]"
            rows.append(
                [
                    number.cell,
                    number.language,
                    number.metric,
                    _two(number.a.value),
                    _two(number.b.value),
                    interval,
                    "*" * number.excludes_zero,
                ]
            )
    return head, rows


def _differences(name: str, a: CellSummary, b: CellSummary) -> Iterator[Difference]:
    for language in [code for code in a.metrics if code in b.metrics]:
        for prefix, of_a, of_b in (("", a.metrics, b.metrics), ("transfer ", a.transfer, b.transfer)):
            for metric, left in of_a.get(language, {}).items():
                right = of_b.get(language, {}).get(metric)
                if right is None or left.value is None or right.value is None:
                    continue
                wide = [share if prefix else widened(share, cell.num_facts) for share, cell in ((left, a), (right, b))]
                d = minus(*wide)
                excludes = d.low is not None and d.high is not None and not d.low <= 0 <= d.high
                yield Difference(
                    cell=name, language=language, metric=prefix + metric, a=left, b=right, difference=d, excludes_zero=excludes
                )


def _settings(record: RunRecord, methods: set[str]) -> dict[str, Any] | None:
    """Return a run's settings by dotted key, without those of the training pipeline and of other methods; None where not recorded.

    Where this clone lacks the run's commit, only the settings that the run changed are there.
    """
    if record.params is None or record.commit is None:
        return record.params
    try:
        values = flat(params_at(record.commit))
    except ValueError:
        values = {}
    for key, value in record.params.items():
        kept = {name: other for name, other in values.items() if not name.startswith(f"{key}.")}
        values = kept | flat({key: value})
    return {key: value for key, value in values.items() if _matters(key, methods)}


def _matters(key: str, methods: set[str]) -> bool:
    section, _, rest = key.partition(".")
    return section != "tranyu" and (section != "methods" or rest.split(".")[0] in methods)


def _differing(a: Mapping[str, Any] | None, b: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """Return the pair of values by key that differ in two mappings, NOT_SET where one lacks the key; none where a mapping is None."""
    if a is None or b is None:
        return {}
    return {
        key: (a.get(key, NOT_SET), b.get(key, NOT_SET)) for key in dict.fromkeys((*a, *b)) if a.get(key, NOT_SET) != b.get(key, NOT_SET)
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
