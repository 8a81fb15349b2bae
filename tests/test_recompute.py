"""The reports say what the artifacts say: recomputed by other code, on real runs and on made-up ones in which every wire matters.

Made-up artifacts have floors that differ by language, facts that differ from each other, and rewordings of some facts in
another order, so that a figure with one wire crossed is another figure. Each bug of ``BUGS`` is planted and must be seen.
"""

import importlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from transformers import AutoModelForCausalLM

from tests.conftest import ROOT, TinyProject, read_json, set_params
from tests.recompute import Outcome, check_cells, check_updates, check_vectors, main, recompute
from tests.tiny import save_tiny
from xledit.storage import read_tensors, write_json, write_tensors

# where things stand: the stages, the module with the wires of a summary, and the folder with the vectors of reworded facts
MODEL, EVALUATE, SUMMARISE = "stages.editing.model", "stages.editing.evaluate", "stages.editing.summarise"
GEOMETRY, UPDATE_GEOMETRY = "stages.editing.geometry", "stages.editing.update_geometry"
METRICS, SUMMARY = "xledit.evaluation.metrics", "xledit.evaluation.summary"
VECTORS, REWORDED, COVARIANCE = Path("artifacts/vectors"), Path("artifacts/reworded"), Path("artifacts/covariance")
UPDATES, SCORES, CELLS, GEOMETRIES = Path("artifacts/updates"), Path("artifacts/scores"), Path("reports/cells"), Path("reports/geometry")
# settings that suit made-up vectors, beside those of params.yaml for the other methods
METHODS = {
    "memit": {"old_key_weight": 2.0, "regularisation": 0.03},
    "alphaedit": {"null_energy": 0.3, "ridge": 0.2},
}
ALL_METHODS: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["methods"] | METHODS


# real runs


@pytest.mark.slow
def test_the_tiny_run_says_what_its_artifacts_say(tiny_project: TinyProject) -> None:
    outcome = recompute(tiny_project.root)
    assert outcome.disagreements == []
    assert outcome.checked > 1000


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "artifacts" / "scores").exists(), reason="the artifacts of the default run are not here: `dvc pull`")
def test_the_default_run_says_what_its_artifacts_say() -> None:
    assert recompute(ROOT).disagreements == []


# made-up runs


