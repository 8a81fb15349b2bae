"""v* makes its fact true, for each fact as if it were alone, and is the minimum's value under transformers' own forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise

import msgspec
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.tiny import CONFIGS, REQUESTS, tiny_model, tiny_tokenizer
from xledit.editing.apply import edited
from xledit.editing.memory import LayerMemory, contexts, read_memories
from xledit.editing.solvers import least_change
from xledit.editing.targets import EditVectors, TargetSettings, find_targets
from xledit.languages import language
from xledit.models.families import memory_of
from xledit.models.prompts import Prompt, encode_answer, encode_prompt, encode_text
from xledit.models.tracing import record
from xledit.records import EditRequest

SETTINGS = TargetSettings(batch_size=8, clamp=4, kl_weight=0.5, lr=0.3, num_prefixes=0, steps=5, stop_below=0.01, weight_decay=0.1)
# with the subject last, one value is enough to move the next word of any tiny model
SUBJECT_LAST = tuple(
    EditRequest(fact_id=text, language=code, prompt=text, subject_span=(start, len(text)), target_new="?", target_true="!")
    for code, text, start in (
        ("zh", "首都：巴黎", 3),
        ("en", "Born in Ulm: Einstein", 13),
        ("zh", "作者是鲁迅", 3),
        ("en", "The capital: Paris", 13),
    )
)
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def found(
    model: PreTrainedModel, requests: Sequence[EditRequest] = REQUESTS, layers: Sequence[int] = (1,), **changed: float
) -> EditVectors:
    return find_targets(model, tiny_tokenizer(), requests, layers, msgspec.structs.replace(SETTINGS, **changed))


def memories(model: PreTrainedModel, requests: Sequence[EditRequest], layer: int) -> LayerMemory:
    return read_memories(model, tiny_tokenizer(), requests, [layer], 0, 10_000)[layer]


@contextmanager
def shifted(model: PreTrainedModel, at: int, deltas: Mapping[int, Tensor]) -> Iterator[dict[int, Tensor]]:
    """Add ``deltas`` to the values at one position of one row, by plain hooks; yields the layers' values there, changed."""
    values: dict[int, Tensor] = {}

    def hook_of(layer: int) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(_module: torch.nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output = output.clone()
            output[0, at] += deltas.get(layer, torch.zeros(32)).float()
            values[layer] = output[0, at].double()
            return output

        return hook

    with ExitStack() as stack:
        for layer in range(4):
            stack.callback(memory_of(model, layer).register_forward_hook(hook_of(layer)).remove)
        yield values


def logprobs(
    model: PreTrainedModel, prompt: Prompt, answer: tuple[int, ...], deltas: Mapping[int, Tensor]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Log-probabilities ``[tokens vocab]`` after a prompt and each token of an answer, and the changed values at the subject."""
    with shifted(model, prompt.subject_last, deltas) as values:
        logits = model(torch.tensor([prompt.tokens + answer])).logits[0, len(prompt.tokens) - 1 :]
    return logits.log_softmax(-1), values


def naive_loss(model: PreTrainedModel, request: EditRequest, settings: TargetSettings, deltas: Mapping[int, Tensor]) -> float:
    """The loss of arXiv 2202.05262, eq. 4, written out with one whole forward pass per context."""
    tokenizer, answer = tiny_tokenizer(), encode_answer(tiny_tokenizer(), request.target_new, request.language)
    nlls = [
        -logprobs(model, prompt, answer, deltas)[0][torch.arange(len(answer)), list(answer)].mean()
        for prompt in contexts(tokenizer, request, settings.num_prefixes)
    ]
    before, after = language(request.language).essence.split("{subject}")
    essence = encode_prompt(tokenizer, before + request.subject + after, (len(before), len(before) + len(request.subject)))
    old, new = (logprobs(model, essence, (), change)[0][-1] for change in ({}, deltas))
    bare = contexts(tokenizer, request, 0)[0]
    lengths = logprobs(model, bare, (), {})[1]
    decay = sum(float((delta.norm() / lengths[layer].norm()).square()) for layer, delta in deltas.items())
    return float(sum(nlls) / len(nlls) + settings.kl_weight * ((new.exp() * (new - old)).sum()) + settings.weight_decay * decay)


def deltas_of(model: PreTrainedModel, request: EditRequest, targets: Mapping[int, Tensor], num_prefixes: int) -> dict[int, Tensor]:
    """The changes behind target values: each layer's target minus its value once the layers below have been changed."""
    deltas: dict[int, Tensor] = {}
    for layer in sorted(targets):
        values = [logprobs(model, prompt, (), deltas)[1][layer] for prompt in contexts(tiny_tokenizer(), request, num_prefixes)]
        deltas[layer] = targets[layer] - torch.stack(values).mean(0)
    return deltas


def says(model: PreTrainedModel, request: EditRequest) -> bool:
    """Whether greedy decoding without a cache gives the target."""
    prompt = encode_text(tiny_tokenizer(), request.prompt)
    answer = encode_answer(tiny_tokenizer(), request.target_new, request.language)
    argmax = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].argmax(-1)
    return tuple(argmax.tolist()) == answer


def within_reach(model: PreTrainedModel, request: EditRequest) -> EditRequest:
    """The request with the model's second choice as its target, in one token."""
    tokenizer, joiner = tiny_tokenizer(), language(request.language).joiner
    logits = model(torch.tensor([encode_text(tokenizer, request.prompt)])).logits[0, -1]
    for token in logits.argsort(descending=True)[1:].tolist():
        text = tokenizer.decode([token]).removeprefix(joiner)
        if text.strip() and encode_answer(tokenizer, text, request.language) == (token,):
            return msgspec.structs.replace(request, target_new=text)
    raise AssertionError("no token is a text")


@pytest.mark.parametrize(("layers", "num_prefixes"), [((1,), 0), ((1,), 2), ((0, 2, 3), 0)], ids=["plain", "prefixes", "layers"])
def test_the_last_loss_is_that_of_the_formula_with_v_put_into_whole_passes(
    model: PreTrainedModel, layers: tuple[int, ...], num_prefixes: int
) -> None:
    vectors = found(model, layers=layers, num_prefixes=num_prefixes)
    settings = msgspec.structs.replace(SETTINGS, num_prefixes=num_prefixes)
    for index, request in enumerate(REQUESTS):
        targets = {layer: vectors.targets[layer][index] for layer in layers}
        deltas = deltas_of(model, request, targets, num_prefixes)
        assert vectors.losses[index].item() == pytest.approx(naive_loss(model, request, settings, deltas), abs=1e-4)


def test_v_lowers_the_loss_of_every_fact(model: PreTrainedModel) -> None:
    vectors = found(model)
    unedited = [naive_loss(model, request, SETTINGS, {}) for request in REQUESTS]
    assert (vectors.losses < torch.tensor(unedited, dtype=torch.float64) - 0.01).all()


def test_with_an_exact_fit_of_v_the_model_says_the_target(model: PreTrainedModel) -> None:
    requests = [within_reach(model, request) for request in SUBJECT_LAST]
    vectors = found(model, requests, (2,), clamp=30, lr=0.5, steps=40, stop_below=0.1, kl_weight=0, weight_decay=0)
    keys, residuals = vectors.memories[2].keys, vectors.targets[2] - vectors.memories[2].values
    assert not any(says(model, request) for request in requests)
    with edited(model, {2: least_change(keys, keys, residuals, ridge=0)}):
        assert all(says(model, request) for request in requests)
        torch.testing.assert_close(memories(model, requests, 2).values, vectors.targets[2], rtol=1e-5, atol=1e-5)


def test_v_of_a_fact_is_the_same_alone_in_a_small_batch_and_in_a_large_one(model: PreTrainedModel) -> None:
    together, in_pairs = (found(model, layers=(0, 1), steps=3, batch_size=size) for size in (8, 2))
    alone = [found(model, [request], (0, 1), steps=3) for request in REQUESTS]
    for layer in (0, 1):
        wanted = torch.cat([vectors.targets[layer] for vectors in alone])
        for vectors in (together, in_pairs):
            torch.testing.assert_close(vectors.targets[layer], wanted, rtol=1e-4, atol=1e-4)


def test_the_memories_beside_v_are_those_of_the_unedited_model(model: PreTrainedModel) -> None:
    vectors = found(model, layers=(0, 2), steps=1)
    for layer, memory in vectors.memories.items():
        wanted = memories(model, REQUESTS, layer)
        torch.testing.assert_close((memory.keys, memory.values), (wanted.keys, wanted.values), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_prefixes", [0, 2])
def test_keys_and_values_are_means_over_the_subjects_ends_in_the_bare_prompt_and_behind_each_opening(
    model: PreTrainedModel, num_prefixes: int
) -> None:
    found_memory = read_memories(model, tiny_tokenizer(), REQUESTS, [2], num_prefixes, 60)[2]
    for index, request in enumerate(REQUESTS):
        texts = [opening + request.up_to_subject for opening in ("", *language(request.language).prefixes[:num_prefixes])]
        rows = [torch.tensor([encode_text(tiny_tokenizer(), text)]) for text in texts]
        seen = [record(model, [memory_of(model, 2)], row, torch.ones_like(row))[0] for row in rows]
        for mean, wanted in zip((found_memory.keys, found_memory.values), zip(*seen, strict=True), strict=True):
            torch.testing.assert_close(
                mean[index], torch.stack([tensor[0, -1] for tensor in wanted]).mean(0).double(), rtol=1e-5, atol=1e-5
            )


def test_more_openings_than_a_language_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vectors\.num_prefixes is 9; zh has 5 prefixes in xledit/languages\.py"):
        contexts(tiny_tokenizer(), REQUESTS[0], 9)


@pytest.mark.parametrize(("clamp", "num_prefixes"), [(1.0, 0), (0.1, 1)])
def test_no_change_is_longer_than_the_clamp_allows(model: PreTrainedModel, clamp: float, num_prefixes: int) -> None:
    vectors = found(model, clamp=clamp, num_prefixes=num_prefixes, lr=1.0)
    lengths = memories(model, REQUESTS, 1).values.norm(dim=1)
    changes = (vectors.targets[1] - vectors.memories[1].values).norm(dim=1) / lengths
    assert (changes <= clamp * (1 + 1e-4)).all()
    assert changes.max() > 0.9 * clamp


def test_a_fact_that_has_stopped_is_not_moved_by_momentum_while_others_go_on() -> None:
    model = cached_model("gemma3_text")
    facts = [found(model, [request], stop_below=0, steps=4).losses.item() for request in REQUESTS]
    threshold = sum(sorted(facts)[1:3]) / 2  # two facts are there after four steps or less
    vectors = found(model, stop_below=threshold, steps=12)
    early = int(vectors.steps.argmin())
    assert vectors.steps[early] <= 4 < vectors.steps.max()
    alone = found(model, [REQUESTS[early]], stop_below=threshold, steps=12)
    assert alone.steps.item() == vectors.steps[early]
    assert alone.losses.item() == pytest.approx(vectors.losses[early].item(), abs=1e-4)
    torch.testing.assert_close(vectors.targets[1][early], alone.targets[1][0], rtol=1e-4, atol=1e-4)


def test_no_steps_beyond_the_loss_that_is_low_enough_are_taken() -> None:
    model = cached_model("llama")
    vectors = found(model, stop_below=1000)
    assert vectors.steps.tolist() == [0] * len(REQUESTS)
    torch.testing.assert_close(vectors.targets[1], vectors.memories[1].values, rtol=1e-5, atol=1e-5)


def test_more_steps_take_the_loss_further_down() -> None:
    model = cached_model("llama")
    means = [found(model, steps=steps, lr=0.05).losses.mean() for steps in (1, 4, 16)]
    assert all(later < earlier for earlier, later in pairwise(means))


@pytest.mark.parametrize("name", ["llama", "gemma3_text"])
def test_the_same_call_gives_the_same_bytes_twice(name: str) -> None:
    first, second = (found(cached_model(name), layers=(1, 2)) for _ in range(2))
    assert all(first.targets[layer].numpy().tobytes() == second.targets[layer].numpy().tobytes() for layer in (1, 2))
    assert first.losses.numpy().tobytes() == second.losses.numpy().tobytes()


def test_no_requests_give_empty_vectors() -> None:
    """As of grid.rewordings 0."""
    vectors = find_targets(cached_model("llama"), tiny_tokenizer(), [], (1, 2), SETTINGS)
    for layer in (1, 2):
        memory = vectors.memories[layer]
        assert [len(tensor) for tensor in (memory.keys, memory.values, vectors.targets[layer])] == [0, 0, 0]
        assert memory.keys.shape[1] == memory_of(cached_model("llama"), layer).weight.shape[1]


def test_progress_adds_up_to_the_facts_and_the_order_of_requests_is_kept() -> None:
    done: list[int] = []
    settings = msgspec.structs.replace(SETTINGS, batch_size=3)
    vectors = find_targets(cached_model("llama"), tiny_tokenizer(), REQUESTS, (1,), settings, done.append)
    backwards = found(cached_model("llama"), REQUESTS[::-1])
    assert sum(done) == len(REQUESTS)
    torch.testing.assert_close(vectors.targets[1], backwards.targets[1].flip(0), rtol=1e-4, atol=1e-4)


def test_a_loss_that_is_not_finite_names_the_fact_its_layers_and_the_settings() -> None:
    model = tiny_model("llama")
    model.get_output_embeddings().weight.data[7, 7] = torch.inf
    with pytest.raises(ValueError, match=r"fact fact-\d \((zh|en)\): v\* .* layers \[1, 2\] .*lr=0\.3.*use model\.dtype float32"):
        found(model, layers=(1, 2))


@pytest.mark.parametrize("name", ["batch_size", "clamp", "lr", "steps"])
def test_a_setting_of_zero_that_must_be_above_it_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"vectors.{name} is 0; it must be above 0"):
        msgspec.structs.replace(SETTINGS, **{name: 0}).__post_init__()
