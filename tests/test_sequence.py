"""Batch after batch, each fact is stored in the model that the earlier ones have left, and the model comes back bit for bit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import msgspec
import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.editing.apply import EditParams
from tests.tiny import tiny_model, tiny_tokenizer
from xledit.editing import locate, practice
from xledit.editing.apply import edited, editing
from xledit.editing.artifacts import SavedVectors
from xledit.editing.batches import History, Step, Store, Stored, edit_in_batches
from xledit.editing.combine import Combination, Group, combination
from xledit.editing.gradients import answer_facts
from xledit.editing.least_change import solve_in_turn
from xledit.editing.locate import ClosedForm, LocateThenEdit
from xledit.editing.memory import contexts, read_memories
from xledit.editing.methods.alphaedit import AlphaEdit
from xledit.editing.methods.emmet import Emmet
from xledit.editing.methods.ft_m import FtM
from xledit.editing.methods.lora import Lora
from xledit.editing.methods.memit import Memit
from xledit.editing.methods.memit_merge import MemitMerge
from xledit.editing.methods.pmet import Pmet
from xledit.editing.methods.r_rome import RRome
from xledit.editing.methods.rome import Rome
from xledit.editing.methods.ultraedit import UltraEdit
from xledit.editing.practice import PRACTICES
from xledit.editing.targets import Search, TargetSettings, find_targets
from xledit.editing.tensors import EditVectors, Facts, LayerUpdate, Past, SecondMoment
from xledit.editing.trained import Trained, Training
from xledit.evaluation.watch import recalled
from xledit.languages import language
from xledit.models.family import layers_of, memory_of, weight_as_out_by_in
from xledit.models.prompts import encode_answer, encode_text
from xledit.models.tracing import record
from xledit.records import EditRequest, PracticeName, as_published

FEW = ("llama", "gpt2", "gemma3_text")
LAYERS = (1, 2)
SETTINGS = TargetSettings(batch_size=8, clamp=4, kl_weight=0.1, lr=0.3, num_prefixes=0, steps=4, stop_below=0.01, weight_decay=0.01)
# what it takes to move the next word of any tiny model
STRONG = TargetSettings(batch_size=8, clamp=30, kl_weight=0, lr=0.5, num_prefixes=0, steps=60, stop_below=0.05, weight_decay=0)
EXACT = Memit(old_key_weight=1e-12, regularisation=1e-9)
MEMIT = Memit(old_key_weight=0.1, regularisation=0.1)
ALPHAEDIT = AlphaEdit(null_energy=0.5, ridge=0.1)
EMMET, ROME, R_ROME = Emmet(regularisation=0.1), Rome(regularisation=0.1), RRome(regularisation=0.1)
ULTRAEDIT = UltraEdit(lr=0.3, ridge=0.1)
MERGE, PMET = MemitMerge(old_key_weight=0.1, regularisation=0.1), Pmet(old_key_weight=0.1, regularisation=0.1)
METHODS: list[ClosedForm] = [MEMIT, ALPHAEDIT, EMMET, R_ROME, ROME, ULTRAEDIT, MERGE, PMET]
FT_M = FtM(batch_size=4, layers=None, lr=0.02, norm_constraint=None, steps=3, stop_below=0, weight_decay=0)
LORA = Lora(alpha=8, batch_size=4, layers=None, lr=0.05, rank=2, steps=3, stop_below=0)


def requests_in(code: str, rows: Sequence[tuple[str, str, str]]) -> tuple[EditRequest, ...]:
    return tuple(
        EditRequest(
            fact_id=f"fact-{index}",
            language=code,
            prompt=prompt,
            subject_span=(prompt.index(subject), prompt.index(subject) + len(subject)),
            target_new=new,
            target_true="!",
        )
        for index, (prompt, subject, new) in enumerate(rows)
    )


# one fact a row, in both languages
REQUESTS = {
    "zh": requests_in(
        "zh",
        [
            ("法国的首都是", "法国", "东京"),
            ("写了《红楼梦》的人", "红楼梦", "鲁迅"),
            ("首都：巴黎", "巴黎", "北"),
            ("作者是鲁迅", "鲁迅", "人"),
        ],
    ),
    "en": requests_in(
        "en",
        [
            ("The capital of France is", "France", "Tokyo"),
            ("Dream of the Red Chamber was written by", "Red Chamber", "Bohr"),
            ("The capital: Paris", "Paris", "a"),
            ("Born in Ulm: Einstein", "Einstein", "in"),
        ],
    ),
}
NUM_FACTS = 4
cached_model = cache(tiny_model)


@pytest.fixture(params=FEW)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def name_of(method: object) -> str:
    return type(method).__name__


def moment(seed: int) -> SecondMoment:
    """A second moment with a few strong directions, turned at random."""
    generator = torch.Generator().manual_seed(seed)
    turned = torch.linalg.qr(torch.randn(32, 32, generator=generator, dtype=torch.float64))[0]
    energies = torch.logspace(1, -2, 32, dtype=torch.float64)
    return SecondMoment((turned * energies) @ turned.T, 100 * (seed + 1))


MOMENTS = {code: {layer: moment(10 * place + layer) for layer in (0, 1, 2, 3)} for place, code in enumerate(("zh", "en"))}


def moments_of(layers: Sequence[int], codes: Sequence[str] = ("zh", "en")) -> dict[str, dict[int, SecondMoment]]:
    return {code: {layer: MOMENTS[code][layer] for layer in layers} for code in codes}


def saved(vectors: EditVectors) -> SavedVectors:
    return SavedVectors(tuple(f"fact-{index}" for index in range(len(vectors.losses))), vectors.memories, vectors.targets)


def vectors_of(
    model: PreTrainedModel, requests: Mapping[str, Sequence[EditRequest]], layers: Sequence[int], settings: TargetSettings
) -> dict[str, SavedVectors]:
    return {code: saved(find_targets(model, tiny_tokenizer(), found, layers, settings)) for code, found in requests.items()}


@cache
def usual_vectors(name: str) -> dict[str, SavedVectors]:
    return vectors_of(cached_model(name), REQUESTS, LAYERS, SETTINGS)


def editor_of(
    model: PreTrainedModel,
    method: ClosedForm,
    combined: Combination,
    *,
    requests: Mapping[str, Sequence[EditRequest]] = REQUESTS,
    vectors: Mapping[str, SavedVectors] | None = None,
    moments: Mapping[str, Mapping[int, SecondMoment]] | None = None,
    settings: TargetSettings = SETTINGS,
    practice_name: PracticeName = "ours",
) -> LocateThenEdit:
    if vectors is None:
        vectors = usual_vectors(next(name for name in FEW if cached_model(name) is model))
    moments = moments or moments_of(LAYERS)
    return LocateThenEdit(
        model,
        tiny_tokenizer(),
        method,
        combined,
        requests,
        vectors,
        moments,
        tuple(next(iter(moments.values()))),
        settings,
        PRACTICES[practice_name],
    )


@dataclass(frozen=True)
class Run:
    """What each batch left, and what each solve came to."""

    steps: list[Step]
    weights: list[dict[str, bytes]]
    stored: list[tuple[Group, slice, Stored]]

    @property
    def updates(self) -> dict[int, LayerUpdate]:
        return self.steps[-1].updates


def watched(editor: Store, stored: list[tuple[Group, slice, Stored]]) -> Store:
    def edit(group: Group, places: slice, history: History) -> Stored:
        stored.append((group, places, editor(group, places, history)))
        return stored[-1][2]

    return edit


def run(
    model: PreTrainedModel,
    editor: LocateThenEdit | Training,
    batch_size: int | None = None,
    after: Callable[[Step], None] = lambda _step: None,
    num_facts: int = NUM_FACTS,
) -> Run:
    done = Run([], [], [])
    for step in edit_in_batches(model, editor.combination, num_facts, batch_size, watched(editor, done.stored)):
        done.steps.append(step)
        done.weights.append(weights(model))
        after(step)
    return done


def edit(model: PreTrainedModel, method: ClosedForm, way: str = "zh", batch_size: int | None = None, moments: Mapping | None = None) -> Run:
    return run(model, editor_of(model, method, combination(way, ("zh", "en")), moments=moments), batch_size)


def weights(model: PreTrainedModel) -> dict[str, bytes]:
    """All parameters and buffers, as bytes."""
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


def memories_of(model: PreTrainedModel) -> list[Tensor]:
    return [weight_as_out_by_in(memory_of(model, layer)).double() for layer in range(4)]


def facts_at(model: PreTrainedModel, requests: Sequence[EditRequest], layer: int, targets: Tensor, num_prefixes: int = 0) -> Facts:
    memory = read_memories(model, tiny_tokenizer(), requests, [layer], num_prefixes, 10_000)[layer]
    return Facts(**vars(memory), targets=targets)


def nll(model: PreTrainedModel, request: EditRequest) -> float:
    """Mean negative log-probability of the target's tokens, with one whole forward pass."""
    prompt = encode_text(tiny_tokenizer(), request.prompt)
    answer = encode_answer(tiny_tokenizer(), request.target_new, request.language)
    logprobs = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return -logprobs[torch.arange(len(answer)), list(answer)].mean().item()


