"""A family without a row: find by experiment where its layers, its memories and its norms are, and check what was found."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from xledit.manifest import Family
from xledit.models.family import head_logits, layers_of, set_family
from xledit.models.tracing import UpperLayers, added, hooked, read, states_of

NUM_TOKENS = 8


@dataclass(frozen=True)
class _Call:
    """One call of a module in the pass that is watched; what it gave is a copy."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any

    @property
    def given(self) -> Any:
        """What the call was given first."""
        return next(iter((*self.args, *self.kwargs.values())), None)

    def with_given(self, value: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the call's arguments with another first one."""
        if self.args:
            return (value, *self.args[1:]), self.kwargs
        return (), self.kwargs | {next(iter(self.kwargs)): value}


Calls = dict[str, _Call]


@torch.no_grad()
def probe(model: PreTrainedModel) -> Family:
    """Give the model the row that its structure shows, and return that row.

    Rules, each seen in a pass over a few random tokens rather than read from names:

    - the layers are the longest list of modules of one class in which each reads what the one before it gave;
    - a layer's memory is the one linear map (``nn.Linear`` or ``Conv1D``) that writes to the residual stream, straight or
      through one norm: what is added to its value comes out of the layer, and nothing else does. That excludes an
      attention whose output an MLP reads; an attention beside the MLP is excluded because the child of the layer that
      holds the map must not mix tokens;
    - the attention is the last linear map of the one child that does mix tokens, if there is one such child;
    - the final norm reads what the last layer gave and gives the model's last hidden state.

    All layers must agree, and the model must run in pieces: its upper layers on tails, its head on given states.

    Raises ValueError that says which rule found nothing, or more than one thing.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.get_text_config().vocab_size, (1, NUM_TOKENS), generator=generator).to(model.device)
    calls, last = _watch(model, ids)
    path = _layers(model, calls)
    layers = model.get_submodule(path)
    assert isinstance(layers, nn.ModuleList)
    of_layers = [calls[f"{path}.{index}"] for index in range(len(layers))]
    inside = [_below(calls, f"{path}.{index}") for index in range(len(layers))]
    memory, norm = _memory(model, layers[0], of_layers[0], inside[0], generator)
    for index in range(1, len(layers)):
        if memory not in inside[index] or norm not in _ways_out(layers[index], of_layers[index], inside[index], memory, generator):
            raise _refusal(model, f"layer {index} does not write to the residual stream through {memory!r} as layer 0 does")
    row = Family(
        layers=path,
        memory=memory,
        attention=_attention(layers[0], inside[0], generator),
        final_norm=_final_norm(model, calls, path, of_layers[-1], last),
        norm_after_memory=norm,
    )
    set_family(model, row)
    _check_pieces(model, ids, last)
    return row


def _watch(model: PreTrainedModel, ids: Tensor) -> tuple[Calls, Tensor]:
    """Return the calls of all modules that run exactly once in a pass, and the last hidden states."""
    calls: dict[str, list[_Call]] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            kept = output.clone() if isinstance(output, Tensor) else output
            calls.setdefault(name, []).append(_Call(args, kwargs, kept))

        return hook

    handles = [module.register_forward_hook(watch(name), with_kwargs=True) for name, module in model.named_modules()]
    with hooked(*handles):
        last = read(model, ids, torch.ones_like(ids), use_cache=False)
    return {name: found[0] for name, found in calls.items() if len(found) == 1}, last


def _below(calls: Calls, path: str) -> Calls:
    return {name.removeprefix(f"{path}."): call for name, call in calls.items() if name.startswith(f"{path}.")}


def _layers(model: PreTrainedModel, calls: Calls) -> str:
    """Return the path of the longest list of modules of one class in which each reads what the one before it gave."""
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        names = [f"{path}.{index}" for index in range(len(module))] if isinstance(module, nn.ModuleList) else []
        if not names or len({type(child) for child in module.children()}) > 1 or not all(name in calls for name in names):
            continue
        if all(_same(calls[after].given, states_of(calls[before].output)) for before, after in pairwise(names)):
            found[path] = len(names)
    longest = [path for path, length in found.items() if length == max(found.values())]
    if len(longest) != 1:
        raise _refusal(
            model,
            f"{len(longest)} longest lists of modules of one class, each reading what the one before it gave, were found; "
            f"wanted is one ({', '.join(longest) or 'no such list at all'})",
        )
    return longest[0]


def _memory(model: PreTrainedModel, layer: nn.Module, call: _Call, inside: Calls, generator: torch.Generator) -> tuple[str, str | None]:
    """Return the path of a layer's memory, and of the norm after it if there is one."""
    shape = states_of(call.output).shape  # a map that reads its tokens without their batch cannot be hooked by row
    linear = [path for path in _linear(layer, inside) if inside[path].output.shape == shape]
    found = {
        path: ways[0]
        for path in linear
        if not _mixes_tokens(layer, inside, path.split(".")[0], generator) and (ways := _ways_out(layer, call, inside, path, generator))
    }
    if len(found) != 1:
        raise _refusal(
            model,
            f"in {type(layer).__name__}, {len(found)} linear maps outside attention write [batch tokens d_model] to the residual stream, "
            f"straight or through one norm; wanted is one ({', '.join(found or linear) or 'none gives that shape'})",
        )
    return next(iter(found.items()))


def _attention(layer: nn.Module, inside: Calls, generator: torch.Generator) -> str | None:
    mixing = {path: path.split(".")[0] for path in _linear(layer, inside) if _mixes_tokens(layer, inside, path.split(".")[0], generator)}
    return list(mixing)[-1] if len(set(mixing.values())) == 1 else None


def _linear(layer: nn.Module, inside: Calls) -> list[str]:
    """Return the paths of linear maps, in the order in which they ran."""
    return [path for path in inside if isinstance(layer.get_submodule(path), nn.Linear | Conv1D)]


def _ways_out(layer: nn.Module, call: _Call, inside: Calls, path: str, generator: torch.Generator) -> list[str | None]:
    """Return how a value gets out of a layer unmixed: None for straight, or the path of a norm that reads it."""
    value, output = inside[path].output, states_of(call.output)
    delta = _noise(value, generator) * max(_size(value), _size(output))
    with added(layer.get_submodule(path), lambda given: given + delta):
        changed = states_of(layer(*call.args, **call.kwargs))
    change = changed - states_of(layer(*call.args, **call.kwargs))
    expected: dict[str | None, Tensor] = {None: delta}
    for reader, reading in inside.items():
        if _same(reading.given, value) and isinstance(reading.output, Tensor) and reading.output.shape == value.shape:
            norm = layer.get_submodule(reader)
            expected[reader] = norm(value + delta) - norm(value)
    return [way for way, wanted in expected.items() if _close(change, wanted)]


def _mixes_tokens(layer: nn.Module, inside: Calls, child: str, generator: torch.Generator) -> bool:
    """Whether what a child of a layer gives for the last token depends on the one before it, which any window holds."""
    if child not in inside or not isinstance(inside[child].given, Tensor):
        return True  # it cannot be asked
    given = inside[child].given
    other = given.clone()
    other[:, -2] += _noise(other[:, -2], generator) * _size(given)
    before, after = (
        states_of(layer.get_submodule(child)(*args, **kwargs))[:, -1]
        for args, kwargs in (inside[child].with_given(tensor) for tensor in (given, other))
    )
    return not torch.equal(after, before)


def _final_norm(model: PreTrainedModel, calls: Calls, layers: str, last_layer: _Call, last: Tensor) -> str:
    states = states_of(last_layer.output)
    found = [
        path
        for path, call in calls.items()
        if not path.startswith(f"{layers}.") and _same(call.given, states) and _same(call.output, last) and not _same(states, last)
    ]
    if not found:
        raise _refusal(model, "0 norms read what the last layer gives and give the last hidden states")
    return min(found, key=len)


def _check_pieces(model: PreTrainedModel, ids: Tensor, last: Tensor) -> None:
    """Raise ValueError unless the upper layers on tails, and the head on given states, are the model's own."""
    rows = [tuple(ids[0].tolist()), tuple(ids[0, :5].tolist())]
    found = UpperLayers(model, rows, [3, 1], len(layers_of(model)) // 2).run(torch.arange(2, device=ids.device))
    if not (_close(found[0, :5], last[0, 3:]) and _close(found[1, :4], last[0, 1:5])):
        raise _refusal(model, "its upper layers run by themselves, behind a cache, do not give the model's own hidden states")
    if not _close(head_logits(model, last), model(input_ids=ids, use_cache=False).logits):
        raise _refusal(model, "its head on the last hidden states does not give the model's own logits")


def _refusal(model: PreTrainedModel, found: str) -> ValueError:
    return ValueError(
        f'model.family auto: {model.config.model_type}: {found}. Add "{model.config.model_type}": '
        f"Family(layers=..., memory=..., final_norm=...) to FAMILIES in xledit/families/table.py if it can be edited at all"
    )


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _size(value: Tensor) -> float:
    """Return the root mean square."""
    return value.float().square().mean().sqrt().item()


def _same(value: Any, wanted: Any) -> bool:
    return isinstance(value, Tensor) and isinstance(wanted, Tensor) and torch.equal(value, wanted)


def _close(found: Tensor, wanted: Tensor) -> bool:
    """Whether most tokens agree as far as their dtype can tell; the first ones of a trained model are too large to tell."""
    error = (found - wanted).float().norm(dim=-1) / wanted.float().norm(dim=-1).clamp_min(1e-30)
    return error.median().item() < torch.finfo(found.dtype).eps ** 0.5
