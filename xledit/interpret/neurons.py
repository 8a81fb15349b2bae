"""How much each unit of a model matters to the loss of a sentence: |gradient x activation| (arXiv 2408.06273, 6.1), and real ablation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.interpret.results import Ablation, Importance
from xledit.models.family import family_of, layers_of
from xledit.models.prompts import encode_text, padded_batches
from xledit.models.tracing import added, hooked

# a component of a layer: its layer, and its module's path in the layer
Place = tuple[int, str]
HEAD_NORMS = ("q_norm", "k_norm")


class UnitImportance(msgspec.Struct, frozen=True, kw_only=True):
    """The importance of each unit of each component, as a mean over some sentences of one language. See ``Importance`` for the terms.

    ``raw``, ``per_nat`` and ``per_token`` are ``[width]`` by component; ``loss`` is the sentences' mean loss (nats per token).
    """

    raw: dict[Place, Tensor]
    per_nat: dict[Place, Tensor]
    per_token: dict[Place, Tensor]
    loss: float


def components_of(model: PreTrainedModel) -> dict[Place, nn.Module]:
    """Return each layer's modules that have weights (linear maps and norms), and the activation function of its MLP.

    Norms of queries and keys are left out: some work head by head, where a unit is not a unit of the layer.
    """
    components = {}
    for number, layer in enumerate(layers_of(model)):
        activation = activation_of(model, number)
        for path, module in layer.named_modules():
            own = next(module.parameters(recurse=False), None) is not None
            if (own and path.rpartition(".")[2] not in HEAD_NORMS) or module is activation:
                components[number, path] = module
    return components


def activation_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """Return the module that applies a layer's non-linear function, whose outputs are its neurons.

    Raises ValueError unless there is exactly one.
    """
    parent = layers_of(model)[layer].get_submodule(family_of(model).memory.rpartition(".")[0])
    candidates = [
        module
        for module in parent.children()
        if not isinstance(module, nn.Dropout) and not list(module.children()) and not list(module.parameters())
    ]
    if len(candidates) != 1:
        raise ValueError(
            f"layer {layer} of {model.config.model_type} has {len(candidates)} modules that could be its activation; one is needed"
        )
    return candidates[0]


def importance(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_tokens: int) -> UnitImportance:
    """Return how much switching each unit off would change the loss of a sentence, to first order, as a mean over the sentences.

    Per sentence, ``raw`` is ``|sum over tokens of dL/dh x h|``, ``per_nat`` is that divided by L, and ``per_token`` is ``sum over tokens of
    |dL/dh x h|``, where L is the mean loss over tokens (nats). ``max_tokens`` bounds a batch, not results.

    Raises ValueError for a sentence of fewer than two tokens.
    """
    parts = components_of(model)
    names = ("raw", "per_nat", "per_token")
    sums: dict[str, dict[Place, Tensor]] = {name: {} for name in names}
    total = 0.0
    for ids, mask in _batches(tokenizer, sentences, max_tokens):
        seen: dict[Place, Tensor] = {}
        with _kept(model, parts, seen):
            losses = sentence_losses(model, ids, mask)
            gradients = torch.autograd.grad(losses.sum(), list(seen.values()))
        total += losses.sum().item()
        for (place, states), gradient in zip(seen.items(), gradients, strict=True):
            change = states.detach() * gradient  # no loss depends on padding
            together = change.sum(1).abs()
            for name, unit_sums in (
                ("raw", together.sum(0)),
                ("per_nat", (together / losses.detach()[:, None]).sum(0)),
                ("per_token", change.abs().sum((0, 1))),
            ):
                sums[name][place] = sums[name].get(place, 0) + unit_sums.double().cpu() / len(sentences)
    return UnitImportance(**sums, loss=total / len(sentences))


def mean_of(parts: Sequence[UnitImportance]) -> UnitImportance:
    """Return the mean over several parts of the sentences, with equal weights."""

    def mean(name: str) -> dict[Place, Tensor]:
        by_part = [getattr(part, name) for part in parts]
        return {place: torch.stack([tensors[place] for tensors in by_part]).mean(0) for place in by_part[0]}

    loss = sum(part.loss for part in parts) / len(parts)
    return UnitImportance(raw=mean("raw"), per_nat=mean("per_nat"), per_token=mean("per_token"), loss=loss)


def of_components(language: str, units: UnitImportance) -> list[Importance]:
    """Return the importance of whole components."""
    return [
        Importance(
            layer=layer,
            component=path,
            language=language,
            width=len(raw),
            raw=raw.sum().item(),
            per_unit=raw.mean().item(),
            per_nat=units.per_nat[layer, path].mean().item(),
            per_token=units.per_token[layer, path].mean().item(),
        )
        for (layer, path), raw in units.raw.items()
    ]


def ablate(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], per_component: int, max_tokens: int
) -> list[Ablation]:
    """Return for each kind of component how well the estimate agrees with the change of the loss when units are really switched off.

    ``per_component`` units of each kind are switched off one at a time, from the least to the most important at equal distances of rank,
    over all layers.
    """
    parts, estimated = components_of(model), importance(model, tokenizer, sentences, max_tokens).raw
    batches = list(_batches(tokenizer, sentences, max_tokens))
    with torch.no_grad():
        before = [sentence_losses(model, ids, mask) for ids, mask in batches]
    ablations = []
    for path in dict.fromkeys(path for _layer, path in parts):
        flat = [
            (value, layer, unit) for (layer, name), units in estimated.items() if name == path for unit, value in enumerate(units.tolist())
        ]
        flat.sort()
        chosen = [flat[round(rank * (len(flat) - 1) / (per_component - 1))] for rank in range(per_component)]
        measured = []
        for _value, layer, unit in chosen:
            with torch.no_grad(), switched_off({parts[layer, path]: torch.tensor([unit])}):
                after = [sentence_losses(model, ids, mask) for ids, mask in batches]
            change = torch.cat([(new - old).abs() for new, old in zip(after, before, strict=True)])
            measured.append(change.mean().item())
        values = [value for value, _layer, _unit in chosen]
        varied = len(set(values)) > 1 and len(set(measured)) > 1
        correlation: Any = spearmanr(values, measured) if varied else None
        ablations.append(
            Ablation(
                component=path,
                num_units=per_component,
                rank_correlation=float(correlation.statistic) if varied else None,
                ratio=sum(values) / sum(measured) if sum(measured) else None,
            )
        )
    return ablations


def sentence_losses(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Float[Tensor, " batch"]:
    """Return each row's mean loss (nats per token) over all tokens but its first. Rows are padded on the right."""
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits[:, :-1]
    counted = mask[:, 1:].to(logits.device)
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].to(logits.device).flatten(), reduction="none").view_as(counted)
    return (losses * counted).sum(1) / counted.sum(1)


