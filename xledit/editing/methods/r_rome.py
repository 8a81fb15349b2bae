"""R-ROME: one fact after another, fitted exactly."""

from typing import ClassVar

from xledit.editing.locate import ExactFit


class RRome(ExactFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """R-ROME, arXiv 2403.07175: ROME with the averaged key throughout. One fact after another, each fitted exactly."""

    most_facts: ClassVar[int | None] = 1
