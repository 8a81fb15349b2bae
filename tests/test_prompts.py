"""Text becomes tokens as a model would read it, and the subject's last token is the one that ends the subject."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny import REQUESTS, tiny_tokenizer
from xledit.languages import LANGUAGES, language
from xledit.models.prompts import (
    batches_by_length,
    encode_answer,
    encode_prompt,
    encode_text,
    merges_with_prompt,
    opening_tokens,
    pad,
)
from xledit.records import EditRequest

TEXTS = ["法国", "的", "首都", "是", "东京", "The capital of France is Paris", "a French city\nand the capital of Japan"]


def trained(
    tokenizer: Tokenizer, texts: list[str] = TEXTS, alphabet: tuple[str, ...] = (), special: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    trainer = trainers.BpeTrainer(special_tokens=["<unk>", *special], initial_alphabet=["a", *alphabet], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@cache
def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """A tokenizer that writes spaces as ``▁`` and, unless ``scheme`` is "never", puts one before a text."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return trained(tokenizer, alphabet=("▁", "\n"))


@cache
def prepending() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: the normaliser puts the space, and characters without a token are bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    fast = trained(tokenizer, TEXTS[1:], special=tuple(f"<0x{byte:02X}>" for byte in range(256)))
    fast.backend_tokenizer.pre_tokenizer = None
    fast.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return fast


DUMMY_SPACE = [metaspace("first"), metaspace("always"), prepending()]


class SlowTokenizer(PreTrainedTokenizerFast):
    is_fast = False


def decoded(tokenizer: PreTrainedTokenizerFast, tokens: tuple[int, ...]) -> str:
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def assert_ends_the_subject(text: str, span: tuple[int, int]) -> None:
    """The tokens up to ``subject_last`` hold the whole subject, without it they do not, and ``swallows`` says if they hold more."""
    tokenizer = tiny_tokenizer()
    prompt = encode_prompt(tokenizer, text, span)
    up_to, opening = text[: span[1]], len(opening_tokens(tokenizer))
    through = decoded(tokenizer, prompt.tokens[opening : prompt.subject_last + 1])
    assert through.startswith(up_to)
    assert not decoded(tokenizer, prompt.tokens[opening : prompt.subject_last]).startswith(up_to)
    assert prompt.swallows == (through != up_to)
    assert prompt.tokens == encode_text(tokenizer, text)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.prompt)
def test_the_subjects_last_token_ends_the_subject_first_in_the_middle_and_last(request_: EditRequest) -> None:
    assert_ends_the_subject(request_.prompt, request_.subject_span)


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_subjects_last_token_ends_the_subject_behind_every_opening_and_in_the_essence(code: str) -> None:
    for frame in (*(opening + "{subject}" for opening in language(code).prefixes), language(code).essence):
        for request in REQUESTS:
            start = frame.index("{subject}")
            assert_ends_the_subject(frame.replace("{subject}", request.subject), (start, start + len(request.subject)))


characters = st.text(st.sampled_from("法国首都红楼梦东京，。《》 Fracen the.'é𠮷\n"), max_size=8)


@given(before=characters, subject=characters.filter(bool), after=characters)
def test_the_subjects_last_token_ends_any_subject_in_any_prompt(before: str, subject: str, after: str) -> None:
    assert_ends_the_subject(before + subject + after, (len(before), len(before) + len(subject)))


def test_a_character_of_several_tokens_is_covered_by_its_last_token() -> None:
    tokenizer = tiny_tokenizer()
    parts = encode_text(tokenizer, "𠮷")[1:]
    assert len(parts) > 1
    assert encode_prompt(tokenizer, "𠮷是", (0, 1)).subject_last == len(parts)


def test_a_token_that_runs_past_the_subject_is_said_to_swallow_what_follows() -> None:
    fast = trained(Tokenizer(models.BPE()), ["国的", "法"] * 3)
    merged, apart = encode_prompt(fast, "法国的", (0, 2)), encode_prompt(fast, "法国法", (0, 2))
    assert [fast.convert_ids_to_tokens(list(prompt.tokens)) for prompt in (merged, apart)] == [["法", "国的"], ["法", "国", "法"]]
    assert (merged.subject_last, merged.swallows) == (1, True)
    assert (apart.subject_last, apart.swallows) == (1, False)


