"""A file is written whole or not at all, and the same content gives the same bytes; a damaged one is named, with the cure."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from xledit.editing.artifacts import SavedEdit, load_edit, load_second_moments, load_vectors, save_edit, save_second_moments, save_vectors
from xledit.editing.tensors import EditVectors, LayerMemory, LayerUpdate, SecondMoment
from xledit.storage import read_json, read_tensors, sha256, write_bytes, write_json, write_tensors

ROOT = Path(__file__).parents[1]
LARGE = 4_000_000
ARRAYS = {"keys": np.arange(12.0).reshape(3, 4), "values": np.array([[1.5]], dtype=np.float32)}

# writes files that are all "a" or all "b" until it is killed
WRITE_FOR_EVER = f"""
import itertools, sys
from pathlib import Path
from xledit.storage import write_bytes
for letter in itertools.cycle([b"a", b"b"]):
    write_bytes(Path(sys.argv[1]), letter * {LARGE})
    print(flush=True)
"""

# on a disk of 64 kB
FILL_THE_DISK = """
import errno, os, sys
from pathlib import Path
from xledit.storage import write_bytes
path = Path(sys.argv[1]) / "scores.json"
write_bytes(path, b"earlier")
try:
    write_bytes(path, os.urandom(200_000))
except OSError as error:
    print("no space" if error.errno == errno.ENOSPC else error, path.read_bytes().decode(), os.listdir(path.parent))
