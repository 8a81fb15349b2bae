"""From the cells of the joint experiment to a flat row per checkpoint, to findings over models, and to sentences.

A model is a cell and a seed. What is read off several models has an interval over models: by bootstrap, for correlations by Fisher's z.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, get_args

import msgspec
import numpy as np
from scipy.stats import spearmanr

from xledit.crossing.results import CellCrossing, CheckpointCrossing, EditCrossing, Names, SeedCrossing
from xledit.evaluation.intervals import Estimate, bootstrap
from xledit.interpret.results import Pairs
from xledit.report.common.numbers import number, or_nan
from xledit.training.results import Recall, Status

RESAMPLES, SEED = 2000, 0
KINDS: dict[Names, str] = {"whole": "alike, one token", "pieces": "alike, in pieces", "own": "in own letters"}
# the method of the figure and of what is compared with facts
MAIN = "memit"
ALL = "all"
# no ratio where fewer facts than that gained in the edited language
LEAST_GAIN = 0.1


class EditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Edits by one method, both directions together: shares of the facts.

    ``stored``: says the new answer in the edited language. The others are gains, after minus before: ``gain``, of preference for the new
    answer in the edited language; ``reach``, the same in the other language; ``control``, the same where the other language is asked about
    *other* persons; ``said``, of free, word-for-word answers in the other language.
    """

    stored: float
    gain: float
    reach: float
    control: float
    said: float

    @property
    def crossing(self) -> float:
        """Share of the facts that cross: what the other language gains, over what it gains for other persons."""
        return self.reach - self.control

    @property
    def net_transfer(self) -> float:
        """Crossing as a share of the gain in the edited language; NaN where next to nothing was gained there."""
        return self.crossing / self.gain if self.gain >= LEAST_GAIN else math.nan


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of one model.

    ``known`` and ``elsewhere``: share recalled, in a known wording, of facts told in both languages and told only in the other one;
    ``nowhere``: of those told nowhere. ``unification``, ``cka`` (minus its null), ``retrieval`` and ``mexa`` are means over the depths
    between the layers, None where a measure is not defined. ``neurons``: by how much more switching off a language's own neurons raises
    its loss than as many others (nats per token).
    """

    everywhere: float
    english: float
    names: Names
    seed: int
    place: int
    tokens: int
    tokens_per_name: float
    known: float
    elsewhere: float
    nowhere: float
    edits: dict[str, EditRow]
    unification: float | None
    cka: float | None
    retrieval: float | None
    mexa: float | None
    neurons: float

    @property
    def model(self) -> tuple[float, float, Names, int]:
        """The cell and the seed."""
        return self.everywhere, self.english, self.names, self.seed

    @property
    def facts(self) -> float:
        """How far facts cross: told in the other language only, over told nowhere."""
        return self.elsewhere - self.nowhere


def rows(cells: Sequence[CellCrossing]) -> list[Row]:
    """Return all rows, cell by cell, seed by seed, in the order of tokens."""
    return [
        _row(cell, seed, place, checkpoint) for cell in cells for seed in cell.seeds for place, checkpoint in enumerate(seed.checkpoints)
    ]


def _row(cell: CellCrossing, seed: SeedCrossing, place: int, checkpoint: CheckpointCrossing) -> Row:
    return Row(
        everywhere=cell.everywhere,
        english=cell.english,
        names=cell.names,
        seed=seed.seed,
        place=place,
        tokens=checkpoint.tokens,
        tokens_per_name=fmean(seed.tokens_per_name.values()),
        known=_recalled(checkpoint.recall, "everywhere"),
        elsewhere=_recalled(checkpoint.recall, "elsewhere"),
        nowhere=_recalled(checkpoint.recall, "nowhere"),
        edits={
            name: _edit([row for row in checkpoint.edits if row.method == name])
            for name in dict.fromkeys(row.method for row in checkpoint.edits)
        },
        unification=_inner([row.score for row in checkpoint.unification]),
        cka=_inner([row.cka for row in checkpoint.depths]) - _inner([row.cka_shuffled for row in checkpoint.depths]),
        retrieval=_inner([row.retrieval for row in checkpoint.depths]),
        mexa=_inner([row.mexa for row in checkpoint.depths]),
        neurons=fmean(own.rise[own.language] - own.random_rise[own.language] for own in checkpoint.neurons),
    )


def _recalled(recall: Sequence[Recall], status: Status) -> float:
    """Return the share of facts recalled in a known wording, over both languages."""
    chosen = [row for row in recall if row.status == status and row.wording == "known"]
    return sum(row.share * row.num_facts for row in chosen) / sum(row.num_facts for row in chosen) if chosen else math.nan


def _edit(asked: Sequence[EditCrossing]) -> EditRow:
    own = [row for row in asked if row.edit_language == row.probe_language]
    other = [row for row in asked if row.edit_language != row.probe_language]

    def gain(of: Sequence[EditCrossing], name: str) -> float:
        return fmean(row.shares[name].value - row.shares[name].floor for row in of)

    return EditRow(
        stored=fmean(row.shares["exact"].value for row in own),
        gain=gain(own, "efficacy"),
        reach=gain(other, "efficacy"),
        control=gain(other, "control"),
        said=gain(other, "exact"),
    )


def _inner(depths: Sequence[Pairs]) -> float:
    """Return the mean over the depths between the layers: neither the embeddings nor what the head reads."""
    values = [pairs.mean for pairs in depths[1:-1] if pairs.mean is not None]
    return fmean(values) if values else math.nan


# over models

Value = Callable[[Row], float]
MEASURES: dict[str, Value] = {
    "unification": lambda row: or_nan(row.unification),
    "linear CKA": lambda row: or_nan(row.cka),
    "retrieval": lambda row: or_nan(row.retrieval),
    "MEXA": lambda row: or_nan(row.mexa),
    "language neurons": lambda row: row.neurons,
    "facts known": lambda row: row.known,
    "facts that cross": lambda row: row.facts,
}


def crossing_of(method: str) -> Value:
    """Return the function that gives the share of edits by a method that cross."""
    return lambda row: row.edits[method].crossing


def stored_by(method: str) -> Value:
    """Return the function that gives the share of edits that a method stores."""
    return lambda row: row.edits[method].stored


def main_method(found: Sequence[Row]) -> str:
    """Return ``MAIN``, or the first method where it is not among them."""
    return MAIN if MAIN in found[0].edits else min(found[0].edits)


def targets(found: Sequence[Row]) -> dict[str, Value]:
    """Return what is to be predicted: how far facts cross, and edits by each method."""
    return {"facts": MEASURES["facts that cross"]} | {f"edits by {method}": crossing_of(method) for method in found[0].edits}


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a measure at a checkpoint goes with crossing at the last one: Spearman's rank correlation over models."""

    measure: str
    tokens: int
    target: str
    num_models: int
    correlation: Estimate


