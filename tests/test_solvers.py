"""The closed forms keep what theory promises, and equal the papers' formulas with explicit inverses. float64, default tolerance."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.testing import assert_close

from xledit.editing.least_change import inverse_of, keeping, least_change, solve_in_turn
from xledit.editing.locate import ClosedForm
from xledit.editing.methods.alphaedit import AlphaEdit, null_space, sparing
from xledit.editing.methods.emmet import Emmet
from xledit.editing.methods.memit import Memit
from xledit.editing.methods.memit_merge import MemitMerge
from xledit.editing.methods.pmet import Pmet
from xledit.editing.methods.r_rome import RRome
from xledit.editing.methods.rome import Rome
from xledit.editing.methods.ultraedit import UltraEdit, normalised
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment

ROME, R_ROME, EMMET = Rome(regularisation=0.1), RRome(regularisation=0.1), Emmet(regularisation=0.1)
MEMIT = Memit(old_key_weight=2.0, regularisation=0.1)
ALPHAEDIT = AlphaEdit(null_energy=1e-6, ridge=0.3)
ULTRAEDIT = UltraEdit(lr=0.7, ridge=0.4)
METHODS: list[ClosedForm] = [
    ROME,
    R_ROME,
    EMMET,
    MEMIT,
    MemitMerge(old_key_weight=2.0, regularisation=0.1),
    Pmet(old_key_weight=2.0, regularisation=0.1),
    ALPHAEDIT,
    ULTRAEDIT,
]
weights = st.floats(0.01, 100.0)
# numbers of facts, past keys or protected keys
none, few, some, several = st.just(0), st.integers(0, 2), st.integers(1, 4), st.integers(2, 4)
thorough, for_each_method = settings(max_examples=50), settings(max_examples=20)


def name_of(case: object) -> str:
    return case if isinstance(case, str) else type(case).__name__


every_method = pytest.mark.parametrize("method", METHODS, ids=name_of)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On busy cores, threads that wait for each other make small products fifty times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Problem:
    """Random facts for a memory whose old keys live in ``old`` only: orthonormal directions of key space."""

    facts: Facts
    past: Past
    old: Float[Tensor, "d_in old"]
    energies: Float[Tensor, " old"]

    @property
    def moment(self) -> SecondMoment:
        return SecondMoment(self.old * self.energies @ self.old.T, num_keys=100)

    @property
    def columns(self) -> tuple[Float[Tensor, "d_in facts"], Float[Tensor, "d_out facts"]]:
        """The papers' K and R."""
        return self.facts.keys.T, (self.facts.targets - self.facts.values).T

    def regularised(self, share: float = 0.1) -> Float[Tensor, "d_in d_in"]:
        C = self.moment.matrix
        return C + share * C.trace() / len(C) * identity(len(C))

    @property
    def room(self) -> Float[Tensor, "d_in d_in"]:
        """The projection on what old keys leave free."""
        return identity(len(self.old)) - self.old @ self.old.T

    def solve(self, method: ClosedForm) -> LayerUpdate:
        return method.solver(self.moment)(self.facts, self.past)

    def change(self, method: ClosedForm) -> Float[Tensor, "d_out d_in"]:
        return self.solve(method).dense()

    def for_one_call(self, method: ClosedForm) -> "Problem":
        """As many of the facts as the method takes at a time."""
        return replace(self, facts=self.facts.take(slice(method.most_facts)))

    def without_past(self) -> "Problem":
        return replace(self, past=Past.none(self.facts.keys.shape[1], self.facts.values.shape[1]))

    def unprotected(self) -> "Problem":
        return replace(self, past=replace(self.past, protected=self.past.protected[:0]))


def identity(size: int) -> Float[Tensor, "size size"]:
    return torch.eye(size, dtype=torch.float64)


