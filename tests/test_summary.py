"""The summary of an edited model: every metric beside its floor, what crossed over, and examples. Worked out by hand."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from tests.test_metrics import LIKELY, UNLIKELY, scored
from xledit.evaluation.checks import Check
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary, SummaryParams, summarise
from xledit.records import AnswerScore, Score

FACTS = ("a", "b", "c", "d")
HALF = AnswerScore(logprob=-1.0, tokens=(1, 2), argmax=(1, 9))  # half of the new answer's tokens are the argmax
NONE = AnswerScore(logprob=-4.0, tokens=(1, 2), argmax=(8, 9))


def fact_scores(fact_id: str, language: str, edited: bool) -> list[Score]:
    """One probe of each kind: an edited fact says the new answer, and leaves its neighbour alone."""
    new = (LIKELY, UNLIKELY) if language == "zh" else (HALF, NONE)
    ahead, behind = {"new": new[0], "true": UNLIKELY}, {"new": new[1], "true": LIKELY}
    asked = {"fact_id": fact_id, "language": language}
    return [
        scored(**asked, prompt="1", kind="efficacy", generated=" Rome" if edited else " Paris", **(ahead if edited else behind)),
        scored(**asked, prompt="2", kind="paraphrase", generated=None, **(ahead if edited else behind)),
        scored(**asked, prompt="3", kind="locality", generated=None, new=NONE, true=LIKELY),
    ]


def scores(edited: dict[str, Sequence[str]]) -> list[Score]:
    """All scores of both languages, where ``edited`` are the facts that took the edit, by language."""
    return [score for code in ("zh", "en") for fact in FACTS for score in fact_scores(fact, code, fact in edited[code])]


BEFORE = scores({"zh": "a", "en": "a"})  # fact a's new answer is ahead before any edit
AFTER = scores({"zh": "abcd", "en": "ab"})


LABELS = {fact: {"order": "first" if fact in "ab" else "last", "split": "test"} for fact in FACTS}


CHECKS = [
    Check(num_facts=num_facts, fresh=0.5, kept=None, text_nats={"zh": 3.0}, weight_norms={"4": 1.0}, collapsed=False)
    for num_facts in (0, 4)
]


def summary(
    edit: str,
    languages: Sequence[str],
    after: list[Score] = AFTER,
    before: list[Score] = BEFORE,
    labels: dict[str, dict[str, str]] = LABELS,
) -> CellSummary:
    return summarise("memit", edit, languages, after, before, labels, CHECKS, SummaryParams(resamples=50, examples=2), seed=3)


@pytest.fixture(scope="module")
def found() -> CellSummary:
    return summary("zh", ["zh"])


@pytest.mark.parametrize(
    ("code", "metric", "floor", "value"),
    [
        ("zh", "efficacy", 1 / 4, 1),
        ("en", "efficacy", 1 / 4, 1 / 2),
        ("zh", "reliability", 1, 1),
        ("en", "reliability", 1 / 8, 1 / 4),
        ("en", "exact", 1 / 4, 1 / 2),
        ("en", "exact_forced", 0, 0),
        ("en", "paraphrase", 1 / 4, 1 / 2),
        ("zh", "locality", 1, 1),
        ("zh", "locality_tokens", 1, 1),
        ("zh", "score", 3 / (4 + 4 + 1), 1),
        ("en", "score", 3 / (4 + 4 + 1), 3 / (2 + 2 + 1)),
    ],
)
def test_each_metric_stands_beside_its_floor(found: CellSummary, code: str, metric: str, floor: float, value: float) -> None:
    assert found.floor[code][metric].value == pytest.approx(floor, abs=1e-4)
    assert found.metrics[code][metric].value == pytest.approx(value, abs=1e-4)


def test_every_metric_is_there_in_every_language(found: CellSummary) -> None:
    for table in (found.metrics, found.floor):
        assert {code: set(metrics) for code, metrics in table.items()} == {code: set(shown_in("every")) for code in ("zh", "en")}


def test_the_floor_of_a_share_that_stayed_the_same_is_1(found: CellSummary) -> None:
    assert {found.floor[code]["locality_tokens"].value for code in ("zh", "en")} == {1}


def test_transfer_is_the_gain_there_over_the_gain_here(found: CellSummary) -> None:
    """Chinese gained 3 facts of 4, English 1 of 4; Chinese tokens were right before the edit, so nothing was gained there."""
    assert {other: set(metrics) for other, metrics in found.transfer.items()} == {"en": set(shown_in("net_every"))}
    assert found.transfer["en"]["efficacy"].value == pytest.approx(1 / 3, abs=1e-4)
    assert found.transfer["en"]["exact"].value == pytest.approx(1 / 3, abs=1e-4)
    assert found.transfer["en"]["reliability"].value != found.transfer["en"]["reliability"].value  # NaN


def test_the_control_of_transfer_is_what_the_edit_did_to_other_subjects(found: CellSummary) -> None:
    """No neighbour preferred the new answer before or after; where one of four comes to, that is a third of Chinese's gain of three."""
    assert found.transfer["en"]["control"].value == 0
    spilt = [
        msgspec.structs.replace(score, new=LIKELY, true=UNLIKELY)
        if (score.fact_id, score.language, score.kind) == ("c", "en", "locality")
        else score
        for score in AFTER
    ]
    assert summary("zh", ["zh"], after=spilt).transfer["en"]["control"].value == pytest.approx(1 / 3, abs=1e-4)


