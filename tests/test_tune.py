"""tools/tune.py: what it tries, what it refuses, what it chooses, and that DVC's queue and params.yaml are as they were afterwards."""

import math
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, TINY, Project, TinyProject
from tools import tune
from tools.overlay import check, load_overlay
from tools.tune import Trial, asked_grid, best, default_grid, grid, overlay_text, overrides, table
from xledit.manifest import Family, ModelManifest

TREE = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
MANIFEST = ModelManifest(
    name="/somewhere/private/tiny-model",
    revision=None,
    source="folder",
    family="llama",
    dtype="float32",
    num_layers=32,
    d_model=64,
    d_key=64,
    vocabulary=500,
    num_parameters=1,
    row=Family(),
    probed=False,
    weights="0",
)
ABOUT = {"commit": "0" * 40, "changed": ["params.yaml"], "date": date(2026, 11, 23), "method": "memit", "num_facts": 6}


def trial(name: str, exact: dict[str, float], kept: dict[str, float], size: float = 1.0, values: dict[str, Any] | None = None) -> Trial:
    return Trial(name=f"tune-x-{name}", values=values or {}, state="Success", exact=exact, locality_tokens=kept, size=size)


FAILED = Trial(name="tune-x-00", values={"edit.layers": [40]}, state="Failed")


class TestRule:
    def test_score_is_the_mean_over_languages_of_harmonic_means(self) -> None:
        assert trial("1", {"zh": 1.0, "en": 0.5}, {"zh": 0.5, "en": 0.5}).score == pytest.approx((2 / 3 + 0.5) / 2, abs=1e-4)

    def test_storing_everything_by_destroying_the_rest_scores_nothing(self) -> None:
        assert trial("1", {"zh": 1.0}, {"zh": 0.0}).score == 0
        assert trial("1", {"zh": 0.0}, {"zh": 0.0}).score == 0

    def test_a_balanced_trial_beats_one_with_the_same_sum(self) -> None:
        even, uneven = trial("1", {"zh": 0.6}, {"zh": 0.6}), trial("2", {"zh": 1.0}, {"zh": 0.2})
        assert best([uneven, even]) is even

    def test_of_ties_the_smaller_update_wins_and_an_unknown_size_is_last(self) -> None:
        equal = [trial(str(size), {"zh": 0.5}, {"zh": 0.5}, size) for size in (math.nan, 3.0, 1.0, 2.0)]
        assert best(equal).size == 1.0
        assert best([FAILED, trial("9", {"zh": 0.51}, {"zh": 0.51}, 50.0), *equal]).size == 50.0

    def test_a_failed_trial_is_never_chosen(self) -> None:
        worst = trial("1", {"zh": 0.0}, {"zh": 0.0})
        assert best([FAILED, worst]) is worst
        with pytest.raises(ValueError, match=r"no trial of 1 came to a score.*tune-x-00"):
            best([FAILED])


class TestGrid:
    def test_is_all_combinations_with_the_first_setting_slowest(self) -> None:
        assert grid({"a": [1, 2], "b": [3, 4]}) == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]

    def test_a_key_given_twice_has_two_values(self) -> None:
        assert asked_grid(["edit.layers=[4,5]", "vectors.clamp=1e-1", "edit.layers=[6]"]) == {
            "edit.layers": [[4, 5], [6]],
            "vectors.clamp": [0.1],
        }

    @pytest.mark.parametrize("choice", ["data.split=test", "data.split=dev", "data.source=clm_bench"])
    def test_refuses_other_facts(self, choice: str) -> None:
        with pytest.raises(ValueError, match=r"data\.split dev of our own benchmark and nowhere else"):
            asked_grid([choice])

    @pytest.mark.parametrize("choice", ["edit.layers", "=3", "edit.layers=[4"])
    def test_refuses_another_form(self, choice: str) -> None:
        with pytest.raises(ValueError, match="--set "):
            asked_grid([choice])

    def test_trials_are_on_dev_whatever_was_asked(self) -> None:
        asked = overrides({"data.split": "test", "data.source": "zsre"}, "memit", 7)
        assert (asked["data.split"], asked["data.source"], asked["edit.num_facts"]) == ("dev", "benchmark", 7)

    def test_the_default_moves_layers_clamp_and_ridge_around_where_they_are(self) -> None:
        tree = {"edit": {"layers": [1, 2]}, "vectors": {"clamp": 0.5}, "methods": {"a": {"type": "a", "ridge": 3.0}, "b": {"type": "b"}}}
        assert default_grid(tree, "a") == {
            "edit.layers": [[1, 2], [3, 4]],
            "vectors.clamp": [0.5, 2.0],
            "methods.a.ridge": [1.0, 3.0, 9.0],
        }
        assert "methods.b.ridge" not in default_grid(tree, "b")


