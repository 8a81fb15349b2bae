"""v* makes its fact true, for each fact as if it were alone, and is the minimum's value under transformers' own forward pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import pairwise

import msgspec
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tests.tiny import CONFIGS, REQUESTS, tiny_model, tiny_tokenizer
from xledit.editing.apply import edited
from xledit.editing.least_change import least_change
from xledit.editing.memory import contexts, read_memories
from xledit.editing.targets import Search, TargetSettings, _Batch, find_targets
from xledit.editing.tensors import EditVectors, LayerMemory
from xledit.languages import language
from xledit.models.family import attention_of, layers_of, memory_of
from xledit.models.prompts import Prompt, encode_answer, encode_prompt, encode_text
from xledit.models.tracing import record
from xledit.records import EditRequest

SETTINGS = TargetSettings(batch_size=8, clamp=4, kl_weight=0.5, lr=0.3, num_prefixes=0, steps=5, stop_below=0.01, weight_decay=0.1)
# with the subject last, one value is enough to move the next word of a tiny model
SUBJECT_LAST = tuple(
    EditRequest(fact_id=text, language=code, prompt=text, subject_span=(start, len(text)), target_new="?", target_true="!")
    for code, text, start in (
        ("zh", "首都：巴黎", 3),
        ("en", "Born in Ulm: Einstein", 13),
        ("zh", "作者是鲁迅", 3),
        ("en", "The capital: Paris", 13),
    )
)
# two keys for four facts: nothing differs up to the end of the subject
SHARING = tuple(
    EditRequest(fact_id=text + new, language=code, prompt=text, subject_span=span, target_new=new, target_true="!")
    for code, text, span, new in (
        ("zh", "法国的首都是", (0, 2), "东京"),
        ("en", "Einstein was born in", (0, 8), "Paris"),
        ("zh", "法国的作者", (0, 2), "鲁迅"),
        ("en", "Einstein is", (0, 8), "Bohr"),
    )
)
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


@pytest.fixture(params=["llama", "gpt2", "gptj", "gemma3_text"])
def one_of_few(request: pytest.FixtureRequest) -> PreTrainedModel:
    """Memory last, memory turned, memory beside attention, norm after both."""
    return cached_model(request.param)


def layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    return layers_of(model)[layer]


def found(
    model: PreTrainedModel,
    requests: Sequence[EditRequest] = REQUESTS,
    layers: Sequence[int] = (1,),
    search: Search | None = None,
    value_of: Callable[[PreTrainedModel, int], nn.Module] = memory_of,
    **changed: float,
) -> EditVectors:
    settings = msgspec.structs.replace(SETTINGS, **changed)
    return find_targets(model, tiny_tokenizer(), requests, layers, settings, search=search, value_of=value_of)


def memories(model: PreTrainedModel, requests: Sequence[EditRequest], layer: int) -> LayerMemory:
    return read_memories(model, tiny_tokenizer(), requests, [layer], 0, 10_000)[layer]


# a module -> the change of its output at the subject
Changes = Mapping[nn.Module, Tensor]


def still(sites: Sequence[nn.Module]) -> dict[nn.Module, Tensor]:
    return {site: torch.zeros(32, dtype=torch.float64) for site in sites}


@contextmanager
def shifted(at: int, changes: Changes) -> Iterator[dict[nn.Module, Tensor]]:
    """Change what modules give at one position of one row, by plain hooks; yields their values there, changed."""
    values: dict[nn.Module, Tensor] = {}

    def hook(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        states[0, at] += changes[module].float()
        values[module] = states[0, at].double()
        return (states, *output[1:]) if isinstance(output, tuple) else states

    with ExitStack() as stack:
        for module in changes:
            stack.callback(module.register_forward_hook(hook).remove)
        yield values


def logprobs(model: PreTrainedModel, prompt: Prompt, answer: tuple[int, ...], changes: Changes) -> tuple[Tensor, dict[nn.Module, Tensor]]:
    """Log-probabilities ``[tokens vocab]`` after a prompt and each token of an answer, and the changed values at the subject."""
    with shifted(prompt.subject_last, changes) as values:
        logits = model(torch.tensor([prompt.tokens + answer])).logits[0, len(prompt.tokens) - 1 :]
    return logits.log_softmax(-1), values


def naive_nll(model: PreTrainedModel, request: EditRequest, num_prefixes: int, changes: Changes) -> Tensor:
    """Mean negative log-probability of the target's tokens over contexts, with one whole forward pass per context."""
    answer = encode_answer(tiny_tokenizer(), request.target_new, request.language)
    prompts = contexts(tiny_tokenizer(), request, num_prefixes)
    return -torch.stack([logprobs(model, prompt, answer, changes)[0][torch.arange(len(answer)), list(answer)] for prompt in prompts]).mean()


