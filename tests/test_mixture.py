"""Every mixture spends the budget to the token and agrees with the published rule, worked out naively."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xledit.training.mixture import EnglishHeavy, Manual, Mixture, Temperature, UniMax, shares

AVAILABLE = st.dictionaries(st.sampled_from(["ar", "de", "fr", "python", "sw", "zh"]), st.integers(1, 10**12), max_size=6).flatmap(
    lambda others: st.integers(1, 10**12).map(lambda english: others | {"en": english})
)
BUDGET = st.integers(1, 10**12)
SIZES = {"en": 800, "zh": 150, "sw": 50}
many = settings(max_examples=100, deadline=None)


def close(tokens: dict[str, int], weights: dict[str, float], budget: int) -> bool:
    """Whether all of the budget is spent, and each language is less than a token from its share (and a rounding error)."""
    total = math.fsum(weights.values())
    error = 1 + 1e-12 * budget
    return sum(tokens.values()) == budget and all(abs(tokens[code] - weights[code] / total * budget) < error for code in weights)


@many
@given(available=AVAILABLE, budget=BUDGET, temperature=st.floats(0.2, 100))
def test_temperature_is_proportional_to_a_root_of_the_size(available: dict[str, int], budget: int, temperature: float) -> None:
    tokens = Temperature(temperature=temperature).tokens_per_language(available, budget)
    # by logarithms, shifted so that nothing overflows
    largest = max(map(math.log, available.values()))
    assert close(tokens, {code: math.exp((math.log(number) - largest) / temperature) for code, number in available.items()}, budget)


def test_temperature_one_keeps_proportions_and_a_high_one_levels_them() -> None:
    assert Temperature(temperature=1).tokens_per_language(SIZES, 2000) == {"en": 1600, "zh": 300, "sw": 100}
    assert Temperature(temperature=1e9).tokens_per_language(SIZES, 300) == {"en": 100, "zh": 100, "sw": 100}


def test_a_temperature_near_zero_takes_the_largest_only() -> None:
    assert Temperature(temperature=1e-3).tokens_per_language(SIZES, 7) == {"en": 7, "zh": 0, "sw": 0}


@many
@given(available=AVAILABLE, budget=BUDGET, epochs=st.floats(0.1, 50))
def test_unimax_pours_water_into_vessels(available: dict[str, int], budget: int, epochs: float) -> None:
    """Each language is filled to one common level or to its cap; the level is found here by bisection."""
    caps = {code: int(number * epochs) for code, number in available.items()}
    mixture = UniMax(epochs=epochs)
    if sum(caps.values()) < budget:
        with pytest.raises(ValueError, match=rf"{budget} tokens cannot be had .* hold {sum(caps.values())}; raise epochs"):
            mixture.tokens_per_language(available, budget)
        return
    low, high = 0, budget
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if sum(min(cap, level) for cap in caps.values()) <= budget else (low, level - 1)
    tokens = mixture.tokens_per_language(available, budget)
    assert sum(tokens.values()) == budget
    assert all(0 <= tokens[code] - min(cap, low) <= 1 for code, cap in caps.items()), (tokens, low)
    assert all(tokens[code] <= cap for code, cap in caps.items())


def test_unimax_gives_the_rest_of_a_small_language_to_the_others() -> None:
    assert UniMax(epochs=2).tokens_per_language(SIZES, 700) == {"en": 300, "zh": 300, "sw": 100}


@many
@given(available=AVAILABLE.filter(lambda available: len(available) > 1), budget=BUDGET, share=st.floats(0, 1))
def test_english_has_its_share_and_the_others_keep_their_proportions(available: dict[str, int], budget: int, share: float) -> None:
    tokens = EnglishHeavy(english=share).tokens_per_language(available, budget)
    rest = sum(number for code, number in available.items() if code != "en")
    assert close(tokens, {code: share if code == "en" else number / rest * (1 - share) for code, number in available.items()}, budget)


@many
@given(weights=st.dictionaries(st.sampled_from(["ar", "de", "en", "zh"]), st.integers(0, 100), min_size=1), budget=BUDGET)
def test_manual_ratios_are_kept(weights: dict[str, int], budget: int) -> None:
    total = sum(weights.values())
    if total:
        ratios = {code: weight / total for code, weight in weights.items()}
        tokens = Manual(ratios=ratios).tokens_per_language(dict.fromkeys(["ar", "de", "en", "fr", "zh"], 5), budget)
        assert tokens.keys() == weights.keys()
        assert close(tokens, ratios, budget)


def test_shares_are_of_all_tokens() -> None:
    assert shares({"en": 30, "zh": 10}) == {"en": 0.75, "zh": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"type": "manual", "ratios": {"en": 0.6, "zh": 0.39}}', "sum to 0.99, .* want 1 in sum"),
        ('{"type": "manual", "ratios": {"en": 1.5, "zh": -0.5}}', "the least is -0.5"),
        ('{"type": "manual", "ratios": {}}', "want 1 in sum"),
        ('{"type": "temperature", "temperature": 0}', "must be above 0"),
        ('{"type": "unimax", "epochs": -1}', "must be above 0"),
        ('{"type": "english_heavy", "english": 1.1}', "must be from 0 to 1"),
        ('{"type": "unimax", "epoch": 1}', "unknown field `epoch`|missing required field"),
    ],
)
def test_settings_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.json.decode(text, type=Mixture)


@pytest.mark.parametrize(
    ("mixture", "available", "message"),
    [
        (Manual(ratios={"en": 0.5, "tlh": 0.5}), SIZES, "no tokens of tlh; there are tokens of en, sw, zh"),
        (EnglishHeavy(english=0.5), {"zh": 3}, "tokens of zh only; take another mixture"),
        (EnglishHeavy(english=0.5), {"en": 3}, "tokens of en only; take another mixture"),
        (Temperature(temperature=1), SIZES | {"lo": 0}, "no tokens of lo; give it a source"),
        (UniMax(epochs=1), {}, "no tokens of any language"),
    ],
)
def test_languages_without_tokens_are_named(mixture: Mixture, available: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixture.tokens_per_language(available, 10)


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="the budget is 0 tokens"):
        UniMax(epochs=1).tokens_per_language(SIZES, 0)
