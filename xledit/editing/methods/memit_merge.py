"""MEMIT-Merge: MEMIT where facts that share a key share a target value."""

from typing import ClassVar

from xledit.editing.locate import WeightedFit
from xledit.editing.targets import Search


class MemitMerge(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MEMIT-Merge, arXiv 2502.07322: MEMIT, but facts with the same key share one v*, optimised for all of them together.

    Facts with the same words up to the subject have the same key, and a key can have only one value. Without such facts it is MEMIT.
    """

    search: ClassVar[Search] = Search(merge=True)