def mean_nll(model: PreTrainedModel, requests: Sequence[EditRequest]) -> float:
    return sum(nll(model, request) for request in requests) / len(requests)


@dataclass(frozen=True)
class Sought:
    """One call of ``find_targets``: the model as it was then, and what was asked and found."""

    weights: dict[str, bytes]
    requests: tuple[EditRequest, ...]
    layers: tuple[int, ...]
    settings: TargetSettings
    search: Search
    value: nn.Module
    found: EditVectors


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Sought]:
    """The searches for v* that an editor asks for."""
    calls: list[Sought] = []

    def spy(
        model: PreTrainedModel,
        tokenizer: object,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        settings: TargetSettings,
        *,
        search: Search,
        value_of: Callable[[PreTrainedModel, int], nn.Module] = memory_of,
    ) -> EditVectors:
        found = find_targets(model, tiny_tokenizer(), requests, layers, settings, search=search, value_of=value_of)
        calls.append(Sought(weights(model), tuple(requests), tuple(layers), settings, search, value_of(model, layers[-1]), found))
        return found

    monkeypatch.setattr(practice, "find_targets", spy)
    return calls


# batches


@pytest.mark.parametrize("method", METHODS[:6], ids=name_of)
@pytest.mark.parametrize("batch_size", [None, 2, 3], ids=str)
def test_batches_are_a_loop_over_facts_and_layers_with_a_search_a_solve_and_an_update_each(
    model: PreTrainedModel, method: ClosedForm, batch_size: int | None
) -> None:
    """Written out: keys are read after the layers below, v* is sought on the edited model, the past grows."""
    if isinstance(method, UltraEdit) and batch_size == 3:
        batch_size = 2
    done = edit(model, method, "zh", batch_size)
    size, past = batch_size or NUM_FACTS, {layer: Past.none(32, 32) for layer in LAYERS}
    wanted = {layer: torch.zeros(32, 32, dtype=torch.float64) for layer in LAYERS}
    with editing(model) as add:
        for start in range(0, NUM_FACTS, size):
            requests = REQUESTS["zh"][start : start + size]
            vectors = find_targets(model, tiny_tokenizer(), requests, LAYERS, SETTINGS)
            answers = answer_facts(model, tiny_tokenizer(), requests, LAYERS, 10_000)
            for layer in LAYERS:
                facts = answers[layer] if method is ULTRAEDIT else facts_at(model, requests, layer, vectors.targets[layer])
                solver = method.solver(SecondMoment.pooled([MOMENTS["zh"][layer], MOMENTS["en"][layer]]))
                update = solve_in_turn(solver, facts, past[layer], method.most_facts)
                before = past[layer]
                past[layer] = Past(torch.cat([before.keys, facts.keys]), torch.cat([before.residuals, facts.residuals]), before.protected)
                add(layer, update)
                wanted[layer] += update.dense()
    for layer in LAYERS:
        torch.testing.assert_close(done.updates[layer].dense(), wanted[layer], rtol=1e-2, atol=1e-3 * wanted[layer].abs().max().item())


