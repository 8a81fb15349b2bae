"""settings/: every overlay fits params.yaml and its model, and writing one changes its settings and nothing else of the file."""

import copy
import difflib
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tools import overlay
from tools.overlay import check, check_values, flat, load_overlay, recommended_layers, set_params

PARAMS = ROOT / "params.yaml"
NAMES = sorted(path.stem for path in (ROOT / "settings").glob("*.yaml"))
GOOD = """\
model: {hub: someone/model, family: llama, num_layers: 32, d_model: 4096}
basis: published
source: https://example.org
params:
  edit: {layers: [4, 5]}
  vectors: {clamp: 1}
"""


def read_yaml(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our params.yaml and one overlay, as the current folder."""
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "good.yaml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tree() -> dict[str, Any]:
    return read_yaml(PARAMS.read_text(encoding="utf-8"))


def changed_lines(project: Path) -> list[str]:
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (PARAMS, project / "params.yaml"))
    return [line[1:] for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[0] == "+" and line[:3] != "+++"]


class TestRule:
    def test_gives_the_default_layers_of_the_default_model(self) -> None:
        assert recommended_layers(18) == [4, 5, 6, 7, 8, 9]

    def test_gives_six_consecutive_layers_that_start_at_two_ninths(self) -> None:
        for num_layers in range(8, 130):
            layers = recommended_layers(num_layers)
            assert layers == list(range(layers[0], layers[0] + 6))
            assert abs(layers[0] - num_layers * 2 / 9) <= 0.5
            assert layers[-1] < num_layers

    @pytest.mark.parametrize(("num_layers", "layers"), [(1, [0]), (4, [1, 2, 3]), (7, [2, 3, 4, 5, 6])])
    def test_gives_a_shallow_model_what_it_has(self, num_layers: int, layers: list[int]) -> None:
        assert recommended_layers(num_layers) == layers


@pytest.mark.parametrize("name", NAMES)
class TestShipped:
    def test_fits_params_types_and_model(self, name: str, tree: dict[str, Any]) -> None:
        found = check(ROOT / "settings" / f"{name}.yaml", tree)
        if found.basis == "rule":
            assert flat(found.params)["edit.layers"] == recommended_layers(found.model.num_layers)
        if found.basis == "published":
            assert found.source.startswith("https://")

    def test_sets_the_keys_that_the_others_set(self, name: str) -> None:
        found = load_overlay(ROOT / "settings" / f"{name}.yaml")
        if found.basis != "tuned":
            assert set(flat(found.params)) == {"edit.layers", "methods.memit.old_key_weight", "vectors.steps"}


def test_the_papers_four_models_are_there() -> None:
    assert {"llama-3-8b", "mistral-7b", "qwen2-7b", "llama-2-7b-chinese"} <= set(NAMES)


class TestSetParams:
    def test_nothing_leaves_the_bytes_alone(self, project: Path) -> None:
        assert set_params(project, {}) == {}
        assert (project / "params.yaml").read_bytes() == PARAMS.read_bytes()

    def test_changes_its_lines_and_no_other(self, project: Path, tree: dict[str, Any]) -> None:
        old = tree["edit"]["layers"]
        assert set_params(project, {"edit.layers": [1, 2], "data.path": "x", "seed": tree["seed"]}) == {
            "edit.layers": (old, [1, 2]),
            "data.path": ("data/benchmark", "x"),
        }
        path, layers = changed_lines(project)
        assert path.startswith("  path: x ") and "#" in path
        assert layers == "  layers: [1, 2]"

    def test_null_stays_a_word(self, project: Path) -> None:
        set_params(project, {"runtime.device": None})
        assert "  device: null" in changed_lines(project)

    @pytest.mark.parametrize("key", ["edit.layer", "edits.layers", "seed.x", "nothing"])
    def test_refuses_an_unknown_key_and_writes_nothing(self, key: str, project: Path) -> None:
        with pytest.raises(ValueError, match=rf"params.yaml: {key}: no such setting"):
            set_params(project, {"seed": 1, key: 1})
        assert (project / "params.yaml").read_bytes() == PARAMS.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("clamp: 1", "clmap: 1", "params.vectors.clmap: params.yaml has no such setting; vectors has: batch_size, clamp"),
        ("clamp: 1", "clamp: high", "params.vectors.clamp: Expected `float`, got `str`"),
        ("clamp: 1", "clamp: -1", "params.vectors: vectors.clamp is -1"),
        ("layers: [4, 5]", "layers: [4, 32]", "the model has no layer 32"),
        ("layers: [4, 5]", "layers: [5, 4]", "must ascend"),
        ("layers: [4, 5]", "layers: [4, five]", r"params.edit.layers\[1\]: Expected `int`"),
        ("vectors: {clamp: 1}", "seed: 3", "params.seed: is not about the model"),
        ("vectors: {clamp: 1}", "methods: {memit: {old_key_weight: 0.0}}", "params.methods.memit: old_key_weight is 0"),
        ("family: llama", "family: lama", "model.family 'lama' is none of"),
        ("basis: published", "basis: guessed", "Invalid enum value 'guessed'"),
        ("basis: published", "basis: tuned", "basis tuned needs it"),
        ("basis: published", "basis: rule", r"params.edit.layers is \[4, 5\], and the rule says \[7, 8, 9, 10, 11, 12\]"),
        ("source:", "sauce:", "unknown field `sauce`"),
        ("{clamp: 1}", "{clamp: 1", "not a YAML file"),
    ],
)
def test_a_bad_overlay_is_refused_by_file_and_key(old: str, new: str, complaint: str, project: Path, tree: dict[str, Any]) -> None:
    path = project / "settings" / "good.yaml"
    check(path, tree)
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"good.yaml: .*{complaint}"):
        check(path, tree)


def test_checking_leaves_the_tree_alone(tree: dict[str, Any]) -> None:
    before = copy.deepcopy(tree)
    check_values({"vectors.clamp": 3.0}, tree, "here")
    assert tree == before


class TestCommand:
    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["overlay", *arguments])
        overlay.run(overlay.main)

    def test_writes_and_says_what_changed(
        self, project: Path, tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.run(monkeypatch, "good")
        assert {"  layers: [4, 5]", "  clamp: 1"} == set(changed_lines(project))
        printed = capsys.readouterr().out
        assert f"edit.layers: {tree['edit']['layers']} -> [4, 5]" in printed
        assert f"vectors.clamp: {tree['vectors']['clamp']} -> 1" in printed

    def test_lists_with_basis(self, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.run(monkeypatch, "--list")
        assert capsys.readouterr().out.splitlines()[1].split() == ["good", "published", "someone/model", "[4,", "5]", "32"]

    def test_checks_all(self, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.run(monkeypatch, "--check")
        assert capsys.readouterr().out == "1 overlays fit params.yaml\n"
        (project / "settings" / "bad.yaml").write_text(GOOD.replace("clamp", "clmap"), encoding="utf-8")
        with pytest.raises(SystemExit) as stopped:
            self.run(monkeypatch, "--check")
        assert stopped.value.code == 1

    @pytest.mark.parametrize("arguments", [(), ("good", "--list"), ("other",)])
    def test_refuses_what_it_cannot_do_and_writes_nothing(
        self, arguments: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            self.run(monkeypatch, *arguments)
        assert stopped.value.code == 1
        assert changed_lines(project) == []
