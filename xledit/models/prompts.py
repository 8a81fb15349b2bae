"""Text to tokens, and which token ends the subject.

Prompt and answer are tokenised apart and joined as token ids: nothing is ever decoded and encoded again, because a
token may be part of a character. The subject's last token comes from character offsets, never from counting the
tokens of a prefix.
"""

from collections.abc import Iterator, Sequence

import msgspec
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xledit.languages import language
from xledit.records import EditRequest


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """Token ids of a prompt, opening tokens included, and the index of the subject's last token.

    ``swallows`` says that this token also covers characters after the subject (a tokenizer may merge them).
    """

    tokens: tuple[int, ...]
    subject_last: int
    swallows: bool


def opening_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return what the tokenizer puts before every text (a BOS token or nothing)."""
    return tuple(token for token in tokenizer("").input_ids if token != tokenizer.eos_token_id or token == tokenizer.bos_token_id)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """Return the token ids of a text at the beginning of a sequence, opening tokens included."""
    return opening_tokens(tokenizer) + tuple(tokenizer(text, add_special_tokens=False).input_ids)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, text: str, subject_span: tuple[int, int]) -> Prompt:
    """Return the tokens of a prompt and where its subject ends.

    Raises ValueError when the tokenizer cannot give character offsets, or no token covers the subject's last character.
    """
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} gives no character offsets; use the model's fast tokenizer")
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    end = subject_span[1]
    # the last one: a character of several bytes may be several tokens
    covering = [index for index, (start, stop) in enumerate(encoded["offset_mapping"]) if start < end <= stop]
    if not covering:
        raise ValueError(f"no token covers the end of the subject {text[slice(*subject_span)]!r} in the prompt {text!r}")
    opening = opening_tokens(tokenizer)
    return Prompt(
        tokens=opening + tuple(encoded["input_ids"]),
        subject_last=len(opening) + covering[-1],
        swallows=encoded["offset_mapping"][covering[-1]][1] > end,
    )


def encode_answer(tokenizer: PreTrainedTokenizerBase, answer: str, code: str) -> tuple[int, ...]:
    """Return the token ids of an answer as it continues a prompt in the language ``code``.

    Raises ValueError when the answer has no tokens.
    """
    text = language(code).joiner + answer
    tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)
    if _adds_dummy_space(tokenizer):
        # such a tokenizer reads "法国" as " 法国": let a line break take the space, and drop it
        anchor = tuple(tokenizer("\n", add_special_tokens=False).input_ids)
        tokens = tuple(tokenizer("\n" + text, add_special_tokens=False).input_ids)[len(anchor) :]
    if not tokens:
        raise ValueError(f"the answer {answer!r} ({code}) has no tokens")
    return tokens


class AnswerRow(msgspec.Struct, frozen=True):
    """Tokens to run, an answer's tokens, and for each of these the position whose logits predict it."""

    tokens: tuple[int, ...]
    answer: tuple[int, ...]
    positions: tuple[int, ...]


def teacher_forced(prompt: tuple[int, ...], answer: tuple[int, ...]) -> AnswerRow:
    """Return the row of a prompt continued by its answer. The answer's last token is not run, because nothing after it is predicted."""
    first = len(prompt) - 1
    return AnswerRow(tokens=prompt + answer[:-1], answer=answer, positions=tuple(range(first, first + len(answer))))


def encode_request(tokenizer: PreTrainedTokenizerBase, request: EditRequest) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens of the request's prompt and those of its new answer."""
    return encode_text(tokenizer, request.prompt), encode_answer(tokenizer, request.target_new, request.language)


def _adds_dummy_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space of its own before a text (SentencePiece's dummy prefix: Llama 2, Mistral 0.1)."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False).input_ids)
    return bool(tokens) and tokens[0].startswith("▁")


def merges_with_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, code: str) -> bool:
    """Whether tokenising prompt and answer together gives other tokens than apart."""
    together = encode_text(tokenizer, language(code).join(prompt, answer))
    return together != encode_text(tokenizer, prompt) + encode_answer(tokenizer, answer, code)


def pad(rows: Sequence[Sequence[int]], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return token ids and attention mask, both ``[batch tokens]`` int64. Padding is id 0 and masked out."""
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row)
        mask[index, place] = 1
    return ids, mask


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return indices grouped so that similar lengths go together and no padded batch exceeds ``max_tokens``.

    A row longer than ``max_tokens`` makes a batch of its own.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[index] <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def padded_batches(
    rows: Sequence[Sequence[int]], max_tokens: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield all rows in batches of similar lengths: their indices, and token ids and mask as of ``pad``, on the device."""
    for batch in batches_by_length([len(row) for row in rows], max_tokens):
        ids, mask = pad([rows[index] for index in batch])
        yield batch, ids.to(device), mask.to(device)
