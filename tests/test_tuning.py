"""Training finds updates that make the model what was trained, within each method's bounds, and leaves the model as it was."""

import copy
from collections.abc import Callable, Sequence
from functools import cache

import msgspec
import pytest
import torch
from peft import LoraModel
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import CONFIGS, REQUESTS, tiny_model, tiny_tokenizer
from xledit.editing.apply import edited
from xledit.editing.methods import method_class
from xledit.editing.methods.ft_l import FtL
from xledit.editing.methods.ft_m import FtM
from xledit.editing.methods.lora import Lora
from xledit.editing.tensors import LayerUpdate
from xledit.editing.trained import Trained
from xledit.records import EditRequest

FT_M = FtM(batch_size=4, layers=None, lr=0.02, norm_constraint=None, steps=3, stop_below=0, weight_decay=0)
FT_L = FtL(**msgspec.structs.asdict(FT_M) | {"norm_constraint": 0.03})
LORA = Lora(alpha=8, batch_size=4, layers=None, lr=0.05, rank=2, steps=3, stop_below=0)
EDITORS = {"ft-l": FT_L, "ft-m": FT_M, "lora": LORA}
# what a tokenizer is to read after each prompt, written out
ANSWERS = ("东京", " Tokyo", "鲁迅", " Bohr")
Editor = Trained
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


@pytest.fixture(params=["llama", "gemma3_text", "gpt2", "falcon"])
def some_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


@pytest.fixture(params=EDITORS)
def editor(request: pytest.FixtureRequest) -> Editor:
    return EDITORS[request.param]


def trained(
    model: PreTrainedModel,
    editor: Editor,
    requests: Sequence[EditRequest] = REQUESTS,
    on_progress: Callable[[int], None] = lambda _num_facts: None,
    seed: int = 5,
    layers: Sequence[int] = (1, 2),
    **changed: object,
) -> dict[int, LayerUpdate]:
    return msgspec.structs.replace(editor, **changed).updates(model, tiny_tokenizer(), requests, layers, seed, on_progress)


def tokens(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False).input_ids


@torch.no_grad()
def naive_loss(model: PreTrainedModel, index: int, loss: str) -> float:
    """A request's loss with one whole forward pass: transformers' own for FT-M, the published code's written out for FT-L."""
    prompt, answer = [0, *tokens(REQUESTS[index].prompt)], tokens(ANSWERS[index])
    if loss == "target":
        labels = torch.tensor([[-100] * len(prompt) + answer])
        return model(torch.tensor([prompt + answer]), labels=labels).loss.item()
    logprobs = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    return -sum(logprobs[token].item() for token in answer) / len(answer)


def mean_loss(model: PreTrainedModel, editor: Editor) -> float:
    return sum(naive_loss(model, index, loss_of(editor)) for index in range(len(REQUESTS))) / len(REQUESTS)


def loss_of(editor: Editor) -> str:
    return getattr(editor, "loss", "target")


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    return model(torch.tensor([[0, *tokens(REQUESTS[0].prompt)]])).logits


def says(model: PreTrainedModel, index: int) -> bool:
    """Whether greedy decoding without a cache gives the target."""
    prompt, answer = [0, *tokens(REQUESTS[index].prompt)], tokens(ANSWERS[index])
    return model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def state(model: PreTrainedModel) -> list[object]:
    """All that training may leave behind: modules, their attributes and hooks, parameters, flags, gradients, random state."""
    modules = [
        (name, id(module), type(module), module.training, sorted(vars(module)), len(module._forward_hooks), len(module._forward_pre_hooks))
        for name, module in model.named_modules()
    ]
    parameters = [
        (name, id(parameter), parameter.requires_grad, parameter.grad, parameter.detach().float().numpy().tobytes())
        for name, parameter in model.named_parameters()
    ]
    return [modules, parameters, torch.get_rng_state().tolist()]


