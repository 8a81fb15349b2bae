"""How alike two weight updates are, and whether an update for both sets of facts is the sum of one for each.

Updates come as two factors and stay that way: products, norms and singular vectors are of ``facts``-sized matrices.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from xledit.geometry.results import Alikeness

TOP_NEURONS = 0.05  # the paper's share (arXiv 2601.17397)


@dataclass(frozen=True)
class Factors:
    """An update ``left @ right``."""

    left: Float[Tensor, "d_out facts"]
    right: Float[Tensor, "facts d_in"]


def alikeness(left: Factors, right: Factors, both: Factors | None, max_rank: int) -> Alikeness:
    """Return how alike two updates are, at the rank that both have, at most ``max_rank``; and how additive ``both`` is, if there is one."""
    left_svd, right_svd = _svd(left), _svd(right)
    rank = min(numerical_rank(left_svd[1]), numerical_rank(right_svd[1]), max_rank)
    key = principal_angles(left_svd[2][:, :rank], right_svd[2][:, :rank])
    value = principal_angles(left_svd[0][:, :rank], right_svd[0][:, :rank])
    norms = norm(left), norm(right)
    error, cosine = (None, None) if both is None else _additivity(left, right, both)
    return Alikeness(
        cosine=inner(left, right) / (norms[0] * norms[1]),
        neurons=jaccard(top_neurons(left), top_neurons(right)),
        rank=rank,
        key_angle_mean=key.mean().item(),
        key_angle_min=key.min().item(),
        value_angle_mean=value.mean().item(),
        value_angle_min=value.min().item(),
        norm_left=norms[0],
        norm_right=norms[1],
        additivity_error=error,
        additivity_cosine=cosine,
    )


def _additivity(left: Factors, right: Factors, both: Factors) -> tuple[float, float]:
    """Return ``|both - (left + right)| / |both|`` and the cosine of the two, from the factors alone."""
    total = norm(both)
    with_sum = inner(both, left) + inner(both, right)
    sum_squared = norm(left) ** 2 + norm(right) ** 2 + 2 * inner(left, right)
    return max(total**2 - 2 * with_sum + sum_squared, 0.0) ** 0.5 / total, with_sum / (total * sum_squared**0.5)


def inner(a: Factors, b: Factors) -> float:
    """Return the inner product of two updates as flattened matrices."""
    return ((a.left.T @ b.left) * (a.right @ b.right.T)).sum().item()


def norm(update: Factors) -> float:
    """Return the Frobenius norm of an update."""
    return max(inner(update, update), 0.0) ** 0.5


def numerical_rank(singular_values: Float[Tensor, " rank"]) -> int:
    """Return how many singular values stand above rounding (1e-6 of the largest, as factors are stored in float32)."""
    return int((singular_values > 1e-6 * singular_values[0]).sum())


def principal_angles(left: Float[Tensor, "d k"], right: Float[Tensor, "d k"]) -> Float[Tensor, " k"]:
    """Return the principal angles in degrees, ascending, between the spans of two orthonormal bases."""
    return torch.rad2deg(torch.arccos(torch.linalg.svdvals(left.T @ right).clamp(0, 1)))


def random_angles(dimension: int, rank: int, draws: int, generator: torch.Generator) -> tuple[float, float]:
    """Return mean and smallest principal angle (degrees, averaged over draws) of random ``rank``-dimensional subspaces."""
    pairs = []
    for _ in range(draws):
        bases = [torch.linalg.qr(torch.randn(dimension, rank, generator=generator, dtype=torch.float64)).Q for _ in range(2)]
        angles = principal_angles(*bases)
        pairs.append((angles.mean(), angles.min()))
    mean, least = torch.tensor(pairs).mean(0).tolist()
    return mean, least


def top_neurons(update: Factors) -> set[int]:
    """Return the 5 % of input neurons whose column of the update is longest."""
    gram = update.left.T @ update.left
    lengths = ((gram @ update.right) * update.right).sum(0)
    return set(lengths.topk(max(1, round(TOP_NEURONS * len(lengths)))).indices.tolist())


def jaccard(left: set[int], right: set[int]) -> float:
    """Return the overlap of two sets: their intersection over their union."""
    return len(left & right) / len(left | right)


def chance_jaccard(dimension: int) -> float:
    """Return the expected Jaccard overlap of two random sets of 5 % of ``dimension`` neurons, to first order."""
    share = max(1, round(TOP_NEURONS * dimension)) / dimension
    return share / (2 - share)


def _svd(update: Factors) -> tuple[Tensor, Tensor, Tensor]:
    """Return left singular vectors ``[d_out k]``, singular values and right singular vectors ``[d_in k]``."""
    out_basis, out_rest = torch.linalg.qr(update.left)
    in_basis, in_rest = torch.linalg.qr(update.right.T)
    left, values, right = torch.linalg.svd(out_rest @ in_rest.T, full_matrices=False)
    return out_basis @ left, values, in_basis @ right.T
