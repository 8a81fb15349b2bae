"""ROME: one fact after another, fitted exactly, as in the published code."""

from typing import ClassVar

from xledit.editing.least_change import ROUNDING, Solver, inverse_of, keeping
from xledit.editing.locate import ExactFit
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment


class Rome(ExactFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ROME, arXiv 2202.05262, eq. 2, as in the published code: an exact fit of one fact after another.

    The update's direction comes from the key averaged over openings, its scale from the key of the prompt without an opening. This
    difference is what arXiv 2403.07175 found to make models collapse. Without openings it is R-ROME.
    """

    most_facts: ClassVar[int | None] = 1

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        metric = inverse_of(old_keys, self.regularisation)

        def solve(facts: Facts, past: Past) -> LayerUpdate:
            direction = keeping(metric, past.protected)(facts.keys)
            scale = direction @ facts.bare_keys.T
            if not scale.abs() > ROUNDING * direction.norm() * facts.bare_keys.norm() or not facts.residuals.isfinite().all():
                raise ValueError(
                    "the solve has no finite solution: a key is protected, or has no part in the direction of its key behind openings, "
                    "or a target is not finite"
                )
            return LayerUpdate(left=(facts.residuals / scale).T, right=direction)

        return solve
