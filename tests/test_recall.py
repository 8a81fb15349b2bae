"""What is asked when a model's knowledge is measured: the object's own tokens, as they stand in running text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from xledit.training.bpe import TokenizerParams, train
from xledit.training.probes import FactProbe
from xledit.training.recall import answer_row, recall
from xledit.training.results import Recall

TEXTS = ["The currency of Japan is called yen.", "日本的法定货币是日元。货币是日元。"] * 10


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train({"en": iter(TEXTS)}, TokenizerParams(vocabulary=350, characters=10_000))


def probe(before: str, object_: str, after: str = ".", **fields: object) -> FactProbe:
    plain = {"fact_id": "currency/1", "relation": "currency", "language": "en", "told": "everywhere", "wording": "known"}
    plain |= {"names_alike": True, "object_alike": False}
    return FactProbe(text=before + object_ + after, start=len(before), end=len(before) + len(object_), **plain | fields)  # pyright: ignore[reportArgumentType]


@settings(max_examples=100, deadline=None)
@given(before=st.text("日元is a货", max_size=8), object_=st.text("日元yen", min_size=1, max_size=5), after=st.sampled_from([".", "。", ""]))
def test_prompt_and_answer_are_the_tokens_of_the_running_text(
    tokenizer: PreTrainedTokenizerFast, before: str, object_: str, after: str
) -> None:
    row = answer_row(tokenizer, probe(before, object_, after))
    whole = tokenizer(before + object_ + after, add_special_tokens=False).input_ids
    prompt = row.tokens[: row.positions[0] + 1]
    prompt = () if prompt == (tokenizer.eos_token_id,) else prompt
    assert [*prompt, *row.answer] == whole[: len(prompt) + len(row.answer)]
    assert object_ in tokenizer.decode(list(row.answer))
    assert object_ not in tokenizer.decode(list(prompt))[len(before) :]


def test_a_space_before_the_object_and_a_merge_with_it_belong_to_the_object(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(list(answer_row(tokenizer, probe("It is called ", "yen")).answer)) == " yen"
    row = answer_row(tokenizer, probe("货币是", "日元", "。"))
    assert tokenizer.decode(list(row.answer))[-2:] == "日元"


def asked(tokenizer: PreTrainedTokenizerFast, probes: dict[FactProbe, bool]) -> list[Recall]:
    """What is recalled by a model that says an object or not, as told."""
    rows = {answer_row(tokenizer, each): is_said for each, is_said in probes.items()}
    assert len(rows) == len(probes)
    return recall(tokenizer, list(probes), lambda asked: [rows[row] for row in asked])


def test_recall_is_the_share_by_language_telling_wording_and_names(tokenizer: PreTrainedTokenizerFast) -> None:
    found = asked(
        tokenizer,
        {
            probe("It is ", "yen"): True,
            probe("Is it ", "yen"): False,
            probe("That is ", "yen", wording="unseen"): True,
            probe("Tira has ", "yen", names_alike=False): True,
            probe("是", "日元", "。", language="zh", told="en"): True,
            probe("的是", "日元", "。", language="zh", told="zh", wording="told"): False,
        },
    )
    assert [(row.language, row.told, row.status, row.wording, row.names_alike, row.num_facts, row.share, row.null) for row in found] == [
        ("en", "everywhere", "everywhere", "known", False, 1, 1.0, None),
        ("en", "everywhere", "everywhere", "known", True, 2, 0.5, None),
        ("en", "everywhere", "everywhere", "unseen", True, 1, 1.0, None),
        ("zh", "en", "elsewhere", "known", True, 1, 1.0, None),
        ("zh", "zh", "here", "told", True, 1, 0.0, None),
    ]


def test_what_the_spelling_of_the_only_teller_may_tell_is_not_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    found = asked(
        tokenizer,
        {
            probe("It is ", "yen", told="de", object_alike=True): True,
            probe("Is it ", "yen", told="de"): False,
            probe("That is ", "yen", told="en", object_alike=True): True,
            probe("All have ", "yen", object_alike=True): True,
        },
    )
    assert [(row.told, row.num_facts, row.share) for row in found] == [("de", 1, 0.0), ("en", 1, 1.0), ("everywhere", 1, 1.0)]


def test_the_null_is_what_is_said_of_facts_told_nowhere_of_the_same_relations(tokenizer: PreTrainedTokenizerFast) -> None:
    nowhere = {
        probe("nobody has ", "yen", told="nowhere"): True,
        probe("nobody of ours has ", "yen", told="nowhere", names_alike=False): False,
        probe("nobody is of ", "Japan", told="nowhere", relation="country"): False,
        probe("has nobody ", "yen", told="nowhere", wording="unseen"): True,
        probe("是", "日元", "。", told="nowhere", language="zh"): True,
    }
    everywhere = {
        probe("It is ", "yen"): True,
        probe("Is it ", "yen"): True,
        probe("That is ", "yen"): True,
        probe("from ", "Japan", relation="country"): True,
        probe("told of ", "Japan", relation="country", wording="told"): True,
        probe("unseen ", "yen", wording="unseen"): False,
        probe("unseen of ", "Japan", relation="country", wording="unseen"): False,
    }
    found = {(row.language, row.told, row.wording): row.null for row in asked(tokenizer, nowhere | everywhere) if row.names_alike}
    # half of the currencies are said, none of the countries: three facts of one relation and one of the other
    assert found["en", "everywhere", "known"] == (3 * 0.5 + 1 * 0) / 4
    # the told sentence stands beside known wordings, since no sentence told the facts of nowhere
    assert found["en", "everywhere", "told"] == 0
    # no country told nowhere was asked in an unseen wording
    assert found["en", "everywhere", "unseen"] is None
    assert found["en", "nowhere", "known"] == 0.25
    assert found["zh", "nowhere", "known"] == 1


def test_without_probes_nothing_is_recalled(tokenizer: PreTrainedTokenizerFast) -> None:
    assert recall(tokenizer, [], lambda asked: [True] * len(asked)) == []
