"""Packed windows hold whole documents end to end, each language in its share all along, and say where each document begins."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xledit.training.packing import NO_LABEL, PackedWindows
from xledit.training.shards import TokenShard, write_shard

VOCABULARY = 60_000
END = 0


def numbered(number: int, seed: int, longest: int = 12) -> list[list[int]]:
    """Return documents that can be told apart: their number, then filling, then the end-of-text token."""
    random = np.random.default_rng(seed)
    return [[number + 1, *random.integers(number + 2, VOCABULARY, random.integers(0, longest)).tolist(), END] for number in range(number)]


def opened(folder: Path, **languages: list[list[int]]) -> dict[str, TokenShard]:
    """Return shards of several parts each."""
    for code, documents in languages.items():
        write_shard(folder / code, (np.array(document, dtype=np.uint32) for document in documents), code, part_tokens=50)
    return {code: TokenShard.open(folder / code, VOCABULARY) for code in languages}


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[list[int]]]:
    return {"en": numbered(60, 1), "sw": numbered(5, 2), "zh": numbered(20, 3)}


@pytest.fixture(scope="module")
def shards(corpus: dict[str, list[list[int]]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenShard]:
    return opened(tmp_path_factory.mktemp("shards"), **corpus)


def read(data: PackedWindows) -> list[tuple[str, list[int]]]:
    """Return the documents of all windows, in order, with their languages: the naive way back, token by token."""
    found: list[tuple[str, list[int]]] = []
    is_new = True
    for window in (data[index] for index in range(len(data))):
        for token, place in zip(window["input_ids"].tolist(), window["languages"].tolist(), strict=True):
            if is_new:
                found.append((data.languages[place], []))
            assert found[-1][0] == data.languages[place]
            found[-1][1].append(token)
            is_new = token == END
    return found


ASKED = st.fixed_dictionaries({}, optional={"en": st.integers(1, 900), "sw": st.integers(1, 300), "zh": st.integers(1, 300)}).filter(
    lambda asked: sum(asked.values()) >= 40
)


@settings(max_examples=60, deadline=None)
@given(asked=ASKED, context=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_windows_hold_whole_documents_pass_after_pass(
    corpus: dict[str, list[list[int]]], shards: dict[str, TokenShard], asked: dict[str, int], context: int, seed: int
) -> None:
    data = PackedWindows(shards, asked, context, seed)
    found = read(data)
    assert len(data) * context == sum(len(tokens) for _, tokens in found) == sum(data.taken(len(data)).values())
    for code, number in asked.items():
        taken = [tokens for language, tokens in found if language == code]
        assert sum(map(len, taken)) == data.taken(len(data))[code]
        # the last window ends in a document, and documents behind it are cut off; what is there comes in full
        whole = [tokens for tokens in taken if tokens[-1] == END]
        assert len(taken) - len(whole) <= 1
        num_documents = len(corpus[code])
        for start in range(0, len(whole), num_documents):
            one_pass = sorted(whole[start : start + num_documents])
            assert all(tokens in corpus[code] for tokens in one_pass)
            assert all(left != right for left, right in pairwise(one_pass)), "a document came twice before all others came once"
        # asked for, to the end of a document; less than a window is lost in all
        longest = max(map(len, corpus[code]))
        assert number - context < data.taken(len(data))[code] < number + longest
    half = len(data) // 2
    places = [place for index in range(half) for place in data[index]["languages"].tolist()]
    assert data.taken(half) == {code: places.count(place) for place, code in enumerate(data.languages)}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_language_has_its_share_wherever_the_run_stands(shards: dict[str, TokenShard], seed: int) -> None:
    data = PackedWindows(shards, {"en": 1500, "sw": 300, "zh": 600}, 8, seed)
    seen = np.cumsum([np.bincount(data[index]["languages"], minlength=3) for index in range(len(data))], axis=0)
    total = seen.sum(axis=1, keepdims=True)
    # a document may be of 13 tokens, of one's own language and of each other
    assert np.abs(seen - seen[-1] / total[-1] * total).max() <= 13 * 4


def test_a_window_says_where_documents_begin(tmp_path: Path) -> None:
    data = PackedWindows(opened(tmp_path, en=[[7, 8, END]]), {"en": 12}, 4, 0)
    stream = [7, 8, END] * 4
    for index in range(3):
        window = data[index]
        assert window["input_ids"].tolist() == stream[4 * index : 4 * index + 4]
        assert all(array.dtype == np.int64 and array.flags.writeable for array in window.values())
    # a document that a window cuts begins anew at the cut: what is before cannot be seen
    assert [data[index]["position_ids"].tolist() for index in range(3)] == [[0, 1, 2, 0], [0, 1, 0, 1], [0, 0, 1, 2]]
    assert data[1]["labels"].tolist() == [NO_LABEL, END, NO_LABEL, 8]


def test_the_same_seed_gives_the_same_windows_and_another_seed_others(shards: dict[str, TokenShard]) -> None:
    asked = {"en": 500, "sw": 100, "zh": 100}
    first, again, other = (PackedWindows(shards, asked, 16, seed) for seed in (1, 1, 2))
    assert all((first[index][name] == again[index][name]).all() for index in range(len(first)) for name in first[0])
    assert first.digest == again.digest != other.digest
    assert any((first[index]["input_ids"] != other[index]["input_ids"]).any() for index in range(min(len(first), len(other))))


def test_a_language_does_not_move_another_one_s_documents(shards: dict[str, TokenShard]) -> None:
    alone = [tokens for _, tokens in read(PackedWindows(shards, {"zh": 250}, 1, 0))]
    beside = [tokens for code, tokens in read(PackedWindows(shards, {"zh": 250, "en": 300}, 1, 0)) if code == "zh"]
    assert alone == beside


def test_the_digest_follows_the_tokens(tmp_path: Path) -> None:
    digests = set()
    for name, documents in (("a", [[1, 2, END]]), ("b", [[1, 3, END]]), ("c", [[1, END], [END]])):
        digests.add(PackedWindows(opened(tmp_path / name, en=documents), {"en": 3}, 3, 0).digest)
    assert len(digests) == 3


def test_an_index_beyond_the_windows_is_an_error(shards: dict[str, TokenShard]) -> None:
    data = PackedWindows(shards, {"en": 100}, 10, 0)
    for index in (-1, len(data)):
        with pytest.raises(IndexError):
            data[index]


def test_a_language_without_a_shard_is_named(shards: dict[str, TokenShard]) -> None:
    with pytest.raises(ValueError, match="no token shard of de; give the language a source"):
        PackedWindows(shards, {"en": 5, "de": 5}, 2, 0)


def test_too_few_tokens_for_a_window_are_refused(shards: dict[str, TokenShard]) -> None:
    with pytest.raises(ValueError, match="do not fill one window of 4096; raise the budget"):
        PackedWindows(shards, {"en": 5}, 4096, 0)
