"""The tokenizer: byte-level BPE by the tokenizers library from as much text of each language, and how well it fits each."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec
import numpy as np
import regex
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xledit.training.results import Fertility, LanguageTokens

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
# one text in so many is kept from the tokenizer, to measure its fertility on
EVERY = 10
# characters that are encoded at a time; not texts, or memory would go by how long they are
BATCH = 1 << 21


class TokenizerParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tokenizer`` section of the settings.

    ``vocabulary`` counts all tokens (fewer, if the text gives no more): a larger one makes texts shorter and both embedding matrices
    larger. ``characters`` is how much of each language is looked at, or all where there is less; the same for all, so that no
    language's words crowd out another's (the paper: a million documents each). ``others``: as much of programming languages
    and of those that the run does not read (null: the same); less leaves more of a small vocabulary to those that it reads.
    ``characters_apart``: no token holds more than one character of a script without spaces. In a small corpus made from patterns half a
    sentence would else be one token. ``part_tokens``: at most so many tokens are in a file of a token shard (4 bytes each), and three
    times their bytes in memory while it is written; fewer make more files, which changes nothing else.
    """

    vocabulary: int
    characters: int
    others: int | None = None
    characters_apart: bool = False
    part_tokens: int = 1 << 28

    def __post_init__(self) -> None:
        least = len(pre_tokenizers.ByteLevel.alphabet()) + 1 + len(TURNS)
        if self.vocabulary < least:
            raise ValueError(f"vocabulary is {self.vocabulary}; the bytes and special tokens alone take {least}")
        for name, number in (("characters", self.characters), ("others", self.others), ("part_tokens", self.part_tokens)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be at least 1")


def train(texts: Mapping[str, Iterator[str]], params: TokenizerParams, read: Collection[str] | None = None) -> PreTrainedTokenizerFast:
    """Return a tokenizer trained on the first characters of each language; the same texts give the same tokenizer.

    Of languages in ``read`` (None: of all) ``params.characters``, of the others ``params.others``.
    ``END`` is token 0, ends a text and pads (as in the published one). No more is read than that, a text at a time; in memory is each
    different word. Raises ValueError that names a language without text.
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


class Text(NamedTuple):
    """A document of the corpus, whether the tokenizer is trained on it, and whether its fertility is measured on it."""

    text: str
    trained: bool
    held_out: bool


def divided(texts: Iterable[str]) -> Iterator[Text]:
    """Yield every tenth text as held out, and the nine others for training; all texts for both, where there are fewer than ten."""
    left = iter(texts)
    first = list(islice(left, EVERY))
    few = len(first) < EVERY
    for number, text in enumerate(chain(first, left)):
        is_tenth = number % EVERY == EVERY - 1
        yield Text(text, trained=not is_tenth, held_out=few or is_tenth)


class Encoder:
    """A tokenizer to which all is text, also what spells a special token: it may come from anybody. The one it is made from stays as is."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._plain: Any = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._plain.no_padding()
        self._plain.no_truncation()

    def ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield each text's tokens."""
        return (encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False))


class Documents:
    """A language's documents as tokens ``[tokens]`` uint32, each ended by ``END``, in one pass over its texts, and what was counted.

    No other special token is among them, whatever a text spells. In memory are ``BATCH`` characters and their tokens, or one longer text.
    """

    def __init__(self, texts: Iterable[Text], tokenizer: Encoder, reference: Encoder) -> None:
        self._texts, self._encoders = texts, (tokenizer, reference)
        self._documents = self._bytes = self._tokens = 0
        self._held_out = np.zeros(5, dtype=np.int64)  # tokens, the reference's tokens, words, characters, bytes

    def __iter__(self) -> Iterator[np.ndarray]:
        tokenizer, reference = self._encoders
        for batch in _batches(self._texts):
            held_out = [text for text, _, is_held_out in batch if is_held_out]
            self._held_out[1] += sum(map(len, reference.ids(held_out)))
            for (text, _, is_held_out), ids in zip(batch, tokenizer.ids([text for text, _, _ in batch]), strict=True):
                num_bytes = len(text.encode())
                self._documents += 1
                self._bytes += num_bytes
                self._tokens += len(ids) + 1
                if is_held_out:
                    self._held_out += len(ids), 0, len(WORD.findall(text)), len(text), num_bytes
                yield np.asarray((*ids, 0), dtype=np.uint32)

    def counts(self) -> LanguageTokens:
        """Return what has been counted of the documents that have passed."""
        ours, reference, words, characters, num_bytes = self._held_out.tolist()
        fertility, others = (
            Fertility(per_word=number / words, per_character=number / characters, per_byte=number / num_bytes)
            for number in (ours, reference)
        )
        return LanguageTokens(documents=self._documents, bytes=self._bytes, tokens=self._tokens, fertility=fertility, reference=others)


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text.text) + 1
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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
