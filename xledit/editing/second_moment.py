"""The second moment E[k k^T] of an unedited model's keys over a text: not centred, accumulated in float64, all layers in one pass."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.tensors import SecondMoment
from xledit.models.family import memory_of, weight_as_out_by_in
from xledit.models.prompts import opening_tokens, padded_batches
from xledit.models.tracing import record


class SecondMomentAccumulator:
    """Sums k k^T over batches of any size and order."""

    def __init__(self, d_in: int) -> None:
        self._sum = torch.zeros(d_in, d_in, dtype=torch.float64)
        self._num_keys = 0

    def add(self, keys: Float[Tensor, "tokens d_in"]) -> None:
        """Add the products k k^T of one batch of keys."""
        keys = keys.cpu().double()
        self._sum.addmm_(keys.T, keys)
        self._num_keys += len(keys)

    def result(self) -> SecondMoment:
        """Return the mean so far. Raises ValueError before the first key, or when a key was not finite."""
        if not self._num_keys:
            raise ValueError("no keys were seen; the corpus has no tokens")
        if not self._sum.isfinite().all():
            raise ValueError("a key of the corpus is not finite; use float32, or another model")
        return SecondMoment(self._sum / self._num_keys, self._num_keys)


def second_moments(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    layers: Sequence[int],
    max_keys: int,
    window: int,
    on_progress: Callable[[int], None] = lambda _num_keys: None,
) -> dict[int, SecondMoment]:
    """Return one second moment per layer, over the first ``max_keys`` tokens of the texts.

    Each text is read by itself in windows of at most ``window`` tokens, each after the tokenizer's own opening token, which is not counted:
    its key is the same everywhere and very long. ``on_progress`` is called after each batch with the number of its keys.

    Raises ValueError when the texts have no tokens.
    """
    opening = opening_tokens(tokenizer)
    rows: list[tuple[int, ...]] = []
    left = max_keys
    for text in texts:
        tokens = tuple(tokenizer(text, add_special_tokens=False).input_ids)[:left]
        rows += [opening + tokens[start : start + window] for start in range(0, len(tokens), window)]
        left -= len(tokens)
    modules = [memory_of(model, layer) for layer in layers]
    sums = [SecondMomentAccumulator(weight_as_out_by_in(module).shape[1]) for module in modules]
    for _batch, ids, mask in padded_batches(rows, max_tokens=8 * window):
        counted = mask.bool()
        counted[:, : len(opening)] = False
        for total, (keys, _values) in zip(sums, record(model, modules, ids, mask), strict=True):
            total.add(keys[counted.to(keys.device)])
        on_progress(int(counted.sum()))
    return {layer: total.result() for layer, total in zip(layers, sums, strict=True)}
