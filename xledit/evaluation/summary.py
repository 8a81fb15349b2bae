"""Scores of one edited model to its summary: every metric beside its floor, transfer, and examples."""

import functools
from collections.abc import Sequence

import msgspec
import numpy as np

from xledit.evaluation.intervals import bootstrap
from xledit.evaluation.metrics import METRICS, SCORE_PARTS, PerFact, harmonic, net_transfer, per_fact, trans
from xledit.records import Score
from xledit.results import CellSummary, Estimate, Example

# what is said to cross or not: preference, the paper's token accuracy, and saying the answer freely
TRANSFER_METRICS = ("efficacy", "reliability", "exact")


class SummaryParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``summary`` section of params.yaml."""

    resamples: int
    examples: int


def summarise(
    method: str,
    edit: str,
    edit_languages: Sequence[str],
    after: Sequence[Score],
    before: Sequence[Score],
    params: SummaryParams,
    seed: int,
) -> CellSummary:
    """Return the summary of one edited model from its scores and the unedited model's, on the same probes."""
    fact_ids = list(dict.fromkeys(score.fact_id for score in after))
    languages = list(dict.fromkeys(score.language for score in after))
    pairs = {code: [pair for pair in zip(after, before, strict=True) if pair[0].language == code] for code in languages}
    values = {code: _per_metric(found, fact_ids) for code, found in pairs.items()}
    floors = {code: _per_metric([(was, was) for _score, was in found], fact_ids) for code, found in pairs.items()}
    estimate = functools.partial(bootstrap, resamples=params.resamples, seed=seed)

    def table(of: dict[str, dict[str, PerFact]]) -> dict[str, dict[str, Estimate]]:
        return {
            code: {name: estimate(_mean, sample) for name, sample in metrics.items()}
            | {"score": estimate(_harmonic_of_means, *(metrics[name] for name in SCORE_PARTS))}
            for code, metrics in of.items()
        }

    reliabilities = [values[code]["reliability"] for code in languages]
    own = edit_languages[0]
    others = [code for code in languages if code not in edit_languages]
    return CellSummary(
        method=method,
        edit=edit,
        edit_languages=tuple(edit_languages),
        num_facts=len(fact_ids),
        metrics=table(values),
        floor=table(floors),
        transfer={
            other: {
                name: estimate(net_transfer, values[own][name], floors[own][name], values[other][name], floors[other][name])
                for name in TRANSFER_METRICS
            }
            for other in others
        },
        trans=estimate(lambda *samples: trans(min(map(_mean, samples)), max(map(_mean, samples))), *reliabilities),
        examples=tuple(_examples(pairs, params.examples)),
    )


def _per_metric(pairs: Sequence[tuple[Score, Score]], fact_ids: Sequence[str]) -> dict[str, PerFact]:
    after, before = [score for score, _was in pairs], [was for _score, was in pairs]
    return {name: per_fact(name, after, before, fact_ids) for name in METRICS}


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
