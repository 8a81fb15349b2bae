"""Read the memory of a layer at a fact's subject: its input is the key, its output the value."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.tensors import LayerMemory
from xledit.languages import language
from xledit.models.family import memory_of, weight_as_out_by_in
from xledit.models.prompts import Prompt, encode_prompt, padded_batches
from xledit.models.tracing import record
from xledit.records import EditRequest


def contexts(tokenizer: PreTrainedTokenizerBase, request: EditRequest, num_prefixes: int) -> list[Prompt]:
    """Return ``1 + num_prefixes`` prompts: the request's own, then the same after each of the first openings of its language.

    Raises ValueError when the language has fewer openings.
    """
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
    value_of: Callable[[PreTrainedModel, int], nn.Module] = memory_of,
) -> dict[int, LayerMemory]:
    """Return keys and values of each layer at the last token of every request's subject, float64 on the CPU.

    They are means over a request's ``1 + num_prefixes`` contexts. ``value_of`` gives the module whose output is called the value, by
    default the memory itself. ``max_tokens`` bounds a batch (memory and speed, not results).
    """
    prompts = [contexts(tokenizer, request, num_prefixes) for request in requests]
    rows = [(fact, prompt, place == 0) for fact, facts_prompts in enumerate(prompts) for place, prompt in enumerate(facts_prompts)]
    modules = [module for layer in layers for module in (memory_of(model, layer), value_of(model, layer))]
    sums: dict[int, list[Tensor]] = {}
    for layer in layers:
        d_out, d_in = weight_as_out_by_in(memory_of(model, layer)).shape
        sums[layer] = [torch.zeros(len(requests), size, dtype=torch.float64) for size in (d_in, d_out, d_in)]
    # the model is causal: tokens after the subject do not change its key, so rows end there
    cut = [prompt.tokens[: prompt.subject_last + 1] for _fact, prompt, _bare in rows]
    for batch, ids, mask in padded_batches(cut, max_tokens):
        last = torch.tensor([len(cut[index]) - 1 for index in batch])
        facts = torch.tensor([rows[index][0] for index in batch])
        bare = torch.tensor([rows[index][2] for index in batch])
        seen = record(model, modules, ids, mask)
        for layer, (keys, _value), (_input, values) in zip(layers, seen[::2], seen[1::2], strict=True):
            key, value = (tensor[torch.arange(len(batch)), last].cpu().double() for tensor in (keys, values))
            for total, places, tensor in zip(sums[layer], (facts, facts, facts[bare]), (key, value, key[bare]), strict=True):
                total.index_add_(0, places, tensor)
    return {
        layer: LayerMemory(keys / (1 + num_prefixes), values / (1 + num_prefixes), bare_keys)
        for layer, (keys, values, bare_keys) in sums.items()
    }
