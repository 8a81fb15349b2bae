"""What an edit of several languages is made of: each way is a few groups, rounds and statistics, and each does what it says."""

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.test_sequence import (
    ALPHAEDIT,
    EMMET,
    FEW,
    LAYERS,
    MEMIT,
    MOMENTS,
    REQUESTS,
    ROME,
    ULTRAEDIT,
    cached_model,
    edit,
    facts_at,
    moments_of,
    name_of,
    usual_vectors,
)
from tests.tiny import tiny_tokenizer
from xledit.editing.apply import editing
from xledit.editing.combine import Combination, combination
from xledit.editing.gradients import answer_facts
from xledit.editing.least_change import solve_in_turn
from xledit.editing.locate import ClosedForm
from xledit.editing.methods.ultraedit import UltraEdit
from xledit.editing.tensors import LayerUpdate, Past, SecondMoment

BOTH = ("zh", "en")
some_methods = pytest.mark.parametrize("method", [MEMIT, ALPHAEDIT, EMMET, ROME, ULTRAEDIT], ids=name_of)


@pytest.fixture(params=FEW)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def dense(updates: dict[int, LayerUpdate]) -> list[Tensor]:
    return [updates[layer].dense() for layer in LAYERS]


def summed(*edits: dict[int, LayerUpdate]) -> list[Tensor]:
    return [sum((updates[layer].dense() for updates in edits), start=torch.zeros(32, 32, dtype=torch.float64)) for layer in LAYERS]


def assert_same(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Up to the model's float32."""
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def differ(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all((one - other).norm() > 0.01 * other.norm() for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("edit", "rounds", "own_statistics", "keeps_off"),
    [
        ("en", [[["en"]]], False, False),
        ("mixed", [[["zh", "en", "ja"]]], False, False),
        ("sum", [[["zh"], ["en"], ["ja"]]], True, False),
        ("shared_sum", [[["zh"], ["en"], ["ja"]]], False, False),
        ("langedit", [[["zh"]], [["en"]], [["ja"]]], False, True),
    ],
)
def test_a_way_is_rounds_of_groups_of_languages(edit: str, rounds: list, own_statistics: bool, keeps_off: bool) -> None:
    combined = combination(edit, ("zh", "en", "ja"))
    assert [[list(group) for group in groups] for groups in combined.rounds] == rounds
    assert (combined.own_statistics, combined.keeps_off) == (own_statistics, keeps_off)
    assert combined.languages == (("en",) if edit == "en" else ("zh", "en", "ja"))


def test_a_language_that_comes_twice_is_named_once_in_the_order_of_its_first() -> None:
    assert Combination(rounds=((("en",), ("zh", "ja")), (("zh", "en"),))).languages == ("en", "zh", "ja")


@pytest.mark.parametrize("unknown", ["joint", "fr", ""])
def test_an_unknown_edit_lists_the_known_ones(unknown: str) -> None:
    with pytest.raises(ValueError, match=rf"grid\.edits: '{unknown}' is none of zh, en, mixed, sum, shared_sum, langedit"):
        combination(unknown, BOTH)


@some_methods
def test_mixed_is_one_system_of_all_languages_facts(model: PreTrainedModel, method: ClosedForm) -> None:
    vectors = usual_vectors(next(name for name in FEW if cached_model(name) is model))
    done, requests = edit(model, method, "mixed"), (*REQUESTS["zh"], *REQUESTS["en"])
    answers = answer_facts(model, tiny_tokenizer(), requests, LAYERS, 10_000)
    with editing(model) as add:
        for layer in LAYERS:
            targets = torch.cat([vectors[code].targets[layer] for code in BOTH])
            facts = answers[layer] if isinstance(method, UltraEdit) else facts_at(model, requests, layer, targets)
            solver = method.solver(SecondMoment.pooled([MOMENTS[code][layer] for code in BOTH]))
            update = solve_in_turn(solver, facts, Past.none(32, 32), method.most_facts)
            torch.testing.assert_close(done.updates[layer].dense(), update.dense(), rtol=1e-3, atol=1e-4)
            add(layer, update)
    assert len(done.stored) == 1


@some_methods
def test_a_language_alone_stores_its_own_facts_against_all_languages_text(model: PreTrainedModel, method: ClosedForm) -> None:
    alone = edit(model, method, "zh")
    assert [group for group, _places, _stored in alone.stored] == [("zh",)]
    same = {code: {layer: SecondMoment.pooled([MOMENTS[code][layer] for code in BOTH]) for layer in LAYERS} for code in ("zh",)}
    assert_same(dense(alone.updates), dense(edit(model, method, "zh", moments=same).updates))


@pytest.mark.parametrize("method", [MEMIT, ALPHAEDIT, EMMET, ROME], ids=name_of)
def test_sum_is_the_sum_of_the_languages_edits_each_against_its_own_text(model: PreTrainedModel, method: ClosedForm) -> None:
    alone = [edit(model, method, code, moments=moments_of(LAYERS, [code])).updates for code in BOTH]
    done = edit(model, method, "sum")
    assert_same(dense(done.updates), summed(*alone))
    assert differ(dense(done.updates), dense(edit(model, method, "shared_sum").updates))


@some_methods
def test_shared_sum_is_the_sum_of_the_languages_edits_against_all_text(model: PreTrainedModel, method: ClosedForm) -> None:
    done = edit(model, method, "shared_sum")
    assert_same(dense(done.updates), summed(*(edit(model, method, code).updates for code in BOTH)))
    assert differ(dense(done.updates), dense(edit(model, method, "mixed").updates))


@some_methods
def test_langedit_leaves_what_the_first_language_stored_and_the_other_ways_do_not(model: PreTrainedModel, method: ClosedForm) -> None:
    first = edit(model, method, "zh")
    found = {way: edit(model, method, way) for way in ("mixed", "sum", "shared_sum", "langedit")}
    moved: dict[str, float] = {}
    for layer in LAYERS:
        met = first.stored[0][2].met[layer]
        wanted = first.updates[layer].of(met.keys)
        torch.testing.assert_close(found["langedit"].stored[0][2].met[layer].keys, met.keys)
        moved = {way: ((done.updates[layer].of(met.keys) - wanted).norm() / wanted.norm()).item() for way, done in found.items()}
        assert moved["langedit"] < 1e-9
        assert min(moved["sum"], moved["shared_sum"]) > 0.01
    # in the first layer one system may fit both languages' facts as well as each alone
    assert moved["mixed"] > 0.01


def test_langedit_in_batches_keeps_off_all_that_the_other_language_stored_and_not_off_its_own(model: PreTrainedModel) -> None:
    stored = edit(model, MEMIT, "langedit", 2).stored
    assert [group for group, _places, _stored in stored] == [("zh",), ("en",), ("zh",), ("en",)]
    for layer in LAYERS:
        for index, (group, _places, now) in enumerate(stored):
            for other, _, earlier in stored[:index]:
                keys, size = earlier.met[layer].keys, now.updates[layer].dense().norm() * earlier.met[layer].keys.norm()
                moved = (now.updates[layer].of(keys).norm() / size).item()
                assert moved > 1e-3 if other == group else moved < 1e-6


def test_the_second_language_is_still_stored_when_it_keeps_off_the_first() -> None:
    (_, _, second) = edit(cached_model("llama"), EMMET, "langedit").stored[1]
    for layer in LAYERS:
        torch.testing.assert_close(second.updates[layer].of(second.met[layer].keys), second.met[layer].residuals, rtol=1e-4, atol=1e-4)
