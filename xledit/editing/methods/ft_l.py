"""FT-L: the memory of one layer, no weight by much."""

from typing import ClassVar

from xledit.editing.fine_tuning import FineTuning
from xledit.editing.trained import Loss


class FtL(FineTuning, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FT-L, arXiv 2012.00363 as arXiv 2202.05262 runs it: all target tokens become likelier right after the prompt.

    Only the first of them can come there; that is what the published code does. Settings as in ``FineTuning``; the paper trains one
    layer and lets no weight move by more than 5e-4.
    """

    loss: ClassVar[Loss] = "last_token"
    lr: float = 5.0e-4
    norm_constraint: float | None = 5.0e-4