@dataclass(frozen=True)
class MadeUp:
    """A project with artifacts that no model made."""

    root: Path
    languages: tuple[str, ...] = ("zh", "en")
    edits: tuple[str, ...] = ("zh", "en", "mixed")
    methods: tuple[str, ...] = tuple(METHODS)
    # an odd number, so that the halves differ in size
    facts: tuple[str, ...] = tuple(f"fact-{number}" for number in range(9))
    layers: tuple[int, ...] = (1, 2)
    d_in: int = 48
    d_out: int = 20
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def write(self) -> None:
        grid = {"languages": list(self.languages), "edits": list(self.edits), "methods": list(self.methods), "direct": []}
        params = {"seed": 3, "runtime": {"threads": 1}, "grid": grid, "methods": ALL_METHODS, "summary": {"resamples": 20, "examples": 2}}
        YAML().dump(params, self.root / "params.yaml")
        self.write_answers()
        self.write_vectors(dict.fromkeys(self.languages, self.facts))
        self.write_updates()

    def write_answers(self) -> None:
        """Write what models answered: each language has a floor of its own, and each edited model its own answers."""
        artifacts = self.root / "artifacts"
        labels = {fact: {"order": "first" if number < 4 else "last", "split": "test"} for number, fact in enumerate(self.facts)}
        write_json(artifacts / "labels.json", labels)
        floors = dict(zip(self.languages, (0.1, 0.5, 0.3), strict=False))
        write_json(artifacts / "scores" / "floor.json", self.answers(floors))
        for method, edit in self.cells():
            reached = {code: 0.9 if edit in (code, "mixed") else floors[code] + 0.2 for code in self.languages}
            write_json(artifacts / "scores" / f"{method}-{edit}.json", self.answers(reached))
            check = {"num_facts": 9, "fresh": float(self.rng.random()), "kept": None, "text_nats": {"zh": 3.25, "en": None}}
            write_json(artifacts / "checks" / f"{method}-{edit}.json", [check | {"weight_norms": {"1": 1.5}, "collapsed": False}])

    def cells(self) -> Iterator[tuple[str, str]]:
        return ((method, edit) for method in self.methods for edit in self.edits)

    def answers(self, new_ahead: dict[str, float]) -> list[dict]:
        """Return one model's scores; in each language the new answer is ahead with a chance of its own."""
        kinds = ("efficacy", "paraphrase", "paraphrase", "alias", "translated", "portability", "locality", "near", "far")
        return [
            self.answer(fact, code, kind, f"{kind} {place} of {fact}", new_ahead[code])
            for fact in self.facts
            for code in self.languages
            for place, kind in enumerate(kinds)
            # one fact lacks a kind of probe, and one language a whole kind
            if (fact, kind) != ("fact-2", "portability") and (code, kind) != ("en", "translated")
        ]

    def answer(self, fact: str, code: str, kind: str, prompt: str, new_ahead: float) -> dict:
        ahead = self.rng.random() < new_ahead
        new, true = self.said(2, ahead), self.said(3, not ahead)
        generated = f" {'Rome' if ahead else 'Paris'} of {fact}" if kind == "efficacy" else None
        about = {"fact_id": fact, "language": code, "kind": kind, "prompt": prompt, "target_new": "Rome", "target_true": "Paris"}
        return about | {"new": new, "true": true, "generated": generated}

    def said(self, num_tokens: int, ahead: bool) -> dict:
        argmax = [token if self.rng.random() < 0.3 + 0.5 * ahead else 99 for token in range(num_tokens)]
        return {
            "logprob": round(float(-self.rng.random() - 2 * (not ahead)) * num_tokens, 6),
            "tokens": list(range(num_tokens)),
            "argmax": argmax,
        }

    def write_vectors(self, facts: dict[str, Sequence[str]]) -> None:
        """Write vectors of each language's ``facts`` in that order: a fact's vectors are a part that languages share and one of its own."""
        shared = self.vectors(self.facts)
        some = self.facts[7:2:-1]  # five facts, backwards
        for code in self.languages:
            own, other = self.vectors(self.facts), self.vectors(self.facts)
            mixed = {name: shared[name] + own[name] for name in shared}
            self.save(VECTORS / f"{code}.safetensors", facts[code], mixed)
            self.save(REWORDED / f"{code}.safetensors", some, {name: mixed[name] + 0.5 * other[name] for name in mixed})
            # keys of plain text fill some directions more than others
            scales = np.linspace(0.1, 2, self.d_in)
            moments = {f"layer{layer}": self.moment(scales) for layer in self.layers}
            counts = [int(self.rng.integers(50, 500))] * len(self.layers)
            header = {"layers": list(self.layers), "num_keys": counts}
            write_tensors(self.root / COVARIANCE / f"{code}.safetensors", moments, header)

    def moment(self, scales: np.ndarray) -> np.ndarray:
        keys = self.rng.normal(size=(3 * self.d_in, self.d_in)) * self.rng.permuted(scales)
        return keys.T @ keys / len(keys)

    def vectors(self, facts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return random vectors of these facts, with a part that all facts share."""
        found = {}
        for layer in self.layers:
            for name, size in (("keys", self.d_in), ("values", self.d_out), ("targets", self.d_out)):
                found[f"{name}{layer}"] = self.rng.normal(size=(len(facts), size)) + 0.5 * self.rng.normal(size=size)
            found[f"bare_keys{layer}"] = found[f"keys{layer}"]
        return found

    def save(self, path: Path, facts: Sequence[str], vectors: dict[str, np.ndarray]) -> None:
        places = [self.facts.index(fact) for fact in facts]
        tensors = {name: rows[places] for name, rows in vectors.items()} | {"losses": np.zeros(len(facts)), "steps": np.ones(len(facts))}
        write_tensors(self.root / path, tensors, {"layers": list(self.layers), "fact_ids": list(facts)})

    def write_updates(self) -> None:
        for method, edit in self.cells():
            layers = () if method == "ike" else self.layers
            rank = len(self.facts) * (2 if edit == "mixed" else 1)
            tensors = {f"left{layer}": self.rng.normal(size=(self.d_out, rank)).astype(np.float32) for layer in layers}
            tensors |= {f"right{layer}": self.rng.normal(size=(rank, self.d_in)).astype(np.float32) for layer in layers}
            header = {"method": method, "edit": edit, "layers": list(layers), "contexts": {}}
            write_tensors(self.root / UPDATES / method / f"{edit}.safetensors", tensors, header)

    def summarise(self) -> None:
        for method, edit in self.cells():
            name = f"{method}-{edit}.json"
            stage(SUMMARISE)(
                method=method,
                edit=edit,
                scores=SCORES / name,
                floor=SCORES / "floor.json",
                labels=Path("artifacts/labels.json"),
                checks=Path("artifacts/checks") / name,
                out=CELLS / name,
            )

    def compare_vectors(self) -> None:
        stage(GEOMETRY)(vectors=VECTORS, reworded=REWORDED, out=GEOMETRIES / "vectors.json")

    def compare_updates(self, nulls: bool = True) -> None:
        inputs = {"vectors": VECTORS, "reworded": REWORDED, "covariance": COVARIANCE} if nulls else {}
        for method in self.methods:
            stage(UPDATE_GEOMETRY)(method=method, updates=UPDATES / method, out=GEOMETRIES / f"{method}.json", **inputs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run after the stages that make reports of artifacts."""
    root = tmp_path_factory.mktemp("finished")
    project = MadeUp(root)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(root)
        project.write()
        project.summarise()
        project.compare_vectors()
        project.compare_updates()
    return root


@pytest.fixture
def copied(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    root = shutil.copytree(finished, tmp_path / "project")
    monkeypatch.chdir(root)
    return MadeUp(root)


def stage(name: str) -> Callable[..., None]:
    """Return the main function of a stage: of the module that stands in ``sys.modules``, a planted one too."""
    return importlib.import_module(name).main


def test_a_made_up_run_says_what_its_artifacts_say(copied: MadeUp) -> None:
    outcome = recompute(copied.root)
    assert outcome.disagreements == []
    assert outcome.skipped == []
    assert outcome.checked > 3000


def test_a_made_up_run_has_a_figure_for_every_wire(copied: MadeUp) -> None:
    """Transfer is defined, floors differ, and nulls are there: or the tests of planted bugs would test nothing."""
    cell = read_json(Path("reports/cells/memit-zh.json"))
    assert all(estimate["value"] is not None for estimate in cell["transfer"]["en"].values())
    for name in ("efficacy", "locality"):
        assert cell["floor"]["zh"][name]["value"] != cell["floor"]["en"][name]["value"]
    assert {len(row["pairs"]) for row in json.loads(Path("reports/geometry/memit.json").read_text())} == {1 + 2 + 2 * 2}


THREE = ("zh", "en", "ja")


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MadeUp]:
    def written(**settings: tuple[str, ...]) -> MadeUp:
        project = MadeUp(tmp_path, **({"methods": ("memit",)} | settings))
        project.write()
        return project

    monkeypatch.chdir(tmp_path)
    return written


@pytest.mark.parametrize("edits", [("zh", "mixed"), ("zh", "ja")])
def test_three_languages_say_what_their_artifacts_say(grid: Callable[..., MadeUp], edits: tuple[str, ...]) -> None:
    project = grid(languages=THREE, edits=edits)
    project.summarise()
    project.compare_vectors()
    assert recompute(project.root, check_cells, check_vectors).disagreements == []
    assert sorted(read_json(Path("reports/cells/memit-zh.json"))["transfer"]) == ["en", "ja"]


def test_updates_of_every_method_say_what_their_artifacts_say(grid: Callable[..., MadeUp]) -> None:
    """The nulls of three methods are left to tests of their solvers; those of others are recomputed, or must not be there."""
    project = grid(methods=tuple(ALL_METHODS))
    project.compare_updates()
    outcome = recompute(project.root, check_updates)
    assert outcome.disagreements == []
    assert {name.partition(",")[0] for name in outcome.skipped} == {"rome", "r_rome", "emmet"}
    assert outcome.checked > 1000


def test_updates_of_methods_that_wait_for_no_vectors_say_what_their_artifacts_say(grid: Callable[..., MadeUp]) -> None:
    project = grid(methods=("ft_l", "ike"))
    set_params(project.root, {"grid.methods": [], "grid.direct": ["ft_l", "ike"]})
    shutil.rmtree(project.root / VECTORS)
    project.compare_updates(nulls=False)
    outcome = recompute(project.root, check_updates)
    assert outcome.disagreements == []
    assert outcome.checked > 20


def test_a_layer_that_one_edit_alone_changes_is_not_compared(grid: Callable[..., MadeUp]) -> None:
    """And without the rewordings there are no nulls, whatever else is there."""
    grid()
    for edit in ("en", "mixed"):
        tensors = {name: np.ones(shape, np.float32) for name, shape in (("left2", (20, 9)), ("right2", (9, 48)))}
        write_tensors(UPDATES / "memit" / f"{edit}.safetensors", tensors, {"method": "memit", "edit": edit, "layers": [2], "contexts": {}})
    given = {"vectors": VECTORS, "covariance": COVARIANCE, "reworded": REWORDED}
    for missing in given:
        out = GEOMETRIES / "memit.json"
        stage(UPDATE_GEOMETRY)(method="memit", updates=UPDATES / "memit", out=out, **(given | {missing: None}))
        assert [(row["layer"], list(row["pairs"])) for row in json.loads(out.read_text())] == [(2, ["run: zh and en, same facts"])]


@pytest.mark.parametrize(("num_reworded", "languages"), [(2, []), (3, ["en", "zh"])])
def test_three_reworded_facts_are_enough(copied: MadeUp, num_reworded: int, languages: list[str]) -> None:
    for code in copied.languages:
        path = REWORDED / f"{code}.safetensors"
        tensors, header = read_tensors(path, dict[str, Any])
        fewer = {name: rows[:num_reworded] for name, rows in tensors.items()}
        write_tensors(path, fewer, header | {"fact_ids": header["fact_ids"][:num_reworded]})
    copied.compare_vectors()
    assert recompute(copied.root, check_vectors).disagreements == []
    assert {tuple(row["reworded"]) for row in json.loads((GEOMETRIES / "vectors.json").read_text())} == {tuple(languages)}


@pytest.mark.parametrize(("languages", "edits"), [(THREE, (*THREE, "mixed")), (THREE, THREE), (("zh", "en"), ("zh", "en"))])
def test_updates_of_any_grid_say_what_their_artifacts_say(
    grid: Callable[..., MadeUp], languages: tuple[str, ...], edits: tuple[str, ...]
) -> None:
    project = grid(languages=languages, edits=edits)
    project.compare_updates()
    assert recompute(project.root, check_updates).disagreements == []


def test_the_order_of_facts_may_differ_by_language(copied: MadeUp) -> None:
    copied.write_vectors({"zh": copied.facts, "en": copied.facts[::-1]})
    copied.compare_vectors()
    copied.compare_updates()
    assert recompute(copied.root, check_vectors, check_updates).disagreements == []


def test_a_wrong_digit_a_missing_number_and_one_too_many_are_found(
    copied: MadeUp, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("reports/cells/memit-zh.json")
    cell = read_json(path)
    cell["metrics"]["zh"]["efficacy"]["low"] += 1e-4
    del cell["floor"]["en"]["near"]
    cell["checks"][0]["more"] = 1
    write_json(path, cell)
    keys = ("checks[0].more", "floor.en.near", "metrics.zh.efficacy.low")
    assert [line.partition(": found")[0] for line in recompute(copied.root).disagreements] == [f"{path}: {key}" for key in keys]
    monkeypatch.setattr(sys, "argv", ["recompute.py", str(copied.root)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert "metrics.zh.efficacy.low: found" in capsys.readouterr().out


# planted bugs


@dataclass(frozen=True)
class Bug:
    """A module whose source says ``new`` in place of ``old``, and a part of what must disagree then."""

    name: str
    module: str
    old: str
    new: str
    shows: str = ""

    def plant(self, monkeypatch: pytest.MonkeyPatch, *importers: str) -> None:
        """Load the module with the bug in it, and then those that import from it."""
        texts = {name: source(name) for name in (self.module, *importers)}
        found = texts[self.module].count(self.old)
        assert found == 1, f"{self.module}: {self.old!r} stands there {found} times, not once; write the bug {self.name!r} anew"
        texts[self.module] = texts[self.module].replace(self.old, self.new)
        for name, text in texts.items():
            importlib.import_module(name)  # so that it can be put back
            planted = ModuleType(name)
            monkeypatch.setitem(sys.modules, name, planted)
            exec(compile(text, f"{name}, {self.name}", "exec"), vars(planted))


def source(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


NET = "estimate(net_transfer, values[own][gain], floors[own][gain], values[other][name], floors[other][name])"
CONTROL = """    function=true_not_ahead,
        over="efficacy","""
OTHER_WORDS = 'vectors.of(reworded[code].fact_ids, f"rewordings in {code!r}")'
FIRST = "facts[: len(reworded[code].fact_ids)]"
SAME_WORDS = 'saved.of(reworded[code].fact_ids, f"rewordings in {code!r}")'
ACROSS = '{b}, different facts", even[a], odd[b]'
WITHIN = '{code}, different facts", even[code], odd[code]'
SAME = '{b}, same facts", even[a], even[b]'
SUMMARY_BUGS = (
    Bug("the edited language's floor for the other", SUMMARY, NET, NET.replace("floors[other]", "floors[own]"), "transfer.en.efficacy."),
    Bug("the edited language's floor in control", SUMMARY, NET, NET.replace("floors[other]", "floors[own]"), "transfer.en.control."),
    Bug("the other language's floor for the edited", SUMMARY, NET, NET.replace("floors[own]", "floors[other]"), "transfer.en.efficacy."),
    Bug("control over its own gain", SUMMARY, "METRICS[name].over or name", "name", "transfer.en.control."),
    Bug("control of what stays", METRICS, CONTROL, CONTROL.replace("not_", ""), "transfer.en.control."),
    Bug("floors of the edited model", SUMMARY, "[(was, was) for _score, was", "[(score, was) for score, was", "floor.zh.efficacy."),
    Bug("groups with the floor of all facts", SUMMARY, "floor=table(chosen_floors, ", "floor=table(floors, ", "groups[0].floor"),
    Bug("floor for scores", SUMMARISE, "read_json(scores, list[Score])", "read_json(floor, list[Score])", "metrics.zh"),
    Bug("mixed taken for Chinese", SUMMARISE, "else grid_languages\n", "else grid_languages[:1]\n", "memit-mixed.json: transfer"),
)
GEOMETRY_BUGS = (
    Bug("rewordings beside other facts", GEOMETRY, OTHER_WORDS, OTHER_WORDS.replace("reworded[code].fact_ids", FIRST), "reworded.zh.same"),
    Bug("a language beside itself", GEOMETRY, "of(saved[b].of(", "of(saved[a].of(", "across.zh-en"),
    Bug("keys for value changes", GEOMETRY, 'if what == "keys"', 'if what != "keys"', "within.en.mean"),
)
UPDATE_BUGS = (
    Bug("same for different, across", UPDATE_GEOMETRY, ACROSS, ACROSS.replace("odd", "even"), "half: zh and en, different facts"),
    Bug("same for different, within", UPDATE_GEOMETRY, WITHIN, WITHIN.replace("odd", "even"), "half: en and en, different facts"),
    Bug("different for same", UPDATE_GEOMETRY, SAME, SAME.replace("even[b]", "odd[b]"), "half: zh and en, same facts"),
    Bug(
        "rewordings beside other facts",
        UPDATE_GEOMETRY,
        SAME_WORDS,
        SAME_WORDS.replace("reworded[code].fact_ids", FIRST.replace("facts", "fact_ids")),
        "other words",
    ),
    Bug("old keys of one language", UPDATE_GEOMETRY, "moment in moments])", "moment in moments[:1]])", "half: zh and en, same facts"),
    Bug("additive to one update alone", UPDATE_GEOMETRY, "solved(left, right), MAX", "solved(left), MAX", "additivity_error"),
    Bug("run pairs of one edit", UPDATE_GEOMETRY, 'f"{edit}.safetensors"', '"zh.safetensors"', "run: zh and en"),
)


def shown(bug: Bug, outcome: Outcome) -> list[str]:
    return [line for line in outcome.disagreements if bug.shows in line]


def names(bugs: Sequence[Bug]) -> list[str]:
    return [bug.name for bug in bugs]


@pytest.mark.parametrize("bug", SUMMARY_BUGS, ids=names(SUMMARY_BUGS))
def test_a_bug_in_a_summary_is_seen(bug: Bug, copied: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [METRICS, SUMMARY, SUMMARISE]  # who imports from whom
    bug.plant(monkeypatch, *chain[chain.index(bug.module) + 1 :])
    replace(copied, methods=("memit",)).summarise()
    assert shown(bug, recompute(copied.root, check_cells))


@pytest.mark.parametrize("bug", GEOMETRY_BUGS, ids=names(GEOMETRY_BUGS))
def test_a_bug_in_the_geometry_of_vectors_is_seen(bug: Bug, copied: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    copied.compare_vectors()
    assert shown(bug, recompute(copied.root, check_vectors))


@pytest.mark.parametrize("bug", UPDATE_BUGS, ids=names(UPDATE_BUGS))
def test_a_bug_in_the_geometry_of_updates_is_seen(bug: Bug, copied: MadeUp, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    copied.compare_updates()
    seen = shown(bug, recompute(copied.root, check_updates))
    assert {method for method in METHODS for line in seen if f"/{method}.json" in line} == set(METHODS)


def test_a_bug_that_fits_its_module_no_more_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="stands there 0 times, not once; write the bug 'old' anew"):
        Bug("old", SUMMARY, "no such line", "another").plant(monkeypatch)


# an edited model is asked, not the unedited one

LAYER = 2
FACT_PROMPTS = {"fact-0": "法国的首都是", "fact-1": "写了《红楼梦》的人是"}
TOLD = {fact: f"新事实：{prompt}东京。\n" for fact, prompt in FACT_PROMPTS.items()}
LABEL = "提示："  # stands before the prompt of a probe in a context


@dataclass(frozen=True)
class Asked:
    """A tiny model, probes about two facts, and the stage that asks them."""

    root: Path
    model: Path

    def probes(self, before: dict[str, str]) -> list[dict[str, Any]]:
        """Return the probes, each with a text before its prompt."""
        about = {"language": "zh", "target_new": "东京", "target_true": "巴黎"}
        return [
            about | {"fact_id": fact, "kind": kind, "prompt": before.get(fact, "") + prompt}
            for fact, prompt in FACT_PROMPTS.items()
            for kind in ("efficacy", "locality")
        ]

    def scores(self, update: Path | None = None, model: Path | None = None, before: dict[str, str] | None = None) -> list[dict]:
        """Return what ``evaluate`` writes of a model, without what it repeats of the probes."""
        folder = model or self.model
        set_params(self.root, {"model.name": str(folder), "model.files": str(folder)})
        manifest, probes, out = (self.root / name for name in ("model.json", "probes", "scores.json"))
        stage(MODEL)(out=manifest)
        write_json(probes / "zh.json", self.probes(before or {}))
        stage(EVALUATE)(model_manifest=manifest, probes=probes, out=out, update=update)
        return [{name: score[name] for name in ("new", "true", "generated")} for score in json.loads(out.read_text(encoding="utf-8"))]

    def edit(self, layers: Sequence[int], contexts: dict[str, str]) -> tuple[Path, dict[str, np.ndarray]]:
        """Write an edit large enough to change what the model says, and return its tensors, too."""
        rng = np.random.default_rng(5)
        tensors = {f"left{layer}": rng.normal(size=(32, 2)).astype(np.float32) for layer in layers}
        tensors |= {f"right{layer}": rng.normal(size=(2, 32)).astype(np.float32) for layer in layers}
        path = self.root / "update.safetensors"
        write_tensors(path, tensors, {"method": "memit", "edit": "zh", "layers": list(layers), "contexts": contexts})
        return path, tensors

    def edited_by_hand(self, tensors: dict[str, np.ndarray]) -> Path:
        """Return the folder of a copy of the model with the update added to the memory's weight."""
        model = AutoModelForCausalLM.from_pretrained(self.model)
        weight = model.model.layers[LAYER].mlp.down_proj.weight
        change = tensors[f"left{LAYER}"].astype(np.float64) @ tensors[f"right{LAYER}"]
        with torch.no_grad():
            weight.copy_((weight.double() + torch.from_numpy(change)).float())
        folder = self.root / "by-hand"
        model.save_pretrained(folder)
        for file in self.model.glob("*token*"):
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    def hold_update(self) -> None:
        """An update gives the scores of a model whose weight was changed by hand, and not the floor's."""
        update, tensors = self.edit([LAYER], {})
        floor, edited = self.scores(), self.scores(update)
        assert_same_scores(edited, self.scores(model=self.edited_by_hand(tensors)))
        assert all(
            other["new"]["logprob"] != pytest.approx(one["new"]["logprob"], abs=0.01) for one, other in zip(floor, edited, strict=True)
        )

    def hold_contexts(self) -> None:
        """Contexts give the scores of prompts that have them written before, and not the floor's."""
        update, _ = self.edit([], TOLD)
        floor, told = self.scores(), self.scores(update)
        assert_same_scores(told, self.scores(before={fact: context + LABEL for fact, context in TOLD.items()}))
        assert all(
            other["new"]["logprob"] != pytest.approx(one["new"]["logprob"], abs=0.01) for one, other in zip(floor, told, strict=True)
        )


def assert_same_scores(found: list[dict], wanted: list[dict]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one["generated"] == other["generated"]
        for answer in ("new", "true"):
            assert (one[answer]["tokens"], one[answer]["argmax"]) == (other[answer]["tokens"], other[answer]["argmax"])
            assert one[answer]["logprob"] == pytest.approx(other[answer]["logprob"], abs=1e-4)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Asked:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.WARNING)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    set_params(tmp_path, {"runtime.threads": 1, "runtime.device": "cpu", "runtime.matmul_precision": "highest", "grid.languages": ["zh"]})
    return Asked(tmp_path, save_tiny(tmp_path / "model"))


def test_an_update_is_scored_as_a_model_changed_by_hand(asked: Asked) -> None:
    asked.hold_update()


def test_contexts_are_scored_as_prompts_that_have_them(asked: Asked) -> None:
    asked.hold_contexts()


EVALUATE_BUGS = (
    (Bug("the unedited model is asked", EVALUATE, "edited(model, edit.updates if edit else {})", "edited(model, {})"), Asked.hold_update),
    (Bug("contexts are left out", EVALUATE, "edit.contexts if edit else {}", "{}"), Asked.hold_contexts),
)


@pytest.mark.parametrize(("bug", "hold"), EVALUATE_BUGS, ids=names([bug for bug, _ in EVALUATE_BUGS]))
def test_a_bug_in_asking_is_seen(bug: Bug, hold: Callable[[Asked], None], asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError):
        hold(asked)
