"""UltraEdit: one normalised gradient in place of an optimised v*."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.gradients import answer_facts
from xledit.editing.least_change import ROUNDING, Solver, keeping, least_change
from xledit.editing.locate import ClosedForm
from xledit.editing.practice import MAX_TOKENS
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment
from xledit.records import EditRequest


class UltraEdit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """UltraEdit, arXiv 2505.14679: one gradient in place of a search for v*, features normalised over all edits so far.

    Keys ``k`` and gradients ``g`` are those of every token that predicts an answer token. The wanted change of a value is ``-lr |k~|^2 /
    d_in g~`` in units of the values' root mean square, where ``k~`` and ``g~`` are key and gradient minus their mean, divided by their
    standard deviation, over this batch and all earlier ones. ``ridge`` is 1 in the paper and here a share of the keys' mean squared length.
    ``lr`` does not depend on the model's scale; the paper has one for each model.
    """

    stores_targets: ClassVar[bool] = False
    reads_old_keys: ClassVar[bool] = False
    lr: float = 0.25
    ridge: float = 0.01

    def facts_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], layers: Sequence[int]
    ) -> Callable[[int], Facts] | None:
        """Return a function from layer to facts, one row per answer token; all layers are read in one pass."""
        return answer_facts(model, tokenizer, requests, layers, MAX_TOKENS).__getitem__

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer. It does not use the second moment of old keys."""
        del old_keys

        def solve(facts: Facts, past: Past) -> LayerUpdate:
            keys, steps = normalised(facts.keys, past.keys), normalised(facts.residuals, past.residuals)
            value_changes = self.lr * keys.square().mean(1, keepdim=True) * steps * facts.values.square().mean().sqrt()
            ridge = self.ridge * facts.keys.square().sum(1).mean().item()
            return least_change(facts.keys, keeping(lambda same: same, past.protected)(facts.keys), value_changes, ridge)

        return solve


def normalised(now: Float[Tensor, "facts size"], before: Float[Tensor, "past size"]) -> Float[Tensor, "facts size"]:
    """Return features minus their mean, divided by their standard deviation, both over ``before`` and ``now`` together.

    Raises ValueError when there is only one row, which has no standard deviation.
    """
    seen = torch.cat([before, now])
    if len(seen) < 2:
        raise ValueError("one fact has no spread to normalise by; edit at least two at a time")
    spread = seen.std(0, correction=0)
    # a feature that varies only by rounding carries no information
    return torch.where(spread <= ROUNDING * seen.abs().amax(0), 0.0, (now - seen.mean(0)) / spread)
