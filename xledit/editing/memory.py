"""What a layer's memory reads and gives at a fact's subject: its key and its value."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.languages import language
from xledit.models.families import memory_of, weight_as_out_by_in
from xledit.models.prompts import Prompt, batches_by_length, encode_prompt, pad
from xledit.models.tracing import record
from xledit.records import EditRequest


@dataclass(frozen=True)
class LayerMemory:
    """Keys and values of one layer at the facts' subjects, float64."""

    keys: Float[Tensor, "facts d_in"]
    values: Float[Tensor, "facts d_model"]


def contexts(tokenizer: PreTrainedTokenizerBase, request: EditRequest, num_prefixes: int) -> list[Prompt]:
    """Return the request's prompt as it is and behind each of the first ``num_prefixes`` openings of its language."""
    openings = language(request.language).prefixes
    if num_prefixes > len(openings):
        raise ValueError(f"vectors.num_prefixes is {num_prefixes}; {request.language} has {len(openings)} prefixes in xledit/languages.py")
    start, end = request.subject_span
    return [
        encode_prompt(tokenizer, opening + request.prompt, (start + len(opening), end + len(opening)))
        for opening in ("", *openings[:num_prefixes])
    ]


def read_memories(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    layers: Sequence[int],
    num_prefixes: int,
    max_tokens: int,
) -> dict[int, LayerMemory]:
    """Return key and value of each layer at the last token of every request's subject, averaged over its contexts."""
    prompts = [contexts(tokenizer, request, num_prefixes) for request in requests]
    rows = [(fact, prompt) for fact, facts_prompts in enumerate(prompts) for prompt in facts_prompts]
    modules = [memory_of(model, layer) for layer in layers]
    # a memory is a matrix from keys to values
    shapes = {layer: weight_as_out_by_in(module).shape for layer, module in zip(layers, modules, strict=True)}
    sums = {
        layer: [torch.zeros(len(requests), size, dtype=torch.float64) for size in (d_in, d_out)] for layer, (d_out, d_in) in shapes.items()
    }
    # nothing after the subject is seen by its key, so rows end there
    cut = [prompt.tokens[: prompt.subject_last + 1] for _fact, prompt in rows]
    for batch in batches_by_length([len(row) for row in cut], max_tokens):
        ids, mask = pad([cut[index] for index in batch])
        last = torch.tensor([len(cut[index]) - 1 for index in batch])
        facts = torch.tensor([rows[index][0] for index in batch])
        for layer, (keys, values) in zip(layers, record(model, modules, ids, mask), strict=True):
            picked = [tensor[torch.arange(len(batch)), last].cpu().double() for tensor in (keys, values)]
            for total, tensor in zip(sums[layer], picked, strict=True):
                total.index_add_(0, facts, tensor)
    return {layer: LayerMemory(*(total / (1 + num_prefixes) for total in sums[layer])) for layer in layers}
