"""Editing by training, the baselines of locate-then-edit: one update per layer; the model's weights are unchanged afterwards.

Each method minimises, by Adam, the mean over facts of the mean negative log-probability (nats) of a fact's target tokens. They train the
memories of some layers and differ in what may change there: every weight (``fine_tuning``), or two low-rank factors (``methods/lora.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.artifacts import SavedEdit
from xledit.editing.batches import History, Stored, edit_weights
from xledit.editing.combine import Combination, Group
from xledit.editing.method import Inputs, Method, Requests, Watching
from xledit.editing.tensors import LayerUpdate
from xledit.models.family import head_logits
from xledit.models.prompts import AnswerRow, encode_request, pad, teacher_forced
from xledit.models.tracing import read
from xledit.params import check_positive
from xledit.records import EditRequest


def _last_token(prompt: tuple[int, ...], answer: tuple[int, ...]) -> AnswerRow:
    return AnswerRow(tokens=prompt, answer=answer, positions=(len(prompt) - 1,) * len(answer))


Loss = Literal["last_token", "target"]
LOSSES: dict[Loss, Callable[[tuple[int, ...], tuple[int, ...]], AnswerRow]] = {"last_token": _last_token, "target": teacher_forced}


class Trained(Method, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the training loop, and the loop.

    ``lr`` is Adam's step in units of a weight. Training takes ``steps`` passes over the facts, in batches of ``batch_size`` in the given
    order; it stops earlier once a pass's mean loss is below ``stop_below`` (nats). ``layers`` are the layers to train, null for the edited
    layers.
    """

    batch_size: int = 20
    layers: tuple[int, ...] | None = None
    lr: float
    steps: int = 10
    stop_below: float = 0.1

    def __post_init__(self) -> None:
        for name in ("batch_size", "lr", "steps"):
            check_positive(name, getattr(self, name))
        check_not_negative("stop_below", self.stop_below)
        if self.layers is not None and (not self.layers or any(upper <= lower for lower, upper in pairwise(self.layers))):
            raise ValueError(
                f"layers is {list(self.layers)}; name at least one layer, in ascending order, or null for those of edit.layers"
            )

    def edit(self, inputs: Inputs, watching: Watching) -> SavedEdit:
        """Return the updates that store all facts."""
        model, tokenizer = inputs.load_model()
        requests = {code: inputs.practice.worded(asked) for code, asked in inputs.requests.items()}
        editor = Training(model, tokenizer, self, inputs.combination, requests, inputs.layers, inputs.seed)
        return edit_weights(model, tokenizer, editor, requests, inputs, watching)

    def updates(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        seed: int,
        on_progress: Callable[[int], None] = lambda _num_facts: None,
    ) -> dict[int, LayerUpdate]:
        """Return each layer's change; ``seed`` is for random first weights.

        ``on_progress`` is called after each step with the number of its facts.
        """
        raise TypeError(f"{type(self).__name__} does not say how it trains")

    def _batches(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], loss: Loss
    ) -> list["Batch"]:
        if not requests:
            raise ValueError(f"{type(self).__name__}: there are no requests to train on; give at least one")
        return [
            Batch(model, tokenizer, requests[start : start + self.batch_size], LOSSES[loss])
            for start in range(0, len(requests), self.batch_size)
        ]

    def _train(
        self,
        batches: Sequence["Batch"],
        layers: Sequence[int],
        optimiser: torch.optim.Optimizer,
        on_progress: Callable[[int], None],
        constrain: Callable[[], None] = lambda: None,
    ) -> None:
        """Train the optimiser's parameters in place, until the mean loss of a pass is low enough or all passes are done.

        ``constrain`` is called after each step.
        """
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for _ in range(self.steps):
            seen: list[Tensor] = []
            for batch in batches:
                losses = batch.losses()
                self._check_finite([losses], batch.facts_where(~losses.isfinite()), layers)
                optimiser.zero_grad()
                losses.mean().backward(inputs=parameters)  # nothing else is given a gradient
                optimiser.step()
                constrain()
                seen.append(losses.detach())
                on_progress(len(losses))
            if torch.cat(seen).mean().item() < self.stop_below:
                break
        self._check_finite(parameters, "after the last step", layers)

    def _check_finite(self, tensors: Sequence[Tensor], where: str, layers: Sequence[int]) -> None:
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise ValueError(
                f"{where}: training became NaN or infinite in layers {list(layers)} (settings: {self}); "
                f"lower lr, or use model.dtype float32"
            )


@dataclass(frozen=True)
class Training:
    """The editor of the methods that train. It changes the method's own layers, or ``edit_layers`` where the method has none."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: Trained
    combination: Combination
    requests: Requests
    edit_layers: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if self.combination.keeps_off:
            raise ValueError(
                f"{type(self.method).__name__} trains and cannot keep off earlier keys; use a closed-form method for this edit"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers."""
        return self.method.layers or self.edit_layers

    def __call__(self, group: Group, places: slice, history: History) -> Stored:
        """Return the updates that store the facts at ``places`` in the group's languages."""
        requests = [request for code in group for request in self.requests[code][places]]
        return Stored(self.method.updates(self.model, self.tokenizer, requests, self.layers, self.seed), {})


class Batch:
    """The facts of one training step: their padded rows, and at which positions their target tokens are predicted."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        row_of: Callable[[tuple[int, ...], tuple[int, ...]], AnswerRow],
    ) -> None:
        self._model, self._requests = model, requests
        rows = [row_of(*encode_request(tokenizer, request)) for request in requests]
        self._ids, self._mask = (tensor.to(model.device) for tensor in pad([row.tokens for row in rows]))
        # logits are large: one vector of them for all target tokens that are predicted at one position
        places = sorted({(fact, position) for fact, row in enumerate(rows) for position in row.positions})
        loss_terms = [
            (places.index((fact, position)), token, fact, 1 / len(row.answer))
            for fact, row in enumerate(rows)
            for position, token in zip(row.positions, row.answer, strict=True)
        ]
        self._rows, self._positions = torch.tensor(places, device=model.device).unbind(1)
        self._places, self._tokens, self._facts, self._weights = (
            torch.tensor(column, device=model.device) for column in zip(*loss_terms, strict=True)
        )

    def losses(self) -> Float[Tensor, "facts"]:  # noqa: F821
        """Return the mean negative log-probability of each fact's target tokens (nats)."""
        hidden = read(self._model, self._ids, self._mask, use_cache=False)
        logprobs = head_logits(self._model, hidden[self._rows, self._positions]).float().log_softmax(-1)
        losses = -logprobs[self._places, self._tokens] * self._weights
        return losses.new_zeros(len(self._requests)).index_add(0, self._facts, losses)

    def facts_where(self, chosen: Tensor) -> str:
        """Return the names of the facts for which ``chosen`` is true."""
        facts = [request for request, is_chosen in zip(self._requests, chosen.tolist(), strict=True) if is_chosen]
        return ", ".join(f"fact {fact.fact_id} ({fact.language})" for fact in facts)


def check_not_negative(name: str, value: float) -> None:
    """Raise ValueError when the setting is below 0."""
    if not value >= 0:
        raise ValueError(f"{name} is {value}; it must not be negative")
