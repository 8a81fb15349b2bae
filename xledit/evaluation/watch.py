"""Check a model while it is edited: perplexity of held-out text, recall of stored facts, growth of the edited weights."""

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.evaluation.checks import Check, collapsed
from xledit.models.family import head_logits, memory_of
from xledit.models.prompts import AnswerRow, encode_request, encode_text, opening_tokens, padded_batches, teacher_forced
from xledit.models.tracing import read
from xledit.records import EditRequest

# numbers in memory at a time: 128 MiB of float32, 128 tokens of a 262,144-word head
LOGITS_AT_ONCE = 2**25


class WatchParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``watch`` section of params.yaml.

    ``facts`` is the largest number of earlier facts, and of newest ones, that are asked after a batch. ``text`` is held-out text by
    language, one passage a line, of which the first ``passages`` are read: more makes perplexity more precise, and each check slower.
    ``files`` is the folder of these texts, for DVC to watch. ``max_tokens`` bounds a batch: memory and speed, not results.
    """

    facts: int
    max_tokens: int
    passages: int
    text: dict[str, str]
    files: str

    def __post_init__(self) -> None:
        for name, least in (("facts", 2), ("max_tokens", 1), ("passages", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"watch.{name} is {getattr(self, name)}; it must be at least {least}")


class Watch:
    """Checks a model before it is edited, and again after each batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        params: WatchParams,
        texts: Mapping[str, Sequence[str]],
        layers: Sequence[int],
        seed: int,
    ) -> None:
        self._model, self._tokenizer, self._params, self._layers, self._seed = model, tokenizer, params, layers, seed
        self._texts = {code: passages[: params.passages] for code, passages in texts.items()}
        self._unedited_nats = self._nats()
        self._norms = memory_norms(model, layers)

    def unedited(self, requests: Mapping[str, Sequence[EditRequest]]) -> Check:
        """Return the check of the model before it is edited, on its first facts. ``requests`` are by edited language."""
        return self._check(requests, 0, range(self._params.facts), range(0), self._unedited_nats)

    def check(self, requests: Mapping[str, Sequence[EditRequest]], places: slice) -> Check:
        """Return the check of the model when the facts before ``places.stop`` are stored, those at ``places`` being the newest."""
        return self._check(requests, places.stop, range(places.start, places.stop), range(places.start), self._nats())

    def _check(
        self, requests: Mapping[str, Sequence[EditRequest]], num_facts: int, newest: range, earlier: range, nats: dict[str, float]
    ) -> Check:
        return Check(
            num_facts=num_facts,
            fresh=self._share(requests, newest),
            kept=self._share(requests, earlier) if earlier else None,
            text_nats=dict(nats),
            weight_norms={str(layer): norm / self._norms[layer] for layer, norm in memory_norms(self._model, self._layers).items()},
            collapsed=collapsed(nats, self._unedited_nats),
        )

    def _nats(self) -> dict[str, float]:
        return {code: text_nats(self._model, self._tokenizer, texts, self._params.max_tokens) for code, texts in self._texts.items()}

    def _share(self, requests: Mapping[str, Sequence[EditRequest]], facts: range) -> float:
        """Return the share of a sample of facts that the model recalls, over all edited languages."""
        places = [facts[index] for index in earlier_sample(len(facts), self._params.facts, self._seed)]
        asked = [language_requests[place] for language_requests in requests.values() for place in places if place < len(language_requests)]
        said = recalled(self._model, self._tokenizer, asked, self._params.max_tokens)
        return sum(said) / len(said)


