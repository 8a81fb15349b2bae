"""From the cells of the joint experiment to a flat row per checkpoint and kind of names, to findings over models, and to sentences.

A model is a cell and a seed. What is read off several models has an interval by bootstrap over models.
"""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

import msgspec
import numpy as np
from scipy.stats import rankdata

from xledit.crossing.results import CellCrossing, CheckpointCrossing, EditCrossing
from xledit.evaluation.intervals import Estimate, bootstrap
from xledit.interpret.results import Pairs
from xledit.report.common.numbers import or_nan
from xledit.training.results import Recall, Status

RESAMPLES, SEED = 2000, 0


class EditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Edits by one method, both directions together. Gains are shares after minus before, summed over the directions.

    ``stored``: share that says the new answer in the edited language. ``transfer``: gain of preference for the new answer in the other
    language over that in the edited one; ``control``: the same where the other language is asked about *other* persons; ``said``: gain of
    free, word-for-word answers in the other language over that in the edited one. NaN where nothing was gained in the edited language.
    """

    stored: float
    transfer: float | None
    control: float | None
    said: float | None

    @property
    def crossing(self) -> float:
        """Transfer minus control; NaN where there is none."""
        return math.nan if self.transfer is None or self.control is None else self.transfer - self.control


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of one model, for persons of one kind of names.

    ``known`` and ``elsewhere``: share recalled, in a known wording, of facts told in both languages and told only in the other one;
    ``nowhere``: of those told nowhere. ``unification``, ``cka`` (minus its null), ``retrieval`` and ``mexa`` are means over the depths
    between the layers; the last three are of both kinds of names. ``neurons``: by how much more switching off a language's own neurons
    raises its loss than as many others (nats per token).
    """

    everywhere: float
    english: float
    seed: int
    place: int
    tokens: int
    names_alike: bool
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
    def facts(self) -> float:
        """How far facts cross: told in the other language only, over told nowhere."""
        return self.elsewhere - self.nowhere


def rows(cells: Sequence[CellCrossing]) -> list[Row]:
    """Return all rows, cell by cell, seed by seed, in the order of tokens."""
    return [
        _row(cell, seed.seed, place, checkpoint, names_alike)
        for cell in cells
        for seed in cell.seeds
        for place, checkpoint in enumerate(seed.checkpoints)
        for names_alike in (True, False)
    ]


def _row(cell: CellCrossing, seed: int, place: int, checkpoint: CheckpointCrossing, names_alike: bool) -> Row:
    unified = [row for row in checkpoint.unification if row.names_alike == names_alike]
    return Row(
        everywhere=cell.everywhere,
        english=cell.english,
        seed=seed,
        place=place,
        tokens=checkpoint.tokens,
        names_alike=names_alike,
        known=_recalled(checkpoint.recall, "everywhere", names_alike),
        elsewhere=_recalled(checkpoint.recall, "elsewhere", names_alike),
        nowhere=_recalled(checkpoint.recall, "nowhere", names_alike),
        edits={
            name: _edit([row for row in checkpoint.edits if row.method == name and row.names_alike == names_alike])
            for name in dict.fromkeys(row.method for row in checkpoint.edits)
        },
        unification=_inner([row.score for row in unified]),
        cka=_inner([row.cka for row in checkpoint.depths]) - _inner([row.cka_shuffled for row in checkpoint.depths]),
        retrieval=_inner([row.retrieval for row in checkpoint.depths]),
        mexa=_inner([row.mexa for row in checkpoint.depths]),
        neurons=fmean(own.rise[own.language] - own.random_rise[own.language] for own in checkpoint.neurons),
    )


def _recalled(recall: Sequence[Recall], status: Status, names_alike: bool) -> float:
    """Return the share of facts recalled in a known wording, over both languages."""
    chosen = [row for row in recall if row.status == status and row.wording == "known" and row.names_alike == names_alike]
    return sum(row.share * row.num_facts for row in chosen) / sum(row.num_facts for row in chosen) if chosen else math.nan


def _edit(asked: Sequence[EditCrossing]) -> EditRow:
    own = [row for row in asked if row.edit_language == row.probe_language]
    other = [row for row in asked if row.edit_language != row.probe_language]

    def gain(of: Sequence[EditCrossing], name: str) -> float:
        return sum(row.shares[name].value - row.shares[name].floor for row in of)

    def ratio(name: str, over: str) -> float:
        gained = gain(own, over)
        return gain(other, name) / gained if gained > 0 else math.nan

    return EditRow(
        stored=fmean(row.shares["exact"].value for row in own),
        transfer=ratio("efficacy", "efficacy"),
        control=ratio("control", "efficacy"),
        said=ratio("exact", "exact"),
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
    "facts that cross": lambda row: row.facts,
}


def crossing_of(method: str) -> Value:
    """Return the function that gives how far edits by a method cross: transfer minus control."""
    return lambda row: row.edits[method].crossing


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a measure at a checkpoint goes with crossing at the last one: Spearman's rank correlation over models."""

    measure: str
    tokens: int
    target: str
    num_models: int
    correlation: Estimate


