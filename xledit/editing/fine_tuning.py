"""Fine-tuning of a memory's whole weight matrix: the common part of FT-L and FT-M."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.tensors import LayerUpdate
from xledit.editing.trained import Loss, Trained, check_not_negative
from xledit.models.family import memory_of, weight_as_out_by_in
from xledit.models.tracing import hooked
from xledit.params import check_positive
from xledit.records import EditRequest


class FineTuning(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fine-tuning of whole weight matrices.

    ``loss`` says at which position a target token is predicted: with ``last_token`` all of them at the prompt's last token, with ``target``
    each at the token before it (teacher forcing). ``norm_constraint`` is the largest change of any one weight, null for none. Lower: better
    locality, fewer facts stored. ``weight_decay`` pulls the change towards 0; that of the published code pulls the weight itself and is 0.
    """

    loss: ClassVar[Loss]
    norm_constraint: float | None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_not_negative("weight_decay", self.weight_decay)
        if self.norm_constraint is not None:
            check_positive("norm_constraint", self.norm_constraint)

    def updates(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        seed: int,
        on_progress: Callable[[int], None] = lambda _num_facts: None,
    ) -> dict[int, LayerUpdate]:
        """Return each layer's change ``[d_out d_in]`` as two factors, see ``thin``.

        ``on_progress`` is called after each step with the number of its facts. The change is float32. It is added to the weight before the
        sum is rounded to the model's dtype, in training as in ``edited``, so that the trained model is the edited one, also in bfloat16.
        Nothing is random: ``seed`` has no effect.

        Raises ValueError that names facts, layers and settings when the loss is not finite.
        """
        memories = {layer: memory_of(model, layer) for layer in layers}
        changes = {
            layer: torch.zeros_like(weight_as_out_by_in(memory), dtype=torch.float32, requires_grad=True)
            for layer, memory in memories.items()
        }

        def constrain() -> None:
            if self.norm_constraint is not None:
                with torch.no_grad():
                    for change in changes.values():
                        change.clamp_(-self.norm_constraint, self.norm_constraint)

        with ExitStack() as stack:
            for layer, memory in memories.items():
                stack.enter_context(_changed(memory, changes[layer]))
            optimiser = torch.optim.Adam(changes.values(), lr=self.lr, weight_decay=self.weight_decay)
            self._train(self._batches(model, tokenizer, requests, self.loss), layers, optimiser, on_progress, constrain)
        return {layer: thin(change.detach()) for layer, change in changes.items()}


@contextmanager
def _changed(memory: nn.Module, change: Float[Tensor, "d_out d_in"]) -> Iterator[None]:
    """Let the memory compute with ``weight + change`` inside the context; the weight itself is not touched."""

    def value(module: nn.Module, keys: tuple[Tensor, ...], _value: Tensor) -> Tensor:
        weight = weight_as_out_by_in(module)
        return functional.linear(keys[0], (weight + change).to(weight.dtype), module.bias)  # pyright: ignore[reportArgumentType]

    with hooked(memory.register_forward_hook(value)):
        yield


def thin(change: Float[Tensor, "d_out d_in"]) -> LayerUpdate:
    """Return a change as two factors: left singular vectors times singular values, and right singular vectors.

    Singular values that are rounding errors are left out.
    """
    left, sizes, right = torch.linalg.svd(change.cpu().double(), full_matrices=False)
    kept = sizes > sizes.max() * max(change.shape) * torch.finfo(sizes.dtype).eps
    return LayerUpdate(left=left[:, kept] * sizes[kept], right=right[kept])
