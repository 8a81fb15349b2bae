"""runs/ and `xledit run`, `use`, `check`: what we ship fits, what is wrong is named, a run keeps its results and changes nothing else."""

import copy
import difflib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from stages.common import runner
from tests.conftest import ROOT, Project, TinyProject, environment
from tests.toy import MANIFEST, Toy, new_toy
from xledit import cli
from xledit.report.editing.runs import RESULTS, ModelIdentity, RunRecord, SearchRecord, Timing, read, read_record
from xledit.runs import named, queue, results
from xledit.runs.execute import plan
from xledit.runs.named import check, recommended_layers
from xledit.runs.settings import KINDS, check_values, flat, kind_of, set_params
from xledit.storage import write_json

PARAMS = ROOT / "params.yaml"
NAMES = sorted(path.stem for path in (ROOT / "runs").glob("*.yaml"))
TREE: dict[str, Any] = YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))
GOOD = """\
what: Some layers
params:
  edit.layers: [4, 5]
  vectors.clamp: 1
"""
MODEL = f"""\
{GOOD}model: {{hub: someone/model, family: llama, num_layers: 32, d_model: 4096}}
basis: published
source: https://example.org
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with our params.yaml and one run, as the current folder."""
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    monkeypatch.chdir(tmp_path)
    write("good", GOOD)
    return tmp_path


def write(name: str, text: str) -> None:
    named.RUNS.mkdir(exist_ok=True)
    (named.RUNS / f"{name}.yaml").write_text(text, encoding="utf-8")


def changed_lines() -> set[str]:
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (PARAMS, Path("params.yaml")))
    return {line[1:] for line in difflib.unified_diff(before, after, n=0, lineterm="") if line[0] == "+" and line[:3] != "+++"}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["xledit", *arguments])
    cli.main()


# the runs that we ship


@pytest.mark.parametrize("name", NAMES)
class TestShipped:
    @pytest.fixture(autouse=True)
    def at_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(ROOT)

    def test_it_fits_params_types_and_model(self, name: str) -> None:
        run = check(name, TREE)
        assert run.what
        assert all(run.skip.values())
        if run.basis == "published":
            assert run.source.startswith("https://")

    def test_its_settings_differ_from_the_default_runs(self, name: str) -> None:
        run, default = named.read(name), flat(TREE)
        kept = {key for key, value in run.params.items() if default.get(key) == value}
        assert run.model or run.extends or kept <= {"grid.methods", "grid.direct", "grid.edits"}, "what stays as it is need not be said"

    def test_settings_for_a_model_set_the_keys_that_the_others_set(self, name: str) -> None:
        """So that one on top of another leaves nothing of the first."""
        run = named.read(name)
        assert not run.model or run.search or set(run.params) == {"edit.layers", "methods.memit.old_key_weight", "vectors.steps"}

    def test_its_trials_are_on_dev(self, name: str) -> None:
        run = named.read(name)
        assert all(named.trial_params(run, trial)["data.split"] == "dev" for trial in run.trials)


def test_the_papers_four_models_are_there() -> None:
    assert {"llama-3-8b", "mistral-7b", "qwen2-7b", "llama-2-7b-chinese"} <= set(NAMES)


def test_what_was_kept_can_be_read_and_has_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for folder in RESULTS.iterdir():
        found = read(folder)
        assert found.record.name == folder.name
        assert found.cells
        if found.record.params is not None:  # otherwise by hand
            run = named.read(folder.name)
            assert found.record.what == run.what
            now = renamed(run.params)  # a run that extends another may also set what no cell of it reads
            assert {key: now.get(key) for key in renamed(found.record.params)} == renamed(found.record.params)