class TestOverlay:
    def test_holds_the_choice_in_full_every_trial_and_no_path(self, tmp_path: Path) -> None:
        chosen = trial("02", {"zh": 0.9, "en": 0.8}, {"zh": 0.7, "en": 0.6}, values={"edit.layers": [3, 4], "vectors.clamp": 1.0})
        path = tmp_path / "tiny.yaml"
        path.write_text(overlay_text(chosen, [FAILED, chosen], MANIFEST, TREE, ABOUT), encoding="utf-8")
        found = check(path, TREE)
        assert found.params["edit"]["layers"] == [3, 4]
        assert found.params["vectors"] == TREE["vectors"] | {"clamp": 1.0}
        assert found.params["methods"] == {"memit": TREE["methods"]["memit"]}
        assert found.model.hub == "tiny-model"
        assert "/somewhere" not in path.read_text(encoding="utf-8")
        assert found.tuning is not None
        assert (found.tuning.commit, found.tuning.date, found.tuning.num_facts) == ("0" * 40, date(2026, 11, 23), 6)
        assert [row["state"] for row in found.tuning.trials] == ["Failed", "Success"]
        assert found.tuning.trials[0]["score"] is None
        assert found.tuning.trials[1]["locality_tokens_en"] == 0.6

    def test_the_table_has_a_row_per_trial_and_dashes_where_nothing_came_out(self) -> None:
        chosen = trial("02", {"zh": 0.9}, {"zh": 0.7}, values={"edit.layers": [3]})
        rows = table([FAILED, chosen])
        assert rows[0] == ["trial", "edit.layers", "exact zh", "kept zh", "score", "size", "state"]
        assert rows[1] == ["00", "[40]", "-", "-", "-", "-", "Failed"]
        assert rows[2] == ["02", "[3]", "0.900", "0.700", "0.7875", "1.000", "Success"]


# DVC's queue, on a pipeline of one trivial stage

STAGE = """\
import json, pathlib, sys, time
from ruamel.yaml import YAML
params = YAML(typ="safe").load(pathlib.Path("params.yaml").read_text())
time.sleep(params["edit"]["num_facts"])
layers = params["edit"]["layers"]
if max(layers) > 31:
    sys.exit("no such layer")
share = lambda value: {"value": value, "low": value, "high": value}
languages = ["zh", "en"]
for edit in (*languages, "mixed"):
    cell = dict(method="memit", edit=edit, edit_languages=languages if edit == "mixed" else [edit], num_facts=1, floor={}, transfer={})
    metrics = dict(exact=share(len(layers) / 4), locality_tokens=share(0.5))
    cell |= dict(trans=share(0), examples=[], metrics={code: metrics for code in languages})
    pathlib.Path("reports/cells").mkdir(parents=True, exist_ok=True)
    pathlib.Path(f"reports/cells/memit-{edit}.json").write_text(json.dumps(cell))
pathlib.Path("reports/geometry").mkdir(parents=True, exist_ok=True)
pathlib.Path("reports/geometry/memit.json").write_text("[]")
pathlib.Path("artifacts").mkdir(exist_ok=True)
pathlib.Path("artifacts/model.json").write_text(json.dumps(MANIFEST))
"""
PIPELINE = """\
stages:
  all:
    cmd: python stage.py
    deps: [stage.py]
    params: [edit, data, grid, vectors, methods]
    outs:
      - artifacts/model.json
      - reports/cells:
          cache: false
      - reports/geometry:
          cache: false
"""


@pytest.fixture
def toy(tmp_path: Path, plain_env: dict[str, str]) -> Project:
    """A repository whose pipeline takes `edit.num_facts` seconds and scores by the number of layers."""
    import msgspec

    project = Project(tmp_path / "toy", plain_env | {"PYTHONPATH": str(ROOT)})
    project.root.mkdir()
    manifest = f"MANIFEST = {msgspec.to_builtins(MANIFEST)!r}\n"
    for name, text in {
        "stage.py": manifest + STAGE,
        "dvc.yaml": PIPELINE,
        "params.yaml": (ROOT / "params.yaml").read_text(encoding="utf-8"),
        ".gitignore": "/artifacts/\n",
    }.items():
        (project.root / name).write_text(text, encoding="utf-8")
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.dvc("init", "--quiet")
    project.commit("A toy")
    return project


