"""The closed forms: keys, residuals and a second moment in, one low-rank update out. Torch only, no model in sight.

Each method minimises ``|K D' - R|^2 / ridge + tr(D M^-1 D')`` over the change ``D [d_out d_in]`` of one linear memory
``value = W key``; facts are rows. Methods differ in ``M``, the inverse metric on key space, and in ``ridge``:

==========  =======================================  ====================
method      M                                        ridge
==========  =======================================  ====================
Memit       C^-1, C the second moment of old keys    weight of old keys
AlphaEdit   P / l, P projects on the old null space  1
==========  =======================================  ====================

A method is a frozen struct of its own settings with ``solver``; its tag in params.yaml picks it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor

from xledit.editing.second_moment import SecondMoment

ROUNDING = 1e-14


@dataclass(frozen=True)
class LayerUpdate:
    """The change of one memory as two thin factors: ``D = left @ right``, of rank at most the number of facts. float64."""

    left: Float[Tensor, "d_out facts"]
    right: Float[Tensor, "facts d_in"]

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """Return the change itself."""
        return self.left @ self.right


def least_change(
    keys: Float[Tensor, "facts d_in"],
    weighted_keys: Float[Tensor, "facts d_in"],
    residuals: Float[Tensor, "facts d_out"],
    ridge: float,
) -> LayerUpdate:
    """Return the minimiser of ``|K D' - R|^2 / ridge + tr(D M^-1 D')``, given ``weighted_keys = K M``.

    It is ``D' = M K' (K M K' + ridge I)^-1 R``. With ``ridge = 0`` the facts are fitted exactly.

    Raises ValueError when the system has no finite solution: keys that coincide and ``ridge = 0``, or values not finite.
    """
    gram = weighted_keys @ keys.T
    gram = (gram + gram.T) / 2 + ridge * torch.eye(len(keys), dtype=keys.dtype, device=keys.device)
    factor, failed = torch.linalg.cholesky_ex(gram)
    # equal keys may pass the factorisation by a rounding error, and then give an answer that is one
    lost = factor.diagonal().square().min() <= ROUNDING * gram.diagonal().max()
    if failed or lost or not factor.isfinite().all() or not residuals.isfinite().all():
        raise ValueError("the solve has no finite solution: two facts may share a key, or a key or target is not finite; raise the ridge")
    return LayerUpdate(left=torch.cholesky_solve(residuals, factor).T, right=weighted_keys)


# keys and residuals of the facts -> the update of their layer
Solver = Callable[[Tensor, Tensor], LayerUpdate]


class Memit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="memit"):
    """MEMIT, arXiv 2210.07229, eq. 14: old values are kept in the mean square, weighted by ``old_key_weight``.

    Higher ``old_key_weight``: smaller update, better locality, fewer facts stored. The paper's C is a sum over keys
    and its lambda 15,000; ours is a mean, so the weight is the lambda. ``regularisation`` is added to C's diagonal as
    a share of its mean, so that C can be inverted when it has seen fewer keys than it has dimensions.
    """

    old_key_weight: float
    regularisation: float

    def __post_init__(self) -> None:
        check_positive("old_key_weight", self.old_key_weight)
        check_positive("regularisation", self.regularisation)

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer, whose dear part (a factorisation) is done once for any number of solves."""
        metric = old_keys.matrix
        metric = metric + self.regularisation * metric.diagonal().mean() * torch.eye(len(metric), dtype=metric.dtype)
        factor, failed = torch.linalg.cholesky_ex(metric)
        if failed or not factor.isfinite().all():
            raise ValueError("the second moment of the keys cannot be inverted; give more text, or raise regularisation")
        return lambda keys, residuals: least_change(keys, torch.cholesky_solve(keys.T, factor).T, residuals, self.old_key_weight)


class AlphaEdit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="alphaedit"):
    """AlphaEdit, arXiv 2410.02355, eq. 14, first batch: the update lives in the null space of the old keys.

    ``null_energy`` is the share of the old keys' total energy (trace of C) that the directions called null may hold
    together. The published code cuts raw eigenvalues at 0.02, which means something else in every model; a share
    carries over. Higher: more room for facts, less locality. ``ridge`` is the paper's weight of the update's own
    norm (1 there), here as a share of the mean squared length of the projected keys, for the same reason.
    """

    null_energy: float
    ridge: float

    def __post_init__(self) -> None:
        check_positive("ridge", self.ridge)
        if not 0 < self.null_energy < 1:
            raise ValueError(f"null_energy is {self.null_energy}; it is a share of energy, between 0 and 1")

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer, whose dear part (the null space) is found once for any number of solves."""
        projection = null_space(old_keys.matrix, self.null_energy)

        def solve(keys: Float[Tensor, "facts d_in"], residuals: Float[Tensor, "facts d_out"]) -> LayerUpdate:
            projected = keys @ projection
            if projected.square().sum() <= ROUNDING * keys.square().sum():
                raise ValueError("the keys have no part in the null space of the old ones; raise null_energy")
            return least_change(keys, projected, residuals, self.ridge * projected.square().sum(1).mean().item())

        return solve


Method = Memit | AlphaEdit


def null_space(matrix: Float[Tensor, "d_in d_in"], null_energy: float) -> Float[Tensor, "d_in d_in"]:
    """Return the projection on the eigenvectors of least eigenvalue that together hold at most ``null_energy`` of the trace.

    Raises ValueError when not even one direction fits.
    """
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    null = vectors[:, values.cumsum(0) <= null_energy * values.sum()]
    if not null.shape[1]:
        raise ValueError(f"null_energy {null_energy} leaves no null space; raise it")
    return null @ null.T


def check_positive(name: str, value: float | int) -> None:
    """Raise ValueError unless the setting is above 0."""
    if not value > 0:
        raise ValueError(f"{name} is {value}; it must be above 0")
