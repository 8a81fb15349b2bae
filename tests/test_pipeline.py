"""dvc.yaml declares all that a stage uses, a change reruns what it must and no more, and the same seed gives the same bytes."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, TinyProject, read_json
from tools import dvc_deps

# a dep that says which libraries run; no stage opens it
ENVIRONMENT = "requirements.lock"
# what stands for the rows of a run's languages in every stage but the one that writes it
ROWS, LANGUAGES = "xledit/languages.yaml", "artifacts/languages.json"
# what stands for the model's bytes in every stage but the one that writes it
MANIFEST = "artifacts/model.json"
METRICS = "xledit/evaluation/metrics.py"


# dvc.yaml as it is written


def test_deps_are_the_imports(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["dvc_deps", "--check"])
    code = dvc_deps.main()
    assert (code, capsys.readouterr().out) == (0, "")


def stages_as_written() -> dict[str, dict]:
    return YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


@pytest.mark.parametrize("name", stages_as_written())
def test_a_stage_says_what_it_does_and_writes_files(name: str) -> None:
    stage = stages_as_written()[name]
    assert stage["desc"]
    for out in stage["outs"]:
        path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
        assert PurePosixPath(path).suffix or "matrix" not in stage, f"{path}: a directory that other cells write into"
        assert path.startswith("reports/") == (options.get("cache") is False), f"{path}: git keeps reports/, DVC's cache the rest"
        assert not options.get("persist"), f"{path}: a half-written output would be taken for a whole one"
    assert not {"always_changed", "frozen", "wdir"} & stage.keys()


@pytest.mark.slow
def test_one_worker_has_all_tests_of_the_tiny_project(tiny_project: TinyProject, request: pytest.FixtureRequest, worker_id: str) -> None:
    """Or each worker would run it: pytest-xdist 3.8 does not see the groups of pytest 9.2."""
    assert worker_id == "master" or request.node.nodeid.endswith("@tiny_project")


def test_the_committed_lock_is_of_the_committed_files(tmp_path: Path, plain_env: dict[str, str]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = Project(ROOT, plain_env).clone(tmp_path / "clone")
    if not (clone.root / "dvc.lock").exists():
        pytest.skip("no dvc.lock is committed yet")
    assert clone.would_run("--allow-missing") == set()


def test_a_metric_reruns_the_summaries_and_the_page_alone() -> None:
    reruns = {name for name, stage in stages_as_written().items() if any(covers(dep, METRICS, "/") for dep in stage["deps"])}
    assert {name for name in reruns if not name.startswith("summarise")} == {"report"}


# what stages read and write, from the audit log of the one run


class Declared:
    """One stage's line in dvc.lock beside what its process did. Paths are relative to the project; the model's folder is absolute."""

    def __init__(self, project: TinyProject, name: str, locked: dict) -> None:
        self.deps = {dep["path"] for dep in locked["deps"]}
        self.outs = {out["path"] for out in locked["outs"]}
        self.params = set(locked.get("params", {}).get("params.yaml", {}))
        done = defaultdict(set)
        for line in (project.logs / f"{name}.log").read_text(encoding="utf-8").splitlines():
            kind, what = line.split("\t")
            done[kind].add(what)
        self.read = {as_declared(path, project.root) for path in done["read"]}
        self.written = {
            as_declared(path, project.root) for path in done["write"] if not Path(path).name.startswith(".") and "__pycache__" not in path
        }
        self.asked = done["param"]
        self.languages = done["language"]


def as_declared(path: str, root: Path) -> str:
    """Return a path as dvc.lock spells it; compiled code counts as its source."""
    file = Path(path)
    if file.parent.name == "__pycache__":
        file = file.parents[1] / f"{file.name.split('.')[0]}.py"
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def covers(above: str, path: str, separator: str) -> bool:
    return path == above or path.startswith(above + separator)


def uncovered(paths: Iterable[str], by: Iterable[str], separator: str = "/") -> set[str]:
    """Return the paths that are none of ``by`` and below none of them."""
    return {path for path in paths if not any(covers(above, path, separator) for above in by)}


def unused(declared: Iterable[str], used: Iterable[str], separator: str = "/") -> set[str]:
    """Return what was declared though nothing at it or below it was used."""
    return {above for above in declared if not any(covers(above, path, separator) for path in used)}


@pytest.fixture(scope="module")
def cells(tiny_project: TinyProject) -> dict[str, Declared]:
    return {name: Declared(tiny_project, name, locked) for name, locked in tiny_project.lock().items()}


@pytest.fixture(scope="module")
def groups(cells: dict[str, Declared]) -> dict[str, list[Declared]]:
    """The cells of each stage's matrix."""
    found = defaultdict(list)
    for name, cell in cells.items():
        found[name.split("@")[0]].append(cell)
    return found


