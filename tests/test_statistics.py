"""Second moments of keys are those of one unpadded pass per window, over the text's own tokens and no others."""

from functools import cache

import pytest
import torch
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import CONFIGS, tiny_model, tiny_tokenizer
from xledit.editing.second_moment import second_moments
from xledit.editing.tensors import SecondMoment
from xledit.models.family import memory_of

TEXTS = ["法国的首都是巴黎，日本的首都是东京。", "", "Einstein was born in Ulm, a city on the river Danube.", "红楼梦"]
LAYERS = (0, 2, 3)
EVERYTHING = 10_000
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def tokens_of(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False).input_ids


def naive_keys(model: PreTrainedModel, opening: list[int], max_keys: int, window: int) -> dict[int, Tensor]:
    """The inputs of each memory, ``[keys d_in]``, by one pass per window behind the opening and a plain hook."""
    keys: dict[int, list[Tensor]] = {layer: [] for layer in LAYERS}
    handles = [
        memory_of(model, layer).register_forward_hook(
            lambda _module, inputs, _output, layer=layer: keys[layer].extend(inputs[0][0, len(opening) :])
        )
        for layer in LAYERS
    ]
    for text in TEXTS:
        tokens = tokens_of(text)[: max(0, max_keys - len(keys[0]))]
        for start in range(0, len(tokens), window):
            model(torch.tensor([opening + tokens[start : start + window]]))
    for handle in handles:
        handle.remove()
    return {layer: torch.stack(found).double() for layer, found in keys.items()}


def assert_means(moments: dict[int, SecondMoment], keys: dict[int, Tensor]) -> None:
    for layer in LAYERS:
        assert moments[layer].num_keys == len(keys[layer])
        torch.testing.assert_close(moments[layer].matrix, keys[layer].T @ keys[layer] / len(keys[layer]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("window", "max_keys"), [(1, EVERYTHING), (4, 1), (4, 25), (4, EVERYTHING), (11, 25), (1000, EVERYTHING)])
def test_second_moments_are_the_mean_over_unpadded_passes_without_the_opening_token(
    model: PreTrainedModel, window: int, max_keys: int
) -> None:
    moments = second_moments(model, tiny_tokenizer(), TEXTS, LAYERS, max_keys, window)
    assert moments[0].num_keys == min(max_keys, sum(len(tokens_of(text)) for text in TEXTS))
    assert_means(moments, naive_keys(model, [0], max_keys, window))


def test_every_token_counts_where_a_tokenizer_opens_with_nothing(model: PreTrainedModel) -> None:
    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel()
    bare = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert_means(second_moments(model, bare, TEXTS, LAYERS, EVERYTHING, 4), naive_keys(model, [], EVERYTHING, 4))


def test_progress_adds_up_to_the_keys() -> None:
    done: list[int] = []
    moments = second_moments(cached_model("llama"), tiny_tokenizer(), TEXTS * 20, LAYERS, EVERYTHING, 7, done.append)
    assert len(done) > 1
    assert sum(done) == moments[0].num_keys


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_texts_without_tokens_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="no keys were seen; the corpus has no tokens"):
        second_moments(cached_model("llama"), tiny_tokenizer(), texts, LAYERS, EVERYTHING, 7)


def test_keys_that_are_not_finite_are_refused() -> None:
    model = tiny_model("llama")
    model.get_input_embeddings().weight.data[tokens_of(TEXTS[0])[3]] = torch.nan
    with pytest.raises(ValueError, match="a key of the corpus is not finite"):
        second_moments(model, tiny_tokenizer(), TEXTS, LAYERS, EVERYTHING, 7)