def naive_loss(model: PreTrainedModel, request: EditRequest, settings: TargetSettings, changes: Changes) -> float:
    """The loss of arXiv 2202.05262, eq. 4, written out."""
    before, after = language(request.language).essence.split("{subject}")
    span = (len(before), len(before) + len(request.subject))
    essence = encode_prompt(tiny_tokenizer(), before + request.subject + after, span)
    old, new = (logprobs(model, essence, (), change)[0][-1] for change in ({}, changes))
    bare = contexts(tiny_tokenizer(), request, 0)[0]
    unedited = logprobs(model, bare, (), still(list(changes)))[1]
    decay = sum(float((change.norm() / unedited[site].norm()).square()) for site, change in changes.items())
    nll = naive_nll(model, request, settings.num_prefixes, changes)
    return float(nll + settings.kl_weight * (new.exp() * (new - old)).sum() + settings.weight_decay * decay)


def changes_of(model: PreTrainedModel, request: EditRequest, targets: Changes, num_prefixes: int) -> dict[nn.Module, Tensor]:
    """The changes behind target values, lowest site first: a site's target minus its value once the sites below have been changed."""
    changes: dict[nn.Module, Tensor] = {}
    for site, target in targets.items():
        prompts = contexts(tiny_tokenizer(), request, num_prefixes)
        values = [logprobs(model, prompt, (), changes | still([site]))[1][site] for prompt in prompts]
        changes[site] = target - torch.stack(values).mean(0)
    return changes


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
        text = str(tokenizer.decode([token])).removeprefix(joiner)
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
        targets = {memory_of(model, layer): vectors.targets[layer][index] for layer in layers}
        changes = changes_of(model, request, targets, num_prefixes)
        assert vectors.losses[index].item() == pytest.approx(naive_loss(model, request, settings, changes), abs=1e-4)


