"""How alike two sets of vectors are, one vector per fact: same facts, and the null of different facts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """Two sets of vectors, fact by fact.

    ``same`` is the mean cosine of a fact's two vectors and ``same_error`` its standard error over facts;
    ``different`` and ``different_sd`` are mean and spread over pairs of different facts, the null. ``centred`` means
    each set's own mean was taken off first, so that what all vectors of a language share does not count.
    ``retrieval`` is how often a fact's nearest neighbour (centred cosine) in the other set is itself, averaged over
    both directions; ``chance`` is what guessing would give.
    """

    num_facts: int
    same: float
    same_error: float
    different: float
    different_sd: float
    centred_same: float
    centred_same_error: float
    centred_different: float
    centred_different_sd: float
    retrieval: float
    chance: float


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


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Cosines between vectors of different facts in one set, as they are and centred: mean and standard deviation."""

    mean: float
    sd: float
    centred_mean: float
    centred_sd: float


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
