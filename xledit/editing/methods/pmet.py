"""PMET: MEMIT with target values sought beside the attention's."""

from typing import ClassVar

from xledit.editing.locate import WeightedFit
from xledit.editing.targets import Search


class Pmet(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PMET, arXiv 2308.08742: MEMIT whose v* is sought while attention's output may change, too; only the MLP's is written.

    The paper spreads a residual over layers by the square root of the layers left, which only the practice
    ``published`` does here: otherwise each layer has a v* of its own.
    """

    search: ClassVar[Search] = Search(attention=True, spread_power=0.5)
