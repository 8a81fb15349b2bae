"""Angles, overlaps and retrieval: exact on cases known by hand, near their nulls on random ones, and equal to the dense forms."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.linalg import subspace_angles
from scipy.spatial.distance import cosine
from torch import Tensor
from torch.testing import assert_close

from xledit.geometry.updates import (
    Factors,
    alikeness,
    chance_jaccard,
    inner,
    jaccard,
    norm,
    numerical_rank,
    principal_angles,
    random_angles,
    top_neurons,
)
from xledit.geometry.vectors import cosines, likeness, spread

seeds = st.integers(0, 2**32)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On busy cores, threads that wait for each other make small products fifty times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def factors(seed: int, d_out: int = 7, d_in: int = 40, facts: int = 3) -> Factors:
    return Factors(normal(seed, d_out, facts), normal(seed + 1, facts, d_in))


def dense(update: Factors) -> Tensor:
    return update.left @ update.right


def stacked(a: Factors, b: Factors) -> Factors:
    """The exact sum of two updates."""
    return Factors(torch.cat([a.left, b.left], 1), torch.cat([a.right, b.right]))


# vectors


def test_identical_sets_have_cosine_one_and_are_always_retrieved() -> None:
    vectors = normal(0, 20, 8)
    found = likeness(vectors, vectors)
    assert (found.same, found.centred_same, found.retrieval) == pytest.approx((1, 1, 1))
    assert (found.same_error, found.centred_same_error) == pytest.approx((0, 0), abs=1e-12)
    assert (found.num_facts, found.chance) == (20, 1 / 20)


def test_independent_vectors_are_as_alike_as_different_facts() -> None:
    facts, dimension = 300, 200
    found = likeness(normal(1, facts, dimension), normal(2, facts, dimension))
    assert abs(found.same - found.different) < 4 * found.same_error
    assert abs(found.centred_same - found.centred_different) < 4 * found.centred_same_error
    assert found.different_sd == pytest.approx(dimension**-0.5, rel=0.05)
    assert found.retrieval < 5 * found.chance


def test_centring_takes_off_what_all_vectors_of_a_set_share() -> None:
    left, right = normal(3, 50, 16), normal(4, 50, 16)
    plain, shifted = likeness(left, right), likeness(left + 30, right + 30)
    assert shifted.different > 0.9
    names = ("centred_same", "centred_same_error", "centred_different", "centred_different_sd", "retrieval")
    assert [getattr(shifted, name) for name in names] == pytest.approx([getattr(plain, name) for name in names])


def test_likeness_equals_the_naive_form_over_pairs_of_facts() -> None:
    left, right = normal(5, 12, 6).numpy(), (normal(5, 12, 6) + 1.5 * normal(6, 12, 6)).numpy()
    found = likeness(torch.from_numpy(left), torch.from_numpy(right))
    for prefix, a, b in (("", left, right), ("centred_", left - left.mean(0), right - right.mean(0))):
        table = np.array([[1 - cosine(x, y) for y in b] for x in a])
        others = [table[i, j] for i in range(12) for j in range(12) if i != j]
        assert getattr(found, f"{prefix}same") == pytest.approx(np.mean(np.diag(table)))
        assert getattr(found, f"{prefix}same_error") == pytest.approx(np.std(np.diag(table), ddof=1) / math.sqrt(12))
        assert getattr(found, f"{prefix}different") == pytest.approx(np.mean(others))
        assert getattr(found, f"{prefix}different_sd") == pytest.approx(np.std(others, ddof=1))
    one_way, other_way = (np.mean([lines[i].argmax() == i for i in range(12)]) for lines in (table, table.T))
    assert one_way != other_way
    assert found.retrieval == pytest.approx((one_way + other_way) / 2)


def test_a_fact_that_is_nearest_to_another_is_not_retrieved() -> None:
    vectors = normal(8, 5, 9)
    found = likeness(vectors, vectors.roll(1, 0))
    assert (found.retrieval, found.chance) == (0, 1 / 5)


@settings(max_examples=30)
@given(seeds)
def test_likeness_does_not_depend_on_lengths_direction_or_the_order_of_facts(seed: int) -> None:
    left, right = normal(seed, 6, 4), normal(seed + 1, 6, 4)
    found, order = likeness(left, right), torch.tensor([3, 1, 5, 0, 2, 4])
    for other in (likeness(right, left), likeness(left * 7, right / 3), likeness(left[order], right[order])):
        for name in found.__struct_fields__:
            assert getattr(other, name) == pytest.approx(getattr(found, name)), name


@pytest.mark.parametrize(("left", "right"), [(2, 2), (3, 4), (0, 0)])
def test_likeness_needs_the_same_three_facts(left: int, right: int) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=f"found {left} and {right}|type"):  # the checker of shapes may see it first
        likeness(normal(0, left, 5), normal(1, right, 5))


def test_three_facts_are_enough() -> None:
    found = likeness(normal(0, 3, 5), 2 * normal(0, 3, 5))
    assert (found.num_facts, found.same, found.chance) == pytest.approx((3, 1, 1 / 3))


def test_spread_is_over_pairs_of_different_facts() -> None:
    vectors = normal(7, 9, 5) + 1
    found = spread(vectors)
    centred = vectors - vectors.mean(0)
    for name, rows in (("mean", vectors), ("centred_mean", centred)):
        pairs = [torch.cosine_similarity(rows[i], rows[j], dim=0).item() for i in range(9) for j in range(i)]
        assert getattr(found, name) == pytest.approx(np.mean(pairs))
        assert getattr(found, name.replace("mean", "sd")) == pytest.approx(np.std(pairs), rel=0.03)


def test_a_zero_vector_is_like_nothing() -> None:
    assert_close(cosines(torch.zeros(1, 3).double(), torch.eye(3).double()), torch.zeros(1, 3).double())


# updates


@settings(max_examples=30)
@given(seeds, st.integers(2, 9), st.integers(20, 45), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_everything_from_factors_equals_the_dense_form(seed: int, d_out: int, d_in: int, few: int, many: int, max_rank: int) -> None:
    left, right, both = factors(seed, d_out, d_in, few), factors(seed + 2, d_out, d_in, many), factors(seed + 4, d_out, d_in, many)
    a, b, c = map(dense, (left, right, both))
    found = alikeness(left, right, both, max_rank)
    rank = min(few, many, d_out, max_rank)
    (u_a, _, v_a), (u_b, _, v_b) = np.linalg.svd(a.numpy()), np.linalg.svd(b.numpy())
    value, key = (np.rad2deg(subspace_angles(x[:, :rank], y[:, :rank])) for x, y in ((u_a, u_b), (v_a.T, v_b.T)))
    assert found.rank == rank
    assert (found.norm_left, found.norm_right) == pytest.approx((a.norm().item(), b.norm().item()))
    assert found.cosine == pytest.approx(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item())
    assert (found.key_angle_mean, found.key_angle_min) == pytest.approx((key.mean(), key.min()), abs=1e-4)
    assert (found.value_angle_mean, found.value_angle_min) == pytest.approx((value.mean(), value.min()), abs=1e-4)
    assert found.additivity_error == pytest.approx(((c - a - b).norm() / c.norm()).item(), rel=1e-6)
    assert found.additivity_cosine == pytest.approx(torch.cosine_similarity(c.flatten(), (a + b).flatten(), dim=0).item())
    assert found.neurons == pytest.approx(jaccard(top_neurons(left), top_neurons(right)))


def test_the_top_neurons_are_the_longest_twentieth_of_columns() -> None:
    update = factors(0, d_in=60)
    longest = dense(update).norm(dim=0).argsort(descending=True)[:3]
    assert top_neurons(update) == set(longest.tolist())
    assert len(top_neurons(factors(0, d_in=4))) == 1


def test_norm_and_inner_product_are_frobenius() -> None:
    ones = Factors(torch.ones(2, 1).double(), torch.ones(1, 3).double())
    twice = Factors(2 * ones.left, ones.right)
    assert (inner(ones, twice), norm(ones), norm(twice)) == pytest.approx((12, math.sqrt(6), 2 * math.sqrt(6)))


def test_an_exact_sum_is_additive() -> None:
    left, right = factors(1), factors(3)
    found = alikeness(left, right, stacked(left, right), 10)
    assert found.additivity_error == pytest.approx(0, abs=1e-6)
    assert found.additivity_cosine == pytest.approx(1)
    half = stacked(left, right)
    found = alikeness(left, right, Factors(half.left / 2, half.right), 10)
    assert (found.additivity_error, found.additivity_cosine) == pytest.approx((1, 1))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_update_and_its_multiple_share_all_directions(sign: float) -> None:
    update = factors(5)
    found = alikeness(update, Factors(3 * sign * update.left, update.right), update, 10)
    assert (found.cosine, found.neurons) == pytest.approx((sign, 1))
    assert (found.key_angle_mean, found.value_angle_mean) == pytest.approx((0, 0), abs=1e-4)


def test_keys_and_values_are_compared_separately() -> None:
    """Two facts read at right angles and written in one direction."""
    basis = torch.eye(20).double()
    left, right = (Factors(basis[:, :1], basis[place : place + 1]) for place in (0, 1))
    found = alikeness(left, right, stacked(left, right), 10)
    assert (found.cosine, found.neurons, found.rank) == (0, 0, 1)
    assert (found.key_angle_mean, found.value_angle_mean) == pytest.approx((90, 0), abs=1e-4)


@settings(max_examples=30)
@given(seeds)
def test_the_numerical_rank_of_factors_stored_in_float32_is_the_true_one(seed: int) -> None:
    """Ten facts, two directions: the other eight singular values are rounding."""
    exact = [normal(seed, 30, 2) @ normal(seed + 1, 2, 10), normal(seed + 2, 10, 2) @ normal(seed + 3, 2, 50)]
    left, right = (factor.float().double() for factor in exact)
    update = Factors(left, right)
    assert alikeness(update, update, update, 10).rank == 2
    assert numerical_rank(torch.linalg.svdvals(left @ right)) == 2


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_the_numerical_rank_does_not_depend_on_the_size_of_the_update_and_nothing_has_none(size: float) -> None:
    assert numerical_rank(size * torch.tensor([1, 1e-3, 1e-9]).double()) == 2
    assert numerical_rank(torch.zeros(3).double()) == 0


def test_principal_angles_are_scipys() -> None:
    left, right = (torch.linalg.qr(normal(seed, 9, 3)).Q for seed in (1, 2))
    expected = np.sort(np.rad2deg(subspace_angles(left.numpy(), right.numpy())))
    assert principal_angles(left, right).numpy() == pytest.approx(expected)


@pytest.mark.parametrize(("dimension", "mean"), [(2, 45.0), (3, math.degrees(1.0))])
def test_random_lines_meet_at_the_angles_of_theory(dimension: int, mean: float) -> None:
    found = random_angles(dimension, 1, 4000, torch.Generator().manual_seed(0))
    assert found[0] == pytest.approx(mean, abs=1.5)  # 4 standard errors
    assert found[0] == found[1]


def test_random_subspaces_are_as_far_apart_as_scipys() -> None:
    draws, rng = 200, np.random.default_rng(0)
    angles = np.array([np.rad2deg(subspace_angles(rng.normal(size=(40, 5)), rng.normal(size=(40, 5)))) for _ in range(draws)])
    found = random_angles(40, 5, draws, torch.Generator().manual_seed(1))
    assert found == pytest.approx((angles.mean(), angles.min(1).mean()), abs=1.2)
    assert found == random_angles(40, 5, draws, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("left", "right", "overlap"), [({1}, {1}, 1.0), ({1}, {2}, 0.0), ({1, 2, 3}, {2, 3, 4}, 0.5)])
def test_jaccard_is_intersection_over_union(left: set[int], right: set[int], overlap: float) -> None:
    assert jaccard(left, right) == overlap


@pytest.mark.parametrize("dimension", [400, 2048])
def test_chance_jaccard_is_what_random_sets_share(dimension: int) -> None:
    rng, size = np.random.default_rng(0), round(dimension / 20)
    drawn = [[set(rng.choice(dimension, size, replace=False).tolist()) for _ in range(2)] for _ in range(1500)]
    simulated = np.array([jaccard(*pair) for pair in drawn])
    slack = 4 * simulated.std() / math.sqrt(len(simulated)) + 0.05 * simulated.mean()  # it is to first order only
    assert chance_jaccard(dimension) == pytest.approx(simulated.mean(), abs=slack)


def test_of_few_neurons_one_is_a_twentieth() -> None:
    """One of ten each: a tenth of a neuron in common on average, and two less that in the union."""
    assert chance_jaccard(10) == pytest.approx(0.1 / 1.9)


@settings(max_examples=30)
@given(seeds)
def test_no_figure_of_a_comparison_leaves_its_range(seed: int) -> None:
    found = alikeness(factors(seed), factors(seed + 2), factors(seed + 4), 10)
    assert -1 <= found.cosine <= 1
    assert -1 <= found.additivity_cosine <= 1
    assert 0 <= found.neurons <= 1
    for least, mean in ((found.key_angle_min, found.key_angle_mean), (found.value_angle_min, found.value_angle_mean)):
        assert 0 <= least <= mean <= 90


def test_a_rotation_of_key_space_changes_no_angle() -> None:
    left, right, turn = factors(1), factors(3), torch.linalg.qr(normal(9, 40, 40)).Q
    plain = alikeness(left, right, stacked(left, right), 10)
    turned = alikeness(*(Factors(update.left, update.right @ turn) for update in (left, right, stacked(left, right))), 10)
    for name in ("cosine", "key_angle_mean", "value_angle_mean", "additivity_cosine", "norm_left"):
        assert getattr(turned, name) == pytest.approx(getattr(plain, name)), name
