"""The one formula of the closed forms, and the metrics it is used with. Needs torch only, no model.

Each closed form minimises ``|K D' - R|^2 / ridge + tr(D M^-1 D')`` over the change ``D [d_out d_in]`` of one linear memory
``value = W key``; facts are rows, ``R = targets - values``. Methods differ in ``M``, the inverse metric on key space, in ``ridge``, and
in how their targets are computed; each has a file in ``methods``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment

# a result below this share of the numbers it was computed from is rounding error
ROUNDING = 1e-14
# a weighted key of which protecting other keys leaves less than this share is rounding error of the pseudo-inverse
PROTECTED = 1e-6


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
    # equal keys may pass the factorisation because of rounding; the solution is then rounding error, too
    lost = factor.diagonal().square().min() <= ROUNDING * gram.diagonal().max()
    if failed or lost or not factor.isfinite().all() or not residuals.isfinite().all():
        raise ValueError("the solve has no finite solution: two facts may share a key, or a key or target is not finite; raise the ridge")
    return LayerUpdate(left=torch.cholesky_solve(residuals, factor).T, right=weighted_keys)


# keys -> keys times M
Metric = Callable[[Tensor], Tensor]
# the facts of one layer and its past -> the layer's update
Solver = Callable[[Facts, Past], LayerUpdate]


def inverse_of(old_keys: SecondMoment, regularisation: float) -> Metric:
    """Return the metric C^-1, with ``regularisation`` times the mean of C's diagonal added to the diagonal; factorised once.

    Raises ValueError when C cannot be inverted.
    """
    metric = old_keys.matrix
    metric = metric + regularisation * metric.diagonal().mean() * torch.eye(len(metric), dtype=metric.dtype)
    factor, failed = torch.linalg.cholesky_ex(metric)
    if failed or not factor.isfinite().all():
        raise ValueError("the second moment of the keys cannot be inverted; give more text, or raise regularisation")
    return lambda keys: torch.cholesky_solve(keys.T, factor).T


def keeping(metric: Metric, protected: Float[Tensor, "protected d_in"]) -> Metric:
    """Return the metric of changes that leave the values of ``protected`` keys exactly as they are, ``D protected' = 0``.

    It is ``M - M P' (P M P')^-1 P M``, P the protected keys: the constraint that LangEdit (arXiv 2506.10800) puts on
    each language with respect to the earlier ones.
    """
    if not len(protected):
        return metric
    weighted = metric(protected)
    # protected keys may coincide
    inverse = torch.linalg.pinv(weighted @ protected.T, hermitian=True, rtol=1e-10)

    def kept(keys: Tensor) -> Tensor:
        free = metric(keys)
        rest = free - (free @ protected.T) @ inverse @ weighted
        # of a key that is itself protected only rounding error is left
        return torch.where(rest.norm(dim=1, keepdim=True) <= PROTECTED * free.norm(dim=1, keepdim=True), 0.0, rest)

    return kept


def solve_in_turn(solve: Solver, facts: Facts, past: Past, most_facts: int | None) -> LayerUpdate:
    """Return one layer's update, solved for at most ``most_facts`` facts at a time (None: all at once).

    Each solve starts from the values as the earlier solves have changed them.
    """
    step = most_facts or max(1, len(facts.keys))
    updates: list[LayerUpdate] = []
    for start in range(0, len(facts.keys), step):
        updates.append(solve(facts.take(slice(start, start + step)), past))
        facts = facts.after(updates[-1])
    return LayerUpdate.joined(updates)
