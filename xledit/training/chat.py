"""ChatML: how a conversation is spelt for a model, which of it the model says itself, and where it ends what it says."""

import copy

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.training.bpe import TURNS

STOP = TURNS[1]
# A line break is written as an expression: transformers trims one that follows a block. Within `generation` is what the model says,
# the end of its turn included, or it would not learn to stop; the break after it is nobody's.
TEMPLATE = r"""
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\n' -}}
    {%- if message.role == 'assistant' -%}
        {%- generation -%}
            {{- message.content + '<|im_end|>' -}}
        {%- endgeneration -%}
    {%- else -%}
        {{- message.content + '<|im_end|>' -}}
    {%- endif -%}
    {{- '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\n' -}}
{%- endif -%}
""".strip()


def make_chat(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedTokenizerBase:
    """Return ``chat_tokenizer``'s copy, with the model changed so that both fit each other.

    Raises ValueError when they did not before: the tokenizer is another model's.
    """
    size = model.config.get_text_config().vocab_size
    if len(tokenizer) != size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens and the model {size}; take those of one folder")
    chat = chat_tokenizer(tokenizer)
    fit(model, chat, seed)
    return chat


def chat_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a copy that spells conversations as ChatML and ends a text at the end of a turn; what pads and begins a text stays.

    The turns' two tokens are added where the tokenizer lacks them. Raises ValueError when nothing pads or would pad with the end of a
    turn, which would then never be learnt.
    """
    tokenizer = copy.deepcopy(tokenizer)
    if missing := [token for token in TURNS if token not in tokenizer.get_vocab()]:
        tokenizer.add_tokens(missing, special_tokens=True)
    if tokenizer.pad_token is None or tokenizer.pad_token == STOP:
        raise ValueError(f"the tokenizer pads with {tokenizer.pad_token!r}; give it a padding token other than {STOP}")
    tokenizer.chat_template = TEMPLATE
    tokenizer.eos_token = STOP
    return tokenizer


def fit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    """Give a model an embedding for each token of ``chat_tokenizer``'s copy, and have it stop where that says.

    New embeddings are drawn around the mean of the others. ``generate`` also still stops at what ended a text before.
    """
    if model.config.get_text_config().vocab_size < len(tokenizer):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer))
    ends = model.generation_config.eos_token_id if model.generation_config else None
    before = [end for end in (ends if isinstance(ends, list) else [ends]) if end not in (None, tokenizer.eos_token_id)]
    for config in (model.config.get_text_config(), model.generation_config):
        assert config is not None
        config.bos_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    model.config.get_text_config().eos_token_id = tokenizer.eos_token_id
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *before]


def special_spellings(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return what special tokens are spelt as: a text with one in it would be read as that token, and could end a turn."""
    return tuple(str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
