"""Add updates to a model's weights, and restore the old weights afterwards, bit for bit."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xledit.editing.tensors import LayerUpdate
from xledit.models.family import memory_of, weight_as_out_by_in


@contextmanager
def editing(model: PreTrainedModel) -> Iterator[Callable[[int, LayerUpdate], None]]:
    """Yield a function that adds an update to a layer's memory, any number of times.

    At the end the weights are restored bit for bit from copies (subtracting an update is not exact), also after an exception.
    """
    kept: dict[int, Tensor] = {}

    def add(layer: int, update: LayerUpdate) -> None:
        if layer not in kept:
            kept[layer] = weight_as_out_by_in(memory_of(model, layer)).detach().clone()
        add_update(model, layer, update)

    try:
        yield add
    finally:
        for layer, weight in kept.items():
            with torch.no_grad():
                weight_as_out_by_in(memory_of(model, layer)).copy_(weight)


@contextmanager
def edited(model: PreTrainedModel, updates: Mapping[int, LayerUpdate]) -> Iterator[None]:
    """Add each layer's update to its memory inside the context. At the end the weights are restored bit for bit."""
    with editing(model) as add:
        for layer, update in updates.items():
            add(layer, update)
        yield


def add_update(model: PreTrainedModel, layer: int, update: LayerUpdate) -> None:
    """Add an update ``[d_out d_in]`` to a layer's memory. The sum is float64 and cast once to the weight's dtype.

    Raises ValueError when the shapes differ.
    """
    weight = weight_as_out_by_in(memory_of(model, layer))
    change = update.dense()
    if change.shape != weight.shape:
        raise ValueError(f"layer {layer}: the update is {tuple(change.shape)}, the memory {tuple(weight.shape)}; is it from another model?")
    with torch.no_grad():
        weight.copy_((weight.cpu().double() + change).to(weight))
