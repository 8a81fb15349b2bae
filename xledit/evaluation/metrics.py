"""The metrics, one row each: from the scores of a model to one number per fact; and numbers computed from several metrics.

A metric takes a fact's scores of one kind, before and after the edit, and returns its mean over them, in [0, 1]. To add one, write its
function and its row: the row says where it is shown, and summary, page, figures and README read the table. No stage that runs a model may
import this module, so a new row reruns the summaries and the report only.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from jaxtyping import Float

from xledit.records import AnswerScore, Kind, Score

PerFact = Float[np.ndarray, " facts"]
Rule = Callable[[AnswerScore], float]

Place = Literal[
    "every",  # the summaries (reports/cells), the page's tables of every measure, the glossary
    "headline",  # the first table of terminal, page and README; also for facts of one label apart, in summaries and page
    "groups",  # README: facts of one label apart
    "kinds",  # README: by kind of question
    "compared",  # methods side by side: the page's other runs, the README's best methods
    "figure",  # the figure of the transfer matrix, with its floor
    "dvc",  # reports/metrics.json and the data of DVC's bars
    "paper",  # the table as arXiv 2601.17397 has it
    # its net transfer, not the metric itself:
    "net_every",  # the summaries, the tables of every measure; what has no place but these is shown by the glossary as of net transfer
    "net_headline",  # beside the headline: page and README
    "net_answer",  # the page's first sentences; also for facts of one label apart
    "net_dvc",  # reports/metrics.json
]


def mean_logprob(answer: AnswerScore) -> float:
    """Return the log-probability per token (nats): the rule of the headline metrics, because true answers are often longer."""
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


def true_not_ahead(score: Score, before: Score) -> float:
    """Return 1 unless the true answer is likelier than the edit's new one."""
    return 1 - true_ahead(score, before)


def token_accuracy(score: Score, _before: Score) -> float:
    """Return the share of the new answer's tokens that are the argmax, teacher forced: the paper's reliability (arXiv 2601.17397)."""
    return _share_equal(score.new.tokens, score.new.argmax)


def exact_forced(score: Score, _before: Score) -> float:
    """Return 1 if every token of the new answer is the argmax, teacher forced."""
    return float(score.new.tokens == score.new.argmax)


def exact(score: Score, _before: Score) -> float:
    """Return 1 if the text that the model generates greedily, without teacher forcing, begins with the new answer."""
    assert score.generated is not None, "only probes that were answered freely have this metric"
    return float(score.generated.strip().startswith(score.target_new))


