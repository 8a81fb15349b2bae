"""Read and change what modules compute, as context managers, and run the upper layers of a model again and again."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from xledit.models.families import final_norm_of, layers_of
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
    """Return the input and the output of each module for one batch, in the order given.

    The pass stops after the last of them. Each module must run once in a pass. No gradients.
    """
    seen: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(index: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[index] = inputs[0].detach(), output.detach()
            if len(seen) == len(modules):
                raise _Stop

        return hook

    handles = [module.register_forward_hook(keep(index)) for index, module in enumerate(modules)]
    with hooked(*handles), torch.no_grad(), suppress(_Stop):
        model.base_model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False)
    return [seen[index] for index in range(len(modules))]


@contextmanager
def added(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the module's output by ``change(output)`` inside the context."""
    with hooked(module.register_forward_hook(lambda _module, _inputs, output: change(output))):  # pyright: ignore[reportArgumentType]
        yield


class UpperLayers:
    """The layers from ``start`` on, ready to run many times on the tails of rows whose rest never changes.

    A row's tail begins at its position ``tails[row]``. What lies before it, and all lower layers, is run once: a causal
    model computes there the same whatever is changed in the tail. Keys and values of attention before the tail are
    kept; masks, positions and whatever else the layers take is captured from one ordinary pass of the model, so that no
    family needs code of its own.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Sequence[int]], tails: Sequence[int], start: int) -> None:
        self._layers = layers_of(model)[start:]
        self._norm = final_norm_of(model)
        captured: list[tuple[Tensor, dict[str, Any]]] = []
        handles = [
            layer.register_forward_pre_hook(lambda _layer, args, kwargs: captured.append((args[0], kwargs)), with_kwargs=True)
            for layer in self._layers
        ]
        ids, mask = (tensor.to(model.device) for tensor in pad(rows))
        cache: Any = DynamicCache()
        with hooked(*handles), torch.no_grad():
            model.base_model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)
        self._starts = torch.tensor(tails, device=model.device)
        self._lengths = mask.sum(1)
        positions = self._starts[:, None] + torch.arange(int((self._lengths - self._starts).max()), device=model.device)
        self._positions = positions.clamp_max(ids.shape[1] - 1)
        self._hidden = self._at_tail(captured[0][0])
        width = int(self._starts.max())
        self._prefix = [
            (cache.layers[start + i].keys[:, :, :width], cache.layers[start + i].values[:, :, :width]) for i in range(len(captured))
        ]
        shared: dict[int, Any] = {}  # many layers take one mask and one pair of rotary tensors
        self._kwargs = []
        for _hidden, kwargs in captured:
            for name, value in kwargs.items():
                if id(value) not in shared:
                    shared[id(value)] = self._mask(value, width) if name == "attention_mask" else self._tail_argument(value, ids.shape[1])
            self._kwargs.append({name: (id(value), shared[id(value)]) for name, value in kwargs.items() if name != "past_key_values"})

    def run(self, rows: Tensor) -> Tensor:
        """Return final normed hidden states ``[rows tail d_model]`` of the rows with the indices ``rows``.

        Rows of similar tail length are run together, so that little is padded; beyond a row's own tail the result is
        0 or meaningless. Inside, ``running`` says which rows a hook is looking at.
        """
        lengths = (self._lengths - self._starts)[rows]
        hidden = torch.zeros(len(rows), int(lengths.max()), self._hidden.shape[2], dtype=self._hidden.dtype, device=self._hidden.device)
        for places in _by_length(lengths):
            self.running = rows[places]
            width = int(lengths[places].max())
            hidden = hidden.index_put((places[:, None], torch.arange(width, device=places.device)), self._run_group(width))
        return hidden

    def _run_group(self, width: int) -> Tensor:
        rows, hidden = self.running, self._hidden[self.running, :width]
        picked: dict[int, Any] = {}
        for index, (layer, kwargs) in enumerate(zip(self._layers, self._kwargs, strict=True)):
            for name, (key, value) in kwargs.items():
                if key not in picked:
                    picked[key] = self._pick_mask(value, rows, width) if name == "attention_mask" else _pick(value, rows, width)
            arguments = {name: picked[key] for name, (key, _value) in kwargs.items()}
            output = layer(hidden, past_key_values=_Prefix(*(tensor[rows] for tensor in self._prefix[index])), **arguments)
            hidden = output[0] if isinstance(output, tuple) else output
        return self._norm(hidden)

    def _at_tail(self, value: Tensor) -> Tensor:
        """Return ``[rows tail ...]`` from ``[rows or 1, tokens, ...]``."""
        value = value.expand(len(self._positions), *value.shape[1:])
        return value[torch.arange(len(value), device=value.device)[:, None], self._positions]

    def _tail_argument(self, value: Any, num_tokens: int) -> Any:
        if isinstance(value, tuple):
            return tuple(self._tail_argument(item, num_tokens) for item in value)
        if isinstance(value, Tensor) and value.ndim > 1 and value.shape[1] == num_tokens:
            return self._at_tail(value)
        return value

    def _mask(self, mask: Tensor | None, width: int) -> Tensor:
        """Return an additive mask ``[rows 1 tail width+tail]``: what a tail token sees of the row before it and of the tail."""
        positions = self._positions
        num_tokens = int(self._lengths.max())
        steps = torch.arange(num_tokens, device=positions.device)
        allowed = steps <= positions[:, :, None]  # [rows tail tokens]
        if mask is not None:
            seen = mask if mask.dtype == torch.bool else mask == 0
            allowed = allowed & self._at_tail(seen[:, 0].expand(len(positions), -1, -1))
        before = allowed[:, :, :width] & (steps[:width] < self._starts[:, None, None])
        inside = allowed.gather(2, positions[:, None, :].expand(-1, positions.shape[1], -1))
        ordered = torch.ones_like(inside).tril()  # positions past a row's end are clamped and would see each other
        allowed = torch.cat([before, inside.bool() & ordered.bool()], dim=2)[:, None]
        dtype = self._hidden.dtype
        return torch.zeros(allowed.shape, dtype=dtype, device=positions.device).masked_fill(~allowed, torch.finfo(dtype).min)

    def _pick_mask(self, mask: Tensor, rows: Tensor, width: int) -> Tensor:
        prefix = mask.shape[3] - mask.shape[2]
        return mask[rows, :, :width, : prefix + width]


def _by_length(lengths: Tensor) -> list[Tensor]:
    """Return indices in groups whose longest is at most half as long again as their shortest."""
    groups: list[list[int]] = []
    shortest = 0
    for index in torch.argsort(lengths, stable=True).tolist():
        if not groups or int(lengths[index]) > 1.5 * shortest:
            groups.append([])
            shortest = int(lengths[index])
        groups[-1].append(index)
    return [torch.tensor(group, device=lengths.device) for group in groups]


def _pick(value: Any, rows: Tensor, width: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_pick(item, rows, width) for item in value)
    return value[rows, :width] if isinstance(value, Tensor) and value.ndim > 1 else value


class _Prefix:
    """Stands where a layer expects a cache: attention's keys and values before the tail, never changed."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self._keys, keys], dim=2), torch.cat([self._values, values], dim=2)
