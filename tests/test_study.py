"""studies/: every plan fits params.yaml and the library, a faulty one is named, and a run leaves its cells, times and settings behind."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from stages.common import runner
from tests.conftest import ROOT, Project, TinyProject, environment, read_json
from tools import study
from tools.study import Plan, locked_stages, read_plan, read_timings
from xledit.evaluation.summary import CellSummary
from xledit.reporting.studies import Study, Timing
from xledit.storage import read_json as read_struct

PLANS = sorted((ROOT / "studies").glob("*.yaml"))
FOUR = """\
what: Four facts
params:
  edit.num_facts: 4
  edit.batch_size: 2
  grid.methods: [memit]
  grid.rewordings: 0
  summary.examples: 0
"""


def flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted key, sections among them."""
    found = {}
    for name, value in tree.items():
        found[above + name] = value
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {}
    return found


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    return flat(YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8")))


# the plans that we ship


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
class TestShipped:
    def test_its_settings_are_there_and_differ_from_the_default_runs(self, path: Path, settings: dict[str, Any]) -> None:
        params = read_plan(path).params
        assert params.keys() <= settings.keys()
        kept = {key for key, value in params.items() if settings[key] == value}
        assert kept <= {"grid.methods", "grid.edits"}, "what stays as it is need not be said"

    def test_it_names_methods_and_edits_that_there_are(self, path: Path, settings: dict[str, Any]) -> None:
        from xledit.editing.combine import combination

        params = settings | read_plan(path).params
        assert set(params["grid.methods"]) <= settings["methods"].keys()
        for edit in params["grid.edits"]:
            assert combination(edit, tuple(params["grid.languages"])).languages

    def test_its_settings_have_the_types_of_the_default_runs(self, path: Path, settings: dict[str, Any]) -> None:
        for key, value in read_plan(path).params.items():
            assert settings[key] is None or isinstance(value, type(settings[key])), key
            if isinstance(value, dict):
                assert value.keys() == settings[key].keys(), key

    def test_it_skips_cells_of_its_grid_only_and_says_why(self, path: Path, settings: dict[str, Any]) -> None:
        plan = read_plan(path)
        grid = settings | plan.params
        assert plan.skip.keys() <= {f"{method}-{edit}" for method in grid["grid.methods"] for edit in grid["grid.edits"]}
        assert all(plan.skip.values())

    def test_it_says_what_it_asks(self, path: Path) -> None:
        assert read_plan(path).what


# plans that are wrong


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("what: x", "params"),
        ("params: {}", "what"),
        ("what: x\nparams: {}\nmore: 1", "more"),
        ("what: 7\nparams: {}", "what"),
        ("what: x\nparams: [edit.num_facts]", "params"),
        ("", "object"),
    ],
)
def test_a_faulty_plan_is_named_with_the_key(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as error:
        read_plan(path)
    assert str(error.value).startswith(f"{path}: ")
    assert part in str(error.value)


def test_an_unknown_study_lists_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("studies").mkdir()
    for name in ("b", "a"):
        (Path("studies") / f"{name}.yaml").write_text(FOUR, encoding="utf-8")
    assert read_plan(Path("studies/a.yaml")) == Plan(what="Four facts", params=YAML(typ="safe", pure=True).load(FOUR)["params"])
    with pytest.raises(ValueError, match=r"studies/c\.yaml: no such study; known: a, b"):
        read_plan(Path("studies/c.yaml"))


# times


def run_stage(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception | None = None) -> None:
    def stage() -> None:
        if error:
            raise error

    monkeypatch.setattr(sys, "argv", ["stage"])
    monkeypatch.setenv("DVC_STAGE", name)
    runner.run(stage)


def test_a_stage_adds_a_line_of_what_it_took_where_it_is_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "times.jsonl"
    monkeypatch.setenv(runner.TIMINGS, str(file))
    run_stage(monkeypatch, "apply@memit-zh")
    run_stage(monkeypatch, "prepare")
    first, second = (msgspec.json.decode(line, type=Timing) for line in file.read_bytes().splitlines())
    assert (first.stage, second.stage) == ("apply@memit-zh", "prepare")
    assert 0 <= first.wall_s < 5
    assert first.cpu_s > 0
    assert list(read_timings(file).values()) == [first, second]


def test_a_stage_that_fails_adds_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(runner.TIMINGS, str(tmp_path / "times.jsonl"))
    with pytest.raises(SystemExit):
        run_stage(monkeypatch, "apply", ValueError("no such thing"))
    assert not list(tmp_path.iterdir())


def test_a_stage_writes_no_times_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(runner.TIMINGS, raising=False)
    run_stage(monkeypatch, "apply")
    assert not list(tmp_path.iterdir())


def test_of_a_stage_that_ran_twice_the_last_run_counts(tmp_path: Path) -> None:
    file = tmp_path / "times.jsonl"
    times = [Timing(stage=stage, wall_s=wall_s, cpu_s=1.0) for stage, wall_s in (("a", 1.0), ("b", 2.0), ("a", 3.0))]
    file.write_bytes(b"\n".join(map(msgspec.json.encode, times)))
    assert {stage: timing.wall_s for stage, timing in read_timings(file).items()} == {"a": 3.0, "b": 2.0}
    assert read_timings(tmp_path / "none.jsonl") == {}


def test_the_stages_that_have_a_result_are_those_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  apply@memit-zh: {cmd: x}\n  report: {cmd: y}\n", encoding="utf-8")
    assert locked_stages(tmp_path) == ["apply@memit-zh", "report"]


# the clone


def test_a_killed_run_is_gone_on_with_until_there_is_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project", environment(tmp_path))
    project.root.mkdir()
    project.run("git", "init", "--quiet")
    for name in ("params.yaml", "dvc.lock"):
        (project.root / name).write_text("default", encoding="utf-8")
    project.commit("first")
    monkeypatch.chdir(project.root)
    clone = tmp_path / "folder" / "clone"

    def files() -> dict[str, str]:
        return {path.name: path.read_text(encoding="utf-8") for path in clone.iterdir() if path.is_file()}

    first = study.check_out(clone)
    assert files() == {"params.yaml": "default", "dvc.lock": "default"}
    for name in ("params.yaml", "dvc.lock"):
        (clone / name).write_text("of the run", encoding="utf-8")
    assert study.check_out(clone) == first
    assert files() == {"params.yaml": "default", "dvc.lock": "of the run"}
    (project.root / "more").write_text("1", encoding="utf-8")
    project.commit("second")
    assert study.check_out(clone) != first
    assert files() == {"params.yaml": "default", "dvc.lock": "default", "more": "1"}


# this tree


def test_changed_new_and_deleted_files_come_along_and_ignored_ones_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Project(tmp_path / "project", environment(tmp_path))
    project.root.mkdir()
    project.run("git", "init", "--quiet")
    for name, text in (("kept", "1"), ("changed", "1"), ("deleted", "1"), ("staged", "1"), (".gitignore", "ignored")):
        (project.root / name).write_text(text, encoding="utf-8")
    project.commit("all")
    clone = project.clone(tmp_path / "clone")
    for name in ("changed", "staged", "ignored", "new/file", "docs/results/other.json"):
        (project.root / name).parent.mkdir(parents=True, exist_ok=True)
        (project.root / name).write_text("2", encoding="utf-8")
    project.run("git", "add", "staged")
    (project.root / "deleted").unlink()
    monkeypatch.chdir(project.root)
    assert sorted(study.bring(clone.root)) == ["changed", "deleted", "new/file", "staged"]
    found = {
        path.relative_to(clone.root).as_posix(): path.read_text()
        for path in clone.root.rglob("*")
        if ".git/" not in str(path) and path.is_file()
    }
    assert found == {".gitignore": "ignored", "kept": "1", "changed": "2", "staged": "2", "new/file": "2"}


# a run


@pytest.mark.slow
def test_a_study_keeps_its_cells_and_leaves_the_default_run_alone(tiny_project: TinyProject, tmp_path: Path) -> None:
    project = tiny_project.copy(tmp_path / "project")
    (project.root / "studies" / "four.yaml").write_text(FOUR, encoding="utf-8")
    command = ("python", "-m", "tools.study", "four")
    # as an earlier run left it that was killed once it had run this stage
    killed = project.root / study.FOLDER / "four.jsonl"
    killed.parent.mkdir(parents=True)
    killed.write_text('{"stage":"model","wall_s":7.0,"cpu_s":8.0}\n', encoding="utf-8")
    project.run(*command)
    results = project.root / "docs" / "results"
    found = read_struct(results / "four.json", Study)
    assert (found.name, found.what) == ("four", "Four facts")
    assert found.params == read_plan(project.root / "studies" / "four.yaml").params
    assert found.commit == project.run("git", "rev-parse", "HEAD").stdout.strip()
    cells = {path.stem: read_struct(path, CellSummary) for path in (results / "four").iterdir()}
    assert cells.keys() == {"memit-zh", "memit-en", "memit-mixed"}
    for cell in cells.values():
        assert cell.num_facts == 4
        assert [check.num_facts for check in cell.checks] == [0, 2, 4]
    assert found.timings.keys() >= {"prepare", "vectors@zh", *(f"apply@{name}" for name in cells)}
    assert all(timing.wall_s > 0 and timing.cpu_s > 0 for timing in found.timings.values())
    changed = project.run("git", "status", "--porcelain", "--untracked-files=all").stdout.split()[1::2]
    assert {path for path in changed if not path.startswith("docs/results/four")} == {"studies/four.yaml"}
    assert list((project.root / study.FOLDER).iterdir()) == []
    assert found.timings["model"].cpu_s == 8.0
    # what was computed once comes from the cache, and keeps its times
    project.run(*command)
    again = read_struct(results / "four.json", Study)
    assert again.timings.keys() == found.timings.keys()
    assert again.timings["apply@memit-zh"] == found.timings["apply@memit-zh"]
    assert read_json(project.root / "reports/metrics.json") == read_json(tiny_project.root / "reports/metrics.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "cells"),
    [
        ("  grid.edits: [zh]\n", {"memit-zh"}),
        ("  grid.edits: [mixed, sum]\nskip: {memit-sum: why not}\n", {"memit-mixed"}),
    ],
)
def test_a_study_need_not_have_every_cell(tiny_project: TinyProject, tmp_path: Path, more: str, cells: set[str]) -> None:
    """As in studies/sequence_1000.yaml and methods_200.yaml: the pipeline must find all that its stages depend on."""
    project = tiny_project.copy(tmp_path / "project")
    (project.root / "studies" / "some.yaml").write_text(FOUR + more, encoding="utf-8")
    project.run("python", "-m", "tools.study", "some")
    assert {path.stem for path in (project.root / "docs" / "results" / "some").iterdir()} == cells
