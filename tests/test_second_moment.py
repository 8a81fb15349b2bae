"""The running second moment is E[k k'] of all keys, however they arrive; pooled languages weigh as many keys as they had."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor
from torch.testing import assert_close

from xledit.editing.second_moment import SecondMomentAccumulator
from xledit.editing.tensors import SecondMoment

seeds = st.integers(0, 2**32)


def some_keys(number: int, d_in: int, seed: int) -> Float[Tensor, "{number} {d_in}"]:
    """Keys with a mean that is not zero."""
    return 3 + torch.randn(number, d_in, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def accumulated(*batches: Tensor) -> SecondMoment:
    accumulator = SecondMomentAccumulator(batches[0].shape[1])
    for batch in batches:
        accumulator.add(batch)
    return accumulator.result()


@given(st.integers(1, 30), st.integers(1, 5), st.lists(st.integers(0, 30)), seeds)
def test_any_batching_in_any_order_gives_the_mean_of_all_products(number: int, d_in: int, cuts: list[int], seed: int) -> None:
    keys = some_keys(number, d_in, seed)
    shuffled = keys[torch.randperm(number, generator=torch.Generator().manual_seed(seed))]
    found = accumulated(*shuffled.tensor_split(sorted(min(cut, number) for cut in cuts)))
    assert_close(found.matrix, torch.stack([torch.outer(key, key) for key in keys]).mean(0))
    assert found.num_keys == number


def test_it_is_not_centred() -> None:
    key = torch.tensor([2.0, -1.0, 0.5]).double()
    assert_close(accumulated(key.repeat(7, 1)).matrix, torch.outer(key, key))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_coarse_keys_are_summed_in_float64(dtype: torch.dtype) -> None:
    """300 squared is beyond float16; a million ones are beyond bfloat16's and near float32's last bit."""
    found = accumulated(*[torch.full((1000, 1), 300.0, dtype=dtype)] * 1000, torch.full((1, 1), 1.0, dtype=dtype))
    assert found.matrix.dtype == torch.float64
    expected = (90_000 * 1_000_000 + 1) / 1_000_001
    assert found.matrix.item() == pytest.approx(float(expected), rel=1e-14)


def test_a_result_does_not_change_when_more_keys_come() -> None:
    accumulator = SecondMomentAccumulator(2)
    accumulator.add(torch.ones(2, 2))
    before = accumulator.result()
    accumulator.add(torch.zeros(2, 2))
    assert_close(before.matrix, torch.ones(2, 2).double())
    assert_close(accumulator.result().matrix, torch.full((2, 2), 0.5).double())


def test_no_keys_are_an_error() -> None:
    with pytest.raises(ValueError, match="no keys"):
        SecondMomentAccumulator(3).result()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_keys_that_are_not_finite_are_an_error(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        accumulated(torch.ones(2, 2), torch.tensor([[1.0, bad]]))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), seeds)
def test_languages_pooled_equal_their_keys_concatenated(sizes: list[int], seed: int) -> None:
    batches = [some_keys(size, 3, seed + place) for place, size in enumerate(sizes)]
    found, expected = SecondMoment.pooled([accumulated(batch) for batch in batches]), accumulated(torch.cat(batches))
    assert_close(found.matrix, expected.matrix)
    assert found.num_keys == expected.num_keys
