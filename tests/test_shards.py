"""A shard is its documents, however it is cut into parts; what is not whole is refused by name; memory does not grow with it."""

import hashlib
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from xledit.storage import write_tensors
from xledit.training.packing import PackedWindows
from xledit.training.shards import PartHeader, TokenShard, part_name, write_shard

VOCABULARY = 60_000
DOCUMENTS = [[1, 2, 0], [3, 0], [4, 5, 6, 0], [0], [7, 8, 0], [9, 0]]


def write(folder: Path, documents: list[list[int]], part_tokens: int = 1000) -> Path:
    """Write a shard in parts and return its folder."""
    write_shard(folder, (np.array(document, dtype=np.uint32) for document in documents), folder.name, part_tokens)
    return folder


def write_part(folder: Path, tokens: np.ndarray, ends: list[int], number: int = 0, *, last: bool = True) -> None:
    tensors = {"tokens": tokens, "ends": np.array(ends, dtype=np.int64)}
    write_tensors(folder / part_name(number), tensors, PartHeader(language="en", part=number, last=last))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def names_of(number: int) -> list[str]:
    return [f"{place:05d}.safetensors" for place in range(number)]


MANY = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(documents=MANY, part_tokens=st.integers(1, 60), data=st.data())
def test_a_shard_in_parts_is_its_documents_end_to_end(documents: list[list[int]], part_tokens: int, data: st.DataObject) -> None:
    with TemporaryDirectory() as name:
        folder = write(Path(name) / "en", documents, part_tokens)
        parts = [load_file(folder / file) for file in names(folder)]
        shard = TokenShard.open(folder, VOCABULARY)
        tokens = np.array([token for document in documents for token in document], dtype=np.uint32)
        ends = np.cumsum([len(document) for document in documents])
        assert np.array_equal(shard.ends, ends)
        start = data.draw(st.integers(0, len(tokens) - 1))
        stop = data.draw(st.integers(start + 1, len(tokens)))
        assert np.array_equal(shard.read(start, stop), tokens[start:stop])
        assert shard.digest == hashlib.sha256(ends.tobytes() + tokens.tobytes()).hexdigest(), "of tokens and ends alone"
    # whole documents, as many as there is room for
    assert names_of(len(parts)) == [part_name(number) for number in range(len(parts))]
    assert all(len(part["tokens"]) <= part_tokens or len(part["ends"]) == 1 for part in parts)
    assert all(len(one["tokens"]) + int(after["ends"][0]) > part_tokens for one, after in pairwise(parts))
    assert sum(len(part["ends"]) for part in parts) == len(documents)


@pytest.mark.parametrize("part_tokens", [1, 3, 4, 7])
def test_windows_do_not_know_of_the_parts(tmp_path: Path, part_tokens: int) -> None:
    one = TokenShard.open(write(tmp_path / "one" / "en", DOCUMENTS), VOCABULARY)
    many = TokenShard.open(write(tmp_path / "many" / "en", DOCUMENTS, part_tokens), VOCABULARY)
    assert len(names(tmp_path / "one" / "en")) == 1 < len(names(tmp_path / "many" / "en"))
    whole, cut = (PackedWindows({"en": shard}, {"en": 40}, 4, 0) for shard in (one, many))
    assert (len(whole), whole.digest) == (len(cut), cut.digest)
    for index in range(len(whole)):
        first, second = whole[index], cut[index]
        assert all(first[name].tobytes() == second[name].tobytes() and first[name].dtype == second[name].dtype for name in first)


def test_a_document_longer_than_a_part_is_a_part_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path / "en", [[1, 0], [1, 2, 3, 4, 5, 0], [2, 0], [3, 0]], 4)
    assert [load_file(folder / name)["ends"].tolist() for name in names(folder)] == [[2], [6], [2, 4]]


def test_a_shard_is_written_anew(tmp_path: Path) -> None:
    many = write(tmp_path / "en", DOCUMENTS, 3)
    assert len(names(many)) > 2
    assert names(write(many, DOCUMENTS[:2])) == names_of(1)
    assert TokenShard.open(many, VOCABULARY).ends.tolist() == [3, 5]


def test_a_shard_that_was_not_written_to_its_end_is_refused(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        for document in DOCUMENTS:
            yield np.array(document, dtype=np.uint32)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_shard(tmp_path / "en", broken(), "en", 3)
    assert names(tmp_path / "en") == names_of(5)
    with pytest.raises(ValueError, match=r"en/00004\.safetensors: says that 00005\.safetensors follows, which was not found; delete"):
        TokenShard.open(tmp_path / "en", VOCABULARY)


def test_a_language_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="en: no documents; give en a source"):
        write(tmp_path / "en", [])


