"""Every metric is what it says on cases worked out by hand, stays in its range, and does not care for order."""

import math
import random
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xledit.evaluation import metrics
from xledit.evaluation.metrics import METRICS, Metric, Place, harmonic, mean_logprob, net_transfer, per_fact, shown_in, sum_logprob, trans
from xledit.records import AnswerScore, Kind, Score

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


# asked of each metric that has a function, over scores from before the edit whose true answer had these argmax tokens
BEFORE = scored(true=AnswerScore(logprob=-1.0, tokens=(7, 7, 7, 7), argmax=(1, 2, 3, 4)))
CASES = (
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
    ("true_not_ahead", scored(new=LIKELY, true=UNLIKELY), 1),
    ("true_not_ahead", scored(new=UNLIKELY, true=LIKELY), 0),
    ("true_not_ahead", scored(new=LIKELY, true=LIKELY), 1),
    ("tokens_unchanged", scored(true=AnswerScore(logprob=-9.0, tokens=(7, 7, 7, 7), argmax=(1, 2, 8, 9))), 1 / 2),
    ("tokens_unchanged", BEFORE, 1),
)
SINGLE = [name for name, row in METRICS.items() if not row.parts]


@pytest.mark.parametrize(("name", "after", "expected"), CASES)
def test_a_metric_is_what_it_says(name: str, after: Score, expected: float) -> None:
    assert getattr(metrics, name)(after, BEFORE) == pytest.approx(expected)


@pytest.mark.parametrize("name", SINGLE)
def test_every_metric_has_cases_worked_out_by_hand(name: str) -> None:
    assert METRICS[name].function in [getattr(metrics, function) for function, _after, _expected in CASES]


@pytest.mark.parametrize("name", SINGLE)
def test_a_metric_counts_the_probes_of_its_kind_alone(name: str) -> None:
    row = METRICS[name]
    assert row.function is not None
    of_kind, others = scored(kind=row.kind), [scored(kind=kind, new=UNLIKELY, true=LIKELY) for kind in get_args(Kind) if kind != row.kind]
    assert per_fact(name, [of_kind, *others], [of_kind, *others], ["a"]) == pytest.approx([row.function(of_kind, of_kind)])
    assert np.isnan(per_fact(name, others, others, ["a"]))


# the table


ROW = Metric(name="new", kind="efficacy", function=metrics.exact, meaning="What it is.", shown=("every", "headline"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meaning": " "}, "its meaning is empty"),
        ({"shown": ()}, "name all places"),
        ({"called": {"figure": "another name"}}, "name all places"),
        ({"shown": ("headline",)}, "must be in 'every'"),
        ({"shown": ("every", "net_headline")}, "its net transfer in 'net_every'"),
        ({"function": None}, "a kind and a function, or the parts"),
        ({"kind": None}, "a kind and a function, or the parts"),
        ({"parts": ("efficacy", "locality")}, "a kind and a function, or the parts"),
    ],
)
def test_a_row_without_meaning_place_or_function_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"metric new: .*{message}"):
        msgspec.structs.replace(ROW, **changes)


@pytest.mark.parametrize("shown", [("every",), ("every", "figure"), ("net_every", "net_dvc"), ("every", "figure", "net_every", "net_dvc")])
def test_a_row_may_be_called_otherwise_at_all_its_places(shown: tuple[Place, ...]) -> None:
    row = msgspec.structs.replace(ROW, shown=shown, called=dict.fromkeys(shown, "another name"))
    assert row.called.keys() == set(row.shown)


@pytest.mark.parametrize("missing", ["meaning", "shown"])
def test_meaning_and_place_are_required(missing: str) -> None:
    fields = msgspec.structs.asdict(ROW)
    del fields[missing]
    with pytest.raises(TypeError, match=missing):
        Metric(**fields)


def test_every_place_shows_something_and_every_row_names_places_that_there_are() -> None:
    assert {place for row in METRICS.values() for place in row.shown} == set(get_args(Place))


STAYS = ("locality", "near", "far")  # kinds of which the true answer should stay ahead


@pytest.mark.parametrize("name", SINGLE)
def test_a_metric_is_about_what_its_name_says(name: str) -> None:
    row = METRICS[name]
    kind, _, rule = name.partition("_")
    assert kind not in get_args(Kind) or row.kind == kind
    ahead, ahead_by_sum = ("true_ahead", "true_ahead_by_sum") if row.kind in STAYS else ("new_ahead", "new_ahead_by_sum")
    tokens = "tokens_unchanged" if row.kind in STAYS else "token_accuracy"
    named = {"": ahead, "sum": ahead_by_sum, "tokens": tokens, "exact": "exact_forced"}
    if kind in get_args(Kind) and rule in named:
        assert row.function is getattr(metrics, named[rule])


def test_two_rows_of_one_name_are_refused() -> None:
    with pytest.raises(AssertionError, match="one name"):
        metrics._table(ROW, ROW)


def test_rows_are_made_of_rows_that_have_a_value_per_fact() -> None:
    assert all(METRICS[part].function for row in METRICS.values() for part in row.parts)
    assert all(METRICS[METRICS[name].over or name].function for name in shown_in("net_every"))


def test_facts_of_one_label_have_the_metrics_that_their_tables_show() -> None:
    assert shown_in("groups").keys() <= shown_in("headline").keys(), "a summary has the headline for them"


def test_a_place_has_its_rows_in_the_order_of_the_table_by_what_they_are_called_there(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        msgspec.structs.replace(ROW, name="b", shown=("every", "figure"), called={"figure": "the second letter"}),
        msgspec.structs.replace(ROW, name="c", shown=("every",)),
        msgspec.structs.replace(ROW, name="a", shown=("every", "figure")),
    ]
    monkeypatch.setattr(metrics, "METRICS", {row.name: row for row in rows})
    assert list(shown_in("figure").items()) == [("b", "the second letter"), ("a", "a")]
    assert list(shown_in("every").items()) == [("b", "b"), ("c", "c"), ("a", "a")]


# from scores to facts


def test_the_rules_differ_where_answers_differ_in_length() -> None:
    assert (mean_logprob(LONG), sum_logprob(LONG)) == (-1, -4)
    assert mean_logprob(LONG) > mean_logprob(SHORT)
    assert sum_logprob(LONG) < sum_logprob(SHORT)


def test_exact_needs_a_free_answer() -> None:
    with pytest.raises(AssertionError, match="answered freely"):
        metrics.exact(scored(generated=None), scored())


def test_an_answer_of_more_tokens_than_choices_is_refused() -> None:
    with pytest.raises(ValueError):
        metrics.token_accuracy(scored(new=AnswerScore(logprob=-1.0, tokens=(1, 2), argmax=(1,))), scored())


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
        kind=draw(st.sampled_from(get_args(Kind))),
        generated=draw(st.sampled_from(["Rome", "Paris"])),
    )
    after, before = (msgspec.structs.replace(probe, new=draw(answers(new)), true=draw(answers(true))) for _ in range(2))
    return after, before


@pytest.mark.parametrize("name", SINGLE)
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


@given(st.lists(st.integers(0, 100).map(lambda count: count / 100), min_size=1, max_size=4), st.integers())
def test_the_harmonic_mean_lies_between_its_parts_in_any_order(parts: list[float], seed: int) -> None:
    found = harmonic(*parts)
    assert found == 0 if min(parts) == 0 else min(parts) * (1 - 1e-9) <= found <= max(parts) * (1 + 1e-9)
    assert harmonic(*random.Random(seed).sample(parts, len(parts))) == pytest.approx(found)
