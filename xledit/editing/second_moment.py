"""Running second moment of keys, E[k k^T]: not centred, accumulated in float64. Torch only."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SecondMoment:
    """E[k k^T] over ``num_keys`` keys of one layer, float64."""

    matrix: Float[Tensor, "d_in d_in"]
    num_keys: int


class SecondMomentAccumulator:
    """Sums k k^T over batches of any size and order."""

    def __init__(self, d_in: int) -> None:
        self._sum = torch.zeros(d_in, d_in, dtype=torch.float64)
        self._num_keys = 0

    def add(self, keys: Float[Tensor, "tokens d_in"]) -> None:
        """Take in one batch of keys."""
        keys = keys.cpu().double()
        self._sum.addmm_(keys.T, keys)
        self._num_keys += len(keys)

    def result(self) -> SecondMoment:
        """Return the mean so far. Raises ValueError before the first key, or when a key was not finite."""
        if not self._num_keys:
            raise ValueError("no keys were seen; the corpus has no tokens")
        if not self._sum.isfinite().all():
            raise ValueError("a key of the corpus is not finite; use float32, or another model")
        return SecondMoment(self._sum / self._num_keys, self._num_keys)


def pooled(moments: list[SecondMoment]) -> SecondMoment:
    """Return the second moment of all keys together, each language weighing as many keys as it had."""
    num_keys = sum(moment.num_keys for moment in moments)
    total = torch.stack([moment.matrix * (moment.num_keys / num_keys) for moment in moments]).sum(0)
    return SecondMoment(total, num_keys)
