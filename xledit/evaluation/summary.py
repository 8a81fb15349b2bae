"""From the scores of one edited model to its summary: every metric beside its floor, transfer, and examples."""

import functools
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from jaxtyping import Bool, Float

from xledit.evaluation.checks import Check
from xledit.evaluation.intervals import Estimate, bootstrap
from xledit.evaluation.metrics import METRICS, PerFact, Place, harmonic, net_transfer, per_fact, shown_in, trans
from xledit.records import Score

# labels by whose values facts are summarised in groups
GROUPED_BY = ("split", "order")

PerMetric = dict[str, PerFact]


class SummaryParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``summary`` section of params.yaml."""

    resamples: int
    examples: int


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One probe, with the model's answers before and after the edit. Its texts come from data and model: untrusted."""

    language: str
    prompt: str
    target_new: str
    target_true: str
    before: str
    after: str


class GroupSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that share a label: a few metrics and their floors by probe language, net transfer by other language."""

    label: str
    value: str
    num_facts: int
    metrics: dict[str, dict[str, Estimate]]
    floor: dict[str, dict[str, Estimate]]
    transfer: dict[str, dict[str, Estimate]]


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One edited model. ``metrics`` and ``floor`` are by probe language and metric; ``transfer`` by other language and metric.

    ``trans`` is the paper's measure (the smallest over the largest reliability). ``groups`` are facts that share a label,
    where there are several of that label. ``checks`` say how the model fared batch by batch; empty where no weight changed.
    """

    method: str
    edit: str
    edit_languages: tuple[str, ...]
    num_facts: int
    metrics: dict[str, dict[str, Estimate]]
    floor: dict[str, dict[str, Estimate]]
    transfer: dict[str, dict[str, Estimate]]
    trans: Estimate
    groups: tuple[GroupSummary, ...] = ()
    checks: tuple[Check, ...] = ()
    examples: tuple[Example, ...]


def summarise(
    method: str,
    edit: str,
    edit_languages: Sequence[str],
    after: Sequence[Score],
    before: Sequence[Score],
    labels: Mapping[str, Mapping[str, str]],
    checks: Sequence[Check],
    params: SummaryParams,
    seed: int,
) -> CellSummary:
    """Return the summary of one edited model from its scores and the unedited model's, on the same probes.

    ``labels`` are by fact id; facts that share one of GROUPED_BY are also summarised as a group. ``checks`` are passed on.
    """
    fact_ids = list(dict.fromkeys(score.fact_id for score in after))
    languages = list(dict.fromkeys(score.language for score in after))
    pairs = {code: [pair for pair in zip(after, before, strict=True) if pair[0].language == code] for code in languages}
    values = {code: _per_metric(scores, fact_ids) for code, scores in pairs.items()}
    floors = {code: _per_metric([(was, was) for _score, was in scores], fact_ids) for code, scores in pairs.items()}
    estimate = functools.partial(bootstrap, resamples=params.resamples, seed=seed)

    def estimate_of(of: PerMetric, name: str) -> Estimate:
        parts = METRICS[name].parts
        return estimate(_harmonic_of_means, *(of[part] for part in parts)) if parts else estimate(_mean, of[name])

    def table(of: dict[str, PerMetric], place: Place) -> dict[str, dict[str, Estimate]]:
        return {code: {name: estimate_of(metrics, name) for name in shown_in(place)} for code, metrics in of.items()}

    def transfer(values: dict[str, PerMetric], floors: dict[str, PerMetric]) -> dict[str, dict[str, Estimate]]:
        own = edit_languages[0]
        over = {name: METRICS[name].over or name for name in shown_in("net_every")}
        return {
            other: {
                name: estimate(net_transfer, values[own][gain], floors[own][gain], values[other][name], floors[other][name])
                for name, gain in over.items()
            }
            for other in languages
            if other not in edit_languages
        }

    def group(label: str, value: str) -> GroupSummary:
        chosen = np.array([labels.get(fact_id, {}).get(label) == value for fact_id in fact_ids])
        chosen_values, chosen_floors = _subset(values, chosen), _subset(floors, chosen)
        return GroupSummary(
            label=label,
            value=value,
            num_facts=int(chosen.sum()),
            metrics=table(chosen_values, "headline"),
            floor=table(chosen_floors, "headline"),
            transfer=transfer(chosen_values, chosen_floors),
        )

    reliabilities = [values[code]["reliability"] for code in languages]
    return CellSummary(
        method=method,
        edit=edit,
        edit_languages=tuple(edit_languages),
        num_facts=len(fact_ids),
        metrics=table(values, "every"),
        floor=table(floors, "every"),
        transfer=transfer(values, floors),
        trans=estimate(lambda *samples: trans(min(map(_mean, samples)), max(map(_mean, samples))), *reliabilities),
        groups=tuple(group(label, value) for label, value in _label_values(labels, fact_ids)),
        checks=tuple(checks),
        examples=tuple(_examples(pairs, params.examples)),
    )


def _label_values(labels: Mapping[str, Mapping[str, str]], fact_ids: Sequence[str]) -> list[tuple[str, str]]:
    """Return each label's values, for labels of which the facts have several."""
    values_of = {
        label: sorted({labels[fact_id][label] for fact_id in fact_ids if label in labels.get(fact_id, {})}) for label in GROUPED_BY
    }
    return [(label, value) for label, values in values_of.items() if len(values) > 1 for value in values]


def _subset(of: dict[str, PerMetric], chosen: Bool[np.ndarray, " facts"]) -> dict[str, dict[str, Float[np.ndarray, " chosen"]]]:
    return {code: {name: sample[chosen] for name, sample in metrics.items()} for code, metrics in of.items()}


def _per_metric(pairs: Sequence[tuple[Score, Score]], fact_ids: Sequence[str]) -> dict[str, PerFact]:
    after, before = [score for score, _was in pairs], [was for _score, was in pairs]
    return {name: per_fact(name, after, before, fact_ids) for name, row in METRICS.items() if not row.parts}


def _examples(pairs: dict[str, list[tuple[Score, Score]]], number: int) -> list[Example]:
    """Return the first free answers in each language."""
    return [
        Example(
            language=code,
            prompt=score.prompt,
            target_new=score.target_new,
            target_true=score.target_true,
            before=was.generated or "",
            after=score.generated or "",
        )
        for code in pairs
        for score, was in [pair for pair in pairs[code] if pair[0].generated is not None][:number]
    ]


def _mean(sample: PerFact) -> float:
    return float(np.mean(sample))


def _harmonic_of_means(*samples: PerFact) -> float:
    return harmonic(*map(_mean, samples))