def normal(rows: int, columns: int, generator: torch.Generator) -> Float[Tensor, "{rows} {columns}"]:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def problems(
    draw: st.DrawFn,
    facts: st.SearchStrategy[int] = some,
    past: st.SearchStrategy[int] = none,
    protected: st.SearchStrategy[int] = none,
    openings: bool = False,
    full_rank: bool = True,
) -> Problem:
    """Memories with more inputs than facts; the old keys fill key space, or leave at least one direction for each new key.

    What old keys leave free tells all new keys well apart, so that no exact fit is near impossible.
    """
    num_facts, num_past, num_protected = draw(facts), draw(past), draw(protected)
    d_out, spare, generator = draw(st.integers(1, 6)), draw(st.integers(2, 5)), seeded(draw(st.integers(0, 2**32)))
    rows = num_facts + num_past + num_protected
    d_in = rows + 1 + spare

    def random(rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
        return normal(rows, columns, generator)

    basis = torch.linalg.qr(random(d_in, d_in)).Q
    old = basis if full_rank else basis[:, -spare:]
    energies = 0.2 + torch.rand(old.shape[1], generator=generator, dtype=torch.float64)
    apart = torch.linalg.svd(random(rows, rows + 1), full_matrices=False)
    sizes = 0.5 + torch.rand(rows, generator=generator, dtype=torch.float64)
    all_keys = torch.cat([apart.U * sizes @ apart.Vh, random(rows, spare)], dim=1) @ basis.T
    keys, past_keys, protected_keys = all_keys.split([num_facts, num_past, num_protected])
    values, moved = random(num_facts, d_out), random(num_facts, d_out)
    # a small part of the key, so that it keeps its part in the direction
    bare_keys = keys + openings * 0.1 * keys.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(random(num_facts, d_in))
    facts_drawn = Facts(keys, values, values + moved, bare_keys)
    return Problem(facts_drawn, Past(past_keys, random(num_past, d_out), protected_keys), old, energies)


low_rank = problems(full_rank=False)
# what every method can solve: room beside old keys, facts enough for a spread
anything = problems(facts=several, past=few, protected=few, openings=True, full_rank=False)


# each method against its paper, in the paper's columns, with explicit inverses


@thorough
@given(problems(facts=st.just(1), openings=True), weights)
def test_rome_is_equation_2_of_arxiv_2202_05262_with_the_bare_key_in_the_scale_alone(problem: Problem, share: float) -> None:
    facts, C_inverse = problem.facts, torch.linalg.inv(problem.regularised(share))
    direction = C_inverse @ facts.keys[0]
    residual = facts.targets[0] - facts.values[0]
    expected = torch.outer(residual, direction) / (direction @ facts.bare_keys[0])
    assert_close(problem.change(Rome(regularisation=share)), expected)


@thorough
@given(problems(facts=st.just(1), openings=True), weights)
def test_r_rome_of_arxiv_2403_07175_is_romes_formula_with_the_averaged_key_throughout(problem: Problem, share: float) -> None:
    facts, C_inverse = problem.facts, torch.linalg.inv(problem.regularised(share))
    direction = C_inverse @ facts.keys[0]
    residual = facts.targets[0] - facts.values[0]
    expected = torch.outer(residual, direction) / (direction @ facts.keys[0])
    assert_close(problem.change(RRome(regularisation=share)), expected)


@thorough
@given(problems(openings=True), weights)
def test_emmet_is_the_closed_form_of_arxiv_2403_14236(problem: Problem, share: float) -> None:
    (K, R), C_inverse = problem.columns, torch.linalg.inv(problem.regularised(share))
    expected = R @ torch.linalg.inv(K.T @ C_inverse @ K) @ K.T @ C_inverse
    assert_close(problem.change(Emmet(regularisation=share)), expected)


@thorough
@given(problems(openings=True), weights, weights)
def test_memit_is_equation_14_of_arxiv_2210_07229(problem: Problem, weight: float, share: float) -> None:
    (K, R), C = problem.columns, problem.regularised(share)
    expected = R @ K.T @ torch.linalg.inv(weight * C + K @ K.T)
    assert_close(problem.change(Memit(old_key_weight=weight, regularisation=share)), expected)


@thorough
@given(problems(past=few, openings=True, full_rank=False), weights)
def test_alphaedit_is_equation_14_of_arxiv_2410_02355(problem: Problem, share: float) -> None:
    (K, R), K_past, P = problem.columns, problem.past.keys.T, problem.room
    ridge = share * (P @ K).square().sum(0).mean()
    expected = R @ K.T @ P @ torch.linalg.inv(K_past @ K_past.T @ P + K @ K.T @ P + ridge * identity(len(P)))
    assert_close(problem.change(AlphaEdit(null_energy=1e-6, ridge=share)), expected)


@thorough
@given(low_rank, weights)
def test_alphaedit_without_a_past_is_the_first_batch_of_arxiv_2410_02355(problem: Problem, share: float) -> None:
    (K, R), P = problem.columns, problem.room
    ridge = share * (P @ K).square().sum(0).mean()
    expected = R @ K.T @ P @ torch.linalg.inv(K @ K.T @ P + ridge * identity(len(P)))
    assert_close(problem.change(AlphaEdit(null_energy=1e-6, ridge=share)), expected)


class Running:
    """Mean and spread taken in fact by fact (Welford)."""

    def __init__(self, size: int) -> None:
        self.seen, self.mean, self.squares = 0, torch.zeros(size).double(), torch.zeros(size).double()

    def take_in(self, batch: Float[Tensor, "facts size"]) -> None:
        for row in batch:
            self.seen += 1
            off = row - self.mean
            self.mean = self.mean + off / self.seen
            self.squares = self.squares + off * (row - self.mean)

    def normalised(self, batch: Float[Tensor, "facts size"]) -> Float[Tensor, "facts size"]:
        return (batch - self.mean) / (self.squares / self.seen).sqrt()


def ultraedits_wishes(problem: Problem) -> Float[Tensor, "facts d_out"]:
    """V of arXiv 2505.14679, the statistics taken in batch by batch: the past's first fact, its others, the facts now.

    Residuals are gradients with the sign turned.
    """

    def features(past: Tensor, now: Tensor) -> Tensor:
        running = Running(now.shape[1])
        for batch in (past[:1], past[1:], now):
            running.take_in(batch)
        return running.normalised(now)

    facts, past = problem.facts, problem.past
    hidden, steps = features(past.keys, facts.keys), features(past.residuals, facts.targets - facts.values)
    lengths = hidden.square().sum(1, keepdim=True) / hidden.shape[1]
    return ULTRAEDIT.lr * lengths * steps * (facts.values.square().sum() / facts.values.numel()).sqrt()


def size_of_keys(keys: Float[Tensor, "facts d_in"]) -> Float[Tensor, ""]:
    return keys.square().sum() / len(keys)


@thorough
@given(problems(facts=several, past=st.integers(0, 3), openings=True))
def test_ultraedit_is_the_closed_form_of_arxiv_2505_14679_with_running_statistics(problem: Problem) -> None:
    H, ridge = problem.facts.keys, ULTRAEDIT.ridge * size_of_keys(problem.facts.keys)
    shift = torch.linalg.inv(H.T @ H + ridge * identity(H.shape[1])) @ H.T @ ultraedits_wishes(problem)
    assert_close(problem.change(ULTRAEDIT), shift.T)


@thorough
@given(problems(facts=st.just(1), past=st.integers(1, 3)))
def test_one_fact_has_a_spread_once_there_are_earlier_ones(problem: Problem) -> None:
    H, ridge = problem.facts.keys, ULTRAEDIT.ridge * size_of_keys(problem.facts.keys)
    shift = torch.linalg.inv(H.T @ H + ridge * identity(H.shape[1])) @ H.T @ ultraedits_wishes(problem)
    assert_close(problem.change(ULTRAEDIT), shift.T)


@thorough
@given(problems(facts=several, past=few))
def test_normalised_features_of_all_facts_have_mean_0_and_spread_1(problem: Problem) -> None:
    now, before = problem.facts.keys, problem.past.keys
    both = torch.cat([normalised(now, before), normalised(before, now)])
    assert_close(both.mean(0), torch.zeros(now.shape[1]).double())
    assert_close(both.square().mean(0), torch.ones(now.shape[1]).double())


@pytest.mark.parametrize("constant", [0.0, 1.0, -2.5])
def test_a_feature_that_never_differs_carries_nothing(constant: float) -> None:
    features = torch.tensor([[constant, 1.0], [constant, 3.0], [constant, 5.0]]).double()
    assert_close(normalised(features[1:], features[:1])[:, 0], torch.zeros(2).double())


@pytest.mark.parametrize("num_facts", [3, 9])
def test_a_feature_that_differs_by_rounding_only_carries_nothing(num_facts: int) -> None:
    features = torch.full((num_facts, 1), 2.7, dtype=torch.float64)
    assert_close(normalised(features, features[:0]), torch.zeros(num_facts, 1).double())


# what each method makes least, and among which changes

Objective = Callable[[Problem, Tensor], Tensor]


def misfit(problem: Problem, change: Tensor) -> Tensor:
    return (problem.facts.keys @ change.T - problem.facts.residuals).square().sum()


def disturbance(problem: Problem, change: Tensor) -> Tensor:
    return (change @ problem.regularised() @ change.T).trace()


def memits(problem: Problem, change: Tensor) -> Tensor:
    return misfit(problem, change) + MEMIT.old_key_weight * disturbance(problem, change)


def alphaedits(problem: Problem, change: Tensor) -> Tensor:
    ridge = ALPHAEDIT.ridge * size_of_keys(problem.facts.keys @ problem.room)
    return misfit(problem, change) + (problem.past.keys @ change.T).square().sum() + ridge * change.square().sum()


def ultraedits(problem: Problem, change: Tensor) -> Tensor:
    ridge = ULTRAEDIT.ridge * size_of_keys(problem.facts.keys)
    return (problem.facts.keys @ change.T - ultraedits_wishes(problem)).square().sum() + ridge * change.square().sum()


def none_held(problem: Problem) -> Tensor:
    return problem.facts.keys[:0]


def facts_held(problem: Problem) -> Tensor:
    return problem.facts.keys


def old_held(problem: Problem) -> Tensor:
    return problem.old.T


# the objective, and the keys whose values are held while it is made least
THEORY: dict[type, tuple[Objective, Callable[[Problem], Tensor]]] = {
    # of all changes that do the same to the averaged key
    Rome: (disturbance, facts_held),
    RRome: (disturbance, facts_held),
    Emmet: (disturbance, facts_held),
    Memit: (memits, none_held),
    MemitMerge: (memits, none_held),
    Pmet: (memits, none_held),
    AlphaEdit: (alphaedits, old_held),
    UltraEdit: (ultraedits, none_held),
}


def feasible(problem: Problem, method: ClosedForm) -> Float[Tensor, "d_in d_in"]:
    """The projection of key space on what the method is free to change."""
    held = torch.cat([THEORY[type(method)][1](problem), problem.past.protected])
    return identity(held.shape[1]) - torch.linalg.pinv(held, rtol=1e-10) @ held


@every_method
@for_each_method
@given(problem=anything)
def test_the_gradient_of_the_methods_own_objective_is_zero_in_all_free_directions(method: ClosedForm, problem: Problem) -> None:
    problem = problem.for_one_call(method)
    change = problem.change(method).requires_grad_()
    THEORY[type(method)][0](problem, change).backward()
    assert change.grad is not None
    assert_close(change.grad @ feasible(problem, method), torch.zeros_like(change))


@every_method
@for_each_method
@given(problem=anything, seed=st.integers(0, 2**32))
def test_every_other_free_change_has_a_greater_objective(method: ClosedForm, problem: Problem, seed: int) -> None:
    problem, generator = problem.for_one_call(method), seeded(seed)
    objective, change, free = THEORY[type(method)][0], problem.change(method), feasible(problem, method)
    for size in (0.01, 1.0, 100.0):
        assert objective(problem, change + size * normal(change.shape[0], change.shape[1], generator) @ free) > objective(problem, change)


@thorough
@given(problems(), weights)
def test_the_least_change_has_no_gradient_for_any_ridge(problem: Problem, ridge: float) -> None:
    facts, C = problem.facts, problem.moment.matrix
    change = least_change(facts.keys, facts.keys @ C.inverse(), facts.residuals, ridge).dense().requires_grad_()
    (misfit(problem, change) / ridge + (change @ C @ change.T).trace()).backward()
    assert_close(change.grad, torch.zeros_like(change))


# shapes and units


@every_method
@for_each_method
@given(problem=anything)
def test_the_rank_is_at_most_the_number_of_facts(method: ClosedForm, problem: Problem) -> None:
    problem = problem.for_one_call(method)
    update, facts = problem.solve(method), len(problem.facts.keys)
    assert update.left.shape == (problem.facts.values.shape[1], facts)
    assert update.right.shape == problem.facts.keys.shape
    assert update.dense().dtype == torch.float64
    assert torch.linalg.matrix_rank(update.dense()) <= facts


@every_method
@for_each_method
@given(problem=anything, of_keys=st.floats(0.1, 10.0), of_values=st.floats(0.1, 10.0))
def test_the_units_of_keys_and_values_do_not_matter(method: ClosedForm, problem: Problem, of_keys: float, of_values: float) -> None:
    problem = problem.for_one_call(method)
    facts, past = problem.facts, problem.past
    in_other_units = replace(
        problem,
        facts=Facts(
            keys=of_keys * facts.keys,
            values=of_values * facts.values,
            targets=of_values * facts.targets,
            bare_keys=of_keys * facts.bare_keys,
        ),
        past=Past(of_keys * past.keys, of_values * past.residuals, of_keys * past.protected),
        energies=of_keys**2 * problem.energies,
    )
    assert_close(in_other_units.change(method) * of_keys / of_values, problem.change(method))


@thorough
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2**32))
def test_updates_add_up_and_give_the_change_of_any_keys_values(numbers: list[int], seed: int) -> None:
    generator = seeded(seed)
    updates = [LayerUpdate(normal(3, number, generator), normal(number, 5, generator)) for number in numbers]
    keys, joined = normal(4, 5, generator), LayerUpdate.joined(updates)
    assert_close(joined.dense(), torch.stack([update.left @ update.right for update in updates]).sum(0))
    assert joined.left.shape == (3, sum(numbers))
    assert_close(joined.of(keys), keys @ joined.dense().T)


