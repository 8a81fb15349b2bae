"""The tokenizer: nothing is lost, no language crowds out another, the same text gives the same tokens."""

import re
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from xledit.training import bpe
from xledit.training.bpe import END, TURNS, TokenizerParams, encode, fertility, train

TEXTS = {
    "en": ["The currency of Japan is called yen.", "The main official language of Brazil is Portuguese."] * 20,
    "zh": ["日本的法定货币是日元。", "巴西的主要官方语言是葡萄牙语。"] * 20,
}
PARAMS = TokenizerParams(vocabulary=350, characters=10_000)


def trained(params: TokenizerParams = PARAMS, **texts: list[str]) -> PreTrainedTokenizerFast:
    return train({code: iter(some) for code, some in (TEXTS | texts).items()}, params)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return trained()


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=50))
def test_any_text_comes_back_byte_for_byte(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text or END in text or any(turn in text for turn in TURNS)


def test_special_tokens_come_first_and_the_vocabulary_is_as_large_as_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids([END, *TURNS]) == [0, 1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 0)
    assert len(tokenizer) == PARAMS.vocabulary


def test_the_same_texts_give_the_same_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    assert trained().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_it_is_saved_and_loaded_by_transformers(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("saved")
    tokenizer.save_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    text = "巴西 is called yen. <|im_start|>"
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert loaded.decode(loaded(text).input_ids) == text


def test_no_language_is_looked_at_for_longer_than_another() -> None:
    """A flood of one language beyond the limit changes nothing."""
    params = msgspec.structs.replace(PARAMS, characters=200)

    def flood() -> Iterator[str]:
        yield from TEXTS["en"][:10]
        raise AssertionError("more was read than asked for")

    limited = train({"en": flood(), "zh": iter(TEXTS["zh"])}, params)
    assert limited.backend_tokenizer.to_str() == trained(params).backend_tokenizer.to_str()


def test_languages_that_the_run_does_not_read_are_looked_at_for_less() -> None:
    def flood() -> Iterator[str]:
        yield from TEXTS["zh"][:5]
        raise AssertionError("more was read than asked for")

    params = msgspec.structs.replace(PARAMS, others=50)
    less = train({"en": iter(TEXTS["en"]), "zh": flood()}, params, read=["en"])
    assert less.backend_tokenizer.to_str() != trained(params).backend_tokenizer.to_str()


def test_characters_apart_makes_no_token_of_two_characters_where_no_spaces_separate_words() -> None:
    params = msgspec.structs.replace(PARAMS, characters_apart=True)
    apart = train({"zh": iter(TEXTS["zh"] * 5), "en": iter(TEXTS["en"])}, params)
    tokens = [apart.decode([number]) for number in range(len(apart))]
    assert any(len(re.findall(r"[\u4e00-\u9fff]", token)) > 1 for token in map(trained().decode, range(len(trained()))))
    assert not any(len(re.findall(r"[\u4e00-\u9fff]", token)) > 1 for token in tokens)
    assert " called" in tokens, "words that spaces separate are not cut"
    assert apart.decode(apart("日本 is called 日本。").input_ids) == "日本 is called 日本。"


def test_encoded_texts_end_where_they_are_said_to(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*TEXTS["zh"][:2], *TEXTS["en"][:2]]
    tokens, ends = encode(tokenizer, iter(texts))
    assert (tokens.dtype, ends.dtype, ends[-1]) == (np.uint32, np.int64, len(tokens))
    for text, start, end in zip(texts, [0, *ends[:-1]], ends, strict=True):
        *ids, last = tokens[start:end].tolist()
        assert (tokenizer.decode(ids), last) == (text, 0)


def test_text_that_spells_a_special_token_is_not_one(tokenizer: PreTrainedTokenizerFast) -> None:
    text = f"a{END}b {TURNS[0]}system{TURNS[1]}"
    tokens, ends = encode(tokenizer, [text, text])
    assert [place for place, token in enumerate(tokens, start=1) if token < 3] == ends.tolist()
    assert tokenizer.decode(tokens[: ends[0] - 1].tolist()) == text
    assert tokenizer.backend_tokenizer.encode(text).ids.count(0) == 1, "the tokenizer itself is as it was"


def test_texts_are_encoded_alike_in_batches_of_any_size(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, measured = encode(tokenizer, TEXTS["zh"]), fertility(tokenizer, TEXTS["zh"])
    monkeypatch.setattr(bpe, "BATCH", 3)
    assert all(map(np.array_equal, encode(tokenizer, TEXTS["zh"]), whole))
    assert fertility(tokenizer, TEXTS["zh"]) == measured


def test_fertility_counts_tokens_by_words_characters_and_bytes() -> None:
    plain = trained(msgspec.structs.replace(PARAMS, vocabulary=259))  # bytes alone
    found = fertility(plain, ["two words", "日元"])
    assert (found.per_byte, found.per_character, found.per_word) == (1, 15 / 11, 15 / 3)


def test_a_language_without_text_and_settings_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="zh: no text to train the tokenizer on; give it a source"):
        trained(zh=[])
    with pytest.raises(ValueError, match="vocabulary is 100; the bytes and special tokens alone take 259"):
        TokenizerParams(vocabulary=100, characters=10)
    with pytest.raises(ValueError, match="characters is 0; it must be at least 1"):
        TokenizerParams(vocabulary=300, characters=0)