def union(sets: Iterator[set[str]]) -> set[str]:
    return set().union(*sets)


def only_found(by_stage: Iterable[tuple[str, set[str]]]) -> dict[str, set[str]]:
    return {name: found for name, found in by_stage if found}


@pytest.mark.slow
def test_every_file_that_a_stage_reads_is_declared(tiny_project: TinyProject, cells: dict[str, Declared]) -> None:
    def allowed(cell: Declared) -> set[str]:
        # who imports the rows asks for them by code, and then depends on them: the next test
        return cell.deps | cell.outs | {"params.yaml", ROWS} | ({str(tiny_project.model)} if MANIFEST in cell.deps else set())

    def undeclared(cell: Declared) -> set[str]:
        return {path for path in uncovered(cell.read, allowed(cell)) if not dvc_deps.holds_only_words(tiny_project.root / path)}

    assert only_found((name, undeclared(cell)) for name, cell in cells.items()) == {}


@pytest.mark.slow
def test_who_asks_for_a_language_depends_on_its_row(cells: dict[str, Declared]) -> None:
    assert {name for name, cell in cells.items() if cell.languages and not {ROWS, LANGUAGES} & cell.deps} == set()
    assert any(cell.languages for cell in cells.values())


@pytest.mark.slow
def test_every_declared_data_file_is_read(groups: dict[str, list[Declared]]) -> None:
    def data(group: list[Declared]) -> set[str]:
        return {dep for cell in group for dep in cell.deps if not dvc_deps.is_code(dep) and dep not in (ENVIRONMENT, LANGUAGES)}

    assert only_found((name, unused(data(group), union(cell.read for cell in group))) for name, group in groups.items()) == {}


@pytest.mark.slow
def test_a_stage_writes_its_outputs_and_nothing_else(cells: dict[str, Declared]) -> None:
    assert only_found((name, uncovered(cell.written, cell.outs)) for name, cell in cells.items()) == {}
    assert only_found((name, unused(cell.outs, cell.written)) for name, cell in cells.items()) == {}


@pytest.mark.slow
def test_a_cell_asks_only_for_params_that_it_declares(cells: dict[str, Declared]) -> None:
    assert only_found((name, uncovered(cell.asked, cell.params, ".")) for name, cell in cells.items()) == {}


@pytest.mark.slow
def test_every_declared_param_is_asked_for(groups: dict[str, list[Declared]]) -> None:
    def never(group: list[Declared]) -> set[str]:
        return unused(union(cell.params for cell in group), union(cell.asked for cell in group), ".")

    assert only_found((name, never(group)) for name, group in groups.items()) == {}


# what a change reruns


def groups_of(names: set[str]) -> set[str]:
    return {name.split("@")[0] for name in names}


@pytest.mark.slow
def test_a_second_repro_runs_nothing(tiny_project: TinyProject) -> None:
    assert "up to date" in tiny_project.dvc("repro")
    assert tiny_project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_resamples_change_only_the_summaries(tiny_project: TinyProject) -> None:
    with tiny_project.param("summary.resamples", 60):
        assert groups_of(tiny_project.affected()) == {"summarise", "summarise_direct", "report"}


@pytest.mark.slow
def test_a_setting_of_one_method_leaves_vectors_and_other_methods_alone(tiny_project: TinyProject) -> None:
    with tiny_project.param("methods.memit.old_key_weight", 1.5):
        affected = tiny_project.affected()
    assert groups_of(affected) == {"apply", "evaluate", "summarise", "update_geometry", "report"}
    assert all("memit" in name for name in affected - {"report"})


@pytest.mark.slow
def test_more_covariance_tokens_leave_the_vectors_alone(tiny_project: TinyProject) -> None:
    with tiny_project.param("covariance.max_tokens", 310):
        affected = groups_of(tiny_project.affected())
    assert "covariance" in affected
    assert affected.isdisjoint({"prepare", "model", "vectors", "geometry", "floor"})


