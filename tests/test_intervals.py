"""The bootstrap is over facts, the same facts in every sample; its interval holds the truth about as often as it says."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from xledit.evaluation.intervals import Estimate, bootstrap
from xledit.evaluation.metrics import net_transfer

NAN = math.nan


def mean(sample: np.ndarray) -> float:
    return float(np.mean(sample))


def mean_difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean(left - right))


def triple(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    return estimate.value, estimate.low, estimate.high


@pytest.fixture
def sample() -> np.ndarray:
    return np.random.default_rng(0).normal(3, 1, 200)


def test_the_interval_of_a_mean_is_two_standard_errors_wide_each_way(sample: np.ndarray) -> None:
    found = bootstrap(mean, sample, resamples=2000, seed=1)
    error = sample.std() / math.sqrt(len(sample))
    expected = (sample.mean(), sample.mean() - 1.96 * error, sample.mean() + 1.96 * error)
    assert triple(found) == pytest.approx(expected, abs=0.2 * error)


def test_the_interval_covers_the_true_mean_in_about_95_of_100_draws() -> None:
    rng = np.random.default_rng(2)
    found = [bootstrap(mean, rng.random(40), resamples=200, seed=seed) for seed in range(200)]
    assert 0.88 <= np.mean([estimate.low <= 0.5 <= estimate.high for estimate in found]) <= 0.99


def test_a_seed_gives_the_same_interval_and_another_seed_another(sample: np.ndarray) -> None:
    first, again, other = (bootstrap(mean, sample, resamples=99, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_the_same_facts_are_drawn_in_every_sample(sample: np.ndarray) -> None:
    found = bootstrap(mean_difference, sample, sample - 2, resamples=99, seed=0)
    assert triple(found) == (2, 2, 2)


def test_a_fact_without_a_value_in_one_sample_is_left_out_of_all() -> None:
    left, right = np.array([1, NAN, 3, 5, 2]), np.array([0, 7, NAN, 1, 1])
    whole = bootstrap(mean_difference, np.array([1.0, 5, 2]), np.array([0.0, 1, 1]), resamples=99, seed=0)
    assert bootstrap(mean_difference, left, right, resamples=99, seed=0) == whole
    assert whole.value == 2


@pytest.mark.parametrize(
    ("values", "expected"),
    [([NAN, NAN], (NAN, NAN, NAN)), ([], (NAN, NAN, NAN)), ([0.25, NAN], (0.25, NAN, NAN)), ([0.5] * 9, (0.5, 0.5, 0.5))],
    ids=["none", "empty", "one", "constant"],
)
def test_samples_that_leave_nothing_to_draw(values: list[float], expected: tuple[float, ...]) -> None:
    assert triple(bootstrap(mean, np.array(values), resamples=99, seed=0)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("gained", [1, 2])
def test_resamples_without_a_value_are_left_out(gained: int) -> None:
    """Few facts gained in the edited language, so that some resamples have none of them, and nothing to transfer."""
    zeros = np.zeros(6)
    edited = np.array([1.0] * gained + [0.0] * (6 - gained))
    found = bootstrap(net_transfer, edited, zeros, edited / 2, zeros, resamples=99, seed=0)
    assert triple(found) == (0.5, 0.5, 0.5)


def test_a_statistic_without_any_value_has_no_interval() -> None:
    zeros = np.zeros(6)
    assert triple(bootstrap(net_transfer, zeros, zeros, zeros, zeros, resamples=99, seed=0)) == pytest.approx((NAN, NAN, NAN), nan_ok=True)


@pytest.mark.parametrize("statistic", [np.median, np.max])
def test_any_statistic_lies_in_its_interval(statistic: Callable[[np.ndarray], float], sample: np.ndarray) -> None:
    found = bootstrap(statistic, sample, resamples=200, seed=0)
    assert found.low <= found.value <= found.high