def tokens_unchanged(score: Score, before: Score) -> float:
    """Return the share of argmax tokens along the true answer that the edit left as they were: the paper's locality."""
    return _share_equal(score.true.argmax, before.true.argmax)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``METRICS``: a share that is higher when the edit did what it should (of ``control``: did more than it should).

    ``kind`` is the kind of probes that it is about, and ``function`` computes a probe's number from its scores after and before the edit; a
    metric with ``parts`` is the harmonic mean of these metrics instead. ``meaning`` is its text in the glossary. ``called`` is its label at
    places where that is not its name. Net transfer is the gain in another language divided by the gain of the metric ``over`` in the edited
    language (of the metric itself where ``over`` is empty).

    Raises:
        ValueError: the meaning is empty, ``shown`` is empty or lacks a place that another of its places needs, or the row does not have
            either a kind and a function, or parts.
    """

    name: str
    meaning: str
    shown: tuple[Place, ...]
    kind: Kind | None = None
    function: Callable[[Score, Score], float] | None = None
    parts: tuple[str, ...] = ()
    called: Mapping[Place, str] = {}
    over: str = ""

    def __post_init__(self) -> None:
        if not self.meaning.strip():
            raise ValueError(f"metric {self.name}: its meaning is empty; say what it is, the glossary shows that")
        if not self.shown or not self.called.keys() <= set(self.shown):
            raise ValueError(f"metric {self.name}: shown at {self.shown}, called so: {self.called}; name all places in `shown`")
        if any(("net_every" if place.startswith("net_") else "every") not in self.shown for place in self.shown):
            raise ValueError(
                f"metric {self.name}: shown at {self.shown}; what has a place must be in 'every', its net transfer in 'net_every'"
            )
        if not (self.kind is None) == (self.function is None) == bool(self.parts):
            raise ValueError(f"metric {self.name}: give it a kind and a function, or the parts of which it is the harmonic mean")


def _table(*rows: Metric) -> dict[str, Metric]:
    """Return the rows by name."""
    by_name = {row.name: row for row in rows}
    assert len(by_name) == len(rows), "two metrics have one name"
    return by_name


METRICS = _table(
    Metric(
        name="efficacy",
        kind="efficacy",
        function=new_ahead,
        meaning="Share of facts whose new answer is likelier than the true one, asked as it was edited; log-probabilities are means "
        "per token, because true answers are often longer. CounterFact's ES, arXiv 2202.05262.",
        shown=("every", "headline", "groups", "compared", "figure", "dvc", "net_every", "net_headline", "net_answer", "net_dvc"),
        called={"net_headline": "net transfer, preference", "net_answer": "preference for the new answer", "net_dvc": "transfer"},
    ),
    Metric(
        name="control",
        kind="locality",
        function=true_not_ahead,
        over="efficacy",
        meaning="The same ratio for neighbours: in the other language, how much likelier the edit's new answer became for "
        "*other* subjects of the relation. Net transfer means that the fact crossed only where it stands above this.",
        shown=("net_every", "net_headline"),
    ),
    Metric(
        name="efficacy_sum",
        kind="efficacy",
        function=new_ahead_by_sum,
        meaning="The same by the log-probability of whole answers, as CounterFact compares them. It favours short answers.",
        shown=("every",),
    ),
    Metric(
        name="reliability",
        kind="efficacy",
        function=token_accuracy,
        meaning="Share of the new answer's tokens that are the model's first choice while the right tokens before them are given "
        "(teacher forcing). The main measure of arXiv 2601.17397; an unedited model can score 20 to 40 % on it.",
        shown=("every", "paper", "net_every"),
        called={"paper": "R"},
    ),
    Metric(
        name="exact",
        kind="efficacy",
        function=exact,
        meaning="Share of facts whose new answer the model says by itself: it decodes greedily, nothing is given away, and the answer "
        "must open its text. The strictest measure; arXiv 2502.11177 shows how much teacher forcing flatters.",
        shown=("every", "headline", "groups", "compared", "figure", "dvc", "net_every", "net_headline", "net_answer", "net_dvc"),
        called={
            "figure": "exact match",
            "net_headline": "net transfer, exact",
            "net_answer": "free, word-for-word answer",
            "net_dvc": "transfer_exact",
        },
    ),
    Metric(
        name="exact_forced",
        kind="efficacy",
        function=exact_forced,
        meaning="Share of facts whose new answer is the first choice at each of its tokens, teacher forced.",
        shown=("every",),
    ),
    Metric(
        name="paraphrase",
        kind="paraphrase",
        function=new_ahead,
        meaning="Efficacy on other wordings of the question. CounterFact's PS.",
        shown=("every", "headline", "groups", "kinds", "compared"),
    ),
    Metric(name="paraphrase_sum", kind="paraphrase", function=new_ahead_by_sum, meaning="The same by whole answers.", shown=("every",)),
    Metric(
        name="generality",
        kind="paraphrase",
        function=token_accuracy,
        meaning="Reliability on other wordings of the question, as arXiv 2601.17397 has it.",
        shown=("every", "paper"),
        called={"paper": "G"},
    ),
    Metric(
        name="paraphrase_exact",
        kind="paraphrase",
        function=exact_forced,
        meaning="exact_forced on other wordings of the question.",
        shown=("every",),
    ),
    Metric(
        name="translated",
        kind="translated",
        function=new_ahead,
        meaning="Efficacy on a wording rendered literally from English (Chinese only): what translationese costs, beside *paraphrase*.",
        shown=("every", "kinds"),
    ),
    Metric(name="translated_exact", kind="translated", function=exact_forced, meaning="exact_forced on that wording.", shown=("every",)),
    Metric(
        name="alias",
        kind="alias",
        function=new_ahead,
        meaning="Efficacy when the subject goes by another of its names.",
        shown=("every", "kinds"),
    ),
    Metric(name="alias_exact", kind="alias", function=exact_forced, meaning="exact_forced by another name.", shown=("every",)),
    Metric(
        name="portability",
        kind="portability",
        function=new_ahead,
        meaning="Efficacy one step further: asked for what follows from the fact (the province of the city), the consequence of the "
        "new answer is likelier than that of the true one.",
        shown=("every", "kinds", "compared"),
    ),
    Metric(
        name="portability_tokens", kind="portability", function=token_accuracy, meaning="Reliability one step further.", shown=("every",)
    ),
    Metric(
        name="locality",
        kind="locality",
        function=true_ahead,
        meaning="Share of neighbouring questions (other subjects, same relation; CLM-Bench: unrelated ones) whose true answer stays "
        "likelier than the edit's new one. CounterFact's NS. High is good; compare with its floor.",
        shown=("every", "headline", "compared", "dvc"),
    ),
    Metric(name="locality_sum", kind="locality", function=true_ahead_by_sum, meaning="The same by whole answers.", shown=("every",)),
    Metric(
        name="locality_tokens",
        kind="locality",
        function=tokens_unchanged,
        meaning="Share of the first-choice tokens along an unrelated true answer that the edit left as they were. The locality of "
        "arXiv 2601.17397; 1 on the unedited model by definition.",
        shown=("every", "headline", "groups", "kinds", "compared", "paper"),
        called={"paper": "L"},
    ),
    Metric(
        name="near",
        kind="near",
        function=true_ahead,
        meaning="Share of questions about the same subject in another relation whose true answer stays likelier than the edit's new one.",
        shown=("every",),
    ),
    Metric(
        name="near_tokens", kind="near", function=tokens_unchanged, meaning="locality_tokens of those questions.", shown=("every", "kinds")
    ),
    Metric(
        name="far",
        kind="far",
        function=true_ahead,
        meaning="The same for questions from another domain: subject and relation both differ.",
        shown=("every",),
    ),
    Metric(
        name="far_tokens", kind="far", function=tokens_unchanged, meaning="locality_tokens of those questions.", shown=("every", "kinds")
    ),
    Metric(
        name="score",
        parts=("efficacy", "paraphrase", "locality"),
        meaning="Harmonic mean of efficacy, paraphrase and locality. CounterFact's S.",
        shown=("every",),
    ),
)


def shown_in(place: Place) -> dict[str, str]:
    """Return the metrics that are shown at a place, in the order of the table: by name the label that they have there."""
    return {row.name: row.called.get(place, row.name) for row in METRICS.values() if place in row.shown}


def per_fact(name: str, after: Sequence[Score], before: Sequence[Score], fact_ids: Sequence[str]) -> PerFact:
    """Return the metric of each fact, in the order of ``fact_ids``: its mean over the fact's probes; NaN without any.

    Raises ValueError when the two lists are not scores of the same probes.
    """
    row = METRICS[name]
    assert row.function is not None, f"{name} is made of other metrics; it has no value per fact"
    values: dict[str, list[float]] = {fact_id: [] for fact_id in fact_ids}
    for score, was in zip(after, before, strict=True):
        if (score.fact_id, score.language, score.kind, score.prompt) != (was.fact_id, was.language, was.kind, was.prompt):
            raise ValueError(f"fact {score.fact_id}: scores before and after are of different probes; run `dvc repro` again")
        if score.kind == row.kind:
            values[score.fact_id].append(row.function(score, was))
    return np.array([np.mean(fact_values) if fact_values else np.nan for fact_values in values.values()])


def harmonic(*parts: float) -> float:
    """Return the harmonic mean; 0 if one of the parts is 0."""
    return 0.0 if min(parts) <= 0 else statistics.harmonic_mean(parts)


def trans(reliability: float, other: float) -> float:
    """Return the paper's cross-lingual measure: the smaller of two languages' reliabilities divided by the larger.

    arXiv 2601.17397 gives no formula; this one reproduces all 49 rows of its tables. It knows neither which language was edited nor what
    the unedited model already scores: a collapsed model can score 99.
    """
    return 0.0 if max(reliability, other) == 0 else min(reliability, other) / max(reliability, other)


def net_transfer(edited: PerFact, edited_floor: PerFact, other: PerFact, other_floor: PerFact) -> float:
    """Return gain over the floor in the other language / gain over the floor in the edited one.

    0: the other language gains nothing; 1: it gains as much as the edited one; negative: it falls below its floor. NaN where the edit gains
    nothing in its own language, so that there is nothing to transfer.
    """
    gain = np.nanmean(edited - edited_floor)
    return float(np.nanmean(other - other_floor) / gain) if gain > 0 else float("nan")


def _share_equal(left: Sequence[int], right: Sequence[int]) -> float:
    return float(np.mean([a == b for a, b in zip(left, right, strict=True)]))
