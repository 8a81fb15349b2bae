"""PMET: MEMIT with target values that are optimised together with the attention's output."""

from typing import ClassVar

from xledit.editing.locate import WeightedFit
from xledit.editing.targets import Search


class Pmet(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PMET, arXiv 2308.08742: MEMIT whose v* is optimised while attention's output may change, too; only the MLP is edited.

    The paper divides a layer's residual by the square root of the number of layers left. Here only the practice ``published`` does so:
    otherwise each layer has a v* of its own.
    """

    search: ClassVar[Search] = Search(attention=True, spread_power=0.5)
