"""Context managers that read and change what modules compute, and repeated runs of only the upper layers of a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from xledit.models.family import family_of, layers_of, with_module
from xledit.models.prompts import pad


class _Stop(Exception):  # noqa: N818 (not an error)
    """Ends a forward pass once all that was asked for has been seen."""


@contextmanager
def hooked(*handles: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    """Remove the given hooks at the end, also after an exception."""
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def record(model: PreTrainedModel, modules: Sequence[nn.Module], ids: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the input and the output of each module for one batch, in the order given. Rows may be padded on either side.

    The pass stops after the last of them. Each module must run once in a pass. No gradients.
    """
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(index: int) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # a copy, because a parallel block may add its attention to the memory's value in place
            seen[index] = next(iter((*args, *kwargs.values()))).detach(), states_of(output).detach().clone()
            if len(seen) == len(modules):
                raise _Stop

        return hook

    handles = [module.register_forward_hook(keep(index), with_kwargs=True) for index, module in enumerate(modules)]
    with hooked(*handles), torch.no_grad(), suppress(_Stop):
        read(model, ids.to(model.device), mask.to(model.device), use_cache=False)
    return [seen[index] for index in range(len(modules))]


@contextmanager
def added(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the module's output by ``change(output)`` inside the context."""
    with hooked(module.register_forward_hook(lambda _module, _inputs, output: change(output))):  # pyright: ignore[reportArgumentType]
        yield


class UpperLayers:
    """The layers from ``start`` on, to be run many times on the tails of rows whose beginnings never change.

    A row's tail begins at its position ``tails[row]``. The tokens before it, and all lower layers, are run once: in a causal model they do
    not depend on changes in the tail. A run is the model's own forward pass over the tails. Its cache holds the keys and values of
    attention for the tokens before the tails, and each lower layer is replaced by its stored output. So masks, positions, ALiBi and the
    final norm are the family's own code, and no family needs code of its own here.

    Raises ValueError when a layer has no attention whose keys and values can be kept.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Sequence[int]], tails: Sequence[int], start: int) -> None:
        ids, mask = (tensor.to(model.device) for tensor in pad(rows))
        layers, below = layers_of(model), []
        cache: Any = DynamicCache()
        # the one layer whose output the upper layers see
        handles = [layer.register_forward_hook(lambda _layer, _args, output: below.append(output)) for layer in layers[:start][-1:]]
        with hooked(*handles), torch.no_grad():
            read(model, ids, mask, past_key_values=cache, use_cache=True)
        without = [index for index in range(len(layers)) if index >= len(cache.layers) or cache.layers[index].keys is None]
        if without:
            raise ValueError(
                f"layer {without[0]} of {model.config.model_type} leaves no keys and values of attention in a cache; "
                f"only models whose layers all have attention of their own can be run in pieces"
            )
        self._starts, self._lengths = torch.tensor(tails, device=model.device), mask.sum(1)
        steps = torch.arange(int((self._lengths - self._starts).max()), device=model.device)
        self._positions = (self._starts[:, None] + steps).clamp_max(ids.shape[1] - 1)
        self._ids, self._below = _at(ids, self._positions), [_Given(output, _at(states_of(output), self._positions)) for output in below]
        # the tokens before a tail are put right before it, as in a row padded on the left, because windows of attention count columns
        columns = torch.arange(-int(self._starts.max()), 0, device=model.device) + self._starts[:, None]
        self._mask = torch.cat([columns >= 0, torch.ones_like(self._positions, dtype=torch.bool)], dim=1).long()
        self._prefix = [
            # of a lower layer only the length is used
            [_at((tensor if layer >= start else tensor[:, :1, :, :1]).transpose(1, 2), columns.clamp_min(0)) for tensor in pair]
            for layer, pair in enumerate((kept.keys, kept.values) for kept in cache.layers)
        ]
        self._model = with_module(model, family_of(model).layers, nn.ModuleList([*self._below * start, *layers[start:]]))

    def run(self, rows: Tensor) -> Tensor:
        """Return final normed hidden states ``[rows tail d_model]`` of the rows with the indices ``rows``.

        Rows of similar tail length are run together, for less padding; after the end of a row's own tail the result is 0 or meaningless.
        During a run ``running`` holds the indices of the rows that hooks see.
        """
        lengths = (self._lengths - self._starts)[rows]
        groups = [(places, self._run_group(rows[places], int(lengths[places].max()))) for places in _by_length(lengths)]
        hidden = groups[0][1].new_zeros(len(rows), int(lengths.max()), groups[0][1].shape[2])
        for places, states in groups:
            hidden = hidden.index_put((places[:, None], torch.arange(states.shape[1], device=places.device)), states)
        return hidden

    def _run_group(self, rows: Tensor, width: int) -> Tensor:
        self.running = rows
        before, most = int(self._starts[rows].max()), int(self._starts.max())
        for given in self._below:
            given.states = given.tails[rows, :width]
        cache = DynamicCache()
        for index, kept in enumerate(self._prefix):
            keys, values = (tensor[rows, most - before :].transpose(1, 2) for tensor in kept)
            cache.update(keys, values, index)
        positions, mask = self._positions[rows, :width], self._mask[rows, most - before : most + width]
        return read(self._model, self._ids[rows, :width], mask, position_ids=positions, past_key_values=cache, use_cache=True)


def read(model: PreTrainedModel, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
    """Return final normed hidden states ``[batch tokens d_model]``. ``mask`` includes the tokens of a cache in ``more``.

    Unless ``more`` has ``position_ids``, a token's position is the number of tokens before it, padding not counted.
    """
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]}
    return model.base_model(input_ids=ids, attention_mask=mask, **(positions | more)).last_hidden_state


def states_of(output: Any) -> Tensor:
    """Return the states in a module's output: the output itself, or its first item where it is a tuple."""
    return output[0] if isinstance(output, tuple) else output


class _Given(nn.Module):
    """Takes the place of a lower layer: returns ``states``, in the form of the layer's own output."""

    def __init__(self, output: Any, tails: Tensor) -> None:
        super().__init__()
        self.tails = self.states = tails
        self._others = output[1:] if isinstance(output, tuple) else None

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.states if self._others is None else (self.states, *self._others)


def _at(value: Tensor, positions: Tensor) -> Tensor:
    """Return ``[rows positions ...]`` of ``[rows tokens ...]``."""
    return value[torch.arange(len(value), device=value.device)[:, None], positions]


def _by_length(lengths: Tensor) -> list[Tensor]:
    """Return indices in groups whose longest is at most 1.5 times as long as their shortest."""
    groups: list[list[int]] = []
    shortest = 0
    for index in torch.argsort(lengths, stable=True).tolist():
        if not groups or int(lengths[index]) > 1.5 * shortest:
            groups.append([])
            shortest = int(lengths[index])
        groups[-1].append(index)
    return [torch.tensor(group, device=lengths.device) for group in groups]