@torch.no_grad()
def text_nats(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> float:
    """Return the mean negative log-probability of a token (nats) over all tokens of the texts; perplexity is ``exp`` of it.

    Each text is read by itself after the tokenizer's opening tokens, which are not counted; where there are none, the text's first token is
    not counted, because nothing predicts it. ``max_tokens`` bounds a batch (memory and speed, not results). NaN and infinity are returned
    as they are: that a model has collapsed is a result.

    Raises ValueError when no text has a token to count.
    """
    first = max(1, len(opening_tokens(tokenizer)))
    rows = [row for row in (encode_text(tokenizer, text) for text in texts) if len(row) > first]
    if not rows:
        raise ValueError(f"{len(texts)} held-out texts have no token to predict; give texts of a sentence or more")
    total = 0.0
    for _batch, ids, mask in padded_batches(rows, max_tokens, model.device):
        counted = mask[:, first:].bool()
        states = read(model, ids, mask, use_cache=False)[:, first - 1 : -1][counted]
        next_tokens = ids[:, first:][counted]
        start = 0
        for logits in _logits(model, states):
            total += cross_entropy(logits, next_tokens[start : start + len(logits)], reduction="none").double().sum().item()
            start += len(logits)
    return total / sum(len(row) - first for row in rows)


def recalled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], max_tokens: int) -> list[bool]:
    """Return for each request whether every token of its new answer is the argmax, teacher forced, as in ``exact_forced``.

    It runs prompt and answer in one pass and generates nothing. ``max_tokens`` bounds a batch (memory and speed, not results).
    """
    return said_whole(model, [teacher_forced(*encode_request(tokenizer, request)) for request in requests], max_tokens)


@torch.no_grad()
def said_whole(model: PreTrainedModel, rows: Sequence[AnswerRow], max_tokens: int) -> list[bool]:
    """Return for each row whether every token of its answer is the argmax at its position."""
    is_whole: dict[int, bool] = {}
    for batch, ids, mask in padded_batches([row.tokens for row in rows], max_tokens, model.device):
        states = read(model, ids, mask, use_cache=False)
        due = torch.cat([states[place, list(rows[index].positions)] for place, index in enumerate(batch)])
        said = torch.cat([logits.argmax(-1) for logits in _logits(model, due)]).cpu()
        for index, part in zip(batch, said.split([len(rows[index].answer) for index in batch]), strict=True):
            is_whole[index] = tuple(part.tolist()) == rows[index].answer
    return [is_whole[index] for index in range(len(rows))]


def memory_norms(model: PreTrainedModel, layers: Sequence[int]) -> dict[int, float]:
    """Return the Frobenius norm of each layer's memory, summed in float64; NaN is returned as it is."""
    return {layer: memory_of(model, layer).get_parameter("weight").detach().double().norm().item() for layer in layers}


def earlier_sample(num_earlier: int, size: int, seed: int) -> list[int]:
    """Return which of ``num_earlier`` facts, oldest first, to ask again: at most ``size`` indices, ascending.

    The facts are cut into ``size`` equal parts, and one fact of each is drawn, so that no part of the past is never asked. The first part
    gives its oldest fact, the last part its newest. All facts are returned if there are at most ``size``. The same seed gives the same
    indices.

    Raises ValueError when ``size`` is less than 2.
    """
    if size < 2:
        raise ValueError(f"a sample of {size} earlier facts cannot hold the oldest and the newest; ask at least 2")
    if num_earlier <= size:
        return list(range(num_earlier))
    draw = random.Random(seed)
    bounds = [stretch * num_earlier // size for stretch in range(size + 1)]
    between = [draw.randrange(start, stop) for start, stop in pairwise(bounds[1:-1])]
    return [0, *between, num_earlier - 1]


def _logits(model: PreTrainedModel, states: Float[Tensor, "tokens d_model"]) -> Iterator[Float[Tensor, "piece vocab"]]:
    """Yield the states' logits, float32, few tokens at a time, because those of a whole batch may not fit into memory."""
    head = model.get_output_embeddings()
    assert head is not None
    for piece in states.split(max(1, LOGITS_AT_ONCE // head.get_parameter("weight").shape[0])):
        yield head_logits(model, piece).float()