# limits and equalities


@thorough
@given(problems(protected=few))
def test_memit_with_next_to_no_weight_on_old_keys_is_emmet(problem: Problem) -> None:
    assert_close(problem.change(Memit(old_key_weight=1e-12, regularisation=0.1)), problem.change(EMMET))


@thorough
@given(problems(facts=st.just(1), protected=few))
def test_for_one_fact_without_openings_emmet_is_r_rome_is_rome(problem: Problem) -> None:
    assert_close(problem.change(EMMET), problem.change(R_ROME), rtol=0, atol=0)
    assert_close(problem.change(R_ROME), problem.change(ROME))


@thorough
@given(problems(facts=st.just(1), openings=True))
def test_openings_tell_rome_from_r_rome_by_the_length_of_the_update_alone(problem: Problem) -> None:
    facts, direction = problem.facts, torch.linalg.inv(problem.regularised()) @ problem.facts.keys[0]
    lengthened = (direction @ facts.keys[0]) / (direction @ facts.bare_keys[0])
    assert_close(problem.change(ROME), lengthened * problem.change(R_ROME))


@thorough
@given(problems(protected=few, openings=True))
def test_exact_fits_store_every_fact(problem: Problem) -> None:
    assert_close(problem.solve(EMMET).of(problem.facts.keys), problem.facts.residuals)
    first = problem.for_one_call(R_ROME)
    assert_close(first.solve(R_ROME).of(first.facts.keys), first.facts.residuals)
    assert_close(first.solve(ROME).of(first.facts.bare_keys), first.facts.residuals)


