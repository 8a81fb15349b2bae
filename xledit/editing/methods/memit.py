"""MEMIT: many facts at once, old values kept in the mean square."""

from xledit.editing.locate import WeightedFit


class Memit(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MEMIT, arXiv 2210.07229, eq. 14: old values are kept in the mean square, weighted by ``old_key_weight``. See ``WeightedFit``."""
