"""Two runs side by side: intervals of differences as published, what is not known left out, and everything else that differs named."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.conftest import ROOT
from tests.test_report import cell
from xledit import cli
from xledit.evaluation.intervals import Estimate
from xledit.evaluation.summary import CellSummary
from xledit.report.editing.runs import RunCells, RunRecord
from xledit.runs.compare import NOT_SET, compare, lines, minus, widened

NONE = Estimate(value=None, low=None, high=None)


def of(value: float, low: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def with_exact(value: Estimate, edit: str = "zh") -> CellSummary:
    found = cell("memit", edit)
    return msgspec.structs.replace(found, metrics=found.metrics | {"zh": found.metrics["zh"] | {"exact": value}})


def run_of(name: str, *cells: CellSummary, **fields: Any) -> RunCells:
    plain: dict[str, Any] = {"what": "x", "commit": None, "date": None, "params": {}}
    return RunCells(record=RunRecord(name=name, **plain | fields), cells=cells)


# intervals


@pytest.mark.parametrize(
    ("a", "b", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_wilsons_intervals_give_newcombes_examples(a: tuple[int, int], b: tuple[int, int], low: float, high: float) -> None:
    """Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998), table II."""
    found = minus(wilson(*a), wilson(*b))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def wilson(number: int, total: int) -> Estimate:
    interval = stats.binomtest(number, total).proportion_ci(method="wilson")
    return of(number / total, interval.low, interval.high)


ESTIMATES = st.tuples(*[st.floats(-10, 10)] * 3).map(sorted).map(lambda row: of(row[1], row[0], row[2]))


@given(ESTIMATES, ESTIMATES)
def test_a_difference_lies_in_its_interval_and_turns_round_with_its_runs(a: Estimate, b: Estimate) -> None:
    one, other = minus(a, b), minus(b, a)
    assert one.low is not None and one.high is not None and one.value is not None
    assert one.low <= one.value <= one.high
    assert (other.value, other.low, other.high) == (-one.value, -one.high, -one.low)


@given(ESTIMATES)
def test_against_a_number_that_is_certain_the_interval_is_the_runs_own(a: Estimate) -> None:
    found = minus(a, of(0.0, 0.0, 0.0))
    assert (found.low, found.high) == (pytest.approx(a.low, abs=1e-9), pytest.approx(a.high, abs=1e-9))


@pytest.mark.parametrize("unknown", [NONE, of(0.5, float("nan"), 1.0)])
def test_what_is_not_known_has_no_difference(unknown: Estimate) -> None:
    assert minus(unknown, of(0.5, 0.4, 0.6)) == minus(of(0.5, 0.4, 0.6), unknown) == NONE


def test_facts_that_all_agree_are_given_wilsons_bound() -> None:
    """0 of 10: [0, 0.2775], Newcombe 1998."""
    assert widened(of(0.0, 0.0, 0.0), 10).high == pytest.approx(0.2775, abs=1e-4)
    assert widened(of(1.0, 1.0, 1.0), 10).low == pytest.approx(0.7225, abs=1e-4)
    assert widened(of(0.5, 0.5, 0.5), 10) == of(0.5, 0.5, 0.5)
    assert widened(of(0.0, 0.0, 0.1), 10) == of(0.0, 0.0, 0.1)


# what is compared


def test_cells_that_both_have_are_compared_and_the_others_named() -> None:
    found = compare(run_of("a", cell("memit", "zh"), cell("rome", "zh")), run_of("b", cell("memit", "zh"), cell("memit", "en")))
    assert {each.cell for each in found.differences} == {"memit-zh"}
    assert (found.only_a, found.only_b) == (("rome-zh",), ("memit-en",))
    assert {each.language for each in found.differences} == {"zh", "en"}
    assert "transfer efficacy" in {each.metric for each in found.differences if each.language == "en"}
    with pytest.raises(ValueError, match="no cell in common: a has rome-zh; b has memit-zh"):
        compare(run_of("a", cell("rome", "zh")), run_of("b", cell("memit", "zh")))


def test_a_run_does_not_differ_from_itself() -> None:
    run = run_of("a", cell("memit", "zh"), cell("memit", "mixed"))
    found = compare(run, run)
    assert found.differences
    assert all(each.difference.value == 0 and not each.excludes_zero for each in found.differences)
    assert (found.settings, found.data, found.model) == ({}, {}, {})


@pytest.mark.parametrize(
    ("left", "right", "marked"),
    [((0.9, 0.8, 0.95), (0.5, 0.4, 0.6), True), ((0.6, 0.5, 0.7), (0.5, 0.4, 0.6), False), ((0.04, 0.01, 0.08), (0.0, 0.0, 0.0), False)],
)
def test_a_difference_is_marked_where_its_interval_excludes_zero(left: Any, right: Any, marked: bool) -> None:
    for a, b in ((left, right), (right, left)):
        found = compare(run_of("a", with_exact(of(*a))), run_of("b", with_exact(of(*b))))
        (one,) = (each for each in found.differences if (each.language, each.metric) == ("zh", "exact"))
        assert one.excludes_zero is marked


def test_what_only_one_run_asked_is_left_out() -> None:
    found = compare(run_of("a", with_exact(NONE)), run_of("b", cell("memit", "zh")))
    assert ("zh", "exact") not in {(each.language, each.metric) for each in found.differences}


def test_settings_data_and_commits_that_differ_are_said_and_so_is_what_is_not_known() -> None:
    a = run_of("a", cell(), params={"edit.layers": [1], "vectors.lr": 3}, data={"x": "1", "y": "2"}, commit=None)
    b = run_of("b", cell(), params={"edit.layers": [2], "vectors.lr": 3}, data={"x": "1", "z": "3"}, commit="f" * 40)
    found = compare(a, b)
    assert found.settings == {"edit.layers": ([1], [2])}, "neither commit is one of this clone"
    assert found.data == {"y": ("2", NOT_SET), "z": (NOT_SET, "3")}
    assert found.commits == (None, "f" * 40)
    assert set(found.not_known) == {"commit of a", "model of a", "model of b"}
    head, rows = lines(found, everything=False)
    assert "commit: not known | ffffffffffff" in head
    assert "setting edit.layers: [1] | [2]" in head
    assert len(lines(found, everything=True)[1]) == len(found.differences) + 1 > len(rows)


def test_settings_are_held_against_params_yaml_of_each_runs_own_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = {"c1": {"a": {"b": 1, "c": 2}, "methods": {"memit": {"x": 1}, "rome": {"x": 1}}}}
    trees["c2"] = {"a": {"b": 5, "c": 2}, "methods": {"memit": {"x": 1}, "rome": {"x": 2}}}
    monkeypatch.setattr("xledit.runs.compare.params_at", lambda commit: msgspec.json.decode(msgspec.json.encode(trees[commit])))
    found = compare(run_of("a", cell(), commit="c1", params={"a.c": 3}), run_of("b", cell(), commit="c2"))
    assert found.settings == {"a.b": (1, 5), "a.c": (3, 2)}, "and rome was not used"


# the command


def test_what_is_kept_is_compared_for_people_and_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in (("methods_200", "combined_200"), ("methods_200", "combined_200", "--json")):
        monkeypatch.setattr(sys, "argv", ["xledit", "compare", *arguments])
        cli.main()
    table, _, json = capsys.readouterr().out.partition("{")
    assert "independent samples" in table
    found = msgspec.json.decode("{" + json)
    assert {each["cell"] for each in found["differences"]} == {"memit-mixed", "alphaedit-mixed"}


@pytest.mark.parametrize("name", ["nothing", "../results/tranyu", "results/tranyu"])
def test_a_name_without_results_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["xledit", "compare", name, "default"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "no such results" in caplog.text or "a run's name" in caplog.text