@pytest.mark.parametrize(
    ("batch_size", "places"),
    [
        (None, [slice(0, 4)]),
        (1, [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]),
        (3, [slice(0, 3), slice(3, 4)]),
        (4, [slice(0, 4)]),
        (9, [slice(0, 4)]),
    ],
)
def test_every_fact_is_in_one_batch_and_the_last_may_be_smaller(batch_size: int | None, places: list[slice]) -> None:
    done = edit(cached_model("llama"), EXACT, "zh", batch_size)
    assert [step.places for step in done.steps] == [place for _group, place, _stored in done.stored] == places
    for index, step in enumerate(done.steps):
        num_facts = places[index].stop
        assert {update.left.shape[1] for update in step.updates.values()} == {num_facts}


@pytest.mark.parametrize("batch_size", [None, 1, 3], ids=str)
def test_after_each_batch_the_model_says_its_facts(model: PreTrainedModel, batch_size: int | None) -> None:
    requests = {
        "zh": [
            msgspec.structs.replace(within_reach(model, request), fact_id=f"fact-{place}")  # facts are told apart by id
            for place, request in enumerate((*REQUESTS["zh"][2:], *REQUESTS["en"][2:]))
        ]
    }
    vectors = vectors_of(model, requests, (2,), STRONG)
    editor = editor_of(
        model, EXACT, combination("zh", ("zh",)), requests=requests, vectors=vectors, moments=moments_of((2,), ["zh"]), settings=STRONG
    )
    assert not any(recalled(model, tiny_tokenizer(), requests["zh"], 1000))

    def ask(step: Step) -> None:
        assert all(recalled(model, tiny_tokenizer(), requests["zh"][step.places], 1000))

    run(model, editor, batch_size, ask)


