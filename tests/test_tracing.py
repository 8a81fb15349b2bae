"""What is read from a forward pass, and what the upper layers give, are transformers' own numbers."""

import copy
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import CONFIGS, VOCABULARY, tiny_model
from xledit.models.family import layers_of, memory_of
from xledit.models.prompts import pad
from xledit.models.tracing import UpperLayers, added, record

Rows = list[tuple[int, ...]]
Case = tuple[Rows, list[int], int, list[int]]
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def random_rows(*lengths: int) -> Rows:
    generator = torch.Generator().manual_seed(len(lengths))
    return [tuple(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()) for length in lengths]


def own_states(model: PreTrainedModel, row: tuple[int, ...]) -> Tensor:
    """The model's own final hidden states of one row by itself, ``[tokens d_model]``."""
    return model.base_model(torch.tensor([row])).last_hidden_state[0]


def num_hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def assert_tails_are_the_models_own(
    model: PreTrainedModel, rows: Rows, tails: list[int], start: int, asked: list[int], atol: float = 1e-5
) -> None:
    with torch.no_grad():
        states = UpperLayers(model, rows, tails, start).run(torch.tensor(asked))
        for found, row in zip(states, asked, strict=True):
            wanted = own_states(model, rows[row])[tails[row] :]
            torch.testing.assert_close(found[: len(wanted)], wanted, rtol=1e-5, atol=atol, msg=lambda text, row=row: f"row {row}: {text}")


def test_record_reads_the_hidden_states_that_transformers_reports_in_the_order_asked(model: PreTrainedModel) -> None:
    rows = random_rows(9, 4, 13)
    ids, mask = pad(rows)
    order = [2, 0, 1]
    seen = record(model, [layers_of(model)[layer] for layer in order], ids, mask)
    for index, row in enumerate(rows):
        states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
        for layer, (inputs, output) in zip(order, seen, strict=True):
            torch.testing.assert_close(inputs[index, : len(row)], states[layer][0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(output[index, : len(row)], states[layer + 1][0], rtol=1e-5, atol=1e-5)


def test_record_reads_what_a_hook_on_the_memory_sees(model: PreTrainedModel) -> None:
    ids, mask = pad(random_rows(8, 8))
    memory, seen = memory_of(model, 2), []
    handle = memory.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0], output.clone())))
    model(ids, attention_mask=mask, use_cache=False)  # a cache stores keys in another layout, which some sums notice
    handle.remove()
    # also when the pass goes on, to where a parallel block has added its attention to the value in place
    torch.testing.assert_close(record(model, [memory, layers_of(model)[2]], ids, mask)[:1], seen, rtol=0, atol=0)


def test_record_runs_no_layer_above_the_last_one_asked_for(model: PreTrainedModel) -> None:
    ran = []
    handles = [layer.register_forward_hook(lambda *_call, index=index: ran.append(index)) for index, layer in enumerate(layers_of(model))]
    record(model, [memory_of(model, 1), memory_of(model, 0)], *pad(random_rows(5)))
    for handle in handles:
        handle.remove()
    assert ran == [0]  # layer 1 stopped inside, at its memory


def test_no_hook_outlives_its_use_also_when_the_pass_fails(model: PreTrainedModel) -> None:
    before = num_hooks(model)
    absent = torch.tensor([[VOCABULARY]])
    record(model, [memory_of(model, 1)], *pad(random_rows(5)))
    with pytest.raises(IndexError):
        record(model, [memory_of(model, 1)], absent, torch.ones_like(absent))
    with pytest.raises(IndexError):
        UpperLayers(model, [(VOCABULARY,)], [0], 1)
    with pytest.raises(ZeroDivisionError), added(memory_of(model, 1), lambda _output: 1 / 0):
        own_states(model, (5, 6))
    assert num_hooks(model) == before


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize(
    ("tails", "asked"),
    [
        ([0, 0, 0, 0, 0], [0, 1, 2, 3, 4]),
        ([0, 16, 20, 1, 4], [4, 2, 0, 3, 1]),
        ([0, 32, 20, 2, 8], [0, 1, 2, 3, 4]),
        ([0, 7, 0, 2, 1], [3, 1]),
    ],
    ids=["whole rows", "middle", "last token", "a few rows"],
)
def test_tails_of_rows_of_very_different_lengths_are_the_models_own(
    model: PreTrainedModel, start: int, tails: list[int], asked: list[int]
) -> None:
    assert_tails_are_the_models_own(model, random_rows(1, 33, 21, 3, 9), tails, start, asked)


