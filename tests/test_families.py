"""The rows of ``FAMILIES`` name what they claim to name, on a tiny random model of each family."""

import pytest
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tests.tiny import CONFIGS, VOCABULARY, tiny_model
from xledit.families.table import FAMILIES, known_family
from xledit.models import fuxitranyu
from xledit.models.family import check_layers, family_of, final_norm_of, head_logits, layers_of, memory_of, weight_as_out_by_in
from xledit.models.tracing import added, record

IDS = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
LAYERS = range(4)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


def test_a_checkpoint_that_we_trained_has_the_row_of_its_family() -> None:
    assert FAMILIES["fuxitranyu"] == fuxitranyu.FAMILY


def test_every_family_has_a_tiny_model() -> None:
    assert {config.model_type for config in CONFIGS.values()} == set(FAMILIES)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_change_of_the_memorys_value_reaches_the_residual_stream_through_the_norm_of_the_row_and_nothing_else(
    model: PreTrainedModel, layer: int
) -> None:
    memory, block = memory_of(model, layer), layers_of(model)[layer]
    norm = family_of(model).norm_after_memory
    (_key, value), (_before, residual) = record(model, [memory, block], IDS, MASK)
    delta = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    with added(memory, lambda output: output + delta):
        ((_before, changed),) = record(model, [block], IDS, MASK)
    expected = delta if norm is None else block.get_submodule(norm)(value + delta) - block.get_submodule(norm)(value)
    torch.testing.assert_close(changed - residual, expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_memorys_value_is_its_weight_times_its_key(model: PreTrainedModel, layer: int) -> None:
    memory = memory_of(model, layer)
    ((key, value),) = record(model, [memory], IDS, MASK)
    bias = 0 if memory.bias is None else memory.get_parameter("bias")
    torch.testing.assert_close(key @ weight_as_out_by_in(memory).T + bias, value)


def test_a_weight_stored_transposed_is_seen_out_by_in_without_a_copy() -> None:
    memory = Conv1D(nf=5, nx=3)
    weight, key = weight_as_out_by_in(memory), torch.randn(4, 3)
    assert weight.shape == (5, 3)
    torch.testing.assert_close(key @ weight.T + memory.bias, memory(key))
    with torch.no_grad():
        weight[4, 0] = 7
    assert memory.weight[0, 4] == 7


def assert_the_head_gives_the_models_own_logits(model: PreTrainedModel) -> None:
    output = model(IDS, attention_mask=MASK, output_hidden_states=True)
    ((_last, normed),) = record(model, [final_norm_of(model)], IDS, MASK)
    torch.testing.assert_close(normed, output.hidden_states[-1])
    torch.testing.assert_close(head_logits(model, normed), output.logits)


def test_the_head_of_the_normed_last_state_gives_the_models_own_logits(model: PreTrainedModel) -> None:
    assert_the_head_gives_the_models_own_logits(model)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0,)])
def test_the_head_takes_states_of_any_shape(model: PreTrainedModel, shape: tuple[int, ...]) -> None:
    hidden = torch.randn(*shape, 32, generator=torch.Generator().manual_seed(2))
    logits = head_logits(model, hidden)
    assert logits.shape == (*shape, VOCABULARY)
    one_by_one = [head_logits(model, state) for state in hidden.reshape(-1, 32)]
    for found, wanted in zip(logits.reshape(-1, VOCABULARY), one_by_one, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_head_caps_logits_softly_where_the_model_does() -> None:
    model = tiny_model("gemma3_text")
    model.config.final_logit_softcapping = 3.0
    assert model(IDS).logits.abs().max() < 3
    assert_the_head_gives_the_models_own_logits(model)


def test_an_unknown_family_is_told_the_known_ones_and_the_row_to_add() -> None:
    with pytest.raises(
        ValueError,
        match=r"'opt' has no row; known: llama, .*falcon\. Add \"opt\": Family\(.*families/table\.py, or set model\.family: auto",
    ):
        known_family("opt")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "edit.layers is empty"),
        ((4,), "no layer 4; it has layers 0 to 3"),
        ((-1, 2), "no layer -1"),
        ((2, 1), r"\[2, 1\] must ascend"),
        ((1, 1), "name no layer twice"),
    ],
)
def test_layers_that_are_none_absent_unordered_or_repeated_are_refused(layers: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_layers(layers, 4)


def test_ascending_layers_of_the_model_are_accepted() -> None:
    check_layers((0, 2, 3), 4)


def test_a_layer_the_model_does_not_have_has_no_memory() -> None:
    with pytest.raises(ValueError, match="no layer 4"):
        memory_of(tiny_model("llama"), 4)
