"""How alike a model's states are for sentences that say the same in different languages, layer by layer, beside their nulls."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import RidgeClassifier
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.geometry.vectors import cosines, likeness
from xledit.interpret.parallel import Parallel
from xledit.interpret.results import Depth, Pairs, Pooling
from xledit.models.family import final_norm_of, layers_of
from xledit.models.prompts import encode_text, opening_tokens, padded_batches
from xledit.models.tracing import record

States = Float[Tensor, "depths sentences d_model"]


def depth_states(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Float[Tensor, "depths batch tokens d_model"]:
    """Return the states before the first layer, after each but the last, and after the final norm: transformers' ``hidden_states``."""
    seen = record(model, [*layers_of(model), final_norm_of(model)], ids, mask)
    return torch.stack([before for before, _after in seen[:-1]] + [seen[-1][1]])


def sentence_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[str], max_tokens: int
) -> dict[Pooling, States]:
    """Return the vectors of sentences at every depth, by pooling, float64 on the CPU. Opening tokens are read but not pooled.

    Raises ValueError for a sentence without tokens. ``max_tokens`` bounds a batch (memory and speed, not results).
    """
    rows, opening = [encode_text(tokenizer, sentence) for sentence in sentences], len(opening_tokens(tokenizer))
    short = next((sentence for sentence, row in zip(sentences, rows, strict=True) if len(row) <= opening), None)
    if short is not None:
        raise ValueError(f"the sentence {short!r} has no tokens")
    pooled: dict[Pooling, dict[int, Tensor]] = {"last": {}, "mean": {}}
    for batch, ids, mask in padded_batches(rows, max_tokens):
        states = depth_states(model, ids, mask).double().cpu()
        counted = mask.clone()
        counted[:, :opening] = 0
        last = states[:, torch.arange(len(batch)), mask.sum(1) - 1]
        mean = torch.einsum("ebtd,bt->ebd", states, counted.double()) / counted.sum(1)[:, None]
        for place, index in enumerate(batch):
            pooled["last"][index], pooled["mean"][index] = last[:, place], mean[:, place]
    return {pooling: torch.stack([kept[index] for index in range(len(rows))], dim=1) for pooling, kept in pooled.items()}


def compare(states: Mapping[str, States], parallel: Parallel, pooling: Pooling, seed: int) -> list[Depth]:
    """Return how alike the languages are at each depth."""
    depths = len(next(iter(states.values())))
    return [
        _compare({code: by_depth[depth] for code, by_depth in states.items()}, parallel, pooling, depth, seed) for depth in range(depths)
    ]


def _compare(states: Mapping[str, Tensor], parallel: Parallel, pooling: Pooling, depth: int, seed: int) -> Depth:
    pairs = [(states[one], states[other]) for one, other in combinations(parallel.languages, 2)]
    order = torch.randperm(len(parallel.groups), generator=torch.Generator().manual_seed(seed))
    halves = order.chunk(2)
    likenesses = [likeness(left, right) for left, right in pairs]
    return Depth(
        depth=depth,
        pooling=pooling,
        means=over([_cosine(left.mean(0), right.mean(0)) for left, right in pairs]),
        means_unrelated=over([_cosine(left[halves[0]].mean(0), right[halves[1]].mean(0)) for left, right in pairs]),
        same=over([alike.same for alike in likenesses]),
        different=over([alike.different for alike in likenesses]),
        centred_same=over([alike.centred_same for alike in likenesses]),
        centred_different=over([alike.centred_different for alike in likenesses]),
        retrieval=over([alike.retrieval for alike in likenesses]),
        retrieval_within=over([retrieval_within(left, right, parallel.groups) for left, right in pairs]),
        mexa=over([mexa(left, right) for left, right in pairs]),
        cka=over([linear_cka(left, right) for left, right in pairs]),
        cka_shuffled=over([linear_cka(left, right[order]) for left, right in pairs]),
        language=probed_language(states, halves, None),
        language_shuffled=probed_language(states, halves, seed),
    )


def retrieval_within(left: Float[Tensor, "n d"], right: Float[Tensor, "n d"], groups: Sequence[str]) -> float:
    """Return the share of rows whose nearest neighbour among the rows of their group on the other side is their own translation.

    Nearest by cosine of centred rows; both directions count.
    """
    alike = cosines(left - left.mean(0), right - right.mean(0))
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    places = torch.tensor([number[group] for group in groups])
    alike = alike.masked_fill(places[:, None] != places[None, :], -torch.inf)
    own = torch.arange(len(left))
    return torch.cat([alike.argmax(1) == own, alike.argmax(0) == own]).double().mean().item()


def mexa(left: Float[Tensor, "n d"], right: Float[Tensor, "n d"]) -> float:
    """Return the share of rows more alike to their translation than either of the two is to any other row (arXiv 2410.05873, section 3).

    By cosine of rows as they are, as there; there one side is English.
    """
    alike = cosines(left, right)
    others = alike.masked_fill(torch.eye(len(alike), dtype=torch.bool), -torch.inf)
    return (alike.diagonal() > torch.maximum(others.amax(0), others.amax(1))).double().mean().item()


def chance_within(groups: Sequence[str]) -> float:
    """Return the ``retrieval_within`` of guessing: the number of groups divided by the number of rows."""
    return len(set(groups)) / len(groups)


def linear_cka(left: Float[Tensor, "n d"], right: Float[Tensor, "n e"]) -> float:
    """Return linear CKA (arXiv 1905.00414, equation 4 with linear kernels): 1 for the same up to rotation and scale, 0 for unrelated.

    Through the rows' inner products, because there are fewer rows than dimensions. NaN where all rows of a side are the same.
    """
    one, other = (centred @ centred.T for centred in (left - left.mean(0), right - right.mean(0)))
    return ((one * other).sum() / (one.norm() * other.norm())).item()


def probed_language(states: Mapping[str, Float[Tensor, "n d"]], halves: Sequence[Int[Tensor, " half"]], shuffle: int | None) -> float:
    """Return the accuracy of a linear probe for the language, trained on the first half of the sentences and tested on the second.

    A sentence and its translations are in the same half. ``shuffle`` is the seed that shuffles the languages in training, for the null;
    None does not shuffle.
    """
    trained, asked = (torch.cat([language_states[half] for language_states in states.values()]) for half in halves)
    is_trained, is_asked = (torch.arange(len(states)).repeat_interleave(len(half)) for half in halves)
    if shuffle is not None:
        is_trained = is_trained[torch.randperm(len(is_trained), generator=torch.Generator().manual_seed(shuffle))]
    middle, scale = trained.mean(0), (trained - trained.mean(0)).norm(dim=1).mean().clamp_min(torch.finfo(torch.float64).tiny)
    probe = RidgeClassifier(alpha=1e-3).fit(((trained - middle) / scale).numpy(), is_trained.numpy())
    return float(probe.score(((asked - middle) / scale).numpy(), is_asked.numpy()))


def over(values: Sequence[float]) -> Pairs:
    """Return the mean, the lowest and the highest of the values that are not NaN."""
    numbers = [value for value in values if not math.isnan(value)]
    return (
        Pairs(mean=sum(numbers) / len(numbers), low=min(numbers), high=max(numbers)) if numbers else Pairs(mean=None, low=None, high=None)
    )


def _cosine(left: Float[Tensor, " d"], right: Float[Tensor, " d"]) -> float:
    return cosines(left[None], right[None]).item()
