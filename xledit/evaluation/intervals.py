"""Bootstrap over facts: how far a summary would move if other facts had been drawn."""

import warnings
from collections.abc import Callable

import msgspec
import numpy as np
from jaxtyping import Float
from scipy import stats

CONFIDENCE = 0.95
DECIMALS = 4


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its 95 % interval; NaN where it is not defined, which is null in JSON and is read back as None."""

    value: float | None
    low: float | None
    high: float | None


def bootstrap(statistic: Callable[..., float], *samples: Float[np.ndarray, " facts"], resamples: int, seed: int) -> Estimate:
    """Return ``statistic(*samples)`` and its percentile interval over resampled facts, the same facts in every sample.

    Facts without a value in one of the samples (NaN) are left out. Resamples in which the statistic is not defined
    are left out too.
    """
    kept = ~np.isnan(np.stack(samples)).any(axis=0)
    data = [sample[kept] for sample in samples]
    if not kept.any():
        return Estimate(value=float("nan"), low=float("nan"), high=float("nan"))
    value = statistic(*data)
    if kept.sum() < 2:
        return Estimate(value=_rounded(value), low=float("nan"), high=float("nan"))
    with warnings.catch_warnings():
        # scipy warns of resamples in which the statistic is not defined; they are left out below
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        resampled = stats.bootstrap(
            data,
            statistic,
            paired=True,
            vectorized=False,
            n_resamples=resamples,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    defined = resampled.bootstrap_distribution[~np.isnan(resampled.bootstrap_distribution)]
    if not len(defined):
        return Estimate(value=_rounded(value), low=float("nan"), high=float("nan"))
    low, high = np.percentile(defined, [100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2])
    return Estimate(value=_rounded(value), low=_rounded(low), high=_rounded(high))


def _rounded(value: float) -> float:
    return round(float(value), DECIMALS)
