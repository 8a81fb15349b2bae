"""The choice among the trials of a search: their numbers, the rule, and a table of all."""

import math
import statistics
from collections.abc import Sequence

import msgspec

from xledit.evaluation.intervals import Estimate
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry
from xledit.report.editing.runs import Trial

RULE = "the largest mean over languages, each edited alone, of the harmonic mean of exact and locality_tokens; of ties the smaller update"


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial that ``RULE`` chooses; of equal ones, the first. Raises ValueError when none has a score."""
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        raise ValueError(f"no trial of {len(trials)} came to a score: {', '.join(trial.state for trial in trials)}")
    # a size that is not known comes last
    return min(scored, key=lambda trial: (-(trial.score or 0.0), trial.size is None, trial.size))


def measured(trial: Trial, cells: Sequence[CellSummary], geometry: Sequence[UpdateGeometry]) -> Trial:
    """Return the trial with exact, locality_tokens, score and size, from the cells that were edited in one language.

    Where one of these numbers is not defined, the trial has none of them, and its ``state`` says so.
    """
    own = {cell.edit: cell.metrics[cell.edit] for cell in cells if cell.edit_languages == (cell.edit,)}
    exact = {code: _value(metrics["exact"]) for code, metrics in own.items()}
    kept = {code: _value(metrics["locality_tokens"]) for code, metrics in own.items()}
    if not own or any(map(math.isnan, (*exact.values(), *kept.values()))):
        return msgspec.structs.replace(trial, state="no exact or locality_tokens")
    pairs = [pair for layer in geometry for name, pair in layer.pairs.items() if name.startswith("run")]
    size = round(math.hypot(*(norm for pair in pairs for norm in (pair.norm_left, pair.norm_right))), 4) if pairs else None
    score = round(statistics.fmean(_harmonic(exact[code], kept[code]) for code in own), 4)
    return msgspec.structs.replace(trial, exact=exact, locality_tokens=kept, score=score, size=size)


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Return the trials as rows of text, header first."""
    keys = list(trials[0].values)
    codes = list(dict.fromkeys(code for trial in trials for code in trial.exact))
    head = ["trial", *keys, *(f"exact {code}" for code in codes), *(f"kept {code}" for code in codes), "score", "size", "state"]
    return [head] + [
        [
            f"{number:02d}",
            *(str(trial.values[key]) for key in keys),
            *(_text(shares.get(code), 3) for shares in (trial.exact, trial.locality_tokens) for code in codes),
            _text(trial.score, 4),
            _text(trial.size, 3),
            trial.state,
        ]
        for number, trial in enumerate(trials, start=1)
    ]


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _value(estimate: Estimate) -> float:
    return math.nan if estimate.value is None else estimate.value


def _text(number: float | None, decimals: int) -> str:
    return "-" if number is None else f"{number:.{decimals}f}"
