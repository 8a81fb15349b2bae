"""How many tokens of each language a run takes: set by hand, by temperature, by UniMax, or English first. numpy only.

============  =================================================================  =======================
mixture       tokens of a language that has ``n``                                source
============  =================================================================  =======================
Manual        a share that is written down                                       arXiv 2408.06273
Temperature   in proportion to ``n^(1/T)``                                       arXiv 1907.05019
UniMax        all the same, but no more than ``epochs`` times ``n``              arXiv 2304.09151
EnglishHeavy  a fixed share of English, the others in proportion to ``n``        what most models have
============  =================================================================  =======================

A mixture is a frozen struct of its own settings; its tag in params.yaml picks it. To add one, add a struct with
``tokens_per_language`` and its name to ``Mixture``.
"""

from collections.abc import Mapping

import msgspec
import numpy as np

ENGLISH = "en"


class Manual(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="manual"):
    """``ratios`` of the budget by language, 1 in sum to within 1e-6; a language without a ratio is left out."""

    ratios: dict[str, float]

    def __post_init__(self) -> None:
        total = sum(self.ratios.values())
        if not abs(total - 1) <= 1e-6 or min(self.ratios.values()) < 0:
            raise ValueError(
                f"ratios: sum to {total:.8g}, the least is {min(self.ratios.values(), default=0)}; want 1 in sum and none below 0"
            )

    def tokens_per_language(self, available: Mapping[str, int], budget: int) -> dict[str, int]:
        """Return whole tokens that sum to ``budget``. Raises ValueError that names a language without tokens."""
        _check(available, budget)
        unknown = sorted(self.ratios.keys() - available.keys())
        if unknown:
            raise ValueError(f"ratios: no tokens of {', '.join(unknown)}; there are tokens of {', '.join(sorted(available))}")
        return _whole(self.ratios, budget)


class Temperature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="temperature"):
    """Shares in proportion to ``n^(1/temperature)`` (arXiv 1907.05019, section 4.1): 1 keeps the corpus' own, higher evens them out.

    A small language may be repeated any number of times.
    """

    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")

    def tokens_per_language(self, available: Mapping[str, int], budget: int) -> dict[str, int]:
        """Return whole tokens that sum to ``budget``."""
        _check(available, budget)
        largest = max(available.values())  # a low temperature must not overflow
        return _whole({code: (number / largest) ** (1 / self.temperature) for code, number in available.items()}, budget)


class UniMax(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="unimax"):
    """As uniform as can be with no language repeated more than ``epochs`` times (arXiv 2304.09151, algorithm 1).

    Low ``epochs`` repeat little and leave more to large languages. The paper goes on to normalise what it finds; we do not, since
    that would break the cap: where the cap does not let the budget be spent, it raises.
    """

    epochs: float

    def __post_init__(self) -> None:
        if not self.epochs > 0:
            raise ValueError(f"epochs is {self.epochs}; it must be above 0")

    def tokens_per_language(self, available: Mapping[str, int], budget: int) -> dict[str, int]:
        """Return whole tokens that sum to ``budget``. Raises ValueError when all languages together may not give as many."""
        _check(available, budget)
        taken = dict[str, int]()
        left = budget
        for code in sorted(available, key=lambda code: (available[code], code)):
            taken[code] = min(int(available[code] * self.epochs), left // (len(available) - len(taken)))
            left -= taken[code]
        if left:
            raise ValueError(
                f"{budget} tokens cannot be had from {self.epochs} epochs, which hold {budget - left}; raise epochs or lower the budget"
            )
        return {code: taken[code] for code in available}


class EnglishHeavy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="english_heavy"):
    """``english`` is the share of English, from 0 to 1; the other languages keep their proportions."""

    english: float

    def __post_init__(self) -> None:
        if not 0 <= self.english <= 1:
            raise ValueError(f"english is {self.english}; it must be from 0 to 1")

    def tokens_per_language(self, available: Mapping[str, int], budget: int) -> dict[str, int]:
        """Return whole tokens that sum to ``budget``. Raises ValueError when there is no English, or nothing else and a share below 1."""
        _check(available, budget)
        others = sum(number for code, number in available.items() if code != ENGLISH)
        if ENGLISH not in available or (not others and self.english < 1):
            raise ValueError(
                f"english is {self.english}, but there are tokens of {', '.join(sorted(available))} only; take another mixture"
            )
        shares = {code: number / max(others, 1) * (1 - self.english) for code, number in available.items()}
        return _whole(shares | {ENGLISH: self.english}, budget)


Mixture = Manual | Temperature | UniMax | EnglishHeavy


def shares(tokens: Mapping[str, int]) -> dict[str, float]:
    """Return each language's share of all tokens: of a plan, or of what was really taken."""
    total = sum(tokens.values())
    return {code: number / total for code, number in tokens.items()}


def _check(available: Mapping[str, int], budget: int) -> None:
    empty = sorted(code for code, number in available.items() if number < 1)
    if empty or not available:
        raise ValueError(f"no tokens of {', '.join(empty) or 'any language'}; give it a source, or leave the language out")
    if budget < 1:
        raise ValueError(f"the budget is {budget} tokens; it must be at least 1")


def _whole(weights: Mapping[str, float], budget: int) -> dict[str, int]:
    """Return whole tokens in proportion to ``weights`` that sum to ``budget``: the largest remainders are rounded up."""
    exact = np.array(list(weights.values())) / sum(weights.values()) * budget
    tokens = np.floor(exact).astype(np.int64)
    tokens[np.argsort(tokens - exact, kind="stable")[: budget - tokens.sum()]] += 1
    return dict(zip(weights, tokens.tolist(), strict=True))