def test_with_layers_for_values_what_changes_is_a_layers_output(model: PreTrainedModel) -> None:
    """As published code seeks it."""
    vectors = found(model, layers=(2,), value_of=layer_of)
    for index, request in enumerate(REQUESTS):
        changes = changes_of(model, request, {layer_of(model, 2): vectors.targets[2][index]}, 0)
        assert vectors.losses[index].item() == pytest.approx(naive_loss(model, request, SETTINGS, changes), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_facts_that_share_a_key_share_a_v_that_is_sought_for_their_mean_loss(one_of_few: PreTrainedModel, batch_size: int) -> None:
    """Whatever the batches, since no batch parts them: four facts, two keys."""
    model = one_of_few
    vectors = found(model, (*SHARING, *REQUESTS[1:]), layers=(1, 2), search=Search(merge=True), batch_size=batch_size)
    for first, second in ((0, 2), (1, 3)):
        for layer in (1, 2):
            torch.testing.assert_close(vectors.targets[layer][first], vectors.targets[layer][second], rtol=1e-5, atol=1e-5)
        targets = {memory_of(model, layer): vectors.targets[layer][first] for layer in (1, 2)}
        losses = [naive_loss(model, SHARING[index], SETTINGS, changes_of(model, SHARING[index], targets, 0)) for index in (first, second)]
        assert vectors.losses[[first, second]].tolist() == pytest.approx([sum(losses) / 2] * 2, abs=1e-4)
        assert sum(losses) / 2 < sum(naive_loss(model, SHARING[index], SETTINGS, {}) for index in (first, second)) / 2 - 0.01
    plain = found(model, REQUESTS[1:], layers=(1, 2))
    for layer in (1, 2):
        torch.testing.assert_close(vectors.targets[layer][4:], plain.targets[layer], rtol=1e-4, atol=1e-4)


def test_facts_that_share_a_key_have_a_v_each_without_merging() -> None:
    targets = found(cached_model("llama"), SHARING).targets[1]
    assert not torch.allclose(targets[0], targets[2], atol=0.1)
    assert not torch.allclose(targets[1], targets[3], atol=0.1)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_merging_changes_no_byte_where_no_key_is_shared(one_of_few: PreTrainedModel, batch_size: int) -> None:
    plain, merged = (found(one_of_few, layers=(1, 2), search=search, batch_size=batch_size) for search in (None, Search(merge=True)))
    for layer in (1, 2):
        assert merged.targets[layer].numpy().tobytes() == plain.targets[layer].numpy().tobytes()
    assert merged.losses.numpy().tobytes() == plain.losses.numpy().tobytes()


def test_attention_may_change_while_v_is_sought_and_v_is_what_memories_give_without_its_changes(
    model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[list[Tensor]] = []
    forward = _Batch._forward

    def spy(batch: _Batch, rows: Tensor, deltas: Sequence[Tensor], seen: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        changes.append([delta[0].detach().double() for delta in deltas])
        return forward(batch, rows, deltas, seen)

    monkeypatch.setattr(_Batch, "_forward", spy)
    memories_only, sites = [memory_of(model, layer) for layer in (1, 2)], [attention_of(model, layer) for layer in (1, 2)]
    for request in REQUESTS[:2]:
        plain, vectors = (found(model, [request], (1, 2), search) for search in (None, Search(attention=True)))
        sought = changes[-2]  # the last pass of the search; after it comes the pass that reads the targets
        assert len(sought) == 4
        assert all(change.norm() > 0.01 for change in sought)
        written = dict(zip(memories_only, sought[:2], strict=True))
        beside = dict(zip(sites, sought[2:], strict=True))
        wanted = naive_loss(model, request, SETTINGS, written | beside)
        assert vectors.losses.item() == pytest.approx(wanted, abs=1e-4)
        assert naive_loss(model, request, SETTINGS, written) != pytest.approx(wanted, abs=1e-3)
        prompt = contexts(tiny_tokenizer(), request, 0)[0]
        _, values = logprobs(model, prompt, (), written)
        _, under_both = logprobs(model, prompt, (), written | beside)
        assert list(vectors.targets) == [1, 2]
        for layer in (1, 2):
            memory = memory_of(model, layer)
            torch.testing.assert_close(vectors.targets[layer][0], values[memory], rtol=1e-4, atol=1e-4)
            assert not torch.allclose(vectors.targets[layer], plain.targets[layer], atol=1e-3)
        # the upper memory reads what the lower attention has changed
        assert not torch.allclose(under_both[memory_of(model, 2)], values[memory_of(model, 2)], atol=1e-3)


def test_v_lowers_the_loss_of_every_fact(model: PreTrainedModel) -> None:
    vectors = found(model)
    unedited = [naive_loss(model, request, SETTINGS, {}) for request in REQUESTS]
    assert (vectors.losses < torch.tensor(unedited, dtype=torch.float64) - 1e-3).all()


def test_with_an_exact_fit_of_v_the_model_says_its_targets(model: PreTrainedModel) -> None:
    requests = [within_reach(model, request) for request in SUBJECT_LAST]
    vectors = found(model, requests, (2,), clamp=30, lr=0.5, steps=40, stop_below=0.1, kl_weight=0, weight_decay=0)
    keys, residuals = vectors.memories[2].keys, vectors.targets[2] - vectors.memories[2].values
    assert not any(says(model, request) for request in requests)
    with edited(model, {2: least_change(keys, keys, residuals, ridge=0)}):
        # behind a norm one value may not reach every word
        assert sum(says(model, request) for request in requests) >= len(requests) - 1
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


@pytest.mark.parametrize("value_of", [memory_of, layer_of])
def test_bare_keys_are_those_without_openings(model: PreTrainedModel, value_of: Callable[[PreTrainedModel, int], nn.Module]) -> None:
    many, none = (read_memories(model, tiny_tokenizer(), REQUESTS, [0, 2], num_prefixes, 60, value_of) for num_prefixes in (2, 0))
    for layer in (0, 2):
        for wanted in (none[layer].keys, none[layer].bare_keys):
            torch.testing.assert_close(many[layer].bare_keys, wanted, rtol=1e-5, atol=1e-5)
    # a parallel block's first keys may depend on nothing but the token
    assert not torch.allclose(many[2].keys, many[2].bare_keys, atol=1e-3)


def test_with_layers_for_values_a_value_is_the_hidden_state_at_the_subject(model: PreTrainedModel) -> None:
    found_memories = read_memories(model, tiny_tokenizer(), REQUESTS, [0, 2], 0, 10_000, layer_of)
    for index, request in enumerate(REQUESTS):
        prompt = contexts(tiny_tokenizer(), request, 0)[0]
        states = model(torch.tensor([prompt.tokens]), output_hidden_states=True).hidden_states
        for layer in (0, 2):
            wanted = states[layer + 1][0, prompt.subject_last].double()
            torch.testing.assert_close(found_memories[layer].values[index], wanted, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(found_memories[layer].keys[index], memories(model, [request], layer).keys[0], rtol=1e-5, atol=1e-5)


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
        assert memory.keys.shape[1] == memory_of(cached_model("llama"), layer).get_parameter("weight").shape[1]


def test_progress_adds_up_to_the_facts_and_the_order_of_requests_is_kept() -> None:
    done: list[int] = []
    settings = msgspec.structs.replace(SETTINGS, batch_size=3)
    vectors = find_targets(cached_model("llama"), tiny_tokenizer(), REQUESTS, (1,), settings, done.append)
    backwards = found(cached_model("llama"), REQUESTS[::-1])
    assert sum(done) == len(REQUESTS)
    torch.testing.assert_close(vectors.targets[1], backwards.targets[1].flip(0), rtol=1e-4, atol=1e-4)


def test_a_loss_that_is_not_finite_names_the_fact_its_layers_and_the_settings() -> None:
    model = tiny_model("llama")
    head = model.get_output_embeddings()
    assert head is not None
    head.get_parameter("weight").data[7, 7] = torch.inf
    with pytest.raises(ValueError, match=r"fact fact-\d \((zh|en)\): v\* .* in layers from 1 on .*lr=0\.3.*use model\.dtype float32"):
        found(model, layers=(1, 2))


@pytest.mark.parametrize("name", ["batch_size", "clamp", "lr", "steps"])
def test_a_setting_of_zero_that_must_be_above_it_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"vectors.{name} is 0; it must be above 0"):
        msgspec.structs.replace(SETTINGS, **{name: 0}).__post_init__()