@thorough
@given(problems())
def test_without_a_ridge_every_fact_is_stored_exactly(problem: Problem) -> None:
    facts = problem.facts
    update = least_change(facts.keys, facts.keys @ problem.moment.matrix.inverse(), facts.residuals, ridge=0.0)
    assert_close(update.of(facts.keys), facts.residuals)


def test_with_unit_ridge_and_metric_a_fact_of_unit_key_moves_half_the_way() -> None:
    key, residual = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[4.0, -2.0]]).double()
    assert_close(least_change(key, key, residual, ridge=1.0).dense(), torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).double())


@pytest.mark.parametrize("kind", [MemitMerge, Pmet])
@thorough
@given(problem=problems(past=few, protected=few, openings=True), weight=weights)
def test_methods_that_differ_from_memit_in_their_search_solve_as_memit_does(kind: type[Memit], problem: Problem, weight: float) -> None:
    change = problem.change(kind(old_key_weight=weight, regularisation=0.1))
    assert_close(change, problem.change(Memit(old_key_weight=weight, regularisation=0.1)), rtol=0, atol=0)


def test_memit_merge_seeks_one_value_per_key_and_pmet_moves_attention_too() -> None:
    assert [type(method) for method in METHODS if method.search.merge] == [MemitMerge]
    assert [type(method) for method in METHODS if method.search.attention] == [Pmet]


def test_published_pmet_spreads_residuals_by_the_root_of_the_layers_left() -> None:
    assert {type(method): method.search.spread_power for method in METHODS if method.search.spread_power != 1} == {Pmet: 0.5}