@pytest.mark.slow
def test_a_changed_table_reruns_prepare_and_all_that_follows(tiny_project: TinyProject) -> None:
    table = sorted((tiny_project.root / "data/benchmark/facts").glob("*.csv"))[0]
    header = table.read_text(encoding="utf-8-sig").splitlines()[0]
    with tiny_project.changed(table, header, f"{header},remark"):
        assert tiny_project.would_run() == {"prepare"}
        assert tiny_project.affected() == tiny_project.lock().keys() - {"model", "covariance"}


@pytest.mark.slow
def test_a_touched_byte_of_the_model_reruns_all_that_use_it(tiny_project: TinyProject) -> None:
    with tiny_project.changed(tiny_project.model / "config.json", '"hidden_size": 32', '"hidden_size":  32'):
        assert tiny_project.would_run() == {"model"}
        assert tiny_project.affected() == tiny_project.lock().keys() - {"prepare"}


# same seed, same bytes; interruptions; readers


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vectors@zh", "evaluate@memit-mixed"])
def test_the_same_command_gives_the_same_bytes(tiny_project: TinyProject, name: str) -> None:
    locked = tiny_project.lock()[name]
    with ExitStack() as stack:
        files = [stack.enter_context(tiny_project.put_back(out["path"])) for out in locked["outs"]]
        before = {file: file.read_bytes() for file in files}
        for file in files:
            file.unlink()
        tiny_project.run(*shlex.split(locked["cmd"]))
        assert [file for file, content in before.items() if file.read_bytes() != content] == []


@pytest.mark.slow
def test_a_killed_stage_is_made_good_by_the_next_repro(tiny_project: TinyProject, tmp_path: Path) -> None:
    copy = tiny_project.copy(tmp_path / "copy")
    out = copy.root / "artifacts/vectors/zh.safetensors"
    before = out.read_bytes()
    audit = {"PYTHONPATH": str(copy.root / "tests/audit"), "AUDIT_LOGS": str(tmp_path), "AUDIT_ROOTS": str(copy.root)}
    repro = ["dvc", "repro", "--force", "--single-item", "vectors@zh"]
    with subprocess.Popen(repro, cwd=copy.root, env=copy.env | audit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as dvc:
        log = tmp_path / "vectors@zh.log"
        while not (log.exists() and MANIFEST in log.read_text(encoding="utf-8")):  # it has read its inputs
            assert dvc.poll() is None
            time.sleep(0.05)
        for process in psutil.Process(dvc.pid).children(recursive=True):
            process.send_signal(signal.SIGKILL)
        assert dvc.wait(60) != 0
        assert dvc.stderr is not None
        assert "vectors@zh" in dvc.stderr.read()
    assert not out.exists()
    copy.dvc("repro")
    assert out.read_bytes() == before
    assert copy.run("git", "status", "--porcelain").stdout == ""
    assert copy.would_run() == set()


@pytest.mark.slow
def test_a_clone_without_data_has_nothing_to_run(tiny_project: TinyProject, tmp_path: Path) -> None:
    clone = tiny_project.clone(tmp_path / "clone")
    assert not (clone.root / "artifacts").exists()
    assert clone.would_run("--allow-missing") == set()
    with clone.param("summary.resamples", 60):  # DVC stops at the first stage that lacks its data
        done = clone.run("dvc", "repro", "--dry", "--allow-missing", check=False)
    assert done.returncode
    assert "summarise" in done.stdout


@pytest.mark.slow
def test_dvc_shows_metrics_experiments_and_plots(tiny_project: TinyProject, tmp_path: Path) -> None:
    shown = json.loads(tiny_project.dvc("metrics", "show", "--json"))
    assert shown[""]["data"]["reports/metrics.json"]["data"].keys() == read_json(tiny_project.root / "reports/metrics.json").keys()
    assert json.loads(tiny_project.dvc("exp", "show", "--json"))
    tiny_project.dvc("plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text(encoding="utf-8")
    assert page.count("vegaEmbed('#") == 3, "one drawing for each entry of dvc.yaml's plots"
    assert not re.search(r"<(script|link)[^>]*(src|href)\s*=", page), "the page must not need a network"
