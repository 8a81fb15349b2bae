"""The closed forms: keys, targets and a second moment in, one low-rank update out. Torch only, no model in sight.

Each method minimises ``|K D' - R|^2 / ridge + tr(D M^-1 D')`` over the change ``D [d_out d_in]`` of one linear memory
``value = W key``; facts are rows, ``R = targets - values``. Methods differ in ``M``, the inverse metric on key space, in
``ridge``, and in how their targets are found (``Search``):

==========  ===================================================  ========================  ======================
method      M                                                    ridge                     targets
==========  ===================================================  ========================  ======================
Rome        C^-1, C the second moment of old keys                0, one fact at a time     v*
RRome       as Rome, one key throughout                          0, one fact at a time     v*
Emmet       C^-1                                                 0, an exact fit           v*
Memit       C^-1                                                 weight of old keys        v*
MemitMerge  C^-1                                                 weight of old keys        one v* per key
Pmet        C^-1                                                 weight of old keys        v* beside attention's
AlphaEdit   P (l + P Q P)^-1 P, P the null space of C, Q past    1                         v*
UltraEdit   1                                                    share of the keys' size   one normalised gradient
==========  ===================================================  ========================  ======================

A method is a frozen struct of its own settings; its tag in params.yaml picks it. Its ``solver`` takes the second moment of a
layer's old keys and does the dear part (a factorisation) once for any number of solves. To add one, add a subclass of
``ClosedForm`` and its name to ``Method``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor

from xledit.editing.second_moment import SecondMoment

ROUNDING = 1e-14
# what protecting other keys leaves of a key's direction, as a share: less is the rounding of a pseudo-inverse
PROTECTED = 1e-6


@dataclass(frozen=True)
class Facts:
    """What one layer's memory reads, gives and should give for each fact. float64.

    ``keys`` and ``values`` are means over a fact's contexts, ``bare_keys`` belong to the prompt without an opening;
    ``targets`` are v*, or for UltraEdit the value less the loss's gradient, token by token.
    """

    keys: Float[Tensor, "facts d_in"]
    values: Float[Tensor, "facts d_out"]
    targets: Float[Tensor, "facts d_out"]
    bare_keys: Float[Tensor, "facts d_in"]

    @property
    def residuals(self) -> Float[Tensor, "facts d_out"]:
        """Target minus value."""
        return self.targets - self.values

    def take(self, places: slice | list[int]) -> "Facts":
        """Return some of the facts."""
        return Facts(**{name: tensor[places] for name, tensor in vars(self).items()})

    @classmethod
    def joined(cls, parts: "list[Facts]") -> "Facts":
        """Return the facts of all parts."""
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def after(self, update: "LayerUpdate") -> "Facts":
        """Return the same facts once the memory has changed: its keys come from below, so only values move."""
        return replace(self, values=self.values + update.of(self.keys))


@dataclass(frozen=True)
class Past:
    """Keys and residuals of what earlier batches stored in a layer, as they met it, and ``protected`` keys whose values must stay."""

    keys: Float[Tensor, "past d_in"]
    residuals: Float[Tensor, "past d_out"]
    protected: Float[Tensor, "protected d_in"]

    @classmethod
    def none(cls, d_in: int, d_out: int) -> "Past":
        """Return the past of a memory that was never edited."""
        keys = torch.zeros(0, d_in, dtype=torch.float64)
        return cls(keys, torch.zeros(0, d_out, dtype=torch.float64), keys)


@dataclass(frozen=True)
class Search:
    """How a method wants its target values found.

    ``answer``: not by a search at the subject's last token, but by one gradient at each token that an answer token is read
    off. ``attention``: the attention's output may change beside the memory's while v* is sought, and is then dropped. ``merge``:
    facts that share a key share one v*. ``spread_power``: where published code spreads a residual over layers, a layer gets
    it divided by the number of layers left to this power.
    """

    answer: bool = False
    attention: bool = False
    merge: bool = False
    spread_power: float = 1.0


@dataclass(frozen=True)
class LayerUpdate:
    """The change of one memory as two thin factors: ``D = left @ right``, of rank at most the number of facts. float64."""

    left: Float[Tensor, "d_out facts"]
    right: Float[Tensor, "facts d_in"]

    def dense(self) -> Float[Tensor, "d_out d_in"]:
        """Return the change itself."""
        return self.left @ self.right

    def of(self, keys: Float[Tensor, "keys d_in"]) -> Float[Tensor, "keys d_out"]:
        """Return by how much the values of ``keys`` change."""
        return (keys @ self.right.T) @ self.left.T

    @classmethod
    def joined(cls, updates: "Sequence[LayerUpdate]") -> "LayerUpdate":
        """Return the sum of several updates of one memory."""
        return cls(torch.cat([update.left for update in updates], dim=1), torch.cat([update.right for update in updates]))


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
        # of a key that is protected itself nothing but rounding is left
        return torch.where(rest.norm(dim=1, keepdim=True) <= PROTECTED * free.norm(dim=1, keepdim=True), 0.0, rest)

    return kept


def solve_in_turn(solve: Solver, facts: Facts, past: Past, most_facts: int | None) -> LayerUpdate:
    """Return one layer's update, at most ``most_facts`` at a time: each solve meets the values that earlier ones have left."""
    step = most_facts or max(1, len(facts.keys))
    updates: list[LayerUpdate] = []
    for start in range(0, len(facts.keys), step):
        updates.append(solve(facts.take(slice(start, start + step)), past))
        facts = facts.after(updates[-1])
    return LayerUpdate.joined(updates)


class ClosedForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the methods share: settings that are all above 0, how v* is found, and at most how many facts are solved for at a time."""

    most_facts: ClassVar[int | None] = None
    search: ClassVar[Search] = Search()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_positive(name, getattr(self, name))


class Emmet(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="emmet"):
    """EMMET, arXiv 2403.14236: the whole batch is fitted exactly, with the least disturbance of old values.

    Facts that share a key have no exact fit: then it raises. ``regularisation`` as in ``Memit``.
    """

    regularisation: float

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        metric = inverse_of(old_keys, self.regularisation)
        return lambda facts, past: least_change(facts.keys, keeping(metric, past.protected)(facts.keys), facts.residuals, ridge=0.0)


class RRome(Emmet, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="r_rome"):
    """R-ROME, arXiv 2403.07175: ROME with the averaged key throughout. One fact after another, each fitted exactly."""

    most_facts: ClassVar[int | None] = 1


class Rome(RRome, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="rome"):
    """ROME, arXiv 2202.05262, eq. 2, as its code has it: an exact fit of one fact after another.

    The direction comes from the key averaged over openings, the scale from the prompt without one; that unlike
    treatment is what arXiv 2403.07175 found to make models collapse. Without openings it is R-ROME.
    """

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        metric = inverse_of(old_keys, self.regularisation)

        def solve(facts: Facts, past: Past) -> LayerUpdate:
            direction = keeping(metric, past.protected)(facts.keys)
            scale = direction @ facts.bare_keys.T
            if not scale.abs() > ROUNDING * direction.norm() * facts.bare_keys.norm() or not facts.residuals.isfinite().all():
                raise ValueError(
                    "the solve has no finite solution: a key is protected, or has no part in the direction of its key behind openings, "
                    "or a target is not finite"
                )
            return LayerUpdate(left=(facts.residuals / scale).T, right=direction)

        return solve


class Memit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="memit"):
    """MEMIT, arXiv 2210.07229, eq. 14: old values are kept in the mean square, weighted by ``old_key_weight``.

    Higher ``old_key_weight``: smaller update, better locality, fewer facts stored. The paper's C is a sum over keys
    and its lambda 15,000; ours is a mean, so the weight is the lambda. ``regularisation`` is added to C's diagonal as
    a share of its mean, so that C can be inverted when it has seen fewer keys than it has dimensions.
    """

    old_key_weight: float
    regularisation: float

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        metric = inverse_of(old_keys, self.regularisation)
        return lambda facts, past: least_change(
            facts.keys, keeping(metric, past.protected)(facts.keys), facts.residuals, self.old_key_weight
        )


class MemitMerge(Memit, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="memit_merge"):
    """MEMIT-Merge, arXiv 2502.07322: MEMIT whose facts with one key share one v*, sought for all of them together.

    Facts with the same words up to the subject have the same key, and one key can give only one value. Without such
    facts it is MEMIT.
    """

    search: ClassVar[Search] = Search(merge=True)


class Pmet(Memit, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pmet"):
    """PMET, arXiv 2308.08742: MEMIT whose v* is sought while attention's output may change, too; only the MLP's is written.

    The paper spreads a residual over layers by the square root of the layers left, which only ``published_code`` does here:
    otherwise each layer has a v* of its own.
    """

    search: ClassVar[Search] = Search(attention=True, spread_power=0.5)


class AlphaEdit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="alphaedit"):
    """AlphaEdit, arXiv 2410.02355, eq. 14: the update lives in the null space of the old keys and spares past edits.

    ``null_energy`` is the share of the old keys' total energy (trace of C) that the directions called null may hold
    together. The published code cuts raw eigenvalues at 0.02, which means something else in every model; a share
    carries over. Higher: more room for facts, less locality. ``ridge`` is the paper's weight of the update's own
    norm (1 there), here as a share of the mean squared length of the projected keys, for the same reason.
    """

    null_energy: float
    ridge: float

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
    """Return the metric ``ridge P (ridge + P Q P)^-1 P`` with ``Q`` the sum of past keys' products, by Woodbury's identity."""
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


class UltraEdit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="ultraedit"):
    """UltraEdit, arXiv 2505.14679: one gradient in place of a search for v*, features normalised over all edits so far.

    Keys ``k`` and gradients ``g`` are those of every token that an answer token is read off. The wanted change of a value is
    ``-lr |k~|^2 / d_in g~`` in units of the values' root mean square, where ``k~`` and ``g~`` are key and gradient less their
    mean, by their spread, over this batch and all earlier ones. ``ridge`` is 1 in the paper and a share of the keys' mean squared
    length here, and ``lr`` is free of the model's scale: the paper has one for each model.
    """

    search: ClassVar[Search] = Search(answer=True)
    lr: float
    ridge: float

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer; it does without the second moment of old keys."""
        del old_keys

        def solve(facts: Facts, past: Past) -> LayerUpdate:
            keys, steps = normalised(facts.keys, past.keys), normalised(facts.residuals, past.residuals)
            wanted = self.lr * keys.square().mean(1, keepdim=True) * steps * facts.values.square().mean().sqrt()
            ridge = self.ridge * facts.keys.square().sum(1).mean().item()
            return least_change(facts.keys, keeping(lambda same: same, past.protected)(facts.keys), wanted, ridge)

        return solve


def normalised(now: Float[Tensor, "facts size"], before: Float[Tensor, "past size"]) -> Float[Tensor, "facts size"]:
    """Return features less their mean, by their spread, both over ``before`` and ``now`` together.

    Raises ValueError when there is one fact only, because one has no spread.
    """
    seen = torch.cat([before, now])
    if len(seen) < 2:
        raise ValueError("one fact has no spread to normalise by; edit at least two at a time")
    spread = seen.std(0, correction=0)
    # a feature that never differs but by rounding carries nothing
    return torch.where(spread <= ROUNDING * seen.abs().amax(0), 0.0, (now - seen.mean(0)) / spread)


Method = Rome | RRome | Emmet | Memit | MemitMerge | Pmet | AlphaEdit | UltraEdit


def null_space(matrix: Float[Tensor, "d_in d_in"], null_energy: float) -> Float[Tensor, "d_in d_in"]:
    """Return the projection on the eigenvectors of least eigenvalue that together hold at most ``null_energy`` of the trace.

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


def check_positive(name: str, value: float | int) -> None:
    """Raise ValueError unless the setting is above 0."""
    if not value > 0:
        raise ValueError(f"{name} is {value}; it must be above 0")
