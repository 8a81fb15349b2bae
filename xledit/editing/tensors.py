"""The types that the parts of an edit exchange: facts, second moments, edit vectors, updates. All float64; imports torch only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SecondMoment:
    """E[k k^T] over ``num_keys`` keys of one layer, float64."""

    matrix: Float[Tensor, "d_in d_in"]
    num_keys: int

    @classmethod
    def pooled(cls, moments: "Sequence[SecondMoment]") -> "SecondMoment":
        """Return the second moment over all keys together: the mean of the matrices, weighted by their numbers of keys."""
        num_keys = sum(moment.num_keys for moment in moments)
        total = torch.stack([moment.matrix * (moment.num_keys / num_keys) for moment in moments]).sum(0)
        return cls(total, num_keys)

    @classmethod
    def none(cls, d_in: int) -> "SecondMoment":
        """Return the second moment of no keys, all zeros, for methods that do not use one."""
        return cls(torch.zeros(d_in, d_in, dtype=torch.float64), 0)


@dataclass(frozen=True)
class LayerMemory:
    """Keys and values of one layer at the facts' subjects, float64.

    ``keys`` and ``values`` are means over a fact's contexts, ``bare_keys`` belong to the prompt without an opening.
    """

    keys: Float[Tensor, "facts d_in"]
    values: Float[Tensor, "facts d_model"]
    bare_keys: Float[Tensor, "facts d_in"]


@dataclass(frozen=True)
class EditVectors:
    """For each fact and edited layer: the unedited key and value at its subject, and the target value v*. float64.

    ``losses`` are the facts' last losses (nats), ``steps`` how many steps each took.
    """

    memories: dict[int, LayerMemory]
    targets: dict[int, Float[Tensor, "facts d_model"]]
    losses: Float[Tensor, "facts"]  # noqa: F821
    steps: Float[Tensor, "facts"]  # noqa: F821


@dataclass(frozen=True)
class Facts:
    """Keys, values and target values of one layer's memory, one row per fact. float64.

    ``keys`` and ``values`` are means over a fact's contexts, ``bare_keys`` belong to the prompt without an opening; ``targets`` are v*. For
    UltraEdit a row is an answer token, and its target is the value minus the loss's gradient.
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
        """Return the facts at ``places``."""
        return Facts(**{name: tensor[places] for name, tensor in vars(self).items()})

    @classmethod
    def joined(cls, parts: "list[Facts]") -> "Facts":
        """Return the facts of all parts."""
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def after(self, update: "LayerUpdate") -> "Facts":
        """Return the same facts after a change of the memory: keys come from the layers below, so only values change."""
        return replace(self, values=self.values + update.of(self.keys))


@dataclass(frozen=True)
class Past:
    """Keys and residuals of the facts that earlier batches stored in a layer, and ``protected`` keys, whose values must not change.

    They are as they were read before the layer changed.
    """

    keys: Float[Tensor, "past d_in"]
    residuals: Float[Tensor, "past d_out"]
    protected: Float[Tensor, "protected d_in"]

    @classmethod
    def none(cls, d_in: int, d_out: int) -> "Past":
        """Return the past of a memory that was never edited."""
        keys = torch.zeros(0, d_in, dtype=torch.float64)
        return cls(keys, torch.zeros(0, d_out, dtype=torch.float64), keys)


@dataclass(frozen=True)
class LayerUpdate:
    """The change of one memory as two low-rank factors: ``D = left @ right``, of rank at most the number of facts. float64."""

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
