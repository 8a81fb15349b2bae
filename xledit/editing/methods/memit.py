"""MEMIT: many facts at once, fitted together with the old values by least squares."""

from xledit.editing.locate import WeightedFit


class Memit(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MEMIT, arXiv 2210.07229, eq. 14: a least-squares fit of facts and old values, weighted by ``old_key_weight``. See ``WeightedFit``."""