@pytest.mark.parametrize("tokenizer", DUMMY_SPACE)
@pytest.mark.parametrize("request_", REQUESTS[:2], ids=lambda request: request.prompt)
def test_the_space_that_a_tokenizer_puts_before_a_text_does_not_shift_the_subject(
    tokenizer: PreTrainedTokenizerFast, request_: EditRequest
) -> None:
    prompt = encode_prompt(tokenizer, request_.prompt, request_.subject_span)
    assert decoded(tokenizer, prompt.tokens[: prompt.subject_last + 1]) == request_.up_to_subject


def test_a_subject_that_the_tokenizer_drops_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace("\u200b", "")
    fast = trained(tokenizer)
    with pytest.raises(ValueError, match="no token covers the end of the subject"):
        encode_prompt(fast, "法国\u200b", (2, 3))
    with pytest.raises(ValueError, match=r"the answer .* \(zh\) has no tokens"):
        encode_answer(fast, "\u200b", "zh")


def test_a_tokenizer_without_character_offsets_is_refused() -> None:
    slow = SlowTokenizer(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    with pytest.raises(ValueError, match="SlowTokenizer gives no character offsets"):
        encode_prompt(slow, "法国的", (0, 2))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.prompt)
def test_prompt_and_answer_put_together_read_as_the_language_joins_them(request_: EditRequest) -> None:
    tokenizer, code = tiny_tokenizer(), request_.language
    answer = encode_answer(tokenizer, request_.target_new, code)
    assert decoded(tokenizer, answer) == language(code).joiner + request_.target_new
    assert answer[0] != tokenizer.bos_token_id
    together = encode_prompt(tokenizer, request_.prompt, request_.subject_span).tokens + answer
    assert decoded(tokenizer, together[1:]) == language(code).join(request_.prompt, request_.target_new)


@pytest.mark.parametrize("tokenizer", [*DUMMY_SPACE, metaspace("never")])
@pytest.mark.parametrize(("code", "answer", "first"), [("zh", "东京", "东"), ("en", "Paris", "▁P")])
def test_an_answer_opens_with_a_space_in_english_and_never_in_chinese(
    tokenizer: PreTrainedTokenizerFast, code: str, answer: str, first: str
) -> None:
    tokens = encode_answer(tokenizer, answer, code)
    written = "".join(tokenizer.convert_ids_to_tokens(list(tokens)))
    assert written == language(code).joiner.replace(" ", "▁") + answer
    assert written.startswith(first)
    assert tokenizer.unk_token_id not in tokens


def test_a_character_in_bytes_is_an_answer_without_a_space_too() -> None:
    tokens = encode_answer(prepending(), "法", "zh")
    assert prepending().convert_ids_to_tokens(list(tokens)) == ["<0xE6>", "<0xB3>", "<0x95>"]


def test_the_opening_is_the_bos_token_and_never_the_end_of_the_text() -> None:
    assert opening_tokens(tiny_tokenizer()) == (0,)
    assert opening_tokens(metaspace("never")) == ()
    assert encode_text(tiny_tokenizer(), "") == (0,)


def test_tokens_that_would_merge_across_prompt_and_answer_are_reported() -> None:
    fast = trained(Tokenizer(models.BPE()), ["是东", "法"] * 3)
    assert merges_with_prompt(fast, "法是", "东法", "zh")
    assert not merges_with_prompt(fast, "是法", "东法", "zh")


@pytest.mark.parametrize("left", [False, True])
def test_padding_stands_on_its_side_and_is_masked_out(left: bool) -> None:
    ids, mask = pad([(5, 6), (7, 8, 9)], left=left)
    short = [[0, 5, 6], [0, 1, 1]] if left else [[5, 6, 0], [1, 1, 0]]
    torch.testing.assert_close(ids, torch.tensor([short[0], [7, 8, 9]]))
    torch.testing.assert_close(mask, torch.tensor([short[1], [1, 1, 1]]))


@given(lengths=st.lists(st.integers(1, 40), max_size=40), max_tokens=st.integers(1, 100))
def test_batches_hold_every_row_once_in_order_of_length_and_stay_within_their_bound(lengths: list[int], max_tokens: int) -> None:
    batches = batches_by_length(lengths, max_tokens)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(lengths)))
    assert [lengths[index] for index in flat] == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= max_tokens