def predictions(found: Sequence[Row]) -> list[Prediction]:
    """Return the rank correlations of each measure at each checkpoint with each target at the last checkpoint, over models."""
    last = {row.model: row for row in ends(found)}
    predicted = []
    for place in sorted({row.place for row in found}):
        here = [row for row in found if row.place == place]
        for measure, value in MEASURES.items():
            for target, of_end in targets(found).items():
                sample = np.array([(value(row), of_end(last[row.model])) for row in here])
                sample = sample[~np.isnan(sample).any(axis=1)]
                predicted.append(
                    Prediction(
                        measure=measure,
                        tokens=round(fmean(row.tokens for row in here)),
                        target=target,
                        num_models=len(sample),
                        correlation=correlation(sample),
                    )
                )
    return predicted


def correlation(pairs: np.ndarray) -> Estimate:
    """Return Spearman's rank correlation of two columns and its 95 % interval; NaN for fewer than 5 rows or a column of equal numbers.

    The interval is Fisher's, tanh(atanh(r) +- 1.96 s) with s^2 = 1.06 / (n - 3) for ranks (Fieller, Hartley and Pearson 1957).
    """
    if len(pairs) < 5 or (np.ptp(pairs, axis=0) == 0).any():
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    ranked: Any = spearmanr(pairs[:, 0], pairs[:, 1])
    value = float(ranked.statistic)
    centre, half = math.atanh(max(-1 + 1e-9, min(1 - 1e-9, value))), 1.96 * math.sqrt(1.06 / (len(pairs) - 3))
    return Estimate(value=round(value, 4), low=round(math.tanh(centre - half), 4), high=round(math.tanh(centre + half), 4))


def mean_over(found: Sequence[Row], value: Value) -> Estimate:
    """Return the mean over models with a bootstrap interval over them; models without a value are left out."""
    sample = np.array([value(row) for row in found])
    return bootstrap(lambda numbers: float(np.mean(numbers)), sample, resamples=RESAMPLES, seed=SEED)


def ends(found: Sequence[Row]) -> list[Row]:
    """Return the rows of the last checkpoints."""
    last = max(row.place for row in found)
    return [row for row in found if row.place == last]


def of_kind(found: Sequence[Row], names: Names) -> list[Row]:
    """Return the rows of models whose persons are named so."""
    return [row for row in found if row.names == names]


def kinds_of(found: Sequence[Row]) -> list[Names]:
    """Return the kinds of names that there are models of."""
    return [names for names in KINDS if of_kind(found, names)]