@pytest.mark.parametrize("tails", [[0], [13], [0, 0, 0], [5, 13, 0]])
def test_tails_of_rows_of_one_length_which_need_no_padding_are_the_models_own(model: PreTrainedModel, tails: list[int]) -> None:
    assert_tails_are_the_models_own(model, random_rows(*[14] * len(tails)), tails, 1, list(range(len(tails))))


def test_attention_without_a_fused_kernel_gives_the_same_tails(model: PreTrainedModel) -> None:
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    assert_tails_are_the_models_own(eager, random_rows(1, 33, 21, 3, 9), [0, 16, 20, 1, 4], 1, [0, 1, 2, 3, 4])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    token = st.integers(2, VOCABULARY - 1)
    rows = draw(st.lists(st.lists(token, min_size=1, max_size=24).map(tuple), min_size=1, max_size=5))
    tails = [draw(st.integers(0, len(row) - 1)) for row in rows]
    asked = draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    return rows, tails, draw(st.integers(0, 3)), asked


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=20)
@given(case=cases())
def test_any_tails_of_any_rows_from_any_layer_in_any_order_are_the_models_own(name: str, case: Case) -> None:
    assert_tails_are_the_models_own(cached_model(name), *case, atol=5e-5)  # the unluckiest of many thousand numbers


def test_the_upper_layers_can_be_run_again_with_other_rows(model: PreTrainedModel) -> None:
    rows, tails = random_rows(12, 7, 3), [2, 6, 0]
    upper = UpperLayers(model, rows, tails, 1)
    with torch.no_grad():
        first = upper.run(torch.tensor([0, 1, 2]))
        upper.run(torch.tensor([1]))
        torch.testing.assert_close(upper.run(torch.tensor([0, 1, 2])), first, rtol=0, atol=0)


def test_a_change_inside_the_tail_and_its_gradient_are_those_of_the_whole_pass(model: PreTrainedModel) -> None:
    rows, tails, start = random_rows(14, 3, 9), [4, 1, 8], 1
    upper = UpperLayers(model, rows, tails, start)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(3))
    deltas = [(torch.randn(3, 32, generator=torch.Generator().manual_seed(2))).requires_grad_() for _ in range(2)]

    def change_tail(output: Tensor) -> Tensor:
        return torch.cat([output[:, :1] + deltas[0][upper.running][:, None], output[:, 1:]], dim=1)

    with added(memory_of(model, start), change_tail):
        found = upper.run(torch.arange(3))
    (sum((found[i, : len(row) - tails[i]] @ direction).square().sum() for i, row in enumerate(rows))).backward()
    for index, row in enumerate(rows):
        at = torch.nn.functional.one_hot(torch.tensor(tails[index]), len(row)).float()
        with added(memory_of(model, start), lambda output, index=index, at=at: output + at[:, None] * deltas[1][index]):
            wanted = own_states(model, row)[tails[index] :]
        torch.testing.assert_close(found[index, : len(wanted)], wanted)
        (wanted @ direction).square().sum().backward()
    torch.testing.assert_close(deltas[0].grad, deltas[1].grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_half_precision_is_as_close_as_its_rounding_also_where_a_padded_position_sees_nothing(name: str, dtype: torch.dtype) -> None:
    model, rows, tails = tiny_model(name).to(dtype), random_rows(20, 30, 3), [0, 0, 1]
    delta = torch.zeros(32, dtype=dtype, requires_grad=True)
    with added(memory_of(model, 0), lambda output: output + delta):
        found = UpperLayers(model, rows, tails, 0).run(torch.arange(3))
    for index, row in enumerate(rows):
        wanted = own_states(model, row)[tails[index] :]
        torch.testing.assert_close(found[index, : len(wanted)], wanted, rtol=0, atol=0.2)
    sum(found[index, : len(row) - tails[index]].sum() for index, row in enumerate(rows)).backward()
    assert delta.grad.isfinite().all()
