"""The loop over layers that turns target values into updates, and the context that puts updates into a model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.memory import read_memories
from xledit.editing.second_moment import SecondMoment
from xledit.editing.solvers import LayerUpdate, Method
from xledit.models.families import memory_of, weight_as_out_by_in
from xledit.records import EditRequest


@contextmanager
def edited(model: PreTrainedModel, updates: Mapping[int, LayerUpdate]) -> Iterator[None]:
    """Add each layer's update to its memory inside the context.

    The weights come back bit for bit, from kept copies (subtracting is not exact), also when an exception passes.
    """
    kept: dict[int, Tensor] = {}
    try:
        for layer, update in updates.items():
            weight = weight_as_out_by_in(memory_of(model, layer))
            kept[layer] = weight.detach().clone()
            add_update(model, layer, update)
        yield
    finally:
        for layer, weight in kept.items():
            with torch.no_grad():
                weight_as_out_by_in(memory_of(model, layer)).copy_(weight)


def add_update(model: PreTrainedModel, layer: int, update: LayerUpdate) -> None:
    """Add an update to a layer's memory: summed in float64, cast once. Raises ValueError when shapes do not fit."""
    weight = weight_as_out_by_in(memory_of(model, layer))
    change = update.dense()
    if change.shape != weight.shape:
        raise ValueError(f"layer {layer}: the update is {tuple(change.shape)}, the memory {tuple(weight.shape)}; is it from another model?")
    with torch.no_grad():
        weight.copy_((weight.cpu().double() + change).to(weight))


def solve_layers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    targets: Mapping[int, Float[Tensor, "facts d_model"]],
    old_keys: Mapping[int, SecondMoment],
    method: Method,
    num_prefixes: int,
    max_tokens: int,
) -> dict[int, LayerUpdate]:
    """Return one update per layer that gives each request its target value there. The model is left as it was.

    Keys and values of a layer are read again after the layers below it have changed. Statistics are of the unedited
    model (published code measures later layers' on a half-edited one when its cache is cold).

    Raises ValueError that names the method and the layer when a solve has no finite solution.
    """
    updates: dict[int, LayerUpdate] = {}
    with edited(model, {layer: _nothing(model, layer) for layer in targets}):
        for layer in sorted(targets):
            memory = read_memories(model, tokenizer, requests, (layer,), num_prefixes, max_tokens)[layer]
            try:
                updates[layer] = method.solver(old_keys[layer])(memory.keys, targets[layer].double() - memory.values)
            except (ValueError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
                raise ValueError(f"{type(method).__name__}, layer {layer}: {error} (settings: {method})") from error
            if not updates[layer].dense().isfinite().all():
                raise ValueError(f"{type(method).__name__}, layer {layer}: the update is not finite (settings: {method})")
            add_update(model, layer, updates[layer])
    return updates


def _nothing(model: PreTrainedModel, layer: int) -> LayerUpdate:
    d_out, d_in = weight_as_out_by_in(memory_of(model, layer)).shape
    return LayerUpdate(left=torch.zeros(d_out, 0, dtype=torch.float64), right=torch.zeros(0, d_in, dtype=torch.float64))
