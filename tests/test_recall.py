"""What is asked when a model's knowledge is measured: the object's own tokens, as they stand in running text."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from xledit.models.prompts import AnswerRow
from xledit.training.bpe import TokenizerParams, train
from xledit.training.recall import answer_row, recall
from xledit.training.world import FactProbe

TEXTS = ["The currency of Japan is called yen.", "日本的法定货币是日元。货币是日元。"] * 10


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train({"en": iter(TEXTS)}, TokenizerParams(vocabulary=350, characters=10_000))


def probe(before: str, object_: str, after: str = ".", **fields: object) -> FactProbe:
    plain = {"fact_id": "currency/JP", "language": "en", "status": "everywhere", "seen": True, "spelt_alike": False}
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
    assert tokenizer.decode(list(row.answer)).endswith("日元")


def test_recall_is_the_share_by_language_status_and_wording(tokenizer: PreTrainedTokenizerFast) -> None:
    asked: list[AnswerRow] = []

    def ask(rows: Sequence[AnswerRow]) -> list[bool]:
        asked.extend(rows)
        return [True, False, True, True]

    probes = [
        probe("It is ", "yen"),
        probe("Is it ", "yen", spelt_alike=True),
        probe("That is ", "yen", seen=False),
        probe("是", "日元", "。", language="zh", status="elsewhere"),
    ]
    found = recall(tokenizer, probes, ask)
    assert [(row.language, row.status, row.seen, row.num_facts, row.share, row.num_unlike, row.share_unlike) for row in found] == [
        ("en", "everywhere", False, 1, 1.0, 1, 1.0),
        ("en", "everywhere", True, 2, 0.5, 1, 1.0),
        ("zh", "elsewhere", True, 1, 1.0, 1, 1.0),
    ]
    assert asked == [answer_row(tokenizer, each) for each in probes]
