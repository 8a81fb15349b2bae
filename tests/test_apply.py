"""Updates make memories give their targets, layer after layer, and leave a model exactly as it was."""

from functools import cache

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import CONFIGS, REQUESTS, tiny_model, tiny_tokenizer
from xledit.editing.apply import add_update, edited, editing
from xledit.editing.least_change import Solver
from xledit.editing.locate import ClosedForm, solve_layers
from xledit.editing.memory import read_memories
from xledit.editing.methods.alphaedit import AlphaEdit
from xledit.editing.methods.emmet import Emmet
from xledit.editing.methods.memit import Memit
from xledit.editing.methods.r_rome import RRome
from xledit.editing.methods.rome import Rome
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment
from xledit.models.family import memory_of, weight_as_out_by_in

LAYERS = (0, 1, 3)
EXACT = Memit(old_key_weight=1e-12, regularisation=1e-9)
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGETS = {layer: normal(len(REQUESTS), 32, seed=layer) for layer in LAYERS}


def width(model: PreTrainedModel) -> int:
    """The size of a key."""
    return weight_as_out_by_in(memory_of(model, 0)).shape[1]


def updates_for(model: PreTrainedModel) -> dict[int, LayerUpdate]:
    return {layer: LayerUpdate(left=normal(32, 3, seed=layer), right=normal(3, width(model), seed=layer + 9)) for layer in LAYERS}


def old_keys(model: PreTrainedModel, layer: int) -> SecondMoment:
    return SecondMoment(torch.diag(normal(width(model), seed=layer).exp()), 1000)


def weights(model: PreTrainedModel) -> dict[str, bytes]:
    """All parameters and buffers, as bytes."""
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


def memory_names(model: PreTrainedModel) -> set[str]:
    memories = {id(memory_of(model, layer).get_parameter("weight")) for layer in LAYERS}
    return {name for name, parameter in model.named_parameters() if id(parameter) in memories}


def facts_at(
    model: PreTrainedModel, layer: int, targets: dict[int, Tensor] = TARGETS, num_prefixes: int = 0, max_tokens: int = 10_000
) -> Facts:
    """The facts as a layer of the model has them now."""
    memory = read_memories(model, tiny_tokenizer(), REQUESTS, [layer], num_prefixes, max_tokens)[layer]
    return Facts(**vars(memory), targets=targets[layer])


def values(model: PreTrainedModel, layer: int, num_prefixes: int = 0) -> Tensor:
    return facts_at(model, layer, num_prefixes=num_prefixes).values


def solvers_of(model: PreTrainedModel, method: ClosedForm) -> dict[int, Solver]:
    return {layer: method.solver(old_keys(model, layer)) for layer in LAYERS}


def no_past(model: PreTrainedModel) -> dict[int, Past]:
    return {layer: Past.none(width(model), 32) for layer in LAYERS}


def solved(
    model: PreTrainedModel,
    method: ClosedForm = EXACT,
    targets: dict[int, Tensor] = TARGETS,
    num_prefixes: int = 0,
    max_tokens: int = 10_000,
) -> dict[int, LayerUpdate]:
    return solve_layers(
        model, method, solvers_of(model, method), no_past(model), lambda layer: facts_at(model, layer, targets, num_prefixes, max_tokens)
    )[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_edited_model_comes_back_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name).to(dtype)  # pyright: ignore[reportArgumentType]
    before, updates = weights(model), updates_for(model)
    with edited(model, updates):
        assert {key for key, content in weights(model).items() if content != before[key]} == memory_names(model)
    assert weights(model) == before
    with pytest.raises(KeyboardInterrupt), edited(model, updates):
        raise KeyboardInterrupt
    assert weights(model) == before


def test_a_second_edit_inside_the_first_is_undone_alone(model: PreTrainedModel) -> None:
    before, updates = weights(model), updates_for(model)
    with edited(model, updates):
        once = weights(model)
        with edited(model, {1: updates[3]}):
            assert weights(model) != once
        assert weights(model) == once
    assert weights(model) == before


def test_an_update_adds_its_dense_change_to_the_memory(model: PreTrainedModel) -> None:
    memory, updates = memory_of(model, 1), updates_for(model)
    before = weight_as_out_by_in(memory).double()
    with edited(model, updates):
        torch.testing.assert_close(weight_as_out_by_in(memory).double() - before, updates[1].dense(), rtol=1e-5, atol=1e-5)


