"""Neurons that are active in few languages, by the entropy of their activation (LAPE, arXiv 2402.16438).

And how much worse a model reads each language when the neurons of one language are switched off.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.evaluation.watch import text_nats
from xledit.interpret.neurons import Place, UnitImportance, activation_of, switched_off
from xledit.interpret.representations import over
from xledit.interpret.results import LanguageNeurons, Pairs
from xledit.models.family import layers_of
from xledit.models.prompts import encode_text, opening_tokens, padded_batches
from xledit.models.tracing import record

# the paper's choices: the 1 % of neurons of lowest entropy, of those whose share in some language is above 95 % of all shares
SHARE = 0.01
OFTEN = 0.95


def activation_shares(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_tokens: int
) -> Float[Tensor, "layers neurons"]:
    """Return for each neuron the share of tokens at which its activation is above zero. Opening tokens are not counted."""
    modules = [activation_of(model, layer) for layer in range(len(layers_of(model)))]
    rows, opening = [encode_text(tokenizer, sentence) for sentence in sentences], len(opening_tokens(tokenizer))
    total, tokens = torch.zeros(()), 0
    for _batch, ids, mask in padded_batches(rows, max_tokens):
        counted = mask.clone()
        counted[:, :opening] = 0
        for layer, (_before, after) in enumerate(record(model, modules, ids, mask)):
            if not layer:
                total = total.expand(len(modules), after.shape[-1]).clone() if not total.dim() else total
                tokens += int(counted.sum())
            total[layer] += (after.cpu().reshape(*mask.shape, -1) > 0)[counted.bool()].sum(0)
    return total.double() / tokens


def language_entropy(shares: Float[Tensor, "languages layers neurons"]) -> Float[Tensor, "layers neurons"]:
    """Return the entropy (nats) over languages of each neuron's shares, normalised to sum 1.

    It is infinite for a neuron that is active in no language.
    """
    total = shares.sum(0)
    share = shares / total.clamp_min(torch.finfo(shares.dtype).tiny)
    return torch.where(total > 0, torch.special.entr(share).sum(0), torch.inf)


def specific(shares: Float[Tensor, "languages layers neurons"]) -> Bool[Tensor, "languages layers neurons"]:
    """Return which neurons belong to which languages: those of lowest entropy that are often active in the language."""
    often = shares.flatten().quantile(OFTEN) if shares.numel() < 2**24 else shares.flatten()[:: shares.numel() // 2**23].quantile(OFTEN)
    entropy = torch.where((shares > often).any(0), language_entropy(shares), torch.inf)
    number = max(1, round(SHARE * entropy.numel()))
    chosen = torch.zeros(entropy.numel(), dtype=torch.bool)
    chosen[entropy.flatten().argsort(stable=True)[:number]] = True
    return (shares > often) & chosen.view_as(entropy) & entropy.isfinite()


def causal(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    own: Mapping[str, Bool[Tensor, "layers neurons"]],
    texts: Mapping[str, Sequence[str]],
    max_tokens: int,
    seed: int,
) -> list[LanguageNeurons]:
    """Return by how much the texts' losses (nats per token) rise when each language's own neurons are switched off.

    And the same for as many other neurons of the same layers, drawn at random.
    """
    draw = torch.Generator().manual_seed(seed)

    def losses(off: Bool[Tensor, "layers neurons"]) -> dict[str, float]:
        places = {activation_of(model, layer): row.nonzero().flatten() for layer, row in enumerate(off) if row.any()}
        with switched_off(places):
            return {code: text_nats(model, tokenizer, lines, max_tokens) for code, lines in texts.items()}

    rises, before = [], losses(torch.zeros_like(next(iter(own.values()))))
    for code, mine in own.items():
        number = mine.sum(1)
        # as many of the others in each layer
        order = torch.rand(mine.shape, generator=draw).masked_fill(mine, 2.0).argsort(1).argsort(1)
        after, others = losses(mine), losses(order < number[:, None])
        rises.append(
            LanguageNeurons(
                language=code,
                num_neurons={str(layer): int(count) for layer, count in enumerate(number) if count},
                rise={other: after[other] - before[other] for other in texts},
                random_rise={other: others[other] - before[other] for other in texts},
            )
        )
    return rises


def overlaps(halves: Mapping[str, tuple[UnitImportance, UnitImportance]], neurons: Sequence[Place], share: float) -> tuple[Pairs, Pairs]:
    """Return the Jaccard overlap of the most important neurons of two languages, and of the two halves of one language's sentences.

    The two languages' halves also hold different sentences, so that the two overlaps differ in the language alone.
    """
    top = {code: tuple(_top(half, neurons, share) for half in pair) for code, pair in halves.items()}
    between = [_jaccard(top[one][a], top[other][1 - a]) for one, other in combinations(top, 2) for a in (0, 1)]
    return over(between), over([_jaccard(*pair) for pair in top.values()])


def overlap_chance(share: float) -> float:
    """Return the Jaccard overlap of two random sets of a share of all neurons: expected intersection / expected union."""
    return share / (2 - share)


def _top(units: UnitImportance, neurons: Sequence[Place], share: float) -> set[int]:
    flat = torch.cat([units.raw[place] for place in neurons])
    return set(flat.topk(max(1, round(share * len(flat)))).indices.tolist())


def _jaccard(left: set[int], right: set[int]) -> float:
    return len(left & right) / len(left | right)
