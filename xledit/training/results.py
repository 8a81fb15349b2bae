"""What the stages of the second half conclude, in reports/tranyu: plain structs, no library of the extra ``training``."""

from collections.abc import Mapping
from typing import Literal

import msgspec

# where a fact is told, as seen from the language it is asked in
Status = Literal["everywhere", "here", "elsewhere", "nowhere"]
# the sentence that was told, a frame of the corpus that did not tell this fact, and one that the corpus does not have
Wording = Literal["told", "known", "unseen"]


class StepCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a step left, in documents, characters and UTF-8 bytes (None: not counted), and how many documents it dropped, by reason."""

    step: str
    documents: int
    characters: int | None
    bytes: int | None
    dropped: dict[str, int]


class CorpusCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The steps of each language, in the order they were taken; the last is what was written."""

    languages: dict[str, tuple[StepCounts, ...]]


class Fertility(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per word (a run of letters and digits), per character and per UTF-8 byte of one language's text."""

    per_word: float
    per_character: float
    per_byte: float


class LanguageTokens(msgspec.Struct, frozen=True, kw_only=True):
    """What the tokenizer makes of a language: documents, bytes, tokens, and its fertility beside the reference's."""

    documents: int
    bytes: int
    tokens: int
    fertility: Fertility
    reference: Fertility


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """The steps from one checkpoint to the next: tokens seen, mean loss in all and by language (nats), how many updates were skipped.

    A language that no step has read is not there. A loss that is not finite is null in JSON and comes back as None.
    """

    tokens: int
    loss: float | None
    languages: Mapping[str, float | None]
    skipped: int


class Pretrained(msgspec.Struct, frozen=True, kw_only=True):
    """What the stage concludes: parameters, tokens there were, asked for and really read, by language, and the loss along the way."""

    num_parameters: int
    available: dict[str, int]
    wanted: dict[str, int]
    taken: dict[str, int]
    losses: list[Stretch]


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """The share of ``num_facts`` that a model recalls in a language, of facts told ``everywhere``, ``nowhere`` or in one language alone.

    ``names_alike``: the asked language spells the persons as the one that tells the facts does. ``null`` is the share of facts told nowhere
    that it "recalls", in the same wording and the same relations (None where there are none; of told sentences: in known wordings).
    """

    language: str
    told: str
    wording: Wording
    names_alike: bool
    num_facts: int
    share: float
    null: float | None

    @property
    def status(self) -> Status:
        """Where the facts are told, as seen from the asked language."""
        if self.told in ("everywhere", "nowhere"):
            return self.told  # pyright: ignore[reportReturnType]
        return "here" if self.told == self.language else "elsewhere"


class CheckpointRecall(msgspec.Struct, frozen=True, kw_only=True):
    """What one checkpoint recalls, and how many tokens it has seen."""

    number: int
    tokens: int
    recall: list[Recall]
