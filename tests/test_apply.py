"""Updates make memories give their targets, layer after layer, and leave a model exactly as it was."""

from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from tests.tiny import CONFIGS, REQUESTS, VOCABULARY, tiny_model, tiny_tokenizer
from xledit.editing.apply import add_update, edited, solve_layers
from xledit.editing.memory import read_memories
from xledit.editing.second_moment import SecondMoment
from xledit.editing.solvers import AlphaEdit, LayerUpdate, Memit, Method, least_change
from xledit.models.families import FAMILIES, Family, memory_of, weight_as_out_by_in

LAYERS = (0, 1, 3)
EXACT = Memit(old_key_weight=1e-12, regularisation=1e-9)
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


UPDATES = {layer: LayerUpdate(left=normal(32, 3, seed=layer), right=normal(3, 32, seed=layer + 9)) for layer in LAYERS}
OLD_KEYS = {layer: SecondMoment(torch.diag(normal(32, seed=layer).exp()), 1000) for layer in LAYERS}
TARGETS = {layer: normal(len(REQUESTS), 32, seed=layer) for layer in LAYERS}


def weights(model: PreTrainedModel) -> dict[str, bytes]:
    """All parameters and buffers, as bytes."""
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


def values(model: PreTrainedModel, layer: int, num_prefixes: int = 0) -> Tensor:
    return read_memories(model, tiny_tokenizer(), REQUESTS, [layer], num_prefixes, 10_000)[layer].values


def solved(
    model: PreTrainedModel, method: Method = EXACT, targets: dict[int, Tensor] = TARGETS, num_prefixes: int = 0, max_tokens: int = 10_000
) -> dict[int, LayerUpdate]:
    return solve_layers(model, tiny_tokenizer(), REQUESTS, targets, OLD_KEYS, method, num_prefixes, max_tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_edited_model_comes_back_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name).to(dtype)
    before = weights(model)
    with edited(model, UPDATES):
        assert {key for key, content in weights(model).items() if content != before[key]} == {
            f"model.layers.{layer}.mlp.down_proj.weight" for layer in LAYERS
        }
    assert weights(model) == before
    with pytest.raises(KeyboardInterrupt), edited(model, UPDATES):
        raise KeyboardInterrupt
    assert weights(model) == before


def test_a_second_edit_inside_the_first_is_undone_alone(model: PreTrainedModel) -> None:
    before = weights(model)
    with edited(model, UPDATES):
        once = weights(model)
        with edited(model, {1: UPDATES[3]}):
            assert weights(model) != once
        assert weights(model) == once
    assert weights(model) == before


def test_an_update_adds_its_dense_change_to_the_memory(model: PreTrainedModel) -> None:
    memory = memory_of(model, 1)
    before = weight_as_out_by_in(memory).double()
    with edited(model, UPDATES):
        torch.testing.assert_close(weight_as_out_by_in(memory).double() - before, UPDATES[1].dense(), rtol=1e-5, atol=1e-5)


def test_an_update_of_another_shape_is_refused_and_leaves_nothing_behind(model: PreTrainedModel) -> None:
    before = weights(model)
    with (
        pytest.raises(ValueError, match=r"layer 3: the update is \(32, 31\), the memory \(32, 32\); is it from another model\?"),
        edited(model, UPDATES | {3: LayerUpdate(normal(32, 2), normal(2, 31))}),
    ):
        pytest.fail("the model must not be edited")
    assert weights(model) == before


@pytest.mark.parametrize("num_prefixes", [0, 2])
def test_solved_updates_give_every_fact_its_target_in_every_layer(model: PreTrainedModel, num_prefixes: int) -> None:
    updates = solved(model, num_prefixes=num_prefixes)
    with edited(model, updates):
        for layer in LAYERS:
            torch.testing.assert_close(values(model, layer, num_prefixes), TARGETS[layer], rtol=1e-4, atol=1e-4)


def test_keys_and_values_of_a_layer_are_read_after_the_layers_below_have_changed(model: PreTrainedModel) -> None:
    updates = solved(model)
    for index, layer in enumerate(LAYERS):
        with edited(model, {below: updates[below] for below in LAYERS[:index]}):
            memory = read_memories(model, tiny_tokenizer(), REQUESTS, [layer], 0, 10_000)[layer]
        wanted = EXACT.solver(OLD_KEYS[layer])(memory.keys, TARGETS[layer] - memory.values)
        torch.testing.assert_close(updates[layer].dense(), wanted.dense(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [EXACT, AlphaEdit(null_energy=0.5, ridge=0.1)])
def test_solving_leaves_the_model_bit_for_bit_as_it_was(model: PreTrainedModel, method: Method) -> None:
    before = weights(model)
    solved(model, method)
    assert weights(model) == before


def test_updates_are_the_same_for_one_fact_in_a_batch_and_for_many(model: PreTrainedModel) -> None:
    one_by_one, together = solved(model, num_prefixes=1, max_tokens=1), solved(model, num_prefixes=1)
    for layer in LAYERS:
        torch.testing.assert_close(one_by_one[layer].dense(), together[layer].dense(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_target_that_is_not_finite_names_the_method_and_the_layer_and_leaves_the_model_as_it_was(
    model: PreTrainedModel, bad: float
) -> None:
    before, targets = weights(model), {layer: target.clone() for layer, target in TARGETS.items()}
    targets[1][2, 5] = bad
    with pytest.raises(ValueError, match=r"Memit, layer 1: .*not finite.*old_key_weight"):
        solved(model, targets=targets)
    assert weights(model) == before


def test_a_method_without_a_solution_is_named_with_its_settings() -> None:
    with pytest.raises(ValueError, match=r"AlphaEdit, layer 0: .*no null space.*null_energy=1e-09"):
        solved(cached_model("llama"), AlphaEdit(null_energy=1e-9, ridge=0.1))


def test_a_family_that_stores_its_memory_transposed_needs_only_a_row_to_be_edited_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "gpt2", Family(layers="transformer.h", memory="mlp.c_proj", final_norm="transformer.ln_f"))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_inner=32, n_layer=4, n_head=4)).eval()
    model.requires_grad_(False)
    before = weights(model)
    memory = read_memories(model, tiny_tokenizer(), REQUESTS, [1], 0, 10_000)[1]
    with edited(model, {1: least_change(memory.keys, memory.keys, TARGETS[1] - memory.values, ridge=0)}):
        torch.testing.assert_close(values(model, 1), TARGETS[1], rtol=1e-4, atol=1e-4)
    with edited(model, solved(model)):
        torch.testing.assert_close(values(model, 3), TARGETS[3], rtol=1e-4, atol=1e-4)
    assert weights(model) == before


def test_the_sum_of_weight_and_change_is_rounded_once() -> None:
    model = tiny_model("llama").bfloat16()
    before = weight_as_out_by_in(memory_of(model, 2)).double()
    update = LayerUpdate(normal(32, 4), normal(4, 32) / 100)
    add_update(model, 2, update)
    torch.testing.assert_close(weight_as_out_by_in(memory_of(model, 2)), (before + update.dense()).bfloat16(), rtol=0, atol=0)
