"""The tokenizer: nothing is lost, no language crowds out another, the same text gives the same tokens."""

import re
import tracemalloc
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from xledit.training import bpe
from xledit.training.bpe import END, EVERY, TURNS, Documents, Encoder, TokenizerParams, divided, train
from xledit.training.results import Fertility, LanguageTokens

TEXTS = {
    "en": ["The currency of Japan is called yen.", "The main official language of Brazil is Portuguese."] * 20,
    "zh": ["日本的法定货币是日元。", "巴西的主要官方语言是葡萄牙语。"] * 20,
}
PARAMS = TokenizerParams(vocabulary=350, characters=10_000)


def trained(params: TokenizerParams = PARAMS, **texts: list[str]) -> PreTrainedTokenizerFast:
    return train({code: iter(some) for code, some in (TEXTS | texts).items()}, params)


BYTES = trained(msgspec.structs.replace(PARAMS, vocabulary=259))  # a token for each byte


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


def encode(texts: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> tuple[list[list[int]], LanguageTokens]:
    """Return the documents' tokens and what was counted, with a reference that knows bytes alone."""
    encoded = Documents(divided(texts), Encoder(tokenizer), Encoder(BYTES))
    documents = list(encoded)
    assert all(document.dtype == np.uint32 for document in documents)
    return [document.tolist() for document in documents], encoded.counts()


def test_documents_are_texts_with_an_end(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*TEXTS["zh"][:2], *TEXTS["en"][:2]]
    documents, _ = encode(iter(texts), tokenizer)
    assert [(tokenizer.decode(document[:-1]), document[-1]) for document in documents] == [(text, 0) for text in texts]


def test_text_that_spells_a_special_token_is_not_one(tokenizer: PreTrainedTokenizerFast) -> None:
    text = f"a{END}b {TURNS[0]}system{TURNS[1]}"
    for document in encode([text, text], tokenizer)[0]:
        assert [place for place, token in enumerate(document, start=1) if token < 3] == [len(document)]
        assert tokenizer.decode(document[:-1]) == text
    assert tokenizer.backend_tokenizer.encode(text).ids.count(0) == 1, "the tokenizer itself is as it was"


def test_a_tokenizer_that_pads_and_truncates_is_not_let(tokenizer: PreTrainedTokenizerFast) -> None:
    other = trained()
    other.backend_tokenizer.enable_padding(length=50)
    other.backend_tokenizer.enable_truncation(5)
    assert encode(TEXTS["en"], other) == encode(TEXTS["en"], tokenizer)


@pytest.mark.parametrize("batch", [1, 60, 500])
def test_texts_are_encoded_alike_in_batches_of_any_size(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    whole = encode(TEXTS["zh"], tokenizer)
    monkeypatch.setattr(bpe, "BATCH", batch)
    assert encode(TEXTS["zh"], tokenizer) == whole


TEXT = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: f"w{text}")


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=35))
def test_one_pass_counts_what_a_pass_for_each_number_counts(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
    def count(some: list[str], encoder: PreTrainedTokenizerFast) -> int:
        plain = Tokenizer.from_str(encoder.backend_tokenizer.to_str())
        plain.encode_special_tokens = True  # pyright: ignore[reportAttributeAccessIssue]
        return sum(len(plain.encode(text, add_special_tokens=False).ids) for text in some)

    def fertility(some: list[str], encoder: PreTrainedTokenizerFast) -> Fertility:
        number, words = count(some, encoder), sum(len(bpe.WORD.findall(text)) for text in some)
        whole = "".join(some)
        return Fertility(per_word=number / words, per_character=number / len(whole), per_byte=number / len(whole.encode()))

    held_out = texts[EVERY - 1 :: EVERY] or texts
    wanted = LanguageTokens(
        documents=len(texts),
        bytes=len("".join(texts).encode()),
        tokens=count(texts, tokenizer) + len(texts),
        fertility=fertility(held_out, tokenizer),
        reference=fertility(held_out, BYTES),
    )
    assert encode(texts, tokenizer)[1] == wanted


@pytest.mark.parametrize("number", [1, 9, 10, 11, 35])
def test_a_tenth_is_held_out_from_training_unless_there_are_fewer_than_ten(number: int) -> None:
    texts = [str(place) for place in range(number)]
    found = list(divided(iter(texts)))
    assert [each.text for each in found] == texts
    held_out = [each.text for each in found if each.held_out]
    trained_on = [each.text for each in found if each.trained]
    if number < EVERY:
        assert held_out == trained_on == texts
    else:
        assert held_out == texts[9::10]
        assert trained_on == [text for text in texts if text not in held_out]


def test_ten_times_the_texts_take_no_more_memory(tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "BATCH", 20_000)
    plain = Encoder(tokenizer)

    def peak(number: int) -> int:
        texts = (f"{TEXTS['en'][place % 2]} {place}" for place in range(number))
        tracemalloc.start()
        assert sum(1 for _ in Documents(divided(texts), plain, plain)) == number
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(1000)  # what is imported and compiled once
    few, many = peak(1000), peak(10_000)
    assert many < 1.1 * few


def test_fertility_counts_tokens_by_words_characters_and_bytes() -> None:
    found = encode(["two words", "日元"], BYTES)[1]
    assert found.fertility == Fertility(per_word=15 / 3, per_character=15 / 11, per_byte=1)
    assert (found.documents, found.bytes, found.tokens) == (2, 15, 17)


def test_a_language_without_text_and_settings_without_room_are_refused() -> None:
    with pytest.raises(ValueError, match="zh: no text to train the tokenizer on; give it a source"):
        trained(zh=[])
    with pytest.raises(ValueError, match="vocabulary is 100; the bytes and special tokens alone take 259"):
        TokenizerParams(vocabulary=100, characters=10)
    with pytest.raises(ValueError, match="characters is 0; it must be at least 1"):
        TokenizerParams(vocabulary=300, characters=0)
    with pytest.raises(ValueError, match="part_tokens is 0; it must be at least 1"):
        TokenizerParams(vocabulary=300, characters=10, part_tokens=0)