def within_reach(model: PreTrainedModel, request: EditRequest) -> EditRequest:
    """The request with the model's second choice as its target, in one token."""
    tokenizer, joiner = tiny_tokenizer(), language(request.language).joiner
    logits = model(torch.tensor([encode_text(tokenizer, request.prompt)])).logits[0, -1]
    for token in logits.argsort(descending=True)[1:].tolist():
        text = str(tokenizer.decode([token])).removeprefix(joiner)
        if text.strip() and encode_answer(tokenizer, text, request.language) == (token,):
            return msgspec.structs.replace(request, target_new=text)
    raise AssertionError("no token is a text")


@pytest.mark.parametrize("way", ["zh", "sum", "langedit"])
def test_all_updates_added_at_once_make_the_model_that_the_batches_left(model: PreTrainedModel, way: str) -> None:
    seen: list[list[Tensor]] = []
    editor = editor_of(model, MEMIT, combination(way, ("zh", "en")))
    done = run(model, editor, 2, lambda _step: seen.append(memories_of(model)))
    for step, left in zip(done.steps, seen, strict=True):
        with edited(model, step.updates):
            torch.testing.assert_close(memories_of(model), left, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(seen[0][1], seen[1][1], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FEW)
def test_at_the_end_the_model_is_what_it_was_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    model = tiny_model(name).to(dtype)  # pyright: ignore[reportArgumentType]
    before = weights(model)
    editor = editor_of(model, MEMIT, combination("langedit", ("zh", "en")), vectors=usual_vectors(name))
    done = run(model, editor, 2)
    assert len({content[key] for content in done.weights for key in content if content[key] != before[key]}) >= 4
    assert weights(model) == before


@pytest.mark.parametrize("when", [0, 1, 3])
def test_the_model_is_what_it_was_when_an_edit_fails(model: PreTrainedModel, when: int) -> None:
    before, combined, calls = weights(model), combination("langedit", ("zh", "en")), []
    editor = editor_of(model, MEMIT, combined)

    def failing(group: Group, places: slice, history: History) -> Stored:
        calls.append(group)
        if len(calls) > when:
            raise KeyboardInterrupt
        return editor(group, places, history)

    with pytest.raises(KeyboardInterrupt):
        list(edit_in_batches(model, combined, NUM_FACTS, 2, failing))
    assert len(calls) == when + 1
    assert weights(model) == before


def test_the_model_is_what_it_was_when_no_more_batches_are_wanted(model: PreTrainedModel) -> None:
    before, combined = weights(model), combination("sum", ("zh", "en"))
    batches = edit_in_batches(model, combined, NUM_FACTS, 1, editor_of(model, MEMIT, combined))
    next(batches)
    assert isinstance(batches, Iterator)
    assert weights(model) != before
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert weights(model) == before
    for _step in edit_in_batches(model, combined, NUM_FACTS, 1, editor_of(model, MEMIT, combined)):
        break
    assert weights(model) == before


# the search of later batches


def test_the_first_batch_takes_the_saved_v_and_later_ones_seek_theirs_on_the_edited_model(
    model: PreTrainedModel, searches: list[Sought]
) -> None:
    before = weights(model)
    done = edit(model, MEMIT, "zh", 2)
    vectors = usual_vectors(next(name for name in FEW if cached_model(name) is model))["zh"]
    assert len(searches) == 1
    assert searches[0].requests == REQUESTS["zh"][2:]
    assert searches[0].layers == LAYERS
    assert searches[0].weights == done.weights[0] != before
    for layer in LAYERS:
        (_, _, first), (_, _, second) = done.stored
        assert torch.equal(first.met[layer].targets, vectors.targets[layer][:2])
        assert torch.equal(second.met[layer].targets, searches[0].found.targets[layer])
        assert not torch.allclose(second.met[layer].targets, vectors.targets[layer][2:], atol=1e-3)


def test_only_the_first_batch_needs_saved_vectors(model: PreTrainedModel) -> None:
    few = vectors_of(model, {"zh": REQUESTS["zh"][:2]}, LAYERS, SETTINGS)
    editor = editor_of(model, MEMIT, combination("zh", ("zh", "en")), vectors=few)
    (_, _, first), (_, _, _second) = run(model, editor, 2).stored
    assert all(torch.equal(first.met[layer].targets, few["zh"].targets[layer]) for layer in LAYERS)
    with pytest.raises(
        ValueError, match=rf"the first batch has {NUM_FACTS} facts, 2 of them without vectors, fact-2 first; raise grid\.vectors"
    ):
        run(model, editor)


def test_a_batch_of_two_groups_from_one_model_needs_no_search_and_a_second_round_does(
    model: PreTrainedModel, searches: list[Sought]
) -> None:
    edit(model, MEMIT, "sum")
    edit(model, MEMIT, "mixed")
    assert not searches
    done = edit(model, MEMIT, "langedit")
    assert [call.requests for call in searches] == [REQUESTS["en"]]
    with edited(model, done.stored[0][2].updates):
        assert searches[0].weights == weights(model)


@pytest.mark.parametrize(("method", "num_searches"), [(MEMIT, 0), (MERGE, 0), (PMET, 1)], ids=["memit", "merge", "pmet"])
def test_only_a_method_with_a_search_of_its_own_seeks_for_the_first_batch(
    searches: list[Sought], method: ClosedForm, num_searches: int
) -> None:
    edit(cached_model("llama"), method)
    assert len(searches) == num_searches
    assert all(call.search == method.search for call in searches)


def test_merging_seeks_anew_where_facts_of_a_batch_share_a_key_and_stores_their_one_v(
    model: PreTrainedModel, searches: list[Sought]
) -> None:
    first = REQUESTS["zh"][0]
    sharing = (first, msgspec.structs.replace(first, fact_id="other", prompt="法国的作者", target_new="鲁迅"), *REQUESTS["zh"][2:])
    editor = editor_of(model, MERGE, combination("zh", ("zh", "en")), requests={"zh": sharing})
    done = run(model, editor)
    assert [call.requests for call in searches] == [sharing]
    for layer in LAYERS:
        facts = done.stored[0][2].met[layer]
        torch.testing.assert_close(facts.keys[0], facts.keys[1])
        torch.testing.assert_close(facts.targets[0], facts.targets[1], rtol=1e-5, atol=1e-5)
        assert not torch.allclose(facts.targets[2], facts.targets[3], atol=1e-3)


# the past


def facts_of_size(num_facts: int, seed: int) -> Facts:
    generator = torch.Generator().manual_seed(seed)
    keys, values, targets, bare_keys = (torch.randn(num_facts, size, generator=generator, dtype=torch.float64) for size in (5, 3, 3, 5))
    return Facts(keys, values, targets, bare_keys)


def test_the_past_holds_all_that_was_stored_and_protects_the_keys_of_other_groups_only() -> None:
    first, second, other = facts_of_size(2, 1), facts_of_size(3, 2), facts_of_size(1, 3)
    history, shape = History(), torch.Size((3, 5))
    assert [len(tensor) for tensor in vars(history.past(1, shape, ("zh",), keeps_off=True)).values()] == [0, 0, 0]
    history.met[("zh",)] = [{1: first}, {1: second, 2: first}]
    history.met[("en",)] = [{1: other}]
    for keeps_off in (True, False):
        for group, others in ((("zh",), [other]), (("en",), [first, second]), (("ja",), [first, second, other])):
            past = history.past(1, shape, group, keeps_off)
            assert torch.equal(past.keys, torch.cat([first.keys, second.keys, other.keys]))
            assert torch.equal(past.residuals, torch.cat([first.residuals, second.residuals, other.residuals]))
            wanted = torch.cat([torch.zeros(0, 5, dtype=torch.float64), *(facts.keys for facts in others if keeps_off)])
            assert torch.equal(past.protected, wanted)
    assert torch.equal(history.past(2, shape, ("en",), keeps_off=True).protected, first.keys)
    assert history.past(3, shape, ("en",), keeps_off=True).keys.shape == (0, 5)


@pytest.mark.parametrize("way", ["zh", "mixed", "sum", "langedit"])
def test_each_solve_is_told_the_past_of_its_layer_as_it_was_met(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, told = cached_model("llama"), []

    def spy(model: PreTrainedModel, method: ClosedForm, solvers: object, past: dict[int, Past], facts_of: object) -> object:
        told.append(past)
        return solve_layers(model, method, solvers, past, facts_of)  # pyright: ignore[reportArgumentType]

    solve_layers = locate.solve_layers
    monkeypatch.setattr(locate, "solve_layers", spy)
    combined = combination(way, ("zh", "en"))
    done = edit(model, MEMIT, way, 2)
    rounds = [groups for _batch in range(2) for groups in combined.rounds]
    earlier: list[tuple[Group, Stored]] = []
    for groups in rounds:
        now = [(group, stored) for group, _places, stored in done.stored[len(earlier) :][: len(groups)]]
        for (group, _stored), past in zip(now, told[len(earlier) :], strict=False):
            for layer in LAYERS:
                keys = [stored.met[layer].keys for other, stored in sorted(earlier, key=lambda entry: [*dict(earlier)].index(entry[0]))]
                assert torch.equal(past[layer].keys, torch.cat([torch.zeros(0, 32, dtype=torch.float64), *keys]))
                others = [stored.met[layer].keys for other, stored in earlier if other != group and combined.keeps_off]
                assert torch.equal(past[layer].protected, torch.cat([torch.zeros(0, 32, dtype=torch.float64), *others]))
        earlier += now
    assert len(told) == len(done.stored)


def test_with_its_past_alphaedit_spares_earlier_facts_where_keys_overlap_and_memit_does_not(model: PreTrainedModel) -> None:
    """Both fit the second batch exactly, in one layer, so that keys stay."""
    rows = [("The capital of France is", "France", "Tokyo"), ("The capital of France was", "capital of France was", "Bohr")]
    requests = {"en": requests_in("en", rows)}
    vectors = vectors_of(model, requests, (1,), SETTINGS)
    moved: dict[str, float] = {}
    for method in (EXACT, AlphaEdit(null_energy=0.9, ridge=1e-9)):
        editor = editor_of(model, method, combination("en", ("en",)), requests=requests, vectors=vectors, moments=moments_of((1,), ["en"]))
        done = run(model, editor, 1, num_facts=2)
        (_, _, first), (_, _, second) = done.stored
        torch.testing.assert_close(second.updates[1].of(second.met[1].keys), second.met[1].residuals, rtol=1e-4, atol=1e-4)
        cosine = torch.cosine_similarity(first.met[1].keys, second.met[1].keys)
        assert cosine.abs().item() > 0.1
        moved[name_of(method)] = (second.updates[1].of(first.met[1].keys).norm() / second.met[1].residuals.norm()).item()
    assert moved["AlphaEdit"] < 1e-3 < 0.01 < moved["Memit"]


# every method


def num_stored(method: ClosedForm, requests: Sequence[EditRequest]) -> int:
    """One key per fact, or per token of its answer."""
    answers = [encode_answer(tiny_tokenizer(), request.target_new, request.language) for request in requests]
    return sum(map(len, answers)) if method is ULTRAEDIT else len(requests)


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_makes_its_targets_likelier_and_leaves_the_model_as_it_was(model: PreTrainedModel, method: ClosedForm) -> None:
    before, unedited = weights(model), mean_nll(model, REQUESTS["zh"])
    done = edit(model, method)
    assert weights(model) == before
    with edited(model, done.updates):
        assert mean_nll(model, REQUESTS["zh"]) < unedited - 0.05
    assert {update.left.shape[1] for update in done.updates.values()} == {num_stored(method, REQUESTS["zh"])}


@pytest.mark.parametrize("way", ["mixed", "sum", "shared_sum", "langedit"])
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_edits_several_languages_in_batches(method: ClosedForm, way: str) -> None:
    model = cached_model("gemma3_text")
    before = weights(model)
    done = edit(model, method, way, 2)
    assert weights(model) == before
    assert len(done.stored) == (2 if way == "mixed" else 4)
    assert all(update.dense().isfinite().all() for update in done.updates.values())
    assert {update.left.shape[1] for update in done.updates.values()} == {num_stored(method, [*REQUESTS["zh"], *REQUESTS["en"]])}


def test_a_method_that_cannot_be_prepared_is_named_with_its_layer_and_settings() -> None:
    with pytest.raises(ValueError, match=r"AlphaEdit, layer 1: null_energy 1e-09 leaves no null space; raise it .*ridge=0\.1"):
        edit(cached_model("llama"), AlphaEdit(null_energy=1e-9, ridge=0.1))


def test_the_dear_part_of_a_solver_is_done_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    solver = Memit.solver
    monkeypatch.setattr(Memit, "solver", lambda method, old_keys: asked.append(old_keys.num_keys) or solver(method, old_keys))
    edit(cached_model("llama"), MEMIT, "zh", 1)
    assert len(asked) == len(LAYERS)
    edit(cached_model("llama"), MEMIT, "sum", 1)
    assert len(asked) == 3 * len(LAYERS)


# the published code's choices


def published(
    model: PreTrainedModel, method: ClosedForm, layers: Sequence[int], requests: Mapping[str, Sequence[EditRequest]]
) -> LocateThenEdit:
    return editor_of(
        model,
        method,
        combination("mixed", tuple(requests)),
        requests=requests,
        vectors={},
        moments=moments_of(layers),
        practice_name="published",
    )


def test_published_code_takes_every_request_for_english() -> None:
    (request,) = as_published(REQUESTS["zh"][:1])
    assert (request.prompt, request.target_new, request.subject) == ("法国的首都是", "东京", "法国")
    assert encode_answer(tiny_tokenizer(), request.target_new, request.language) == tuple(
        tiny_tokenizer()(" 东京", add_special_tokens=False).input_ids
    )
    openings = [tiny_tokenizer().decode(list(prompt.tokens[1:])) for prompt in contexts(tiny_tokenizer(), request, 5)]
    assert openings == [opening + "法国的首都是" for opening in ("", *language("en").prefixes)]
    assert language(request.language).essence == "{subject} is a"


@pytest.mark.parametrize("batch_size", [None, 1], ids=str)
def test_published_code_seeks_v_at_the_last_edited_layers_output_behind_openings(
    model: PreTrainedModel, searches: list[Sought], batch_size: int | None
) -> None:
    requests = {"zh": as_published(REQUESTS["zh"][:2])}
    run(model, published(model, MEMIT, LAYERS, requests), batch_size, num_facts=2)
    assert len(searches) == (1 if batch_size is None else 2)
    for call in searches:
        assert call.layers == (2,)
        assert call.value is layers_of(model)[2]
        assert call.settings == msgspec.structs.replace(SETTINGS, num_prefixes=5)
        assert {request.language for request in call.requests} == {"en"}


def mean_output(model: PreTrainedModel, layer: int, request: EditRequest) -> Tensor:
    """The mean over contexts of what a layer gives at the subject, one pass per context."""
    states = []
    for prompt in contexts(tiny_tokenizer(), request, 5):
        ids = torch.tensor([prompt.tokens])
        states.append(record(model, [layers_of(model)[layer]], ids, torch.ones_like(ids))[0][1][0, prompt.subject_last].double())
    return torch.stack(states).mean(0)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_without_a_norm_after_the_memory_published_code_gives_the_last_layer_its_target(name: str, searches: list[Sought]) -> None:
    model = cached_model(name)
    requests = {"zh": as_published(REQUESTS["zh"])}
    done = run(model, published(model, EXACT, (2,), requests))
    with edited(model, done.updates):
        outputs = torch.stack([mean_output(model, 2, request) for request in requests["zh"]])
    torch.testing.assert_close(outputs, searches[0].found.targets[2], rtol=1e-3, atol=1e-3)


def test_behind_a_norm_published_code_misses_its_target_and_ours_does_not(searches: list[Sought]) -> None:
    model = cached_model("gemma3_text")
    requests = {"zh": as_published(REQUESTS["zh"])}
    done = run(model, published(model, EXACT, (2,), requests))
    targets = searches[0].found.targets[2]
    before = torch.stack([mean_output(model, 2, request) for request in requests["zh"]])
    with edited(model, done.updates):
        outputs = torch.stack([mean_output(model, 2, request) for request in requests["zh"]])
    assert ((outputs - targets).norm(dim=1) > 0.1 * (targets - before).norm(dim=1)).all()
    ours = edit(model, EXACT)
    with edited(model, ours.updates):
        facts = ours.stored[0][2].met[2]
        values = facts_at(model, REQUESTS["zh"], 2, facts.targets).values
    torch.testing.assert_close(values, facts.targets, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [MEMIT, PMET, EXACT, ALPHAEDIT], ids=["memit", "pmet", "exact", "alphaedit"])
def test_published_code_spreads_what_the_last_layer_lacks_over_the_layers_left(
    model: PreTrainedModel, method: ClosedForm, searches: list[Sought]
) -> None:
    """arXiv 2210.07229, algorithm 1: what is missing is measured anew for each layer, and divided by the layers left (PMET: root)."""
    layers, power = (0, 1, 3), 0.5 if method is PMET else 1.0
    requests = {"zh": as_published(REQUESTS["zh"][:3])}
    done = run(model, published(model, method, layers, requests), num_facts=3)
    targets = searches[0].found.targets[3]
    with editing(model) as add:
        for layer, layers_left in zip(layers, (3, 2, 1), strict=True):
            missing = targets - torch.stack([mean_output(model, 3, request) for request in requests["zh"]])
            facts = facts_at(model, requests["zh"], layer, targets, num_prefixes=5)
            facts = Facts(**vars(facts) | {"targets": facts.values + missing / layers_left**power})
            update = method.solver(SecondMoment.pooled([MOMENTS["zh"][layer], MOMENTS["en"][layer]]))(facts, Past.none(32, 32))
            add(layer, update)
            size = update.dense().abs().max().item()
            torch.testing.assert_close(done.updates[layer].dense(), update.dense(), rtol=1e-2, atol=1e-3 * size)


def test_published_code_makes_another_edit_than_ours(model: PreTrainedModel) -> None:
    requests = {"zh": REQUESTS["zh"]}
    theirs = run(model, published(model, MEMIT, LAYERS, {"zh": as_published(REQUESTS["zh"])}))
    ours = run(model, editor_of(model, MEMIT, combination("zh", ("zh", "en")), requests=requests))
    for layer in LAYERS:
        assert not torch.allclose(theirs.updates[layer].dense(), ours.updates[layer].dense(), rtol=0.1)


# training


@contextmanager
def unchanged(model: PreTrainedModel) -> Iterator[None]:
    before = weights(model)
    yield
    assert weights(model) == before


def training(model: PreTrainedModel, method: Trained, way: str) -> Training:
    return Training(model, tiny_tokenizer(), method, combination(way, ("zh", "en")), REQUESTS, LAYERS, seed=5)


@pytest.mark.parametrize("method", [FT_M, LORA], ids=name_of)
def test_training_in_sum_is_the_sum_of_what_each_language_trains_alone(model: PreTrainedModel, method: Trained) -> None:
    with unchanged(model):
        summed, *alone = (run(model, training(model, method, way)) for way in ("sum", "zh", "en"))
    for layer in LAYERS:
        wanted = sum(each.updates[layer].dense() for each in alone)
        torch.testing.assert_close(summed.updates[layer].dense(), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [FT_M, LORA], ids=name_of)
def test_training_changes_the_methods_own_layers_where_it_names_some(model: PreTrainedModel, method: Trained) -> None:
    for own, wanted in ((None, set(LAYERS)), ((0,), {0})):
        editor = training(model, msgspec.structs.replace(method, layers=own), "zh")
        assert set(run(model, editor).updates) == set(editor.layers) == wanted


@pytest.mark.parametrize("method", [FT_M, LORA], ids=name_of)
def test_training_goes_on_from_the_model_that_earlier_batches_left(model: PreTrainedModel, method: Trained) -> None:
    with unchanged(model):
        done = run(model, training(model, method, "zh"), 2)
        first = method.updates(model, tiny_tokenizer(), REQUESTS["zh"][:2], LAYERS, 5)
        with edited(model, first):
            second = method.updates(model, tiny_tokenizer(), REQUESTS["zh"][2:], LAYERS, 5)
    for layer in LAYERS:
        wanted = first[layer].dense() + second[layer].dense()
        torch.testing.assert_close(done.updates[layer].dense(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [FT_M, LORA], ids=name_of)
def test_training_cannot_keep_off_earlier_keys_and_says_so(model: PreTrainedModel, method: Trained) -> None:
    wanted = rf"{name_of(method)} trains and cannot keep off earlier keys; use a closed-form method for this edit"
    with unchanged(model), pytest.raises(ValueError, match=wanted):
        run(model, training(model, method, "langedit"))


# the stage's settings


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_of_no_facts_is_refused(batch_size: int) -> None:
    settings = {"batch_size": batch_size, "layers": [1], "num_facts": 4, "practice": "ours"}
    with pytest.raises(msgspec.ValidationError, match=rf"edit\.batch_size is {batch_size}; it must be at least 1, or null for all facts"):
        msgspec.convert(settings, EditParams)
    for good in (1, None):
        assert msgspec.convert(settings | {"batch_size": good}, EditParams).batch_size == good
