"""How alike two sets of vectors are, one vector per fact: same facts, and the null of different facts."""

import torch
from jaxtyping import Float
from torch import Tensor

from xledit.geometry.results import Likeness, Spread


def likeness(left: Float[Tensor, "facts d"], right: Float[Tensor, "facts d"]) -> Likeness:
    """Return how alike row i of ``left`` and row i of ``right`` are, beside rows of different facts.

    Raises ValueError for fewer than 3 facts: there is no spread to compare with.
    """
    if len(left) != len(right) or len(left) < 3:
        raise ValueError(f"likeness needs two sets of the same 3 or more facts, found {len(left)} and {len(right)}")
    raw, centred = cosines(left, right), cosines(left - left.mean(0), right - right.mean(0))
    own = torch.arange(len(left))
    hits = torch.cat([centred.argmax(1) == own, centred.argmax(0) == own])
    return Likeness(
        num_facts=len(left),
        **dict(zip(("same", "same_error", "different", "different_sd"), _same_and_different(raw), strict=True)),
        **dict(
            zip(
                ("centred_same", "centred_same_error", "centred_different", "centred_different_sd"),
                _same_and_different(centred),
                strict=True,
            )
        ),
        retrieval=hits.double().mean().item(),
        chance=1 / len(left),
    )


def spread(vectors: Float[Tensor, "facts d"]) -> Spread:
    """Return how alike the vectors of different facts within one language are."""
    raw, centred = cosines(vectors, vectors), cosines(vectors - vectors.mean(0), vectors - vectors.mean(0))
    off = ~torch.eye(len(vectors), dtype=torch.bool)
    return Spread(
        mean=raw[off].mean().item(), sd=raw[off].std().item(), centred_mean=centred[off].mean().item(), centred_sd=centred[off].std().item()
    )


def cosines(left: Float[Tensor, "n d"], right: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return the cosine of each pair of rows; 0 with a zero row."""
    return torch.nn.functional.normalize(left, dim=1) @ torch.nn.functional.normalize(right, dim=1).T


def _same_and_different(matrix: Float[Tensor, "facts facts"]) -> tuple[float, float, float, float]:
    same = matrix.diagonal()
    different = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
    return same.mean().item(), (same.std() / len(same) ** 0.5).item(), different.mean().item(), different.std().item()
