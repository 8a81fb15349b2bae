"""FT-L: fine-tuning of one layer's memory, with a bound on the change of each weight."""

from typing import ClassVar

from xledit.editing.fine_tuning import FineTuning
from xledit.editing.trained import Loss


class FtL(FineTuning, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FT-L, arXiv 2012.00363 as arXiv 2202.05262 runs it: all target tokens are trained as the token right after the prompt.

    Only the first target token belongs there; the published code trains all of them there, too. Settings as in ``FineTuning``; the paper
    trains one layer and lets no weight change by more than 5e-4.
    """

    loss: ClassVar[Loss] = "last_token"
    lr: float = 5.0e-4
    norm_constraint: float | None = 5.0e-4