def test_rome_and_r_rome_take_one_fact_at_a_time_and_the_others_all() -> None:
    assert {type(method) for method in METHODS if method.most_facts == 1} == {Rome, RRome}
    assert {method.most_facts for method in METHODS} == {1, None}


@thorough
@given(problems(), st.floats(0.01, 10.0), st.floats(1.1, 100.0))
def test_a_larger_old_key_weight_disturbs_old_values_less_and_stores_less(problem: Problem, weight: float, factor: float) -> None:
    light, heavy = (problem.change(Memit(old_key_weight=value, regularisation=0.1)) for value in (weight, weight * factor))
    assert disturbance(problem, heavy) < disturbance(problem, light)
    assert misfit(problem, heavy) > misfit(problem, light)


# AlphaEdit: what it leaves alone, and what it spares


def disturbed(update: LayerUpdate, keys: Float[Tensor, "keys d_in"]) -> float:
    return update.of(keys).square().sum().item()


@thorough
@given(problems(past=few, full_rank=False), st.integers(0, 2**32))
def test_alphaedit_leaves_the_values_of_old_keys_as_they_were(problem: Problem, seed: int) -> None:
    old_keys = normal(20, problem.old.shape[1], seeded(seed)) @ problem.old.T
    update = problem.solve(ALPHAEDIT)
    assert_close(update.of(old_keys), torch.zeros(20, problem.facts.values.shape[1]).double())
    assert update.dense().norm() > 1e-3


@thorough
@given(low_rank)
def test_alphaedit_with_next_to_no_ridge_stores_every_fact_in_the_room_that_is_left(problem: Problem) -> None:
    update = problem.solve(AlphaEdit(null_energy=1e-6, ridge=1e-12))
    assert_close(update.of(problem.facts.keys), problem.facts.residuals)


@thorough
@given(problems(past=st.integers(1, 3), full_rank=False))
def test_alphaedit_that_knows_its_past_disturbs_it_less(problem: Problem) -> None:
    """Keys drawn at random overlap."""
    forgetful = disturbed(problem.without_past().solve(ALPHAEDIT), problem.past.keys)
    assert disturbed(problem.solve(ALPHAEDIT), problem.past.keys) < forgetful


@thorough
@given(problems(past=st.integers(1, 3), full_rank=False))
def test_alphaedit_pays_nothing_for_past_keys_that_its_facts_do_not_overlap(problem: Problem) -> None:
    K, K_past = problem.facts.keys @ problem.room, problem.past.keys
    elsewhere = replace(problem.past, keys=K_past - K_past @ torch.linalg.pinv(K) @ K)
    assert_close(replace(problem, past=elsewhere).change(ALPHAEDIT), problem.without_past().change(ALPHAEDIT))


@thorough
@given(problems(past=st.just(1), full_rank=False))
def test_more_copies_of_a_past_key_disturb_its_value_less(problem: Problem) -> None:
    def with_copies(copies: int) -> float:
        past = replace(problem.past, keys=problem.past.keys.repeat(copies, 1), residuals=problem.past.residuals.repeat(copies, 1))
        return disturbed(replace(problem, past=past).solve(ALPHAEDIT), problem.past.keys)

    found = [with_copies(copies) for copies in (0, 1, 2, 10)]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)


@thorough
@given(problems(past=few, full_rank=False), weights)
def test_sparing_is_the_metric_of_changes_in_the_free_room_that_pay_for_the_past(problem: Problem, ridge: float) -> None:
    P, K_past = problem.room, problem.past.keys.T
    expected = ridge * P @ torch.linalg.inv(ridge * identity(len(P)) + P @ K_past @ K_past.T @ P) @ P
    assert_close(sparing(P, problem.past.keys, ridge)(identity(len(P))), expected)


@thorough
@given(problems(), st.floats(0.01, 0.95))
def test_the_null_space_is_the_largest_projection_within_its_share_of_energy(problem: Problem, share: float) -> None:
    C = problem.moment.matrix
    ascending = problem.energies.sort().values
    fitting = int((ascending.cumsum(0) <= share * ascending.sum()).sum())
    if not fitting:
        with pytest.raises(ValueError, match="raise it"):
            null_space(C, share)
        return
    P = null_space(C, share)
    assert_close(P, P.T)
    assert_close(P @ P, P)
    assert_close(P @ C, C @ P)
    assert round(P.trace().item()) == fitting
    assert_close((P @ C).trace(), ascending[:fitting].sum())


# protected keys


@every_method
@for_each_method
@given(problem=problems(facts=several, past=few, protected=st.integers(1, 3), openings=True, full_rank=False), copies=st.integers(1, 3))
def test_the_values_of_protected_keys_stay_even_where_protected_keys_coincide(method: ClosedForm, problem: Problem, copies: int) -> None:
    protected = problem.past.protected
    problem = replace(problem, past=replace(problem.past, protected=protected.repeat(copies, 1))).for_one_call(method)
    update = problem.solve(method)
    assert_close(update.of(protected), torch.zeros(len(protected), update.left.shape[0]).double())
    assert update.dense().norm() > 1e-6
    assert disturbed(problem.unprotected().solve(method), protected) > 1e-12


@every_method
@for_each_method
@given(problem=problems(facts=several, past=few, protected=st.integers(1, 3), openings=True, full_rank=False))
def test_a_key_protected_twice_is_a_key_protected(method: ClosedForm, problem: Problem) -> None:
    problem = problem.for_one_call(method)
    twice = replace(problem, past=replace(problem.past, protected=problem.past.protected.repeat(2, 1)))
    assert_close(twice.change(method), problem.change(method))