"""


def python(*command: str) -> list[str]:
    return [sys.executable, "-c", *command]


def env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def test_a_kill_leaves_the_earlier_or_the_new_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "update.safetensors"
    for delay in (0.0, 0.005, 0.011, 0.017, 0.03):
        with subprocess.Popen(python(WRITE_FOR_EVER, str(path)), stdout=subprocess.PIPE, env=env()) as writer:
            assert writer.stdout is not None
            for _ in range(3):
                writer.stdout.readline()
            time.sleep(delay)
            writer.kill()
        content = path.read_bytes()
        assert (len(content), set(content)) in [(LARGE, {letter}) for letter in b"ab"]


def test_a_full_disk_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("no unshare: a small disk cannot be mounted for this test")
    script = 'mount -t tmpfs -o size=64k none "$1" || exit 77; shift; exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    done = subprocess.run([*inside, *python(FILL_THE_DISK, str(tmp_path))], capture_output=True, text=True, env=env())
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    assert done.stdout == "no space earlier ['scores.json']\n", done.stderr


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_late_leaves_the_earlier_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def no_space(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "scores.json"
    write_bytes(path, b"earlier")
    monkeypatch.setattr(os, failing, no_space)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"later")
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "scores.json", b"later")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_made_and_the_file_can_be_read_by_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "scores.json"
    write_bytes(path, b"content")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o644


def test_the_same_tensors_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    first, again = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_tensors(first, ARRAYS, {"layers": [1, 2], "edit": "zh"})
    write_tensors(again, dict(reversed(ARRAYS.items())), {"edit": "zh", "layers": [1, 2]})
    assert first.read_bytes() == again.read_bytes()


def test_the_same_json_gives_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    first, again = tmp_path / "1.json", tmp_path / "2.json"
    write_json(first, {"b": [1, 2.5], "a": {"d": "巴黎", "c": None}})
    write_json(again, {"a": {"c": None, "d": "巴黎"}, "b": [1, 2.5]})
    assert first.read_bytes() == again.read_bytes()
    assert first.read_text(encoding="utf-8").startswith('{\n  "a": {\n    "c": null,\n    "d": "巴黎"\n')
    assert first.read_bytes().endswith(b"}\n")


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS | {"transposed": ARRAYS["keys"].T}, {"layer": 3})
    arrays, header = read_tensors(path, dict[str, int])
    assert header == {"layer": 3}
    assert arrays.keys() == {"keys", "values", "transposed"}
    np.testing.assert_array_equal(arrays["transposed"], ARRAYS["keys"].T)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_nan_becomes_null(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"value": float("nan")})
    assert read_json(tmp_path / "x.json", dict[str, float | None]) == {"value": None}


def truncated(content: bytes) -> bytes:
    return content[:-3]


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        lambda content: content[:20],
        lambda _content: b"",
        lambda content: content + b"x",
        lambda _content: b"PK\x03\x04 some other file",
        lambda _content: safetensors.numpy.save(ARRAYS),
        lambda _content: safetensors.numpy.save(ARRAYS, {"xledit": "{"}),
        lambda _content: safetensors.numpy.save(ARRAYS, {"xledit": '"a word"'}),
    ],
    ids=["truncated", "header only", "empty", "longer", "zip", "foreign", "broken header", "other header"],
)
def test_damaged_tensors_are_named_with_the_cure(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS, {"layer": 3})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError) as error:
        read_tensors(path, dict[str, int])
    assert str(error.value).startswith(f"{path}: ")
    assert "delete it and run `dvc repro`" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b'{"a": "one"}', b"[1]", b'{"\xff": 1}', b"null"])
def test_damaged_json_is_named_with_the_cure(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_json(path, dict[str, int])
    assert str(error.value).startswith(f"{path}: ")
    assert "delete it and run `dvc repro`" in str(error.value)


def test_the_place_in_json_that_does_not_fit_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": [1, "x"]}')
    with pytest.raises(ValueError, match=r"\$\[\.\.\.\]\[1\]"):
        read_json(tmp_path / "x.json", dict[str, list[int]])


@pytest.mark.parametrize("read", [read_json, read_tensors])
def test_a_missing_file_says_how_to_get_it(tmp_path: Path, read: Callable[[Path, type], object]) -> None:
    with pytest.raises(ValueError, match="none: not found; run `dvc repro` or `dvc pull`"):
        read(tmp_path / "none", dict)


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()


# tensor artifacts


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_vectors(num_facts: int) -> EditVectors:
    """Vectors of two layers, with keys of five numbers and values of three."""
    sizes = {"keys": 5, "values": 3, "bare_keys": 5}
    return EditVectors(
        memories={
            layer: LayerMemory(
                **{name: normal(num_facts, size, seed=10 * layer + place) for place, (name, size) in enumerate(sizes.items())}
            )
            for layer in (4, 11)
        },
        targets={layer: normal(num_facts, 3, seed=10 * layer + 5) for layer in (4, 11)},
        losses=normal(num_facts, seed=1),
        steps=normal(num_facts, seed=2),
    )


@pytest.mark.parametrize("num_facts", [0, 1, 2])
def test_edit_vectors_come_back_bit_for_bit(tmp_path: Path, num_facts: int) -> None:
    path, vectors, fact_ids = tmp_path / "zh.safetensors", some_vectors(num_facts), tuple("ab"[:num_facts])
    save_vectors(path, fact_ids, vectors)
    back = load_vectors(path)
    assert back.fact_ids == fact_ids
    assert list(back.memories) == list(back.targets) == [4, 11]
    for layer, memory in vectors.memories.items():
        wanted = vars(memory) | {"targets": vectors.targets[layer]}
        torch.testing.assert_close(vars(back.facts(layer)), wanted, rtol=0, atol=0)
        torch.testing.assert_close(vars(back.memories[layer]), vars(memory), rtol=0, atol=0)
        torch.testing.assert_close(back.deltas(layer), vectors.targets[layer] - memory.values, rtol=0, atol=0)


def test_edit_vectors_of_other_facts_than_their_file_says_are_refused(tmp_path: Path) -> None:
    save_vectors(tmp_path / "zh.safetensors", ("a", "b", "c"), some_vectors(2))
    with pytest.raises(ValueError, match=r"zh\.safetensors: holds 3 facts and tensors of another length; delete it and run `dvc repro`"):
        load_vectors(tmp_path / "zh.safetensors")


def test_an_edit_comes_back_to_the_precision_of_the_weights(tmp_path: Path) -> None:
    updates = {layer: LayerUpdate(normal(3, 2, seed=layer), normal(2, 5, seed=layer + 1)) for layer in (4, 11)}
    contexts = {"fact-1": "新事实：法国的首都是东京。\n", "fact-2": ""}
    save_edit(tmp_path / "edit.safetensors", "memit", "mixed", SavedEdit(updates, contexts))
    back = load_edit(tmp_path / "edit.safetensors")
    assert back.contexts == contexts
    assert list(back.updates) == [4, 11]
    for layer, update in updates.items():
        for found, wanted in ((back.updates[layer].left, update.left), (back.updates[layer].right, update.right)):
            torch.testing.assert_close(found, wanted.float().double(), rtol=0, atol=0)


@pytest.mark.parametrize("saved", [SavedEdit({}, {"fact-1": "提示："}), SavedEdit({}, {})])
def test_an_edit_of_text_alone_comes_back(tmp_path: Path, saved: SavedEdit) -> None:
    save_edit(tmp_path / "edit.safetensors", "ike", "zh", saved)
    assert load_edit(tmp_path / "edit.safetensors") == saved


def test_second_moments_come_back_bit_for_bit(tmp_path: Path) -> None:
    moments = {layer: SecondMoment(normal(5, 5, seed=layer), 100 + layer) for layer in (4, 11)}
    save_second_moments(tmp_path / "zh.safetensors", moments)
    back = load_second_moments(tmp_path / "zh.safetensors")
    assert {layer: moment.num_keys for layer, moment in back.items()} == {4: 104, 11: 111}
    for layer, moment in moments.items():
        torch.testing.assert_close(back[layer].matrix, moment.matrix, rtol=0, atol=0)


@pytest.mark.parametrize("load", [load_edit, load_vectors, load_second_moments])
def test_one_artifact_is_not_taken_for_another(tmp_path: Path, load: Callable[[Path], object]) -> None:
    write_tensors(tmp_path / "x.safetensors", ARRAYS, {"layer": 3})
    with pytest.raises(ValueError, match="delete it and run `dvc repro`"):
        load(tmp_path / "x.safetensors")