def test_facts_that_share_a_label_are_summarised_apart(found: CellSummary) -> None:
    """All are of one split, so only the order tells them apart. English took the edit for facts a and b alone."""
    assert [(group.label, group.value, group.num_facts) for group in found.groups] == [("order", "first", 2), ("order", "last", 2)]
    first, last = found.groups
    assert {tuple(sorted(metrics)) for group in found.groups for metrics in group.metrics.values()} == {tuple(sorted(shown_in("headline")))}
    assert (first.metrics["en"]["efficacy"].value, last.metrics["en"]["efficacy"].value) == (1, 0)
    assert (first.floor["en"]["efficacy"].value, last.floor["en"]["efficacy"].value) == (0.5, 0)
    # fact a was there before: one fact gained of one, and none of two
    assert (first.transfer["en"]["efficacy"].value, last.transfer["en"]["efficacy"].value) == (1, 0)


def test_facts_without_labels_are_in_no_group() -> None:
    some = summary("zh", ["zh"], labels={"b": LABELS["b"], "c": LABELS["c"], "d": {"split": "test"}})
    assert [(group.label, group.value, group.num_facts) for group in some.groups] == [("order", "first", 1), ("order", "last", 1)]
    assert some.num_facts == 4


def test_a_metric_of_probes_that_some_facts_lack_is_over_the_others(found: CellSummary) -> None:
    probe = scored(fact_id="a", language="zh", prompt="4", kind="portability", generated=None, new=LIKELY, true=UNLIKELY)
    some = summary("zh", ["zh"], after=[*AFTER, probe], before=[*BEFORE, probe])
    assert some.metrics["zh"]["portability"].value == 1
    assert found.metrics["zh"]["portability"].value != found.metrics["zh"]["portability"].value  # NaN


def test_transfer_from_the_other_side_is_the_inverse() -> None:
    assert summary("en", ["en"]).transfer["zh"]["efficacy"].value == pytest.approx(3)


def test_a_mixed_edit_has_no_language_left_to_cross_to() -> None:
    assert summary("mixed", ["zh", "en"]).transfer == {}


def test_trans_is_the_smaller_reliability_over_the_larger(found: CellSummary) -> None:
    assert found.trans.value == pytest.approx(1 / 4)


def test_examples_are_the_first_free_answers_of_each_language(found: CellSummary) -> None:
    assert [(example.language, example.before, example.after) for example in found.examples] == [
        ("zh", " Paris" if fact != "a" else " Rome", " Rome") for fact in "ab"
    ] + [("en", " Paris" if fact != "a" else " Rome", " Rome") for fact in "ab"]


def test_an_answer_of_no_words_is_an_example_too_whether_there_was_one_before_or_not() -> None:
    probe = scored(fact_id="a", language="zh", prompt="4", kind="paraphrase", generated="")
    some = summary("zh", ["zh"], [probe, *AFTER], [msgspec.structs.replace(probe, generated=None), *BEFORE])
    assert [(example.language, example.before, example.after) for example in some.examples[:2]] == [
        ("zh", "", ""),
        ("zh", " Rome", " Rome"),
    ]


def test_it_says_what_it_is_about(found: CellSummary) -> None:
    assert (found.method, found.edit, found.edit_languages, found.num_facts) == ("memit", "zh", ("zh",), 4)


def test_checks_are_passed_on_in_their_order(found: CellSummary) -> None:
    assert found.checks == tuple(CHECKS)


def test_the_order_of_facts_and_probes_does_not_matter(found: CellSummary) -> None:
    pairs = random.Random(0).sample(list(zip(AFTER, BEFORE, strict=True)), len(AFTER))
    shuffled = summary("zh", ["zh"], *map(list, zip(*pairs, strict=True)))
    for code, metrics in found.metrics.items():
        for name, estimate in metrics.items():
            assert shuffled.metrics[code][name].value == pytest.approx(estimate.value, nan_ok=True), name
    assert shuffled.transfer["en"]["efficacy"].value == found.transfer["en"]["efficacy"].value


def test_the_same_seed_gives_the_same_summary(found: CellSummary) -> None:
    assert msgspec.json.encode(summary("zh", ["zh"])) == msgspec.json.encode(found)


def test_it_survives_json(found: CellSummary) -> None:
    content = msgspec.json.encode(found)
    assert msgspec.json.encode(msgspec.json.decode(content, type=CellSummary)) == content


IN_A_THIRD_LANGUAGE = [msgspec.structs.replace(BEFORE[0], language="ja"), *BEFORE[1:]]


@pytest.mark.parametrize(
    "before",
    [BEFORE[:-1], BEFORE[1:] + BEFORE[:1], IN_A_THIRD_LANGUAGE],
    ids=["one is missing", "another order", "one is in a language that is not asked"],
)
def test_scores_of_different_probes_are_refused(before: list[Score]) -> None:
    with pytest.raises(ValueError):
        summary("zh", ["zh"], before=before)
