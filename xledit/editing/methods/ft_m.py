"""FT-M: fine-tuning of the memories of some layers, with teacher forcing."""

from typing import ClassVar

from xledit.editing.fine_tuning import FineTuning
from xledit.editing.trained import Loss


class FtM(FineTuning, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """FT-M, arXiv 2308.07269 (EasyEdit): each target token is trained after the prompt and the target tokens before it.

    Every fact has the same weight in the loss; in EasyEdit's FT-M every token has. Settings as in ``FineTuning``.
    """

    loss: ClassVar[Loss] = "target"
    lr: float = 5.0e-4
    norm_constraint: float | None = 2.0e-3
