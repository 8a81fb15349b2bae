"""Keys, values and loss gradients at the tokens that predict an answer, from one forward and backward pass.

UltraEdit stores them in place of v*.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.tensors import Facts
from xledit.models.family import head_logits, memory_of
from xledit.models.prompts import encode_request, padded_batches, teacher_forced
from xledit.models.tracing import hooked, read
from xledit.records import EditRequest


def answer_facts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], layers: Sequence[int], max_tokens: int
) -> dict[int, Facts]:
    """Return by layer one row for each answer token: key and value at the token that predicts it, in the order of the requests.

    The target is the value minus the gradient of the answers' summed negative log-probability (nats). All layers are read in one pass,
    before any of them is changed, as in arXiv 2505.14679.
    """
    rows = [teacher_forced(*encode_request(tokenizer, request)) for request in requests]
    by_layer: dict[int, dict[int, tuple[Tensor, Tensor, Tensor]]] = {layer: {} for layer in layers}
    for batch, ids, mask in padded_batches([row.tokens for row in rows], max_tokens, model.device):
        sizes = [len(rows[index].answer) for index in batch]
        places = torch.arange(len(batch)).repeat_interleave(torch.tensor(sizes))
        columns = torch.tensor([position for index in batch for position in rows[index].positions])
        answer_tokens = torch.tensor([token for index in batch for token in rows[index].answer], device=model.device)
        seen: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        with ExitStack() as stack, torch.enable_grad():
            for layer in layers:
                stack.enter_context(hooked(memory_of(model, layer).register_forward_hook(_opened(seen, layer))))
            hidden = read(model, ids, mask, use_cache=False)
            functional.cross_entropy(head_logits(model, hidden[places, columns]).float(), answer_tokens, reduction="sum").backward()
        for layer, (key, value, change) in seen.items():
            gradient = change.grad
            assert gradient is not None
            parts = [tensor[places, columns].detach().cpu().double() for tensor in (key, value, gradient)]
            by_layer[layer] |= dict(zip(batch, zip(*(part.split(sizes) for part in parts), strict=True), strict=True))
    facts = {}
    for layer, by_request in by_layer.items():
        keys, values, gradients = (torch.cat([by_request[index][part] for index in range(len(requests))]) for part in range(3))
        facts[layer] = Facts(keys=keys, values=values, targets=values - gradients, bare_keys=keys)
    return facts


def _opened(seen: dict[int, tuple[Tensor, Tensor, Tensor]], layer: int) -> Callable[..., Tensor]:
    """Return a hook that stores a memory's input and output, and adds zeros to the output.

    The gradient of these zeros is the loss's gradient with respect to the output.
    """

    def hook(_module: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = torch.zeros_like(output, requires_grad=True)
        seen[layer] = inputs[0].detach().clone(), output.detach().clone(), change
        return output + change

    return hook
