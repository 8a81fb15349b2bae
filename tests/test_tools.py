"""`make verify`, `make bench` and `python -m tools.dvc_deps` on repositories of two trivial stages: each finds what was planted."""

import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Project, read_json
from tools import bench, mutation, verify
from tools.verify import md5_of

PIPELINE = """\
stages:
  second:
    cmd: mkdir -p out/folder && cp out/first.txt out/folder/a.txt && date +%N > reports/unlocked.txt
    deps: [out/first.txt]
    outs:
      - out/folder
  first:
    cmd: echo hello > out/first.txt
    outs:
      - out/first.txt
"""
PARAMS = "edit: {num_facts: 3, layers: [1, 2]}\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, plain_env: dict[str, str]) -> Project:
    """A repository after its one `dvc repro`."""
    root = tmp_path_factory.mktemp("ran")
    for name, text in {"dvc.yaml": PIPELINE, "params.yaml": PARAMS, "out/keep": "", "reports/keep": ""}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    project = Project(root, plain_env | {"PYTHONPATH": str(ROOT)})
    project.dvc("init", "--no-scm", "--quiet")
    project.dvc("repro", "--quiet")
    return project


@pytest.fixture
def repository(ran: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, to damage, as the current folder."""
    copy = ran.copy(tmp_path / "copy")
    monkeypatch.chdir(copy.root)
    return copy


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def verified(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    """Return the exit code of verify and the lines that it prints."""
    monkeypatch.setattr(sys, "argv", ["verify", *options])
    return verify.main(), capsys.readouterr().out.splitlines()


def object_of(md5: str) -> Path:
    return Path(".dvc/cache/files/md5") / md5[:2] / md5[2:]


@pytest.mark.usefixtures("repository")
class TestVerify:
    def test_passes_on_what_dvc_has_just_written(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert verified(monkeypatch, capsys, "--strict") == (0, ["2 outputs: 2 good, 0 damaged or missing, 0 not here"])

    @pytest.mark.parametrize(("file", "output"), [("out/first.txt", "out/first.txt"), ("out/folder/a.txt", "out/folder")])
    def test_names_a_flipped_bit_in_the_workspace(
        self, file: str, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flip_a_bit(Path(file))
        code, lines = verified(monkeypatch, capsys)
        assert code == 1
        assert lines[0].startswith(f"{output}: damaged or changed")
        assert lines[1:] == ["2 outputs: 1 good, 1 damaged or missing, 0 not here"]

    @pytest.mark.parametrize("output", ["out/first.txt", "out/folder"])
    def test_names_a_flipped_bit_in_the_cache(
        self, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        damaged = object_of(md5_of(Path(output)))
        flip_a_bit(damaged)
        code, lines = verified(monkeypatch, capsys)
        assert code == 1
        assert lines[0].startswith(f"{output}: damaged in the cache; delete ")
        assert str(damaged) in lines[0]

    def test_names_a_file_that_only_the_cache_has(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        Path("out/first.txt").unlink()
        code, lines = verified(monkeypatch, capsys)
        assert code == 1
        assert lines[0].startswith("out/first.txt: missing; `dvc checkout")

    def test_absent_data_fails_only_when_strict(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        object_of(md5_of(Path("out/first.txt"))).unlink()
        Path("out/first.txt").unlink()
        code, lines = verified(monkeypatch, capsys)
        assert (code, lines[0]) == (0, "out/first.txt: not here; `dvc pull` or `dvc repro`")
        assert verified(monkeypatch, capsys, "--strict")[0] == 1

    def test_says_what_to_do_without_a_lock(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        Path("dvc.lock").unlink()
        code, lines = verified(monkeypatch, capsys)
        assert code == 1
        assert "dvc repro" in lines[0]


def test_bench_measures_each_stage_in_order_and_finds_the_same_bytes(repository: Project) -> None:
    repository.run("python", "-m", "tools.bench")
    found = read_json(repository.root / bench.REPORT)
    assert [row["stage"] for row in found["stages"]] == ["first", "second"]
    assert found["identical"] is True
    assert found["sizes"] == {"num_facts": 3, "layers": [1, 2]}
    for row in found["stages"]:
        assert row["wall_s"] >= 0
        assert 0 < row["peak_rss_mb"] < 100, "a shell, not what this process holds"
    assert found["total"]["wall_s"] == pytest.approx(sum(row["wall_s"] for row in found["stages"]))
    assert str(repository.root) not in (repository.root / bench.REPORT).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "stage"),
    [
        ("echo hello >", "date +%N >", "first"),  # another result each time
        ("echo hello >", "true || echo hello >", "first"),  # never writes; the old file is still there
    ],
)
def test_bench_names_the_stage_whose_bytes_are_not_made_again(repository: Project, old: str, new: str, stage: str) -> None:
    with repository.changed("dvc.yaml", old, new):
        done = repository.run("python", "-m", "tools.bench", check=False)
    assert done.returncode == 1
    found = read_json(repository.root / bench.REPORT)
    assert found["identical"] is False
    assert stage in [row["stage"] for row in found["stages"] if not row["identical"]]


def test_bench_stops_at_a_stage_that_fails(repository: Project) -> None:
    with repository.changed("dvc.yaml", "echo hello >", "exit 3; echo hello >"):
        done = repository.run("python", "-m", "tools.bench", check=False)
    assert done.returncode == 1
    assert "exit status 3" in done.stdout
    assert not (repository.root / bench.REPORT).exists()


def test_cpu_time_is_that_of_a_command_and_its_children() -> None:
    spin = "sum(range(20_000_000))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{spin}'])"
    row = bench.run(bench.Command(name="spin", cmd=f'{sys.executable} -c "{child}"', outs=()), {})
    assert 0.1 < row.cpu_s <= 2 * row.wall_s + 0.1


def test_deps_follow_imports_through_modules_and_packages(tmp_path: Path, plain_env: dict[str, str]) -> None:
    deps = ("table.csv", "stages/one.py", "xledit/unused.py", "xledit/models/a.py")
    files = {
        "stages/__init__.py": '"""Words alone: importing it can change nothing."""\n',
        "stages/one.py": "from xledit import outer\nfrom xledit.geometry import alone\nfrom xledit.models import a\n",
        "xledit/__init__.py": "from xledit import of_package\n",
        "xledit/outer.py": "def late():\n    from xledit.inner import thing\n    return thing\n",
        "xledit/models/__init__.py": "",
        "xledit/models/a.py": "from xledit.models import b",  # two files of one idea: the folder
        "xledit/models/b.py": "",
        "xledit/geometry/__init__.py": "",
        "xledit/geometry/alone.py": "",  # one file of it: the file
        "xledit/inner.py": "thing = 1\n",
        "xledit/of_package.py": "",
        "xledit/unused.py": "",
        "dvc.yaml": f"stages:\n  one:\n    cmd: python -m stages.one\n    deps: [{', '.join(deps)}]\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    project = Project(tmp_path, plain_env | {"PYTHONPATH": str(ROOT)})
    command = ("python", "-m", "tools.dvc_deps")
    missing = (
        "xledit/__init__.py",
        "xledit/geometry/alone.py",
        "xledit/inner.py",
        "xledit/models",
        "xledit/of_package.py",
        "xledit/outer.py",
    )
    said = {
        *(f"dvc.yaml: stage one: missing dep: {file}" for file in missing),
        "dvc.yaml: stage one: superfluous dep: xledit/unused.py",
        "dvc.yaml: stage one: superfluous dep: xledit/models/a.py",
    }
    checked = project.run(*command, "--check", check=False)
    assert (checked.returncode, set(checked.stdout.splitlines())) == (1, said)
    project.run(*command)
    assert project.run(*command, "--check").stdout == ""
    assert "table.csv" in (tmp_path / "dvc.yaml").read_text(encoding="utf-8")


def test_every_mutant_that_no_test_saw_is_let_live_for_a_reason() -> None:
    found = mutation.read_json(ROOT / mutation.REPORT, mutation.Mutation).modules
    assert found.keys() == set(mutation.MODULES)
    for module, killed in found.items():
        assert killed.mutants >= killed.run == killed.killed + len(killed.survivors), module
        assert [row for row in killed.survivors if not row.reason.strip()] == [], module


def test_what_is_mutated_and_what_should_see_it_are_there() -> None:
    """A file that was renamed would silently count for nothing."""
    for path in (*mutation.MODULES, *mutation.TESTS, *mutation.REWRITTEN):
        assert (ROOT / path.partition("::")[0]).is_file(), path
    for path, changes in mutation.REWRITTEN.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        assert [old for old, _new in changes if text.count(old) != 1] == [], path