def test_an_update_of_another_shape_is_refused_and_leaves_nothing_behind(model: PreTrainedModel) -> None:
    before = weights(model)
    with (
        pytest.raises(
            ValueError, match=rf"layer 3: the update is \(32, 31\), the memory \(32, {width(model)}\); is it from another model\?"
        ),
        edited(model, updates_for(model) | {3: LayerUpdate(normal(32, 2), normal(2, 31))}),
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
            met = facts_at(model, layer)
        wanted = EXACT.solver(old_keys(model, layer))(met, no_past(model)[layer])
        torch.testing.assert_close(updates[layer].dense(), wanted.dense(), rtol=1e-4, atol=1e-4)


def test_the_facts_as_met_are_those_that_each_layer_was_solved_with(model: PreTrainedModel) -> None:
    updates, met = solve_layers(model, EXACT, solvers_of(model, EXACT), no_past(model), lambda layer: facts_at(model, layer))
    assert list(met) == list(updates) == list(LAYERS)
    for index, layer in enumerate(LAYERS):
        with edited(model, {below: updates[below] for below in LAYERS[:index]}):
            torch.testing.assert_close(vars(met[layer]), vars(facts_at(model, layer)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", [Rome(regularisation=1e-3), RRome(regularisation=1e-3)], ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_one_fact_after_another_is_the_published_formula_on_the_model_that_the_earlier_ones_left(name: str, method: Rome | RRome) -> None:
    """arXiv 2202.05262, eq. 2, with an explicit inverse and every value read from the edited model."""
    model, wanted = cached_model(name), dict[int, Tensor]()
    with editing(model) as add:
        for layer in LAYERS:
            wanted[layer] = torch.zeros(32, 32, dtype=torch.float64)
            metric = old_keys(model, layer).matrix + 1e-3 * old_keys(model, layer).matrix.diagonal().mean() * torch.eye(
                32, dtype=torch.float64
            )
            for index in range(len(REQUESTS)):
                facts = facts_at(model, layer, num_prefixes=2)
                scaling = facts.bare_keys if isinstance(method, Rome) else facts.keys
                direction = torch.linalg.inv(metric) @ facts.keys[index]
                update = LayerUpdate(((TARGETS[layer] - facts.values)[index] / (direction @ scaling[index]))[:, None], direction[None])
                add(layer, update)
                wanted[layer] += update.dense()
    for layer, update in solved(model, method, num_prefixes=2).items():
        torch.testing.assert_close(update.dense(), wanted[layer], rtol=1e-3, atol=1e-3)


def test_a_method_is_told_what_is_past_in_each_layer() -> None:
    model, method = cached_model("llama"), AlphaEdit(null_energy=0.5, ridge=0.1)
    past = {layer: Past(normal(3, 32, seed=layer), normal(3, 32), normal(2, 32, seed=layer + 7)) for layer in LAYERS}
    updates, met = solve_layers(model, method, solvers_of(model, method), past, lambda layer: facts_at(model, layer))
    for layer, update in updates.items():
        wanted = method.solver(old_keys(model, layer))(met[layer], past[layer])
        torch.testing.assert_close(update.dense(), wanted.dense())
        assert not torch.allclose(
            update.dense(), method.solver(old_keys(model, layer))(met[layer], no_past(model)[layer]).dense(), rtol=0.1
        )


@pytest.mark.parametrize(
    "method", [EXACT, AlphaEdit(null_energy=0.5, ridge=0.1), Rome(regularisation=0.1)], ids=lambda method: type(method).__name__
)
def test_solving_leaves_the_model_bit_for_bit_as_it_was(model: PreTrainedModel, method: ClosedForm) -> None:
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


def test_a_method_without_a_solution_is_named_with_its_settings_and_the_model_is_as_it_was() -> None:
    model, method = cached_model("llama"), Emmet(regularisation=0.01)
    before = weights(model)

    def one_key_in_layer_1(layer: int) -> Facts:
        facts = facts_at(model, layer)
        return facts.take([0, 0] if layer == 1 else [0, 1])

    with pytest.raises(ValueError, match=r"Emmet, layer 1: the solve has no finite solution.*regularisation=0\.01"):
        solve_layers(model, method, solvers_of(model, method), no_past(model), one_key_in_layer_1)
    assert weights(model) == before


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text"])
def test_several_updates_of_one_memory_add_up_and_are_undone_together(name: str) -> None:
    model = cached_model(name)
    before, weight, updates = weights(model), weight_as_out_by_in(memory_of(model, 1)).double(), updates_for(model)
    with pytest.raises(KeyboardInterrupt), editing(model) as add:
        for layer in (1, 3, 1):
            add(1, updates[layer])
        torch.testing.assert_close(
            weight_as_out_by_in(memory_of(model, 1)).double(), weight + 2 * updates[1].dense() + updates[3].dense(), rtol=1e-5, atol=1e-5
        )
        raise KeyboardInterrupt
    assert weights(model) == before


def test_the_sum_of_weight_and_change_is_rounded_once() -> None:
    model = tiny_model("llama").bfloat16()
    before = weight_as_out_by_in(memory_of(model, 2)).double()
    update = LayerUpdate(normal(32, 4), normal(4, 32) / 100)
    add_update(model, 2, update)
    torch.testing.assert_close(weight_as_out_by_in(memory_of(model, 2)), (before + update.dense()).bfloat16(), rtol=0, atol=0)