@pytest.mark.parametrize("lost", [0, 1, 3])
def test_a_missing_part_is_named(tmp_path: Path, lost: int) -> None:
    folder = write(tmp_path / "en", DOCUMENTS, 4)
    assert names(folder) == names_of(5)
    (folder / part_name(lost)).unlink()
    with pytest.raises(ValueError, match=rf"en/0000{lost}\.safetensors: not found, but 00004\.safetensors is there; delete"):
        TokenShard.open(folder, VOCABULARY)


def test_parts_that_are_not_of_one_row_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "en", DOCUMENTS, 4)
    write(tmp_path / "de", DOCUMENTS[:1])
    (folder / part_name(1)).write_bytes((folder / part_name(2)).read_bytes())
    with pytest.raises(ValueError, match=r"en/00001\.safetensors: says it is part 2; delete it"):
        TokenShard.open(folder, VOCABULARY)
    (folder / part_name(0)).write_bytes((tmp_path / "de" / part_name(0)).read_bytes())
    with pytest.raises(ValueError, match=r"en/00000\.safetensors: says it is the last part, but others follow; delete"):
        TokenShard.open(folder, VOCABULARY)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_tokens_may_be_short_or_long_integers_but_the_same_in_all_parts(tmp_path: Path, dtype: type) -> None:
    write_part(tmp_path / "en", np.array([40_000, 0], dtype=dtype), [2], last=False)
    write_part(tmp_path / "en", np.array([1], dtype=dtype), [1], 1)
    assert TokenShard.open(tmp_path / "en", VOCABULARY).read(0, 3).tolist() == [40_000, 0, 1]
    write_part(tmp_path / "en", np.array([1], dtype=np.uint8), [1], 1)
    with pytest.raises(ValueError, match=r"en/00001\.safetensors: tokens are U8, but those of 00000\.safetensors U(16|32); delete it"):
        TokenShard.open(tmp_path / "en", VOCABULARY)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("tokens", "ends", "message"),
    [
        ([1, 2, 3], [2, 2, 3], "ends of documents do not ascend"),
        ([1, 2, 3], [0, 3], "ends of documents do not ascend"),
        ([1, 2, 3], [2, 4], "the last document ends at 4, but there are 3 tokens"),
        ([1, 2, 3], [2], "the last document ends at 2, but there are 3 tokens"),
        ([1, VOCABULARY, 3], [3], "holds token 60000, but the tokenizer has 60000"),
        ([], [], "0 documents with 0 tokens; give the language a source"),
    ],
)
def test_a_part_that_breaks_a_rule_is_named(tmp_path: Path, tokens: list[int], ends: list[int], message: str, number: int) -> None:
    for place in range(2):
        write_part(tmp_path / "en", np.array([1, 0], dtype=np.uint16), [2], place, last=place == 1)
    write_part(tmp_path / "en", np.array(tokens, dtype=np.uint16), ends, number, last=number == 1)
    with pytest.raises(ValueError, match=rf"en/0000{number}\.safetensors: .*{message}"):
        TokenShard.open(tmp_path / "en", VOCABULARY)


def test_a_part_of_other_numbers_is_named(tmp_path: Path) -> None:
    write_part(tmp_path / "en", np.array([1.0]), [1])
    with pytest.raises(ValueError, match=r"00000\.safetensors: tokens are F64 \[1\] and ends int64 \[1\]; want one row of unsigned"):
        TokenShard.open(tmp_path / "en", VOCABULARY)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def without_header(path: Path) -> None:
    write_tensors(path, {"tokens": np.array([1], dtype=np.uint16), "ends": np.array([1])}, {"language": "en"})


def without_ends(path: Path) -> None:
    write_tensors(path, {"tokens": np.array([1], dtype=np.uint16)}, {})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, r"not a whole safetensors file .*; delete it and run `dvc repro` again"),
        (without_ends, r"not a whole safetensors file .*ends"),
        (without_header, r"does not say which part it is .*; delete it"),
    ],
)
def test_a_damaged_part_is_named_with_the_cure(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    folder = write(tmp_path / "en", DOCUMENTS, 4)
    damage(folder / part_name(2))
    with pytest.raises(ValueError, match=rf"en/00002\.safetensors: {message}"):
        TokenShard.open(folder, VOCABULARY)


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zh/00000\.safetensors: not found; run `dvc repro`"):
        TokenShard.open(tmp_path / "zh", VOCABULARY)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (0, 16)])
def test_tokens_outside_of_the_shard_are_an_error(tmp_path: Path, start: int, stop: int) -> None:
    with pytest.raises(IndexError, match=f"tokens {start} to {stop} of 15"):
        TokenShard.open(write(tmp_path / "en", DOCUMENTS, 4), VOCABULARY).read(start, stop)


def test_ten_times_the_documents_take_no_more_memory_to_write(tmp_path: Path) -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        write_shard(tmp_path / "en", (np.full(50, 7, dtype=np.uint32) for _ in range(number)), "en", 5000)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    peak(300)  # what is imported and compiled once
    few, many = peak(300), peak(3000)
    assert len(names(tmp_path / "en")) == 30
    assert many < 1.1 * few < 3000 * 50 * 4