@thorough
@given(problems())
def test_without_protected_keys_the_metric_is_the_same_object(problem: Problem) -> None:
    metric = inverse_of(problem.moment, 0.1)
    assert keeping(metric, problem.past.protected) is metric


@thorough
@given(problems(protected=few), st.integers(0, 2**32), weights)
def test_a_metric_is_the_regularised_inverse_and_keeping_is_its_part_without_protected_keys(
    problem: Problem, seed: int, share: float
) -> None:
    M, P = torch.linalg.inv(problem.regularised(share)), problem.past.protected
    keys = normal(3, len(M), seeded(seed))
    metric = inverse_of(problem.moment, share)
    assert_close(metric(keys), keys @ M)
    assert_close(keeping(metric, P)(keys), keys @ (M - M @ P.T @ torch.linalg.inv(P @ M @ P.T) @ P @ M))


# facts in turn


def reordered(facts: Facts, order: list[int]) -> Facts:
    return Facts(**{name: tensor[order] for name, tensor in vars(facts).items()})


def with_memory(problem: Problem, seed: int) -> tuple[Problem, Float[Tensor, "d_out d_in"]]:
    """The problem whose values are what one weight matrix gives, and that matrix."""
    facts = problem.facts
    W = normal(facts.values.shape[1], facts.keys.shape[1], seeded(seed))
    return replace(problem, facts=replace(facts, values=facts.keys @ W.T)), W


@thorough
@given(problems(protected=few, openings=True), st.integers(0, 2**32))
def test_rome_in_turn_is_one_update_after_another_on_a_weight_matrix(problem: Problem, seed: int) -> None:
    problem, before = with_memory(problem, seed)
    facts, P = problem.facts, problem.past.protected
    M = torch.linalg.inv(problem.regularised())
    M = M - M @ P.T @ torch.linalg.inv(P @ M @ P.T) @ P @ M
    W = before
    for key, bare_key, target in zip(facts.keys, facts.bare_keys, facts.targets, strict=True):
        W = W + torch.outer(target - W @ key, M @ key) / (bare_key @ M @ key)
    update = solve_in_turn(ROME.solver(problem.moment), facts, problem.past, ROME.most_facts)
    assert_close(before + update.dense(), W)
    assert len(update.right) == len(facts.keys)


@every_method
@for_each_method
@given(
    problem=problems(facts=st.sampled_from([2, 4]), past=few, protected=few, openings=True, full_rank=False),
    seed=st.integers(0, 2**32),
)
def test_each_portion_meets_the_values_that_earlier_ones_have_left(method: ClosedForm, problem: Problem, seed: int) -> None:
    problem, before = with_memory(problem, seed)
    facts, solve, step = problem.facts, method.solver(problem.moment), method.most_facts or 2
    W = before
    for start in range(0, len(facts.keys), step):
        portion = facts.take(slice(start, start + step))
        portion = replace(portion, values=portion.keys @ W.T)
        W = W + solve(portion, problem.past).dense()
    assert_close(before + solve_in_turn(solve, facts, problem.past, step).dense(), W)


@thorough
@given(anything)
def test_facts_taken_all_at_once_are_one_solve(problem: Problem) -> None:
    for method in (EMMET, MEMIT, ALPHAEDIT, ULTRAEDIT):
        found = solve_in_turn(method.solver(problem.moment), problem.facts, problem.past, method.most_facts)
        assert_close(found.dense(), problem.change(method), rtol=0, atol=0)


@pytest.mark.parametrize("method", [EMMET, MEMIT, ALPHAEDIT, ULTRAEDIT], ids=name_of)
@for_each_method
@given(problem=anything, data=st.data())
def test_the_order_of_facts_does_not_matter_to_methods_that_take_them_all(
    method: ClosedForm, problem: Problem, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(problem.facts.keys))))
    assert_close(replace(problem, facts=reordered(problem.facts, order)).change(method), problem.change(method))


@pytest.mark.parametrize("method", [ROME, R_ROME], ids=name_of)
@for_each_method
@given(problem=problems(facts=several))
def test_the_order_of_facts_matters_to_methods_that_take_one_at_a_time(method: ClosedForm, problem: Problem) -> None:
    """Keys drawn at random overlap, so a later fact disturbs an earlier one."""
    there, back = (
        solve_in_turn(method.solver(problem.moment), facts, problem.past, method.most_facts).dense()
        for facts in (problem.facts, reordered(problem.facts, list(reversed(range(len(problem.facts.keys))))))
    )
    assert (there - back).norm() > 1e-6 * there.norm()


@pytest.mark.parametrize("method", [ROME, R_ROME], ids=name_of)
@for_each_method
@given(problem=problems(facts=several))
def test_the_last_fact_in_turn_is_stored_exactly_and_earlier_ones_are_not(method: ClosedForm, problem: Problem) -> None:
    left = problem.facts.after(solve_in_turn(method.solver(problem.moment), problem.facts, problem.past, 1)).residuals
    assert_close(left[-1], torch.zeros_like(left[-1]))
    assert left[:-1].norm() > 1e-6


