"""Bad input ends a stage with exit code 1 and one readable line, and leaves what earlier runs wrote as it was."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stages.editing import prepare
from tests.conftest import set_params

ROOT = Path(__file__).parents[1]
PREPARE = "prepare --out artifacts --audit reports/data.json"
SUMMARISE = (
    "summarise --method memit --edit zh --scores scores.json --floor floor.json --checks checks.json --labels labels.json "
    "--out reports/memit-zh.json"
)


@dataclass(frozen=True)
class Folder:
    """A folder with the project's settings and benchmark."""

    root: Path

    def stage(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *f"stages.editing.{command}".split()],
            cwd=self.root, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def outputs(self) -> dict[Path, tuple[bytes, int]]:
        written = [path for name in ("artifacts", "reports") for path in (self.root / name).rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in written}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The folder after a run of ``prepare`` that went well."""
    root = tmp_path_factory.mktemp("good")
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(ROOT / "data" / "benchmark", root / "data" / "benchmark")
    folder = Folder(root)
    done = folder.stage(PREPARE)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(prepared: Folder, tmp_path: Path) -> Folder:
    return Folder(Path(shutil.copytree(prepared.root, tmp_path / "project")))


def test_good_input_writes_every_language_and_kind(prepared: Folder) -> None:
    written = {str(path.relative_to(prepared.root)) for path in prepared.outputs()}
    kinds = ("requests", "rewordings", "probes", "demonstrations")
    assert written == {f"artifacts/{kind}/{code}.json" for kind in kinds for code in ("zh", "en")} | {
        "artifacts/labels.json",
        "artifacts/languages.json",
        "reports/data.json",
    }


def setting(path: str, value: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        set_params(root, {path: value})

    return change


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        content = (root / name).read_text(encoding="utf-8")
        assert content.count(old) == 1
        (root / name).write_text(content.replace(old, new), encoding="utf-8")

    return change


def cut_scores(root: Path) -> None:
    (root / "labels.json").write_text("{}", encoding="utf-8")
    (root / "scores.json").write_text('[{"fact_id": "poem', encoding="utf-8")


def nothing(_root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("harm", "command", "parts"),
    [
        (replaced("params.yaml", "skip_facts:", "skip_fact:"), PREPARE, ["params.yaml: data.skip_fact", "skip_facts"]),
        (setting("data.source", "wikidata"), PREPARE, ["params.yaml: data.source", "wikidata"]),
        (setting("grid.languages", ["zh", "xx"]), PREPARE, ["'xx'"]),
        (replaced("data/benchmark/facts/poem_poet.csv", "静夜思,", ""), PREPARE, ["facts/poem_poet.csv:2", "number of cells"]),
        (nothing, PREPARE.partition(" --audit")[0], ["audit"]),
        (nothing, f"{PREPARE} --speed 9", ["--speed"]),
        (cut_scores, SUMMARISE, ["scores.json", "truncated", "dvc repro"]),
    ],
    ids=["misspelt key", "unknown data source", "unknown language", "bad row", "missing option", "unknown option", "truncated scores"],
)
def test_bad_input_ends_with_one_readable_line(folder: Folder, harm: Callable[[Path], None], command: str, parts: list[str]) -> None:
    earlier = folder.outputs()
    harm(folder.root)
    done = folder.stage(command)
    assert "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == done.stderr.splitlines()[-1:]
    assert not [part for part in parts if part not in errors[0]], errors[0]
    assert folder.outputs() == earlier


@pytest.mark.parametrize(
    ("path", "value"),
    [("edit.num_facts", 0), ("edit.num_facts", -1), ("data.probes.near", -1), ("data.skip_facts", -1), ("data.demonstrations", -1)],
)
def test_a_count_below_its_least_value_is_refused_by_name(folder: Folder, monkeypatch: pytest.MonkeyPatch, path: str, value: int) -> None:
    monkeypatch.chdir(folder.root)
    set_params(folder.root, {path: value})
    with pytest.raises(ValueError, match=f"{path.partition('.')[2]} is {value}") as error:
        prepare.main(Path("artifacts"), Path("reports/data.json"))
    assert "ask for fewer" not in str(error.value)
