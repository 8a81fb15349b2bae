"""One function per metric: scores of a model in, one number per fact out; and what is made of several of them.

A metric takes a fact's scores of one kind, before and after the edit, and returns its mean over them, in [0, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from xledit.records import AnswerScore, Kind, Score

PerFact = Float[np.ndarray, " facts"]
Rule = Callable[[AnswerScore], float]


def mean_logprob(answer: AnswerScore) -> float:
    """Return the log-probability per token (nats): the headline rule, because true answers are longer."""
    return answer.logprob / len(answer.tokens)


def sum_logprob(answer: AnswerScore) -> float:
    """Return the log-probability of the whole answer (nats)."""
    return answer.logprob


def new_ahead(score: Score, _before: Score, rule: Rule = mean_logprob) -> float:
    """Return 1 if the new answer is likelier than the true one (CounterFact's ES and PS, arXiv 2202.05262)."""
    return float(rule(score.new) > rule(score.true))


def new_ahead_by_sum(score: Score, before: Score) -> float:
    """As ``new_ahead``, comparing whole answers instead of means per token."""
    return new_ahead(score, before, sum_logprob)


def true_ahead(score: Score, _before: Score, rule: Rule = mean_logprob) -> float:
    """Return 1 if the true answer is likelier than the edit's new one (CounterFact's NS)."""
    return float(rule(score.true) > rule(score.new))


def true_ahead_by_sum(score: Score, before: Score) -> float:
    """As ``true_ahead``, comparing whole answers instead of means per token."""
    return true_ahead(score, before, sum_logprob)


def token_accuracy(score: Score, _before: Score) -> float:
    """Return the share of the new answer's tokens that are the argmax, teacher forced: the paper's reliability (arXiv 2601.17397)."""
    return _share_equal(score.new.tokens, score.new.argmax)


def exact_forced(score: Score, _before: Score) -> float:
    """Return 1 if every token of the new answer is the argmax, teacher forced."""
    return float(score.new.tokens == score.new.argmax)


def exact(score: Score, _before: Score) -> float:
    """Return 1 if the model, decoding greedily with nothing given away, opens with the new answer."""
    assert score.generated is not None, "only probes that were answered freely have this metric"
    return float(score.generated.strip().startswith(score.target_new))


def tokens_unchanged(score: Score, before: Score) -> float:
    """Return the share of argmax tokens along the true answer that the edit left as they were: the paper's locality."""
    return _share_equal(score.true.argmax, before.true.argmax)


# name -> the kind of probes it is about, and its function; each is higher when the edit did what it should
METRICS: dict[str, tuple[Kind, Callable[[Score, Score], float]]] = {
    "efficacy": ("efficacy", new_ahead),
    "efficacy_sum": ("efficacy", new_ahead_by_sum),
    "reliability": ("efficacy", token_accuracy),
    "exact": ("efficacy", exact),
    "exact_forced": ("efficacy", exact_forced),
    "paraphrase": ("paraphrase", new_ahead),
    "paraphrase_sum": ("paraphrase", new_ahead_by_sum),
    "generality": ("paraphrase", token_accuracy),
    "paraphrase_exact": ("paraphrase", exact_forced),
    "translated": ("translated", new_ahead),
    "translated_exact": ("translated", exact_forced),
    "alias": ("alias", new_ahead),
    "alias_exact": ("alias", exact_forced),
    "portability": ("portability", new_ahead),
    "portability_tokens": ("portability", token_accuracy),
    "locality": ("locality", true_ahead),
    "locality_sum": ("locality", true_ahead_by_sum),
    "locality_tokens": ("locality", tokens_unchanged),
    "near": ("near", true_ahead),
    "near_tokens": ("near", tokens_unchanged),
    "far": ("far", true_ahead),
    "far_tokens": ("far", tokens_unchanged),
}
SCORE_PARTS = ("efficacy", "paraphrase", "locality")


def per_fact(name: str, after: Sequence[Score], before: Sequence[Score], fact_ids: Sequence[str]) -> PerFact:
    """Return the metric of each fact, in the order of ``fact_ids``: its mean over the fact's probes; NaN without any.

    Raises ValueError when the two lists are not scores of the same probes.
    """
    kind, function = METRICS[name]
    values: dict[str, list[float]] = {fact_id: [] for fact_id in fact_ids}
    for score, was in zip(after, before, strict=True):
        if (score.fact_id, score.language, score.kind, score.prompt) != (was.fact_id, was.language, was.kind, was.prompt):
            raise ValueError(f"fact {score.fact_id}: scores before and after are of different probes; run `dvc repro` again")
        if score.kind == kind:
            values[score.fact_id].append(function(score, was))
    return np.array([np.mean(found) if found else np.nan for found in values.values()])


def harmonic(*parts: float) -> float:
    """Return the harmonic mean of efficacy, paraphrase and locality (CounterFact's S); 0 if one of them is."""
    return 0.0 if min(parts) <= 0 else float(stats.hmean(parts))


def trans(reliability: float, other: float) -> float:
    """Return the paper's cross-lingual measure: the smaller of two languages' reliabilities over the larger.

    arXiv 2601.17397 gives no formula; this one reproduces all 49 rows of its tables. It knows neither which language
    was edited nor what the unedited model already scores: a ruined model can score 99.
    """
    return 0.0 if max(reliability, other) == 0 else min(reliability, other) / max(reliability, other)


def net_transfer(edited: PerFact, edited_floor: PerFact, other: PerFact, other_floor: PerFact) -> float:
    """Return gain over the floor in the other language / gain over the floor in the edited one.

    0: the edit stays in its language; 1: it arrives whole; negative: it pushes the other language away. NaN where the
    edit gains nothing in its own language, so that there is nothing to transfer.
    """
    gain = np.nanmean(edited - edited_floor)
    return float(np.nanmean(other - other_floor) / gain) if gain > 0 else float("nan")


def _share_equal(left: Sequence[int], right: Sequence[int]) -> float:
    return float(np.mean([a == b for a, b in zip(left, right, strict=True)]))
