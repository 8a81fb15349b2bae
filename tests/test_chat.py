"""A conversation is spelt as ChatML says; what the assistant says is marked, to the end of its turn; the base model stays what it was."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from tests.tiny import SIZES, VOCABULARY, tiny_tokenizer
from xledit.models.fuxitranyu import FuxiTranyuConfig, FuxiTranyuForCausalLM
from xledit.training.bpe import TURNS, TokenizerParams, train
from xledit.training.chat import STOP, TEMPLATE, chat_tokenizer, make_chat, special_spellings

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is Kiru from?\n"},
    {"role": "assistant", "content": "东京 é\n\nGreece"},
    {"role": "user", "content": " And Mora?"},
    {"role": "assistant", "content": "Japan "},
]


def tiny(vocabulary: int = VOCABULARY) -> FuxiTranyuForCausalLM:
    torch.manual_seed(0)
    sizes = SIZES | {"num_hidden_layers": 1, "num_key_value_heads": 4, "vocab_size": vocabulary}
    return FuxiTranyuForCausalLM(FuxiTranyuConfig(**sizes)).eval()


def with_turns() -> PreTrainedTokenizerBase:
    """Return a tokenizer as the stage ``tokenizer`` makes them: it has the turns' tokens."""
    texts = {"en": iter(["Kiru comes from Greece. " * 20]), "zh": iter(["基鲁来自希腊。" * 20])}
    return train(texts, TokenizerParams(vocabulary=300, characters=1000))


def said(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> list[str]:
    """Return the tokens marked as the assistant's, decoded, one text for each stretch of them."""
    encoded = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    stretches: list[list[int]] = [[]]
    for token, is_marked in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True):
        if is_marked:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [tokenizer.decode(stretch) for stretch in stretches if stretch]


def test_a_conversation_is_spelt_with_each_line_break_in_its_place() -> None:
    tokenizer = chat_tokenizer(tiny_tokenizer())
    spelt = (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhere is Kiru from?\n<|im_end|>\n"
        "<|im_start|>assistant\n东京 é\n\nGreece<|im_end|>\n"
        "<|im_start|>user\n And Mora?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert tokenizer.apply_chat_template(TALK, tokenize=False) == spelt + "Japan <|im_end|>\n"
    assert tokenizer.apply_chat_template(TALK[:-1], tokenize=False, add_generation_prompt=True) == spelt
    assert all(token in TEMPLATE for token in TURNS)


@pytest.mark.parametrize("make", [tiny_tokenizer, with_turns])
def test_what_the_assistant_says_is_marked_with_the_end_of_its_turn_and_nothing_else(make) -> None:
    assert said(chat_tokenizer(make()), TALK) == [f"东京 é\n\nGreece{STOP}", f"Japan {STOP}"]


@settings(max_examples=50)
@given(answer=st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1).filter(lambda text: not text[0].isspace()))
def test_whatever_the_answer_is(answer: str) -> None:
    tokenizer = chat_tokenizer(tiny_tokenizer())
    assert said(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]) == [answer + STOP]


def test_a_tokenizer_without_the_turns_gets_them_and_the_model_two_rows() -> None:
    model, before = tiny(), tiny().state_dict()
    base = tiny_tokenizer()
    kept = (base.backend_tokenizer.to_str(), base.eos_token, base.chat_template)
    tokenizer = make_chat(model, base, seed=1)
    assert (base.backend_tokenizer.to_str(), base.eos_token, base.chat_template) == kept, "the base model's is another"
    assert len(tokenizer) == model.config.vocab_size == VOCABULARY + 2
    assert tokenizer.convert_tokens_to_ids(list(TURNS)) == [VOCABULARY, VOCABULARY + 1]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor[: len(before[name])], before[name]), name
    new = model.get_input_embeddings().weight[VOCABULARY:]
    assert torch.allclose(new, before["model.embed_tokens.weight"].mean(0), atol=0.1)
    assert torch.equal(new, resized(seed=1)) and not torch.equal(new, resized(seed=2))


def resized(seed: int) -> torch.Tensor:
    model, state = tiny(), torch.random.get_rng_state()
    make_chat(model, tiny_tokenizer(), seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    return model.get_input_embeddings().weight[VOCABULARY:]


def test_a_tokenizer_with_the_turns_keeps_its_tokens_and_the_model_its_weights() -> None:
    base = with_turns()
    model, before = tiny(len(base)), tiny(len(base)).state_dict()
    tokenizer = make_chat(model, base, seed=1)
    assert tokenizer.backend_tokenizer.to_str() == base.backend_tokenizer.to_str()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_tuned_model_ends_with_its_turn_and_pads_and_begins_as_before() -> None:
    base = with_turns()
    model = tiny(len(base))
    tokenizer = make_chat(model, base, seed=1)
    assert (tokenizer.bos_token, tokenizer.pad_token, tokenizer.eos_token) == (base.bos_token, base.pad_token, STOP)
    stop = tokenizer.convert_tokens_to_ids(STOP)
    assert (model.config.bos_token_id, model.config.pad_token_id, model.config.eos_token_id) == (0, 0, stop)
    # what ended a text before still does
    assert model.generation_config.eos_token_id == [stop, 1] and model.generation_config.pad_token_id == 0


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer has 500 tokens and the model 502; take those of one folder"):
        make_chat(tiny(502), tiny_tokenizer(), seed=1)
    padless = copy.deepcopy(tiny_tokenizer())
    padless.pad_token = None
    with pytest.raises(ValueError, match=r"pads with None; give it a padding token other than <\|im_end\|>"):
        chat_tokenizer(padless)


def test_special_tokens_are_known_by_their_spelling() -> None:
    assert set(special_spellings(chat_tokenizer(tiny_tokenizer()))) == {"<bos>", "<eos>", *TURNS}
