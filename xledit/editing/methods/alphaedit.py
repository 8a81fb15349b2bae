"""AlphaEdit: an update that leaves the values of old keys as they are."""

import torch
from jaxtyping import Float
from torch import Tensor

from xledit.editing.least_change import ROUNDING, Metric, Solver, keeping, least_change
from xledit.editing.locate import ClosedForm
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment


class AlphaEdit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AlphaEdit, arXiv 2410.02355, eq. 14: the update is in the null space of the old keys and changes past edits little.

    ``null_energy`` is the largest share of the old keys' total energy (trace of C) that the directions of the null space may have together.
    The published code takes eigenvalues below 0.02, which means something else in every model; a share does not depend on the model's
    scale. Higher: more room for facts, less locality. ``ridge`` is the paper's weight of the update's own norm (1 there), here as a share
    of the mean squared length of the projected keys, for the same reason.
    """

    null_energy: float = 0.1
    ridge: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.null_energy < 1:
            raise ValueError(f"null_energy is {self.null_energy}; it is a share of energy, below 1")

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        projection = null_space(old_keys.matrix, self.null_energy)

        def solve(facts: Facts, past: Past) -> LayerUpdate:
            projected = facts.keys @ projection
            if projected.square().sum() <= ROUNDING * facts.keys.square().sum():
                raise ValueError("the keys have no part in the null space of the old ones; raise null_energy")
            ridge = self.ridge * projected.square().sum(1).mean().item()
            metric = sparing(projection, past.keys, ridge)
            return least_change(facts.keys, keeping(metric, past.protected)(facts.keys), facts.residuals, ridge)

        return solve


def sparing(projection: Float[Tensor, "d_in d_in"], past_keys: Float[Tensor, "past d_in"], ridge: float) -> Metric:
    """Return the metric ``ridge P (ridge + P Q P)^-1 P``, ``Q`` the sum of k k^T over past keys, by Woodbury's identity."""
    if not len(past_keys):
        return lambda keys: keys @ projection
    past = past_keys @ projection
    factor, failed = torch.linalg.cholesky_ex(past @ past.T + ridge * torch.eye(len(past), dtype=past.dtype))
    if failed or not factor.isfinite().all():
        raise ValueError("a key of an earlier batch is not finite")

    def metric(keys: Tensor) -> Tensor:
        projected = keys @ projection
        return projected - torch.cholesky_solve(past @ projected.T, factor).T @ past

    return metric


def null_space(matrix: Float[Tensor, "d_in d_in"], null_energy: float) -> Float[Tensor, "d_in d_in"]:
    """Return the projection on the eigenvectors of smallest eigenvalue that have together at most ``null_energy`` of the trace.

    Raises ValueError when not even one direction fits, or the matrix is not finite.
    """
    if not matrix.isfinite().all():
        raise ValueError("the second moment of the keys is not finite")
    values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    null = vectors[:, values.cumsum(0) <= null_energy * values.sum()]
    if not null.shape[1]:
        raise ValueError(f"null_energy {null_energy} leaves no null space; raise it")
    return null @ null.T
