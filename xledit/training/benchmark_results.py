"""What the stage ``benchmark`` concludes: plain structs, no library of the extra ``training``."""

import math
from typing import Literal

import msgspec

from xledit.training.results import Status

# a sentence in a known or an unseen wording to be completed by one of four objects; a question with such a choice, or without any
Asked = Literal["known", "unseen", "choice", "free"]
# of the normal distribution, for 95 %
Z = 1.959964
DECIMALS = 4


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """A share of trials, with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """How often a model answers rightly in a language (None: all), of facts of one status and kind of names (None: both).

    ``num_asked`` is how often it was asked; facts about ``num_persons``, which the intervals go by: answers about one person, in several
    relations and languages, are taken for one. ``chance`` is what drawing among the choices gives, for a free answer among all values
    of the relation. ``confused`` is the share of free answers that are right, but in another language's words; None where the answer is
    chosen.
    """

    language: str | None
    asked: Asked
    status: Status
    names_alike: bool | None
    num_asked: int
    num_persons: int
    right: Rate
    chance: float
    confused: Rate | None


class PaperScore(msgspec.Struct, frozen=True, kw_only=True):
    """A task of the paper's list: the harness's metric over ``num_documents``, after ``shots`` examples.

    ``language`` is a code or, of translations, a pair such as ``en-fr``. ``value`` is as the harness gives it: a share of answers or of
    ROUGE's unit, BLEU of 100; None where it is not finite.
    """

    benchmark: str
    language: str
    task: str
    shots: int
    metric: str
    value: float | None
    num_documents: int


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """What one model answers. ``chat``: questions about the world went through the tokenizer's chat template."""

    chat: bool
    world: tuple[Answers, ...]
    paper: tuple[PaperScore, ...]


def rate(share: float, trials: int) -> Rate:
    """Return a share of so many independent trials with Wilson's interval, since a bootstrap of 0 of 13 gives 0 to 0.

    ``share`` need not be a whole number of trials: fewer may be independent than were made.
    """
    spread = Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Rate(value=round(share, DECIMALS), low=round(low, DECIMALS), high=round(high, DECIMALS))
