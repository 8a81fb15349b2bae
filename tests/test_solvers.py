"""The closed forms keep what theory promises, and equal the papers' formulas with explicit inverses. float64, default tolerance."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.testing import assert_close

from xledit.editing.second_moment import SecondMoment
from xledit.editing.solvers import AlphaEdit, LayerUpdate, Memit, Method, least_change, null_space

METHODS: list[Method] = [Memit(old_key_weight=2.0, regularisation=0.1), AlphaEdit(null_energy=1e-6, ridge=0.3)]
weights = st.floats(0.01, 100.0)


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

    keys: Float[Tensor, "facts d_in"]
    residuals: Float[Tensor, "facts d_out"]
    old: Float[Tensor, "d_in old"]
    energies: Float[Tensor, " old"]

    @property
    def moment(self) -> SecondMoment:
        return SecondMoment(self.old * self.energies @ self.old.T, num_keys=100)


@st.composite
def problems(draw: st.DrawFn, full_rank: bool = True) -> Problem:
    """Memories with more inputs than facts; the old keys fill key space, or leave at least one direction a fact."""
    facts, d_out, spare = draw(st.integers(1, 4)), draw(st.integers(1, 6)), draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def random(rows: int, columns: int) -> Float[Tensor, "{rows} {columns}"]:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64)

    d_in = facts + spare
    old = torch.linalg.qr(random(d_in, d_in)).Q[:, : d_in if full_rank else spare]
    energies = 0.2 + torch.rand(old.shape[1], generator=generator, dtype=torch.float64)
    return Problem(random(facts, d_in), random(facts, d_out), old, energies)


low_rank = problems(full_rank=False)


def weighted(problem: Problem) -> Float[Tensor, "facts d_in"]:
    return problem.keys @ problem.moment.matrix.inverse()


def misfit(problem: Problem, update: LayerUpdate) -> float:
    return (problem.keys @ update.dense().T - problem.residuals).square().sum().item()


@settings(deadline=None)
@given(problems(), weights)
def test_the_gradient_of_the_objective_is_zero_at_the_solution(problem: Problem, ridge: float) -> None:
    change = least_change(problem.keys, weighted(problem), problem.residuals, ridge).dense().requires_grad_()
    misfits = (problem.keys @ change.T - problem.residuals).square().sum()
    objective = misfits / ridge + (change @ problem.moment.matrix @ change.T).trace()
    objective.backward()
    assert_close(change.grad, torch.zeros_like(change))


@settings(deadline=None)
@given(problems())
def test_without_a_ridge_every_fact_is_stored_exactly(problem: Problem) -> None:
    update = least_change(problem.keys, weighted(problem), problem.residuals, ridge=0.0)
    assert_close(problem.keys @ update.dense().T, problem.residuals)


def test_with_unit_ridge_and_metric_a_fact_of_unit_key_moves_half_the_way() -> None:
    key, residual = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[4.0, -2.0]]).double()
    assert_close(least_change(key, key, residual, ridge=1.0).dense(), torch.tensor([[2.0, 0.0], [-1.0, 0.0]]).double())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@settings(deadline=None)
@given(problem=low_rank)
def test_the_rank_is_at_most_the_number_of_facts(method: Method, problem: Problem) -> None:
    update = method.solver(problem.moment)(problem.keys, problem.residuals)
    facts = len(problem.keys)
    assert update.left.shape == (problem.residuals.shape[1], facts)
    assert update.right.shape == problem.keys.shape
    assert torch.linalg.matrix_rank(update.dense()) <= facts


@settings(deadline=None)
@given(problems(), weights, weights)
def test_memit_is_equation_14_of_arxiv_2210_07229(problem: Problem, weight: float, regularisation: float) -> None:
    K, R, C = problem.keys.T, problem.residuals.T, problem.moment.matrix  # the paper's columns
    C = C + regularisation * C.trace() / len(C) * torch.eye(len(C), dtype=C.dtype)
    expected = R @ K.T @ torch.linalg.inv(weight * C + K @ K.T)
    method = Memit(old_key_weight=weight, regularisation=regularisation)
    assert_close(method.solver(problem.moment)(problem.keys, problem.residuals).dense(), expected)


@settings(deadline=None)
@given(problems())
def test_memit_of_one_fact_and_no_weight_on_old_keys_is_romes_rank_one_formula(problem: Problem) -> None:
    """arXiv 2202.05262, eq. 2: (v* - W k) (C^-1 k)' / (k' C^-1 k)."""
    key, residual = problem.keys[:1], problem.residuals[:1]
    direction = torch.linalg.inv(problem.moment.matrix) @ key[0]
    expected = torch.outer(residual[0], direction) / (key[0] @ direction)
    assert_close(Memit(old_key_weight=1e-12, regularisation=1e-12).solver(problem.moment)(key, residual).dense(), expected)


@settings(deadline=None)
@given(problems(), st.floats(0.01, 10.0), st.floats(1.1, 100.0))
def test_a_larger_old_key_weight_disturbs_old_values_less_and_stores_less(problem: Problem, weight: float, factor: float) -> None:
    light, heavy = (
        Memit(old_key_weight=value, regularisation=1e-9).solver(problem.moment)(problem.keys, problem.residuals)
        for value in (weight, weight * factor)
    )
    disturbed = [(update.dense() @ problem.moment.matrix @ update.dense().T).trace() for update in (light, heavy)]
    assert disturbed[1] < disturbed[0]
    assert misfit(problem, heavy) > misfit(problem, light)


@settings(deadline=None)
@given(low_rank, weights)
def test_alphaedit_is_the_first_batch_of_arxiv_2410_02355(problem: Problem, share: float) -> None:
    K, R = problem.keys.T, problem.residuals.T
    P = torch.eye(len(K), dtype=K.dtype) - problem.old @ problem.old.T
    ridge = share * (P @ K).square().sum(0).mean()
    expected = R @ K.T @ P @ torch.linalg.inv(K @ K.T @ P + ridge * torch.eye(len(K), dtype=K.dtype))
    method = AlphaEdit(null_energy=1e-6, ridge=share)
    assert_close(method.solver(problem.moment)(problem.keys, problem.residuals).dense(), expected)


@settings(deadline=None)
@given(low_rank, st.integers(0, 2**32))
def test_alphaedit_leaves_the_values_of_old_keys_as_they_were(problem: Problem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    old_keys = torch.randn(20, problem.old.shape[1], generator=generator, dtype=torch.float64) @ problem.old.T
    update = AlphaEdit(null_energy=1e-6, ridge=0.01).solver(problem.moment)(problem.keys, problem.residuals)
    assert_close(old_keys @ update.dense().T, torch.zeros(20, problem.residuals.shape[1], dtype=torch.float64), rtol=0, atol=1e-9)
    assert update.dense().norm() > 0


@settings(deadline=None)
@given(low_rank, st.integers(0, 99))
def test_keys_that_are_nothing_but_old_ones_leave_alphaedit_no_room(problem: Problem, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(len(problem.keys), problem.old.shape[1], generator=generator, dtype=torch.float64) @ problem.old.T
    with pytest.raises(ValueError, match="no part in the null space of the old ones; raise null_energy"):
        AlphaEdit(null_energy=1e-6, ridge=0.01).solver(problem.moment)(keys, problem.residuals)


@settings(deadline=None)
@given(low_rank)
def test_alphaedit_with_next_to_no_ridge_stores_every_fact_in_the_room_that_is_left(problem: Problem) -> None:
    update = AlphaEdit(null_energy=1e-6, ridge=1e-13).solver(problem.moment)(problem.keys, problem.residuals)
    assert_close(problem.keys @ update.dense().T, problem.residuals, rtol=1e-5, atol=1e-5)


@settings(deadline=None)
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


@settings(deadline=None)
@given(problems())
def test_facts_that_share_a_key_have_no_exact_fit(problem: Problem) -> None:
    twice, residuals = problem.keys[:1].repeat(2, 1), torch.cat([problem.residuals[:1], -problem.residuals[:1]])
    with pytest.raises(ValueError, match="share a key"):
        least_change(twice, twice, residuals, ridge=0.0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("where", ["keys", "residuals"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_values_that_are_not_finite_are_refused(method: Method, where: str, bad: float) -> None:
    inputs = {"keys": torch.ones(2, 3).double(), "residuals": torch.ones(2, 4).double()}
    inputs[where][1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        method.solver(SecondMoment(torch.diag(torch.tensor([1.0, 1.0, 0.0])).double(), 9))(inputs["keys"], inputs["residuals"])


@pytest.mark.parametrize("filling", [0.0, torch.nan])
def test_a_second_moment_that_cannot_be_inverted_is_refused(filling: float) -> None:
    with pytest.raises(ValueError):
        METHODS[0].solver(SecondMoment(torch.full((3, 3), filling).double(), 9))(torch.ones(1, 3).double(), torch.ones(1, 2).double())


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.nan])
@pytest.mark.parametrize(
    ("method", "good", "name"),
    [
        (Memit, {"old_key_weight": 1.0, "regularisation": 1.0}, "old_key_weight"),
        (Memit, {"old_key_weight": 1.0, "regularisation": 1.0}, "regularisation"),
        (AlphaEdit, {"null_energy": 0.1, "ridge": 1.0}, "ridge"),
        (AlphaEdit, {"null_energy": 0.1, "ridge": 1.0}, "null_energy"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(method: type[Method], good: dict[str, float], name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {bad}"):
        method(**good | {name: bad})


def test_a_share_of_energy_is_below_one() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        AlphaEdit(null_energy=1.0, ridge=1.0)
