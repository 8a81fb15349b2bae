"""Put updates into a model and take them out again, and the loop over layers that turns target values into updates."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from xledit.editing.solvers import Facts, LayerUpdate, Method, Past, Solver, solve_in_turn
from xledit.models.families import memory_of, weight_as_out_by_in


@contextmanager
def editing(model: PreTrainedModel) -> Iterator[Callable[[int, LayerUpdate], None]]:
    """Yield a function that adds an update to a layer's memory, any number of times.

    The weights come back bit for bit, from kept copies (subtracting is not exact), also when an exception passes.
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
    """Add each layer's update to its memory inside the context. The weights come back bit for bit."""
    with editing(model) as add:
        for layer, update in updates.items():
            add(layer, update)
        yield


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
    method: Method,
    solvers: Mapping[int, Solver],
    past: Mapping[int, Past],
    facts_of: Callable[[int], Facts],
) -> tuple[dict[int, LayerUpdate], dict[int, Facts]]:
    """Return one update per layer that gives each fact its target value there, and the facts as each layer was met.

    ``facts_of`` reads keys and values of a layer; it is called after the layers below have changed. The model is left as it was.

    Raises ValueError when a solve has no finite solution, with the method and the layer.
    """
    updates: dict[int, LayerUpdate] = {}
    met: dict[int, Facts] = {}
    with editing(model) as add:
        for layer in sorted(solvers):
            met[layer] = facts_of(layer)
            with naming(method, layer):
                updates[layer] = solve_in_turn(solvers[layer], met[layer], past[layer], method.most_facts)
                if not updates[layer].dense().isfinite().all():
                    raise ValueError("the update is not finite")
            add(layer, updates[layer])
    return updates, met


@contextmanager
def naming(method: Method, layer: int) -> Iterator[None]:
    """Give an error inside the method's name, the layer and the settings."""
    try:
        yield
    except (ValueError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise ValueError(f"{type(method).__name__}, layer {layer}: {error} (settings: {method})") from error
