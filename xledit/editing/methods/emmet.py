"""EMMET: a batch of facts fitted exactly."""

from xledit.editing.locate import ExactFit


class Emmet(ExactFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """EMMET, arXiv 2403.14236: the whole batch is fitted exactly, with the least disturbance of old values.

    Facts that share a key have no exact fit: then it raises. ``regularisation`` as in ``ExactFit``.
    """