def renamed(params: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run as any layout of params.yaml has them: before 2026-11-30 one list held all methods, and practice was a boolean."""
    new = {"grid.methods", "grid.direct", "edit.practice", "edit.published_code", "covariance.files", "watch.files"}
    methods = sorted([*params.get("grid.methods", []), *params.get("grid.direct", [])])
    published = params.get("edit.published_code") or params.get("edit.practice") == "published"
    return {key: value for key, value in params.items() if key not in new} | {"methods": methods, "published": bool(published)}


def test_the_default_layers_are_the_rules() -> None:
    assert recommended_layers(18) == [4, 5, 6, 7, 8, 9]
    for num_layers in range(8, 130):
        layers = recommended_layers(num_layers)
        assert layers == list(range(layers[0], layers[0] + 6))
        assert abs(layers[0] - num_layers * 2 / 9) <= 0.5
        assert layers[-1] < num_layers
    assert [recommended_layers(few) for few in (1, 4, 7)] == [[0], [1, 2, 3], [2, 3, 4, 5, 6]]


# runs that are wrong


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("clamp: 1", "clmap: 1", "vectors.clmap: params.yaml has no such setting; vectors has: batch_size, clamp"),
        ("clamp: 1", "clamp: high", "vectors.clamp: Expected `float`, got `str`"),
        ("clamp: 1", "clamp: -1", "vectors: vectors.clamp is -1"),
        ("vectors.clamp: 1", "edit.num_facts: many", "edit.num_facts: Expected `int`, got `str`"),
        ("vectors.clamp: 1", "grid.methods: memit", "grid.methods: Expected `array`, got `str`"),
        ("vectors.clamp: 1", "grid.methods: [mimet]", "grid.methods: mimet: no such method; params.yaml has: memit, alphaedit"),
        ("vectors.clamp: 1", "grid.edits: [zh, sums]", "sums"),
        ("vectors.clamp: 1", "data: {split: dev}", "data: Object missing required field"),
        ("vectors.clamp: 1", "watch.facts: few", "watch.facts: Expected `int`"),
        ("vectors.clamp: 1", "methods.memit.old_key_weight: 0.0", "methods.memit: old_key_weight is 0"),
        ("vectors.clamp: 1", "methods: {}", "methods: name one section or setting"),
        ("layers: [4, 5]", "layers: [4, five]", r"edit.layers\[1\]: Expected `int`"),
        ("layers: [4, 5]", "layers: [4, 32]", "the model has no layer 32"),
        ("layers: [4, 5]", "layers: [5, 4]", "must ascend"),
        ("family: llama", "family: lama", "model.family 'lama' is none of"),
        ("basis: published", "basis: guessed", "Invalid enum value 'guessed'"),
        ("basis: published\n", "", "need model, basis and source"),
        ("basis: published", "basis: rule", r"edit.layers is \[4, 5\], and the rule says \[7, 8, 9, 10, 11, 12\]"),
        ("source:", "sauce:", "unknown field `sauce`"),
        ("what: Some layers\n", "", "missing required field `what`"),
        ("params:\n  edit.layers: [4, 5]\n  vectors.clamp: 1\n", "", "nothing differs"),
        ("what:", "skip: {memit-sum: no}\nwhat:", "skip: memit-sum: no such cell; there are memit-zh"),
        ("vectors.clamp: 1", "grid.methods: [memit]\nsearch: {vectors.steps: [1, many]}", "vectors.steps: Expected `int`"),
        ("what:", "search: {vectors.steps: []}\nwhat:", "without values"),
        ("what:", "search: {data.split: [test]}\nwhat:", "data.split dev of our own benchmark and nowhere else"),
        ("what:", "search: {data.path: [elsewhere]}\nwhat:", "data.split dev of our own benchmark and nowhere else"),
        ("vectors.clamp: 1", "data.split: test\nsearch: {vectors.steps: [1]}", "data.split dev of our own benchmark and nowhere else"),
        ("what:", "search: {vectors.steps: [1, 2]}\nwhat:", "of one method"),
        ("vectors.clamp: 1", "grid.methods: [memit]\nsearch: {grid.methods: [[memit], [rome]]}", "of one method"),
        ("what:", "extends: [none]\nwhat:", "extends: runs/none.yaml: no such run; known: good"),
        ("what:", "extends: [../params]\nwhat:", "small letters"),
        ("[4, 5]", "[4, 5", "not a YAML file"),
    ],
)
def test_a_bad_run_is_refused_by_file_and_key(old: str, new: str, complaint: str, project: Path) -> None:
    write("good", MODEL)
    check("good", TREE)
    assert old in MODEL
    write("good", MODEL.replace(old, new))
    with pytest.raises(ValueError, match=rf"{complaint}") as error:
        check("good", TREE)
    assert "runs/good.yaml" in str(error.value) or "small letters" in complaint


@pytest.mark.parametrize("name", ["", "..", "../params", "a/b", "A", "-a", "default", "a\n"])
def test_a_name_is_no_path(name: str, project: Path) -> None:
    with pytest.raises(ValueError, match="a run's name"):
        named.read(name)


def test_an_unknown_run_lists_the_known_ones(project: Path) -> None:
    write("also", GOOD)
    with pytest.raises(ValueError, match=r"runs/c\.yaml: no such run; known: also, good"):
        named.read("c")


class TestExtends:
    def test_the_last_word_wins_and_skips_and_model_come_along(self, project: Path) -> None:
        write("model", MODEL)
        write("cells", "what: Cells\nskip: {memit-zh: why}\nparams: {vectors.clamp: 2, grid.methods: [memit]}\n")
        write("both", "what: Both\nextends: [model, cells]\nparams: {vectors.steps: 3}\n")
        run = check("both", TREE)
        assert run.params == {"edit.layers": [4, 5], "vectors.clamp": 2, "grid.methods": ["memit"], "vectors.steps": 3}
        assert run.skip == {"memit-zh": "why"}
        assert run.model is not None and run.model.hub == "someone/model"

    def test_other_layers_than_the_rules_are_another_runs_business(self, project: Path) -> None:
        rule = MODEL.replace("published", "rule").replace("[4, 5]", "[7, 8, 9, 10, 11, 12]")
        write("model", rule)
        write("other", "what: x\nextends: [model]\nparams: {edit.layers: [3]}\n")
        assert check("other", TREE).params["edit.layers"] == [3]

    def test_a_setting_after_its_section_is_set_after_it(self, project: Path) -> None:
        write("section", f"what: x\nparams: {{vectors: {TREE['vectors'] | {'steps': 1}}}}\n")
        write("again", "what: x\nextends: [section]\nparams: {vectors.steps: 3}\n")
        write("last", "what: x\nextends: [again, section]\n")
        for name, steps in (("again", 3), ("last", 1)):
            assert check_values(named.read(name).params, TREE, name)["vectors"]["steps"] == steps

    def test_a_circle_is_named(self, project: Path) -> None:
        write("a", "what: x\nextends: [b]\n")
        write("b", "what: x\nextends: [a]\n")
        with pytest.raises(ValueError, match=r"runs/b\.yaml: extends: a -> b -> a goes in a circle"):
            named.read("a")


# params.yaml


def test_every_section_has_a_type_that_reads_it() -> None:
    sections = {name: section for name, section in TREE.items() if name not in ("methods", "tranyu")}
    assert {*sections, *(f"tranyu.{name}" for name in TREE["tranyu"])} == KINDS.keys()
    for key in flat(TREE):
        kind_of(key)
    check_values(
        {name: TREE[name] for name in sections} | {f"tranyu.{name}": section for name, section in TREE["tranyu"].items()}, TREE, ""
    )


class TestSetParams:
    def test_nothing_leaves_the_bytes_alone(self, project: Path) -> None:
        assert set_params(project, {}) == {}
        assert (project / "params.yaml").read_bytes() == PARAMS.read_bytes()

    def test_changes_its_lines_and_no_other(self, project: Path) -> None:
        old = TREE["edit"]["layers"]
        assert set_params(project, {"edit.layers": [1, 2], "data.path": "x", "seed": TREE["seed"]}) == {
            "edit.layers": (old, [1, 2]),
            "data.path": (TREE["data"]["path"], "x"),
        }
        path, layers = sorted(changed_lines(), key=len, reverse=True)
        assert path.startswith("  path: x ") and "#" in path
        assert layers == "  layers: [1, 2]"

    def test_null_stays_a_word(self, project: Path) -> None:
        set_params(project, {"runtime.device": None})
        assert "  device: null" in changed_lines()

    @pytest.mark.parametrize("key", ["edit.layer", "edits.layers", "seed.x", "nothing"])
    def test_refuses_an_unknown_key_and_writes_nothing(self, key: str, project: Path) -> None:
        with pytest.raises(ValueError, match=rf"params.yaml: {key}: no such setting"):
            set_params(project, {"seed": 1, key: 1})
        assert (project / "params.yaml").read_bytes() == PARAMS.read_bytes()


def test_checking_leaves_the_tree_alone(project: Path) -> None:
    before = copy.deepcopy(TREE)
    check_values({"vectors": TREE["vectors"], "vectors.clamp": 3.0}, TREE, "here")
    write("grid", "what: x\nparams: {grid.rewordings: 0}\n")
    check("grid", TREE)
    assert before == TREE


# commands


class TestUse:
    def test_writes_and_says_what_changed(self, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        write("good", MODEL)
        command(monkeypatch, "use", "good")
        assert changed_lines() == {"  layers: [4, 5]", "  clamp: 1"}
        printed = capsys.readouterr().out
        assert f"edit.layers: {TREE['edit']['layers']} -> [4, 5]" in printed
        assert "model.name is as it was" in printed

    def test_of_a_search_it_writes_what_was_chosen_on_top_of_what_it_extends(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write("search", "what: x\nextends: [good]\nparams: {grid.methods: [memit]}\nsearch: {vectors.clamp: [2, 4]}\n")
        write("after", "what: x\nextends: [search]\nparams: {edit.num_facts: 5}\n")
        with pytest.raises(ValueError, match=r"runs/search\.yaml: the search has not chosen yet; `xledit run search` first"):
            named.read("after")
        chosen = SearchRecord(rule="x", chosen={"vectors.clamp": 4}, trials=())
        write_json(RESULTS / "search" / "run.json", RunRecord(name="search", what="x", commit="c", date=None, params={}, search=chosen))
        assert named.read("after").params == {"edit.layers": [4, 5], "vectors.clamp": 4, "edit.num_facts": 5}
        command(monkeypatch, "use", "search")
        assert changed_lines() == {"  layers: [4, 5]", "  clamp: 4"}

    @pytest.mark.parametrize("arguments", [("use",), ("use", "other"), ("use", "good", "good"), ("run", "good", "other"), ("nothing",)])
    def test_what_cannot_be_done_ends_in_one_line_and_writes_nothing(
        self, arguments: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            command(monkeypatch, *arguments)
        assert stopped.value.code == 1
        assert len(caplog.records) == 1
        assert changed_lines() == set()


def test_all_are_checked_and_listed(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write("model", MODEL)
    command(monkeypatch, "check")
    command(monkeypatch, "runs")
    said, _head, good, model = capsys.readouterr().out.splitlines()
    assert said == "2 runs fit params.yaml"
    assert (good.split()[:3], model.split()[:3]) == (["good", "-", "-"], ["model", "-", "published"])
    write("bad", GOOD.replace("clamp", "clmap"))
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, "check")
    assert stopped.value.code == 1


def test_help_comes_without_what_takes_seconds_to_import() -> None:
    heavy = "torch", "transformers", "dvc", "matplotlib", "scipy"
    check = f"import sys, xledit.cli; sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


# what is planned


def test_a_plan_asks_for_its_cells_and_for_no_other(project: Path) -> None:
    write("two", "what: x\nparams: {grid.methods: [memit, rome], grid.edits: [zh, sum]}\nskip: {rome-sum: why}\n")
    two, size = plan("two", TREE, "20260101000000"), "what: x\npipeline: tranyu/dvc.yaml\nparams: {tranyu.recall.every: 3}\n"
    write("size", size)
    assert [task.name for task in two.tasks] == ["two-20260101000000"]
    assert two.tasks[0].targets == ("summarise@memit-zh", "summarise@memit-sum", "summarise@rome-zh")
    assert two.cells == ["memit-zh", "memit-sum", "rome-zh"]
    direct = "what: x\nparams: {grid.methods: [], grid.direct: [lora], grid.edits: [zh]}\n"
    write("direct", direct)
    assert plan("direct", TREE, "1").tasks[0].targets == ("summarise_direct@lora-zh",)
    assert (plan("size", TREE, "1").tasks[0].targets, plan("size", TREE, "1").cells) == (("tranyu/dvc.yaml",), [])


def test_settings_for_a_model_are_not_run_on_whatever_model_there_is(project: Path) -> None:
    write("model", MODEL)
    write("mine", "what: x\nextends: [model]\nparams: {model.name: /models/m, model.files: /models/m}\n")
    with pytest.raises(ValueError, match=r"runs/model\.yaml: settings for someone/model that do not say where your copy is"):
        plan("model", TREE, "1")
    assert plan("mine", TREE, "1").tasks[0].params["model.name"] == "/models/m"


# times


def run_stage(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception | None = None) -> None:
    def stage() -> None:
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["stage"])
    monkeypatch.setenv("DVC_STAGE", name)
    runner.run(stage)


def test_a_stage_adds_what_it_took_to_the_file_of_its_experiment_and_the_last_time_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    queue.TIMES.mkdir(parents=True)
    monkeypatch.setenv(runner.TIMINGS, str(queue.TIMES.absolute() / "$DVC_EXP_NAME.jsonl"))
    for experiment, stage in (("a-20260101000000-01", "prepare"), ("a-20260102000000-01", "apply@memit-zh"), ("a-b-20260101000000", "x")):
        monkeypatch.setenv("DVC_EXP_NAME", experiment)
        run_stage(monkeypatch, stage)
    with pytest.raises(SystemExit):
        run_stage(monkeypatch, "failed", ValueError("no such thing"))
    with (queue.TIMES / "a-20260101000000-01.jsonl").open("a") as file:
        file.write('{"stage":"apply@memit-zh","wall_s":900.0,"cpu_s":900.0}\n')
    found = queue.timings_of("a-20260102000000-01")
    assert found.keys() == {"apply@memit-zh", "prepare"}
    assert queue.timings_of("a-20260102000000-02") == {}, "of another trial"
    assert 0 <= found["apply@memit-zh"].wall_s < 5, "the later experiment's"
    queue.forget_timings("a-20260102000000-01")
    assert [path.name for path in queue.TIMES.iterdir()] == ["a-b-20260101000000.jsonl"]


def test_a_stage_writes_no_times_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(runner.TIMINGS, raising=False)
    run_stage(monkeypatch, "apply")
    assert not list(tmp_path.iterdir())


def test_data_are_what_the_runs_stages_read_and_none_has_made() -> None:
    def dep(path: str) -> dict[str, str]:
        return {"path": path, "md5": path[::-1]}

    lock = {
        "prepare": {"deps": [dep("data/facts"), dep("stages/prepare.py"), dep("xledit")], "outs": [dep("artifacts/requests.json")]},
        "apply@memit-zh": {"deps": [dep("artifacts/requests.json"), dep("artifacts/other/text.txt"), dep("requirements.lock")]},
        "apply@rome-zh": {"deps": [dep("data/not_this")]},
        "report": {"deps": [dep("reports/cells"), dep("results")]},
    }
    assert results.data_of(lock, ["memit-zh"]) == {path: path[::-1] for path in ("artifacts/other/text.txt", "data/facts")}


def test_settings_are_those_that_the_runs_stages_have_read() -> None:
    lock = {
        "prepare": {"params": {"params.yaml": {"data": {"split": "dev", "probes": {"near": 1}}, "edit.num_facts": 3}}},
        "apply@memit-zh": {"params": {"params.yaml": {"edit": {"layers": [1]}}}},
        "apply@rome-zh": {"params": {"params.yaml": {"edit": {"layers": [2]}}}},
        "report": {},
    }
    assert results.params_of(lock, ["memit-zh"]) == {"data.split": "dev", "data.probes.near": 1, "edit.num_facts": 3, "edit.layers": [1]}


def test_changed_files_are_told_and_unknown_ones_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    project = Project(tmp_path / "project", environment(tmp_path))
    project.root.mkdir()
    project.run("git", "init", "--quiet")
    for name in ("kept", "changed", "deleted", "staged", ".gitignore"):
        (project.root / name).write_text("ignored", encoding="utf-8")
    project.commit("all")
    for name in ("changed", "staged", "ignored", "added", "new/file", "results/a/run.json", "runs/a.yaml"):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text("2", encoding="utf-8")
    project.run("git", "add", "staged", "added")
    (project.root / "deleted").unlink()
    monkeypatch.chdir(project.root)
    assert queue.uncommitted() == ("added", "changed", "deleted", "staged")
    queue.warn_of_unknown()
    assert "does not know new/file:" in caplog.text


# DVC's queue


@pytest.fixture
def toy(tmp_path: Path, plain_env: dict[str, str]) -> Toy:
    return new_toy(tmp_path, plain_env)


A = "what: Three layers\nparams: {edit.layers: [1, 2, 3], grid.methods: [memit], grid.edits: [zh, en]}\n"
B = "what: No such layer\nparams: {edit.layers: [40], grid.methods: [rome], grid.edits: [zh]}\n"


@pytest.mark.slow
def test_runs_are_kept_a_failed_one_is_told_and_a_rerun_changes_no_byte(toy: Toy) -> None:
    toy.write("runs/a.yaml", A)
    toy.write("runs/b.yaml", B)
    before = (toy.root / "params.yaml").read_bytes()
    done = toy.xledit("run", "a", "b", "--jobs", "2")
    assert done.returncode == 1
    assert "no such layer as 40" in done.stdout and "not kept: b" in done.stdout
    assert "model took 1.5 s" in done.stdout
    assert (toy.root / "params.yaml").read_bytes() == before
    assert set(toy.run("git", "status", "--porcelain").stdout.split()) == {"??", "results/", "runs/"}
    folder = toy.root / "results" / "a"
    assert sorted(path.relative_to(toy.root / "results").as_posix() for path in (toy.root / "results").rglob("*.json")) == [
        *("a/cells/memit-en.json", "a/cells/memit-zh.json", "a/run.json")
    ]
    record = read_record(folder)
    assert (record.what, record.params) == (
        "Three layers",
        {"edit.layers": [1, 2, 3], "grid.methods": ["memit"], "grid.edits": ["zh", "en"]},
    )
    assert (record.commit, record.uncommitted) == (toy.run("git", "rev-parse", "HEAD").stdout.strip(), ())
    assert record.model == msgspec.convert(MANIFEST, ModelIdentity, from_attributes=True)
    assert record.data is not None and record.data.keys() == {"data/facts.txt", "stage.py"}
    assert record.timings == {
        name: Timing(stage=name, wall_s=1.5, cpu_s=2.5) for name in ("model", "summarise@memit-zh", "summarise@memit-en")
    }
    assert not list((toy.root / queue.TIMES).glob("a-*"))
    kept = {path: path.read_bytes() for path in folder.rglob("*.json")}
    toy.commit("Runs and results")
    done = toy.xledit("run", "a")
    assert done.returncode == 0, done.stdout
    assert "is as it was" in done.stdout
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == kept
    # uncommitted code is run, and another result replaces the old one whole
    toy.write("stage.py", (toy.root / "stage.py").read_text(encoding="utf-8").replace("/ 4", "/ 5"))
    set_params(toy.root, {"seed": 3})
    assert toy.xledit("run", "a").returncode == 0
    again = read_record(folder)
    assert again.uncommitted == ("params.yaml", "stage.py")
    assert again.params == {"seed": 3} | (record.params or {})
    assert read(folder).cells[0].metrics["zh"]["exact"].value == 0.6


@pytest.mark.slow
def test_an_interrupt_empties_the_queue_and_the_next_try_goes_on_where_it_was(toy: Toy) -> None:
    toy.write("runs/a.yaml", A)
    toy.write("runs/c.yaml", A.replace("[1, 2, 3]", "[1, 2]"))
    toy.hold.touch()
    # a test run that was started in the background ignores interrupts, and its children would, too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(toy.command("run", "a", "c"), cwd=toy.root, env=toy.env, text=True, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        toy.wait_until("Running")
        while not toy.held.exists():
            assert process.poll() is None
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
    toy.wait_until("Running", gone=True)
    assert "Queued" not in toy.dvc("queue", "status")
    assert toy.run("git", "status", "--porcelain").stdout.split() == ["??", "runs/"]
    toy.hold.unlink()
    done = toy.xledit("run", "a")
    assert done.returncode == 0, done.stdout
    assert sorted(toy.ran.read_text(encoding="utf-8").split()) == ["model", "summarise@memit-en", "summarise@memit-zh"]
    assert read_record(toy.root / "results" / "a").timings.keys() == {"model", "summarise@memit-en", "summarise@memit-zh"}


@pytest.mark.slow
def test_a_queue_with_other_work_is_left_alone(toy: Toy) -> None:
    toy.write("runs/a.yaml", A)
    toy.dvc("exp", "run", "--queue", "--name", "mine")
    done = toy.xledit("run", "a")
    assert done.returncode == 1 and "queue is not empty (mine)" in done.stdout


@pytest.mark.slow
def test_another_model_than_the_one_that_the_settings_are_for_is_not_kept(toy: Toy) -> None:
    facts = "{hub: someone/model, family: llama, num_layers: 16, d_model: 64}"
    toy.write("runs/a.yaml", f"{A}model: {facts}\nbasis: published\nsource: https://example.org\n")
    toy.write("runs/mine.yaml", "what: x\nextends: [a]\nparams: {model.name: x}\n")
    done = toy.xledit("run", "mine")
    assert done.returncode == 1 and "'num_layers': 32, 'd_model': 64}; nothing kept" in done.stdout
    assert not (toy.root / "results").exists()


@pytest.mark.slow
def test_runs_of_the_real_pipeline(tiny_project: TinyProject, tmp_path: Path) -> None:
    """One of two batches, one of which a cell is not asked for, and a search: all at once."""
    project = tiny_project.copy(tmp_path / "project")
    four = "params: {edit.num_facts: 4, edit.batch_size: 2, grid.methods: [memit], grid.direct: [], grid.rewordings: 0"
    for name, text in {
        "four": f"what: Four facts\n{four}}}\n",
        "some": f"what: Some cells\n{four}, grid.edits: [mixed, sum]}}\nskip: {{memit-sum: why not}}\n",
        "best": "what: Layers\nparams: {edit.num_facts: 6, grid.methods: [memit], grid.direct: []}\nsearch: {edit.layers: [[1, 2], [2]]}\n",
    }.items():
        (project.root / "runs" / f"{name}.yaml").write_text(text, encoding="utf-8")
    before = project.run("git", "status", "--porcelain").stdout, (project.root / "params.yaml").read_bytes()
    said = project.run(sys.executable, "-m", "xledit.cli", "run", "four", "some", "best", "--jobs", "2").stdout
    assert "Net transfer of the preference" in said
    found = {name: read(project.root / RESULTS / name) for name in ("four", "some", "best")}
    assert {name: [cell.edit for cell in run.cells] for name, run in found.items()} == {
        "four": ["en", "mixed", "zh"],
        "some": ["mixed"],
        "best": ["en", "mixed", "zh"],
    }
    for cell in found["four"].cells:
        assert (cell.num_facts, [check.num_facts for check in cell.checks]) == (4, [0, 2, 4])
    four_record, best = found["four"].record, found["best"].record.search
    assert four_record.timings.keys() >= {"prepare", "vectors@zh", "apply@memit-zh"}
    assert four_record.model is not None and four_record.model.num_layers == 4
    assert four_record.data is not None and "data/benchmark" in four_record.data
    assert best is not None and [trial.state for trial in best.trials] == ["Success", "Success"]
    assert all(trial.size for trial in best.trials)
    assert best.chosen["edit.layers"] in ([1, 2], [2])
    after = project.run("git", "status", "--porcelain").stdout, (project.root / "params.yaml").read_bytes()
    assert after[1] == before[1]
    assert set(after[0].splitlines()) - set(before[0].splitlines()) == {f"?? results/{name}/" for name in found}
    project.run(sys.executable, "-m", "xledit.cli", "use", "best")
    # the default's settings are those that its results came from
    said = project.run(sys.executable, "-m", "xledit.cli", "compare", "four", "default").stdout
    assert "edit.layers" not in said
    assert "setting edit.num_facts: 4 | 8" in said
    assert "setting edit.batch_size: 2 | None" in said