def test_the_updates_make_the_model_that_was_trained(model: PreTrainedModel, editor: Editor) -> None:
    seen: list[Tensor] = []
    updates = trained(model, editor, on_progress=lambda _num_facts: seen.append(logits(model)))
    with edited(model, updates):
        torch.testing.assert_close(logits(model), seen[-1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(seen[0], seen[-1], rtol=1e-2, atol=1e-2)


def test_training_lowers_the_loss(some_model: PreTrainedModel, editor: Editor) -> None:
    updates = trained(some_model, editor, lr=0.005)
    before = mean_loss(some_model, editor)
    with edited(some_model, updates):
        assert mean_loss(some_model, editor) < before - 0.01


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("editor", [FT_M, msgspec.structs.replace(LORA, rank=8, lr=0.02)], ids=["ft-m", "lora"])
def test_trained_long_enough_the_model_says_every_target(name: str, editor: Editor) -> None:
    model = cached_model(name)
    updates = trained(model, editor, steps=120, stop_below=0.1)
    assert not any(says(model, index) for index in range(len(REQUESTS)))
    with edited(model, updates):
        assert all(says(model, index) for index in range(len(REQUESTS)))


def test_training_stops_once_the_mean_of_the_naive_losses_is_low_enough(model: PreTrainedModel, editor: Editor) -> None:
    """So the loss is the naive one, in a padded batch and for each fact alone."""
    cases = [(REQUESTS, mean_loss(model, editor))]
    cases += [([request], naive_loss(model, index, loss_of(editor))) for index, request in enumerate(REQUESTS)]
    for requests, loss in cases:
        for stop_below, passes in ((loss + 1e-4, 1), (loss - 1e-4, 2)):
            done: list[int] = []
            trained(model, editor, requests, done.append, stop_below=stop_below, steps=2, lr=1e-6)
            assert sum(done) == passes * len(requests)


def test_the_mean_loss_of_a_pass_is_over_facts_not_over_batches() -> None:
    model = cached_model("llama")
    for stop_below, passes in ((mean_loss(model, FT_M) + 1e-3, 1), (mean_loss(model, FT_M) - 1e-3, 2)):
        done: list[int] = []
        trained(model, FT_M, on_progress=done.append, batch_size=3, stop_below=stop_below, steps=2, lr=1e-7)
        assert done == [3, 1] * passes


def test_no_weight_changes_by_more_than_the_norm_constraint(model: PreTrainedModel) -> None:
    for layer, update in trained(model, FT_L, norm_constraint=5e-4).items():
        change = update.dense().abs()
        assert change.max().item() == pytest.approx(5e-4, rel=1e-6), layer


def test_weight_decay_pulls_the_change_towards_nothing() -> None:
    model = cached_model("llama")
    sizes = [trained(model, FT_M, weight_decay=decay, steps=8)[1].dense().norm() for decay in (0.0, 0.1, 100.0)]
    assert sizes[0] > sizes[1] > sizes[2]


def test_lora_gives_an_update_of_its_rank(some_model: PreTrainedModel) -> None:
    for update in trained(some_model, LORA, rank=3).values():
        assert (update.left.shape[1], update.right.shape[0]) == (3, 3)
        assert torch.linalg.matrix_rank(update.dense()) == 3


def test_only_the_named_layers_change(editor: Editor) -> None:
    assert set(trained(cached_model("llama"), editor, layers=(0,))) == {0}


def test_the_model_is_what_it_was_bit_for_bit(model: PreTrainedModel, editor: Editor) -> None:
    before = state(model)
    trained(model, editor)
    assert state(model) == before


@pytest.mark.parametrize("name", ["llama-tied", "gpt2"])
def test_a_model_that_is_not_frozen_keeps_its_flags_and_is_given_no_gradients(name: str, editor: Editor) -> None:
    model = tiny_model(name)
    for parameter in list(model.parameters())[::2]:
        parameter.requires_grad_(True)
    before = state(model)
    trained(model, editor)
    assert state(model) == before


def test_the_model_is_what_it_was_when_training_fails(editor: Editor) -> None:
    model = cached_model("gemma3_text")
    before = state(model)

    def fail(_num_facts: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(model, editor, on_progress=fail)
    assert state(model) == before


def test_the_model_is_what_it_was_when_pefts_injection_fails_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inject = cached_model("gemma3_text"), LoraModel._create_and_replace
    before = state(model)

    def fail_at_the_second(tuner: LoraModel, *args: object, current_key: str, **kwargs: object) -> None:
        if ".2." in current_key:
            raise RuntimeError("half-way")
        inject(tuner, *args, current_key=current_key, **kwargs)

    monkeypatch.setattr(LoraModel, "_create_and_replace", fail_at_the_second)
    with pytest.raises(RuntimeError, match="half-way"):
        trained(model, LORA)
    assert state(model) == before


def test_the_order_of_facts_in_a_batch_does_not_matter(some_model: PreTrainedModel, editor: Editor) -> None:
    double = copy.deepcopy(some_model).double()  # Adam takes a step of full length for a gradient that is a rounding error
    forwards, backwards = (trained(double, editor, requests) for requests in (REQUESTS, REQUESTS[::-1]))
    for layer, update in forwards.items():
        torch.testing.assert_close(backwards[layer].dense(), update.dense(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_the_same_seed_gives_the_same_bytes_twice(name: str, editor: Editor) -> None:
    first, second = (trained(cached_model(name), editor) for _ in range(2))
    for layer, update in first.items():
        assert update.left.numpy().tobytes() == second[layer].left.numpy().tobytes()
        assert update.right.numpy().tobytes() == second[layer].right.numpy().tobytes()


def test_lora_begins_elsewhere_with_another_seed() -> None:
    first, second = (trained(cached_model("llama"), LORA, seed=seed)[1] for seed in (1, 2))
    assert not torch.allclose(first.right, second.right, atol=0.1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_in_bfloat16_fine_tuning_trains_the_very_model_that_the_updates_make(name: str) -> None:
    model = tiny_model(name).bfloat16()
    seen: list[Tensor] = []
    updates = trained(model, FT_M, on_progress=lambda _num_facts: seen.append(logits(model)))
    with edited(model, updates):
        torch.testing.assert_close(logits(model), seen[-1], rtol=0, atol=0)


def test_in_bfloat16_steps_too_small_for_the_weights_add_up() -> None:
    """Adam's first steps are of length lr; a bfloat16 weight of 0.3 moves by 1e-3 or not at all."""
    change = trained(tiny_model("llama").bfloat16(), FT_M, lr=1e-5, steps=4)[1].dense()
    assert change.abs().max().item() == pytest.approx(4e-5, rel=0.2)


def test_in_bfloat16_loras_factors_are_float32() -> None:
    begun, trained_on = (trained(tiny_model("llama").bfloat16(), LORA, lr=1e-5, steps=steps)[1].right for steps in (1, 5))
    # A moves from the second step on
    assert 0 < (trained_on - begun).abs().max().item() < 5e-5


def test_lora_in_bfloat16_differs_from_the_edited_model_by_rounding_only() -> None:
    model = tiny_model("llama").bfloat16()
    seen = [logits(model)]
    updates = trained(model, LORA, on_progress=lambda _num_facts: seen.append(logits(model)))
    with edited(model, updates):
        assert (logits(model) - seen[-1]).norm() < 0.1 * (seen[0] - seen[-1]).norm()


def test_a_loss_that_is_not_finite_names_the_facts_the_layers_and_the_settings(editor: Editor) -> None:
    model = tiny_model("llama")
    model.get_submodule("lm_head").get_parameter("weight").data[7, 7] = torch.inf
    before = state(model)
    wanted = r"fact fact-0 \(zh\).*: training became NaN or infinite in layers \[1, 2\] .*lr=.*; lower lr, or use model\.dtype float32"
    with pytest.raises(ValueError, match=wanted):
        trained(model, editor)
    assert state(model) == before


@pytest.mark.parametrize("editor", [FT_M, LORA], ids=["ft-m", "lora"])
def test_a_last_step_that_is_not_finite_is_refused(editor: Editor) -> None:
    with pytest.raises(ValueError, match=r"after the last step: training became NaN or infinite in layers \[1, 2\]"):
        trained(cached_model("llama"), editor, lr=torch.inf, steps=1)


def test_no_requests_are_refused(editor: Editor) -> None:
    with pytest.raises(ValueError, match="there are no requests to train on"):
        trained(cached_model("llama"), editor, [])


@pytest.mark.parametrize(
    ("editor", "setting", "value", "message"),
    [
        *((editor, name, 0, f"{name} is 0; it must be above 0") for editor in (FT_M, LORA) for name in ("batch_size", "lr", "steps")),
        *((editor, "stop_below", -1, "stop_below is -1; it must not be negative") for editor in (FT_M, LORA)),
        (FT_M, "norm_constraint", 0, "norm_constraint is 0; it must be above 0"),
        (FT_M, "weight_decay", -0.1, "weight_decay is -0.1; it must not be negative"),
        (LORA, "alpha", 0, "alpha is 0; it must be above 0"),
        (LORA, "rank", 0, "rank is 0; it must be above 0"),
        *((editor, "layers", layers, r"layers is \[.*\]; name at least one") for editor in (FT_M, LORA) for layers in ((), (2, 1), (1, 1))),
    ],
)
def test_a_setting_without_sense_is_refused(editor: Editor, setting: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(editor, **{setting: value}).__post_init__()


@pytest.mark.parametrize(("name", "editor"), [("ft_l", FT_L), ("ft_m", FT_M), ("lora", LORA)])
def test_settings_are_read_by_the_methods_name(name: str, editor: Editor) -> None:
    settings = msgspec.to_builtins(editor)
    assert msgspec.convert(settings, method_class(name), strict=True) == editor
    with pytest.raises(msgspec.ValidationError, match="unknown field `momentum`"):
        msgspec.convert(settings | {"momentum": 1}, method_class(name))


def test_a_layer_that_the_model_does_not_have_is_refused(editor: Editor) -> None:
    with pytest.raises(ValueError, match="the model has no layer 9"):
        trained(cached_model("llama"), editor, layers=(9,))


@pytest.mark.parametrize(("name", "size"), [("gpt2", "n_inner"), ("llama", "intermediate_size")])
def test_the_update_is_turned_as_the_memory_is(name: str, size: str, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more key than value: a transpose cannot pass."""
    config = copy.deepcopy(CONFIGS[name])
    setattr(config, size, 48)
    monkeypatch.setitem(CONFIGS, name, config)
    model = tiny_model(name)
    seen: list[Tensor] = []
    updates = trained(model, editor, on_progress=lambda _num_facts: seen.append(logits(model)))
    assert [update.dense().shape for update in updates.values()] == [(32, 48)] * 2
    with edited(model, updates):
        torch.testing.assert_close(logits(model), seen[-1], rtol=1e-4, atol=1e-4)