def predictions(found: Sequence[Row], targets: dict[str, Value], *, names_alike: bool) -> list[Prediction]:
    """Return the rank correlations of each measure at each checkpoint with each target at the last checkpoint, over models."""
    chosen = [row for row in found if row.names_alike == names_alike]
    last = max(row.place for row in chosen)
    ends = {(row.everywhere, row.english, row.seed): row for row in chosen if row.place == last}
    predicted = []
    for place in range(last + 1):
        here = [row for row in chosen if row.place == place]
        for measure, value in MEASURES.items():
            for target, of_end in targets.items():
                pairs = [(value(row), of_end(ends[row.everywhere, row.english, row.seed])) for row in here]
                sample = np.array([pair for pair in pairs if not any(map(math.isnan, pair))])
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
    """Return Spearman's rank correlation of two columns, with a bootstrap interval over rows; NaN for fewer than 4 rows."""
    if len(pairs) < 4:
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    return bootstrap(_spearman, pairs[:, 0], pairs[:, 1], resamples=RESAMPLES, seed=SEED)


def _spearman(left: np.ndarray, right: np.ndarray) -> float:
    ranks = rankdata(left), rankdata(right)
    if any(np.ptp(rank) == 0 for rank in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def mean_over(found: Sequence[Row], value: Value) -> Estimate:
    """Return the mean over models with a bootstrap interval over them; models without a value are left out."""
    sample = np.array([value(row) for row in found])
    sample = sample[~np.isnan(sample)]
    if not len(sample):
        return Estimate(value=math.nan, low=math.nan, high=math.nan)
    return bootstrap(lambda numbers: float(np.mean(numbers)), sample, resamples=RESAMPLES, seed=SEED)


def ends(found: Sequence[Row]) -> list[Row]:
    """Return the rows of the last checkpoints."""
    last = max(row.place for row in found)
    return [row for row in found if row.place == last]


class EndRow(msgspec.Struct, frozen=True, kw_only=True):
    """The last checkpoints of a cell, means over seeds: the README's table."""

    everywhere: float
    english: float
    names_alike: bool
    num_models: int
    known: Estimate
    facts: Estimate
    edits: dict[str, Estimate]
    stored: dict[str, Estimate]
    unification: Estimate


def end_rows(found: Sequence[Row]) -> list[EndRow]:
    """Return a row per cell and kind of names."""
    methods = list(found[0].edits)
    grouped: dict[tuple[float, float, bool], list[Row]] = {}
    for row in ends(found):
        grouped.setdefault((row.everywhere, row.english, row.names_alike), []).append(row)
    return [
        EndRow(
            everywhere=everywhere,
            english=english,
            names_alike=names_alike,
            num_models=len(some),
            known=mean_over(some, lambda row: row.known),
            facts=mean_over(some, lambda row: row.facts),
            edits={method: mean_over(some, crossing_of(method)) for method in methods},
            stored={method: mean_over(some, lambda row, method=method: row.edits[method].stored) for method in methods},
            unification=mean_over(some, lambda row: or_nan(row.unification)),
        )
        for (everywhere, english, names_alike), some in grouped.items()
    ]


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept in reports/crossing/findings.json."""

    ends: list[EndRow]
    predictions: dict[str, list[Prediction]]  # by kind of names


KINDS = {"alike": True, "own letters": False}


def findings(found: Sequence[Row]) -> Findings:
    """Return what is read off all rows."""
    targets = {"facts": MEASURES["facts that cross"]} | {f"edits by {method}": crossing_of(method) for method in found[0].edits}
    return Findings(
        ends=end_rows(found),
        predictions={kind: predictions(found, targets, names_alike=names_alike) for kind, names_alike in KINDS.items()},
    )


# in words


def said(estimate: Estimate) -> str:
    """Return a value with its interval."""
    if estimate.value is None or math.isnan(estimate.value):
        return "undefined"
    return f"{estimate.value:.2f} [{or_nan(estimate.low):.2f}, {or_nan(estimate.high):.2f}]"


def sentences(found: Sequence[Row]) -> list[str]:
    """Return what the experiment says: names, shares and balance, edits beside facts, and what predicts them."""
    last, methods, facts = ends(found), list(found[0].edits), MEASURES["facts that cross"]
    by_kind = {kind: [row for row in last if row.names_alike == names_alike] for kind, names_alike in KINDS.items()}
    alike, own = (said(mean_over(some, facts)) for some in by_kind.values())
    lines = [
        f"Facts told in one language, asked in the other, stand above facts told nowhere by {alike} where names are spelt alike and by "
        f"{own} in each language's own letters (last checkpoints of {len(by_kind['alike'])} models)."
    ]
    for method in methods:
        values = {kind: said(mean_over(some, crossing_of(method))) for kind, some in by_kind.items()}
        lines.append(
            f"Edits by {method}: net transfer minus its control {values['alike']} alike and {values['own letters']} in own letters; "
            f"stored {said(mean_over(last, lambda row, method=method: row.edits[method].stored))}."
        )
    for name, value in (("everywhere", lambda row: row.everywhere), ("english", lambda row: row.english)):
        parts = [
            f"{said(mean_over([row for row in by_kind['alike'] if value(row) == level], facts))} at {level:g}"
            for level in sorted({value(row) for row in last})
        ]
        what = "the share told in both languages" if name == "everywhere" else "English's share of the tokens"
        lines.append(f"By {what}, names alike, facts cross by {', '.join(parts)}.")
    both = np.array([(row.facts, row.edits[methods[0]].crossing) for row in last])
    both = both[~np.isnan(both).any(1)]
    lines.append(
        f"Over {len(both)} models and kinds of names, edits by {methods[0]} cross where facts do with rank correlation "
        f"{said(correlation(both))}."
    )
    return lines
