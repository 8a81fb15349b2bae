"""FT-M: the memory of some layers, each target token after the ones before it."""

from typing import ClassVar

from xledit.editing.fine_tuning import FineTuning
from xledit.editing.trained import Loss


class FtM(FineTuning, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FT-M, arXiv 2308.07269 (EasyEdit): each target token becomes likelier after the prompt and the tokens before it.

    Every fact counts the same, where EasyEdit's FT-M counts every token the same. Settings as in ``FineTuning``.
    """

    loss: ClassVar[Loss] = "target"
    lr: float = 5.0e-4
    norm_constraint: float | None = 2.0e-3