def alike_but_for(found: Sequence[Row], level_of: Value, other_of: Value) -> dict[float, list[Row]]:
    """Return the rows by level, of those cells that differ in nothing else: whose other level is there at every level."""
    levels = sorted({level_of(row) for row in found})
    shared = set.intersection(*({other_of(row) for row in found if level_of(row) == level} for level in levels))
    return {level: some for level in levels if (some := [row for row in found if level_of(row) == level and other_of(row) in shared])}


class EndRow(msgspec.Struct, frozen=True, kw_only=True):
    """The last checkpoints of a cell, means over its seeds: the README's table."""

    everywhere: float
    english: float
    names: Names
    num_models: int
    tokens_per_name: float
    known: Estimate
    facts: Estimate
    edits: dict[str, Estimate]
    stored: dict[str, Estimate]
    net_transfer: dict[str, Estimate]
    unification: Estimate


def end_rows(found: Sequence[Row]) -> list[EndRow]:
    """Return a row per cell, in the order of names, share told in both and balance."""
    methods, cells = list(found[0].edits), dict[tuple[float, float, Names], list[Row]]()
    for row in sorted(ends(found), key=lambda row: (get_args(Names).index(row.names), row.everywhere, row.english, row.seed)):
        cells.setdefault((row.everywhere, row.english, row.names), []).append(row)
    return [
        EndRow(
            everywhere=everywhere,
            english=english,
            names=names,
            num_models=len(some),
            tokens_per_name=fmean(row.tokens_per_name for row in some),
            known=mean_over(some, MEASURES["facts known"]),
            facts=mean_over(some, MEASURES["facts that cross"]),
            edits={method: mean_over(some, crossing_of(method)) for method in methods},
            stored={method: mean_over(some, stored_by(method)) for method in methods},
            net_transfer={method: mean_over(some, lambda row, method=method: row.edits[method].net_transfer) for method in methods},
            unification=mean_over(some, MEASURES["unification"]),
        )
        for (everywhere, english, names), some in cells.items()
    ]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept in reports/crossing/findings.json: ``predictions`` over all models, and over those of one kind of names."""

    ends: list[EndRow]
    predictions: dict[str, list[Prediction]]
    sentences: list[str]


def findings(found: Sequence[Row]) -> Findings:
    """Return what is read off all rows."""
    return Findings(
        ends=end_rows(found),
        predictions={ALL: predictions(found)} | {names: predictions(of_kind(found, names)) for names in kinds_of(found)},
        sentences=sentences(found),
    )


# in words


def said(estimate: Estimate) -> str:
    """Return a value with its interval."""
    if math.isnan(or_nan(estimate.value)):
        return "undefined"
    value, low, high = (number(or_nan(part)) for part in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def sentences(found: Sequence[Row]) -> list[str]:
    """Return what the experiment says: by kind of names, by share and balance, edits beside facts, and what predicts them."""
    last, methods, facts = ends(found), list(found[0].edits), MEASURES["facts that cross"]
    main = main_method(found)
    kinds: dict[Names, list[Row]] = {names: of_kind(last, names) for names in kinds_of(last)}

    def by_kind(value: Value) -> str:
        return "; ".join(f"{KINDS[names]} {said(mean_over(some, value))}" for names, some in kinds.items())

    tokens = ", ".join(f"{fmean(row.tokens_per_name for row in some):.1f} ({KINDS[names]})" for names, some in kinds.items())
    lines = [
        f"{len(last)} models at their last checkpoints. A name has {tokens} tokens.",
        f"Share of facts told in one language only that the other knows, over facts told nowhere: {by_kind(facts)}.",
    ]
    for method in methods:
        lines.append(
            f"Share of edits by {method} that cross, over the control: {by_kind(crossing_of(method))}. "
            f"Stored: {by_kind(stored_by(method))}."
        )
    for what, level_of, other_of in (
        ("the share told in both languages", lambda row: row.everywhere, lambda row: row.english),
        ("English's share of the tokens", lambda row: row.english, lambda row: row.everywhere),
    ):
        for names, some in kinds.items():
            groups = alike_but_for(some, level_of, other_of)
            parts = (
                f"{level:g}: facts {said(mean_over(group, facts))}, edits by {main} {said(mean_over(group, crossing_of(main)))}"
                for level, group in groups.items()
            )
            if len(groups) > 1:
                lines.append(f"By {what} ({KINDS[names]}): {'; '.join(parts)}.")
    for title, some in {"all models": last, **{KINDS[names]: some for names, some in kinds.items()}}.items():
        parts = (f"{method} {said(correlation(np.array([(facts(row), crossing_of(method)(row)) for row in some])))}" for method in methods)
        lines.append(f"Rank correlation of how far facts and edits cross, {title}: {'; '.join(parts)}.")
    return lines