@thorough
@given(problems(openings=True), st.integers(0, 2**32))
def test_after_an_update_values_move_and_nothing_else_does(problem: Problem, seed: int) -> None:
    problem, W = with_memory(problem, seed)
    facts, update = problem.facts, problem.solve(EMMET)
    moved, after = W + update.dense(), problem.facts.after(update)
    assert_close(after.values, facts.keys @ moved.T)
    for name in ("keys", "bare_keys", "targets"):
        assert getattr(after, name) is getattr(facts, name)


# two languages


def in_two_languages(problem: Problem) -> tuple[Problem, Problem]:
    """The first fact alone and the others: as if one set came in one language and one in another."""
    first, second = (replace(problem, facts=problem.facts.take(part)) for part in (slice(1), slice(1, None)))
    return first, second


@thorough
@given(problems(facts=several), weights)
def test_memits_joint_update_is_the_sum_of_two_solved_against_a_moment_with_both_languages_keys(problem: Problem, weight: float) -> None:
    """R1 K1' A + R2 K2' A with A = (w C + K1 K1' + K2 K2')^-1: it is the plain sum that lacks the other language's keys in A."""
    (K1, R1), (K2, R2) = (part.columns for part in in_two_languages(problem))
    A = torch.linalg.inv(weight * problem.regularised() + K1 @ K1.T + K2 @ K2.T)
    assert_close(problem.change(Memit(old_key_weight=weight, regularisation=0.1)), R1 @ K1.T @ A + R2 @ K2.T @ A)


@thorough
@given(problems(facts=several), weights)
def test_memit_of_each_language_adds_up_when_the_others_keys_are_old_keys_to_it(problem: Problem, weight: float) -> None:
    """MEMIT adds a language's own keys to its moment itself, so the other's are what is left to add."""
    method = Memit(old_key_weight=weight, regularisation=1e-13)
    first, second = in_two_languages(problem)

    def beside(part: Problem, other: Problem) -> Tensor:
        (K, _), C = other.columns, problem.moment
        return method.solver(SecondMoment(C.matrix + K @ K.T / weight, C.num_keys))(part.facts, part.past).dense()

    assert_close(beside(first, second) + beside(second, first), problem.change(method))


@thorough
@given(problems(facts=several))
def test_the_plain_sum_of_two_languages_is_not_their_joint_update(problem: Problem) -> None:
    """Keys drawn at random overlap."""
    plain = torch.stack([part.change(MEMIT) for part in in_two_languages(problem)]).sum(0)
    assert (plain - problem.change(MEMIT)).norm() > 1e-6 * plain.norm()


@pytest.mark.parametrize("method", [EMMET, MEMIT], ids=name_of)
@thorough
@given(problem=problems(facts=several))
def test_the_plain_sum_is_the_joint_update_when_the_languages_keys_do_not_meet(method: ClosedForm, problem: Problem) -> None:
    """Do not meet: K1' C^-1 K2 = 0."""
    keys, M = problem.facts.keys, torch.linalg.inv(problem.regularised())
    first = keys[:1]
    apart = torch.cat([first, keys[1:] - (keys[1:] @ M @ first.T) / (first @ M @ first.T) @ first])
    problem = replace(problem, facts=replace(problem.facts, keys=apart))
    plain = torch.stack([part.change(method) for part in in_two_languages(problem)]).sum(0)
    assert_close(plain, problem.change(method))


# faults


def plain_facts(keys: Float[Tensor, "facts d_in"], seed: int = 0) -> Facts:
    """Facts without openings for a memory of four outputs."""
    values, moved = normal(2 * len(keys), 4, seeded(seed)).chunk(2)
    return Facts(keys, values, values + moved, keys)


@pytest.mark.parametrize("method", [EMMET, R_ROME], ids=name_of)
@for_each_method
@given(problem=problems())
def test_facts_that_share_a_key_have_no_exact_fit(method: ClosedForm, problem: Problem) -> None:
    twice = plain_facts(problem.facts.keys[:1].repeat(2, 1))
    with pytest.raises(ValueError, match="share a key"):
        method.solver(problem.moment)(twice, Past.none(twice.keys.shape[1], 4))


@thorough
@given(problems())
def test_memit_gives_facts_that_share_a_key_the_mean_of_their_targets(problem: Problem) -> None:
    key = problem.facts.keys[:1]
    twice, unedited = plain_facts(key.repeat(2, 1)), Past.none(key.shape[1], 4)
    mean = twice.residuals.mean(0, keepdim=True)
    agreed = replace(twice, targets=twice.values + mean)
    solve = MEMIT.solver(problem.moment)
    assert_close(solve(twice, unedited).dense(), solve(agreed, unedited).dense())


@thorough
@given(problems(facts=st.just(1)))
def test_one_fact_alone_has_no_spread_for_ultraedit(problem: Problem) -> None:
    with pytest.raises(ValueError, match="edit at least two at a time"):
        problem.solve(ULTRAEDIT)


@thorough
@given(low_rank, st.integers(0, 2**32))
def test_keys_that_are_nothing_but_old_ones_leave_alphaedit_no_room(problem: Problem, seed: int) -> None:
    keys = normal(len(problem.facts.keys), problem.old.shape[1], seeded(seed)) @ problem.old.T
    with pytest.raises(ValueError, match="no part in the null space of the old ones; raise null_energy"):
        ALPHAEDIT.solver(problem.moment)(plain_facts(keys), Past.none(keys.shape[1], 4))


