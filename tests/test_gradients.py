"""What UltraEdit stores: key, value and gradient at each token that an answer token is read off, as whole passes of one fact have them."""

from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

from tests.test_targets import shifted
from tests.tiny import REQUESTS, tiny_model, tiny_tokenizer
from xledit.editing.gradients import answer_facts
from xledit.models.family import memory_of
from xledit.models.prompts import encode_answer, encode_text
from xledit.models.tracing import record

LAYERS = (1, 2)
cached_model = cache(tiny_model)


@pytest.fixture(params=["llama", "gpt2", "gptj", "gemma3_text"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_each_answer_token_has_its_key_value_and_gradient(model: PreTrainedModel, max_tokens: int) -> None:
    found = answer_facts(model, tiny_tokenizer(), REQUESTS, LAYERS, max_tokens)
    assert list(found) == list(LAYERS)
    row = 0
    for request in REQUESTS:
        prompt, answer = (
            encode_text(tiny_tokenizer(), request.prompt),
            encode_answer(tiny_tokenizer(), request.target_new, request.language),
        )
        ids = torch.tensor([prompt + answer[:-1]])
        seen = record(model, [memory_of(model, layer) for layer in LAYERS], ids, torch.ones_like(ids))
        for place in range(len(prompt) - 1, ids.shape[1]):
            changes = {memory_of(model, layer): torch.zeros(32, requires_grad=True) for layer in LAYERS}
            with shifted(place, changes):
                logprobs = model(ids).logits[0, len(prompt) - 1 :].log_softmax(-1)
            (-logprobs[torch.arange(len(answer)), list(answer)].sum()).backward()
            for layer, (keys, values) in zip(LAYERS, seen, strict=True):
                gradient, facts = changes[memory_of(model, layer)].grad, found[layer]
                assert gradient is not None
                torch.testing.assert_close(facts.keys[row], keys[0, place].double(), rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(facts.values[row], values[0, place].double(), rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(-facts.residuals[row], gradient.double(), rtol=1e-3, atol=1e-5)
            row += 1
    assert row == len(found[1].keys)


def test_weights_and_their_gradients_are_left_as_they_were(model: PreTrainedModel) -> None:
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for weight in model.parameters():
        weight.grad = None
    answer_facts(model, tiny_tokenizer(), REQUESTS, LAYERS, 100)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
