"""Every metric is what it says on cases worked out by hand, stays in its range, and does not care for order."""

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xledit.evaluation import metrics
from xledit.evaluation.metrics import METRICS, harmonic, mean_logprob, net_transfer, per_fact, sum_logprob, trans
from xledit.records import AnswerScore, Score

LIKELY, UNLIKELY = (AnswerScore(logprob=logprob, tokens=(1,), argmax=(1,)) for logprob in (-1.0, -2.0))
# the mean per token prefers LONG to SHORT, the sum SHORT to LONG
SHORT = AnswerScore(logprob=-3.0, tokens=(1,), argmax=(1,))
LONG = AnswerScore(logprob=-4.0, tokens=(1, 2, 3, 4), argmax=(1, 2, 3, 9))


def scored(**changes: object) -> Score:
    """A score of the fact ``a``, with as many changes as a test needs."""
    score = Score(
        fact_id="a", language="en", kind="efficacy", prompt="France has its capital in", target_new="Rome", target_true="Paris",
        new=LIKELY, true=UNLIKELY, generated=" Rome, of course",
    )  # fmt: skip
    return msgspec.structs.replace(score, **changes)


@pytest.mark.parametrize(
    ("name", "after", "expected"),
    [
        ("new_ahead", scored(new=LIKELY, true=UNLIKELY), 1),
        ("new_ahead", scored(new=UNLIKELY, true=LIKELY), 0),
        ("new_ahead", scored(new=LIKELY, true=LIKELY), 0),
        ("new_ahead", scored(new=SHORT, true=LONG), 0),
        ("new_ahead_by_sum", scored(new=SHORT, true=LONG), 1),
        ("true_ahead", scored(new=LIKELY, true=UNLIKELY), 0),
        ("true_ahead", scored(new=UNLIKELY, true=LIKELY), 1),
        ("true_ahead", scored(new=LIKELY, true=LIKELY), 0),
        ("true_ahead", scored(new=SHORT, true=LONG), 1),
        ("true_ahead_by_sum", scored(new=SHORT, true=LONG), 0),
        ("token_accuracy", scored(new=LONG), 3 / 4),
        ("exact_forced", scored(new=LONG), 0),
        ("exact_forced", scored(new=SHORT), 1),
        ("exact", scored(generated=" Rome, of course"), 1),
        ("exact", scored(generated=" Paris, not Rome"), 0),
        ("exact", scored(generated="罗马。", target_new="罗马"), 1),
        ("exact", scored(generated=""), 0),
    ],
)
def test_a_metric_is_what_it_says(name: str, after: Score, expected: float) -> None:
    assert getattr(metrics, name)(after, scored()) == pytest.approx(expected)


def test_the_papers_locality_is_the_share_of_argmax_tokens_that_stayed() -> None:
    before = scored(true=AnswerScore(logprob=-1.0, tokens=(7, 7, 7, 7), argmax=(1, 2, 3, 4)))
    after = scored(true=AnswerScore(logprob=-9.0, tokens=(7, 7, 7, 7), argmax=(1, 2, 8, 9)))
    assert metrics.tokens_unchanged(after, before) == 0.5
    assert metrics.tokens_unchanged(before, before) == 1


def test_the_rules_differ_where_answers_differ_in_length() -> None:
    assert (mean_logprob(LONG), sum_logprob(LONG)) == (-1, -4)
    assert mean_logprob(LONG) > mean_logprob(SHORT)
    assert sum_logprob(LONG) < sum_logprob(SHORT)


def test_exact_needs_a_free_answer() -> None:
    with pytest.raises(AssertionError, match="answered freely"):
        metrics.exact(scored(generated=None), scored())


def test_a_fact_counts_the_mean_of_its_probes_of_the_metrics_kind() -> None:
    won, lost = scored(kind="paraphrase"), scored(kind="paraphrase", new=UNLIKELY, true=LIKELY)
    other_kind = scored(kind="locality")
    found = per_fact("paraphrase", [won, lost, lost, other_kind], [won, lost, lost, other_kind], ["a"])
    assert found == pytest.approx([1 / 3])


def test_a_fact_without_probes_has_no_value() -> None:
    found = per_fact("efficacy", [scored()], [scored()], ["b", "a"])
    assert np.isnan(found[0])
    assert found[1] == 1


@pytest.mark.parametrize("change", [{"prompt": "?"}, {"language": "zh"}, {"kind": "locality"}, {"fact_id": "b"}])
def test_scores_of_different_probes_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="different probes; run"):
        per_fact("efficacy", [scored()], [scored(**change)], ["a", "b"])


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        per_fact("efficacy", [scored(), scored()], [scored()], ["a"])