def test_a_bare_key_across_the_direction_has_no_scale_for_rome() -> None:
    facts = replace(plain_facts(torch.tensor([[1.0, 0.0]]).double()), bare_keys=torch.tensor([[0.0, 1.0]]).double())
    with pytest.raises(ValueError, match="no part in the direction"):
        ROME.solver(SecondMoment(identity(2), 9))(facts, Past.none(2, 4))


@pytest.mark.parametrize("method", [ROME, R_ROME, EMMET], ids=name_of)
def test_a_fact_whose_own_key_is_protected_has_no_exact_fit(method: ClosedForm) -> None:
    for seed in range(20):
        keys = normal(20, 6, seeded(seed))
        own = keys[:1]
        with pytest.raises(ValueError):
            method.solver(SecondMoment(keys.T @ keys / 20, 20))(plain_facts(own), replace(Past.none(6, 4), protected=keys[:2]))


@thorough
@given(problems(facts=st.just(1)))
def test_memit_leaves_a_fact_whose_own_key_is_protected_as_it_was(problem: Problem) -> None:
    change = replace(problem, past=replace(problem.past, protected=problem.facts.keys)).change(MEMIT)
    assert_close(change, torch.zeros_like(change))


LOW_RANK = SecondMoment(torch.diag(torch.tensor([1.0, 1.0, 0.0])).double(), 9)
EXACT = ("keys", "values", "targets")
USED: dict[type, tuple[str, ...]] = {
    Rome: ("keys", "bare_keys", "values", "targets"),
    RRome: EXACT,
    Emmet: EXACT,
    Memit: EXACT,
    MemitMerge: EXACT,
    Pmet: EXACT,
    AlphaEdit: EXACT,
    UltraEdit: EXACT,
}


def spoilt(tensor: Tensor, bad: float) -> Tensor:
    copy = tensor.clone()
    copy[0, 2] = bad
    return copy


def sound(method: ClosedForm) -> Facts:
    return plain_facts(normal(2, 3, seeded(1))).take(slice(method.most_facts))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("method", "where"), [(method, where) for method in METHODS for where in USED[type(method)]], ids=name_of)
def test_facts_that_are_not_finite_are_refused(method: ClosedForm, where: str, bad: float) -> None:
    facts, unedited = sound(method), Past.none(3, 4)
    method.solver(LOW_RANK)(facts, unedited)
    with pytest.raises(ValueError):
        method.solver(LOW_RANK)(replace(facts, **{where: spoilt(getattr(facts, where), bad)}), unedited)


@every_method
def test_protected_keys_that_are_not_finite_are_refused(method: ClosedForm) -> None:
    facts = sound(method)
    with pytest.raises(ValueError):
        method.solver(LOW_RANK)(facts, replace(Past.none(3, 4), protected=spoilt(facts.keys, torch.nan)))


def test_a_past_that_is_not_finite_is_refused_by_ultraedit() -> None:
    facts = sound(ULTRAEDIT)
    for past in (
        Past(spoilt(facts.keys, torch.nan), facts.residuals, facts.keys[:0]),
        Past(facts.keys, spoilt(facts.residuals, torch.nan), facts.keys[:0]),
    ):
        with pytest.raises(ValueError, match="not finite"):
            ULTRAEDIT.solver(LOW_RANK)(facts, past)


def test_a_past_that_is_not_finite_is_refused_by_alphaedit() -> None:
    facts = sound(ALPHAEDIT)
    with pytest.raises(ValueError, match="not finite"):
        ALPHAEDIT.solver(LOW_RANK)(facts, Past(spoilt(facts.keys, torch.nan), facts.residuals, facts.keys[:0]))


def test_a_second_moment_that_is_not_finite_is_refused_by_alphaedit() -> None:
    with pytest.raises(ValueError):
        ALPHAEDIT.solver(SecondMoment(torch.full((3, 3), torch.nan).double(), 9))


@pytest.mark.parametrize("filling", [0.0, torch.nan])
@pytest.mark.parametrize("method", METHODS[:6], ids=name_of)
def test_a_second_moment_that_cannot_be_inverted_is_refused(method: ClosedForm, filling: float) -> None:
    with pytest.raises(ValueError, match="give more text, or raise regularisation"):
        method.solver(SecondMoment(torch.full((3, 3), filling).double(), 9))


@pytest.mark.parametrize("method", [ROME, EMMET, MEMIT], ids=name_of)
def test_a_singular_second_moment_without_regularisation_to_speak_of_is_refused(method: ClosedForm) -> None:
    """A key of ones, seen once: rank one."""
    hardly = type(method)(**{name: 1e-300 if name == "regularisation" else 1.0 for name in method.__struct_fields__})
    with pytest.raises(ValueError, match="cannot be inverted"):
        hardly.solver(SecondMoment(torch.ones(3, 3).double(), 1))


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.nan])
@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in METHODS for name in method.__struct_fields__],
    ids=name_of,
)
def test_settings_out_of_range_are_refused_by_name(method: ClosedForm, name: str, bad: float) -> None:
    good = {field: getattr(method, field) for field in method.__struct_fields__}
    with pytest.raises(ValueError, match=f"{name} is {bad}"):
        type(method)(**good | {name: bad})


@pytest.mark.parametrize("share", [1.0, 1.5, torch.inf])
def test_a_share_of_energy_is_below_one(share: float) -> None:
    with pytest.raises(ValueError, match=rf"null_energy is {share}; it is a share of energy, below 1"):
        AlphaEdit(null_energy=share, ridge=1.0)