@contextmanager
def switched_off(units: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Set the given units of the modules' outputs to 0 inside the context."""

    def off(places: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda states: states.index_fill(-1, places.to(states.device), 0.0)

    with ExitStack() as stack:
        for module, places in units.items():
            stack.enter_context(added(module, off(places)))
        yield


@contextmanager
def _kept(model: PreTrainedModel, parts: Mapping[Place, nn.Module], seen: dict[Place, Tensor]) -> Iterator[None]:
    """Store the parts' outputs in ``seen``, with a gradient graph that begins at the embeddings, because the weights are frozen."""

    def keep(place: Place) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        def hook(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
            seen[place] = output
            return output.clone()  # a parallel block may add to it in place

        return hook

    def begin(_module: nn.Module, _args: tuple, output: Tensor) -> Tensor:
        return output.detach().requires_grad_()

    handles = [module.register_forward_hook(keep(place)) for place, module in parts.items()]
    with hooked(model.get_input_embeddings().register_forward_hook(begin), *handles), torch.enable_grad():
        yield


def _batches(tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    rows = [encode_text(tokenizer, sentence) for sentence in sentences]
    short = next((sentence for sentence, row in zip(sentences, rows, strict=True) if len(row) < 2), None)
    if short is not None:
        raise ValueError(f"the sentence {short!r} has fewer than two tokens, and so no loss")
    for _batch, ids, mask in padded_batches(rows, max_tokens):
        yield ids, mask