@st.composite
def answers(draw: st.DrawFn, length: int) -> AnswerScore:
    tokens = st.lists(st.integers(0, 3), min_size=length, max_size=length).map(tuple)
    return AnswerScore(logprob=draw(st.floats(-50, 0)), tokens=draw(tokens), argmax=draw(tokens))


@st.composite
def score_pairs(draw: st.DrawFn) -> tuple[Score, Score]:
    """A probe's scores after and before: of any fact and kind, with any answers."""
    new, true = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    probe = scored(
        fact_id=draw(st.sampled_from("abc")),
        kind=draw(st.sampled_from(["efficacy", "paraphrase", "locality"])),
        generated=draw(st.sampled_from(["Rome", "Paris"])),
    )
    after, before = (msgspec.structs.replace(probe, new=draw(answers(new)), true=draw(answers(true))) for _ in range(2))
    return after, before


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=40)
@given(pairs=st.lists(score_pairs(), min_size=1, max_size=8), seed=st.integers())
def test_values_lie_between_0_and_1_in_any_order_of_facts_and_probes(name: str, pairs: list[tuple[Score, Score]], seed: int) -> None:
    found = dict(zip("abc", per_fact(name, *zip(*pairs, strict=True), "abc"), strict=True))
    assert all(math.isnan(value) or 0 <= value <= 1 for value in found.values())
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    again = dict(zip("cab", per_fact(name, *zip(*shuffled, strict=True), "cab"), strict=True))
    assert found == pytest.approx(again, nan_ok=True)


# (reliability zh, reliability en, trans) in %, arXiv 2601.17397, table 1: four models, three editors, all three edits
TABLE_1 = [
    (63.21, 19.55, 30.93),
    (44.42, 75.47, 58.86),
    (63.21, 72.73, 86.91),
    (1.05, 19.58, 5.36),
    (43.18, 19.94, 46.18),
    (6.99, 27.35, 25.56),
    (33.96, 43.58, 77.93),
    (16.91, 17.02, 99.35),
    (0.07, 14.98, 0.47),
    (69.97, 14.06, 20.09),
    (37.64, 29.46, 78.27),
]


@pytest.mark.parametrize(("chinese", "english", "expected"), TABLE_1)
def test_trans_gives_the_papers_table(chinese: float, english: float, expected: float) -> None:
    assert 100 * trans(chinese / 100, english / 100) == pytest.approx(expected, abs=0.1)
    assert trans(chinese, english) == trans(english, chinese)


def test_trans_of_two_languages_that_know_nothing_is_0() -> None:
    assert trans(0.0, 0.0) == 0


def facts(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("edited", "other", "expected"),
    [
        (facts(1, 1), facts(0.25, 0.75), 0),  # the other language is where it was
        (facts(1, 1), facts(0.75, 1.25), 1),  # it gained as much
        (facts(1, 1), facts(0.5, 0.75), 0.25),
        (facts(1, 1), facts(0, 0), -1),  # it was pushed away
        (facts(0.5, 0.5), facts(1, 1), math.nan),  # nothing was gained that could arrive elsewhere
        (facts(0, 0), facts(1, 1), math.nan),
    ],
)
def test_net_transfer_is_the_gain_there_over_the_gain_here(edited: np.ndarray, other: np.ndarray, expected: float) -> None:
    found = net_transfer(edited, facts(0.5, 0.5), other, facts(0.25, 0.75))
    assert found == pytest.approx(expected, nan_ok=True)


def test_a_ruined_model_is_rewarded_by_trans_and_not_by_net_transfer() -> None:
    """Qwen2-7B and AlphaEdit in the paper's table 1 scored 99.35 so: both languages fell to about 17 %."""
    floor_zh, floor_en = facts(0.47, 0.47), facts(0.22, 0.22)
    ruined_zh, ruined_en = facts(0.16, 0.18), facts(0.17, 0.17)
    assert trans(ruined_zh.mean(), ruined_en.mean()) > 0.99
    assert math.isnan(net_transfer(ruined_zh, floor_zh, ruined_en, floor_en))


def test_a_floor_that_was_there_before_is_rewarded_by_trans_and_not_by_net_transfer() -> None:
    assert trans(0.9, 0.6) == pytest.approx(2 / 3)
    assert net_transfer(facts(0.9), facts(0.2), facts(0.6), facts(0.6)) == 0


@pytest.mark.parametrize(("parts", "expected"), [((1.0, 0.5, 0.25), 3 / 7), ((0.4, 0.4, 0.4), 0.4), ((1.0, 1.0, 0.0), 0)])
def test_the_score_is_the_harmonic_mean(parts: tuple[float, ...], expected: float) -> None:
    assert harmonic(*parts) == pytest.approx(expected)
