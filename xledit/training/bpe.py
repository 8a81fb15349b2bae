"""The tokenizer: byte-level BPE by the tokenizers library from as much text of each language, and how well it fits each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import regex
from tokenizers import Encoding, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xledit.training.results import Fertility

END = "<|endoftext|>"
# ChatML's, for the tuned variants
TURNS = ("<|im_start|>", "<|im_end|>")
# scripts that put no space between words
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
# what no token reaches beyond: a word with its vowel signs (byte-level BPE's usual pattern cuts Hindi and Tamil at each), a number, marks
LETTERS = r"\p{L}\p{M}"
REST = r"| ?\p{N}+| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
WORDS = rf" ?[{LETTERS}]+" + REST
CHARACTERS_APART = rf"[{UNSPACED}]\p{{M}}*| ?[{LETTERS}&&[^{UNSPACED}]]+" + REST
WORD = regex.compile(r"\w+")
# texts that are encoded at a time
BATCH = 10_000


class TokenizerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tokenizer`` section of the settings.

    ``vocabulary`` counts all tokens (fewer, if the text gives no more): a larger one makes texts shorter and both embedding matrices
    larger. ``characters`` is how much of each language is looked at, or all where there is less; the same for all, so that no
    language's words crowd out another's (the paper: a million documents each). ``others``: as much of programming languages
    and of those that the run does not read (null: the same); less leaves more of a small vocabulary to those that it reads.
    ``characters_apart``: no token holds more than one character of a script without spaces. In a small corpus made from patterns half a
    sentence would else be one token.
    """

    vocabulary: int
    characters: int
    others: int | None = None
    characters_apart: bool = False

    def __post_init__(self) -> None:
        least = len(pre_tokenizers.ByteLevel.alphabet()) + 1 + len(TURNS)
        if self.vocabulary < least:
            raise ValueError(f"vocabulary is {self.vocabulary}; the bytes and special tokens alone take {least}")
        for name, number in (("characters", self.characters), ("others", self.others)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")


def train(texts: Mapping[str, Iterator[str]], params: TokenizerParams, read: Collection[str] | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on the first characters of each language; the same texts give the same tokenizer.

    Of languages in ``read`` (None: of all) ``params.characters``, of the others ``params.others``.
    ``END`` is token 0, ends a text and pads (as in the published one). Raises ValueError that names a language without text.
    """
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(CHARACTERS_APART if params.characters_apart else WORDS)
    words: Any = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=params.vocabulary,
        special_tokens=[END, *TURNS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fewer = params.characters if params.others is None else params.others
    most = {code: params.characters if read is None or code in read else fewer for code in texts}
    tokenizer.train_from_iterator(_balanced(texts, most), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return all texts' tokens end to end ``[tokens]`` uint32, each text ended by ``END``, and where each ends ``[texts]`` int64.

    No other special token is among them, whatever a text spells.
    """
    rows = [np.asarray((*encoding.ids, 0), dtype=np.uint32) for _text, encoding in _encoded(tokenizer, texts)]
    return np.concatenate(rows), np.cumsum([len(row) for row in rows], dtype=np.int64)


def fertility(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Fertility:
    """Return how many tokens the texts take."""
    counts = np.zeros(4, dtype=np.int64)
    for text, encoding in _encoded(tokenizer, texts):
        counts += len(encoding.ids), len(WORD.findall(text)), len(text), len(text.encode())
    num_tokens, *units = counts.tolist()
    return Fertility(**{name: num_tokens / number for name, number in zip(("per_word", "per_character", "per_byte"), units, strict=True)})


def _encoded(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[tuple[str, Encoding]]:
    """Yield each text with its tokens. What spells a special token is text like any other: it may come from anybody."""
    plain: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.encode_special_tokens = True
    left = iter(texts)
    while batch := list(islice(left, BATCH)):
        yield from zip(batch, plain.encode_batch(batch, add_special_tokens=False), strict=True)


def _balanced(texts: Mapping[str, Iterator[str]], characters: Mapping[str, int]) -> Iterator[str]:
    for code, some in texts.items():
        left = characters[code]
        for text in some:
            yield text[:left]
            left -= len(text)
            if left <= 0:
                break
        if left == characters[code]:
            raise ValueError(f"{code}: no text to train the tokenizer on; give it a source, or leave the language out")