def tuned(project: Project, *options: str) -> tuple[int, str]:
    done = project.run(sys.executable, "-m", "tools.tune", "tiny", "--method", "memit", "--poll", "1", *options, check=False)
    return done.returncode, done.stdout


LAYERS = ("--set", "edit.layers=[1]", "--set", "edit.layers=[1,2]", "--set", "edit.layers=[40]")


@pytest.mark.slow
def test_a_search_chooses_reports_the_failed_trial_and_leaves_the_workspace(toy: Project) -> None:
    before = (toy.root / "params.yaml").read_bytes()
    code, printed = tuned(toy, "--num-facts", "1", "--jobs", "2", *LAYERS)
    assert code == 0, printed
    assert (toy.root / "params.yaml").read_bytes() == before
    assert toy.run("git", "status", "--porcelain").stdout.split() == ["??", "settings/"]
    found = load_overlay(toy.root / "settings" / "tiny.yaml")
    assert found.params["edit"]["layers"] == [1, 2]
    assert found.tuning is not None
    assert [row["state"] for row in found.tuning.trials] == ["Success", "Success", "Failed"]
    assert found.tuning.commit == toy.run("git", "rev-parse", "HEAD").stdout.strip()
    code, printed = tuned(toy, *LAYERS)
    assert code == 1 and "is there already" in printed


@pytest.mark.slow
def test_an_interrupt_empties_the_queue(toy: Project) -> None:
    command = [sys.executable, "-m", "tools.tune", "tiny", "--method", "memit", "--poll", "1", "--num-facts", "100", *LAYERS]
    # a test run that was started in the background ignores interrupts, and its children would, too
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=toy.root, env=toy.env, text=True, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        deadline = time.monotonic() + 120
        while "Running" not in toy.dvc("queue", "status"):
            assert time.monotonic() < deadline
            time.sleep(1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(120) == 130
    deadline = time.monotonic() + 60
    while "Running" in toy.dvc("queue", "status"):
        assert time.monotonic() < deadline, "the trial was not stopped"
        time.sleep(1)
    assert "Queued" not in toy.dvc("queue", "status")
    assert toy.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.slow
def test_a_queue_with_other_work_is_left_alone(toy: Project) -> None:
    toy.dvc("exp", "run", "--queue", "--name", "mine")
    code, printed = tuned(toy, *LAYERS)
    assert code == 1 and "queue is not empty (mine)" in printed


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("tiny", "--method", "memit", "--set", "data.split=test"), "dev"),
        (("tiny", "--method", "mimet"), "methods.mimet: no such setting"),
        (("tiny", "--method", "memit", "--set", "vectors.clmap=1"), "vectors.clmap"),
        (("tiny", "--method", "memit", "--set", "vectors.clamp=high"), "Expected `float`"),
        (("Tiny/x", "--method", "memit"), "small letters"),
    ],
)
def test_refuses_before_anything_runs(
    options: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(tune, "dvc", lambda *arguments: pytest.fail(f"dvc {arguments}"))
    monkeypatch.setattr(sys, "argv", ["tune", *options])
    with pytest.raises(SystemExit) as stopped:
        tune.run(tune.main)
    assert stopped.value.code == 1
    assert complaint in caplog.text


@pytest.mark.slow
def test_two_trials_of_the_real_pipeline(tiny_project: TinyProject, tmp_path: Path) -> None:
    project = tiny_project.copy(tmp_path / "project")
    before = (project.root / "params.yaml").read_bytes()
    code, printed = tuned(project, "--num-facts", "6", "--set", "edit.layers=[1,2]", "--set", "edit.layers=[2]")
    assert code == 0, printed
    assert (project.root / "params.yaml").read_bytes() == before
    found = load_overlay(project.root / "settings" / "tiny.yaml")
    assert found.model.num_layers == 4
    assert found.tuning is not None
    assert [row["state"] for row in found.tuning.trials] == ["Success", "Success"]
    assert found.params["edit"]["layers"] in ([1, 2], [2])
    assert found.params["vectors"]["steps"] == TINY["vectors.steps"]
    project.run(sys.executable, "-m", "tools.overlay", "tiny")
