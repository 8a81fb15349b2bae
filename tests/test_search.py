"""A search: what its rule prefers, what a trial's numbers are, and that a failed trial is told and never chosen."""

import math
from typing import Any

import msgspec
import pytest

from tests.test_report import cell, estimate
from tests.toy import Toy, new_toy
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import Alikeness, UpdateGeometry
from xledit.report.editing.runs import Trial, read_record
from xledit.runs.named import NamedRun, trial_params
from xledit.runs.search import best, measured, table

NAN = float("nan")


def trial(score: float | None, size: float | None = None, state: str = "Success", **fields: Any) -> Trial:
    return Trial(values={}, state=state, score=score, size=size, **fields)


def scored(exact: dict[str, float], kept: dict[str, float]) -> Trial:
    """What comes out of cells that were each edited in one language."""
    cells = [with_metrics(code, {"exact": estimate(share), "locality_tokens": estimate(kept[code])}) for code, share in exact.items()]
    return measured(Trial(values={}, state="Success"), [*cells, cell("memit", "mixed")], [])


def with_metrics(edit: str, metrics: dict[str, Any]) -> CellSummary:
    return msgspec.structs.replace(cell("memit", edit), metrics={edit: metrics})


class TestRule:
    def test_score_is_the_mean_over_languages_of_harmonic_means(self) -> None:
        assert scored({"zh": 1.0, "en": 0.5}, {"zh": 0.5, "en": 0.5}).score == pytest.approx((2 / 3 + 0.5) / 2, abs=1e-4)

    def test_storing_everything_by_destroying_the_rest_scores_nothing(self) -> None:
        assert scored({"zh": 1.0}, {"zh": 0.0}).score == 0
        assert scored({"zh": 0.0}, {"zh": 0.0}).score == 0

    def test_a_balanced_trial_beats_one_with_the_same_sum(self) -> None:
        even, uneven = scored({"zh": 0.6}, {"zh": 0.6}), scored({"zh": 1.0}, {"zh": 0.2})
        assert best([uneven, even]) is even

    def test_of_ties_the_smaller_update_wins_and_an_unknown_size_is_last(self) -> None:
        equal = [trial(0.5, size) for size in (None, 3.0, 1.0, 2.0)]
        assert best(equal).size == 1.0
        assert best(equal[:2]).size == 3.0
        assert best([trial(0.51, 50.0), *equal]).size == 50.0

    def test_a_failed_trial_is_never_chosen(self) -> None:
        failed, worst = trial(None, state="Failed"), trial(0.0)
        assert best([failed, worst]) is worst
        with pytest.raises(ValueError, match=r"no trial of 1 came to a score: Failed"):
            best([failed])

    def test_a_trial_without_a_number_has_no_score(self) -> None:
        found = scored({"zh": NAN}, {"zh": 0.5})
        assert (found.score, found.state) == (None, "no exact or locality_tokens")
        assert measured(Trial(values={}, state="Success"), [cell("memit", "mixed")], []).score is None


def test_the_size_is_the_norm_of_the_runs_updates() -> None:
    numbers = dict.fromkeys(Alikeness.__struct_fields__, 0) | {"norm_left": 3.0, "norm_right": 4.0}
    pair = Alikeness(**numbers)
    nulls = {"random_key_angle": 0.0, "random_value_angle": 0.0, "chance_neurons": 0.0}
    layers = [UpdateGeometry(layer=layer, method="memit", pairs={"run, zh-en": pair, "null": pair}, **nulls) for layer in (1, 2)]
    one = with_metrics("zh", {"exact": estimate(0.5), "locality_tokens": estimate(0.5)})
    assert measured(Trial(values={}, state="Success"), [one], layers).size == pytest.approx(math.sqrt(50), abs=1e-4)


def test_trials_are_all_combinations_with_the_first_setting_slowest_on_dev() -> None:
    run = NamedRun(what="x", params={"vectors.lr": 7}, search={"a.b": (1, 2), "c.d": ([3], [4])})
    assert run.trials == [{"a.b": 1, "c.d": [3]}, {"a.b": 1, "c.d": [4]}, {"a.b": 2, "c.d": [3]}, {"a.b": 2, "c.d": [4]}]
    assert trial_params(run, run.trials[0]) == {"vectors.lr": 7, "a.b": 1, "c.d": [3], "data.source": "benchmark", "data.split": "dev"}
    assert NamedRun(what="x", params={"vectors.lr": 7}).trials == []


def test_the_table_has_a_row_per_trial_and_dashes_where_nothing_came_out() -> None:
    failed = Trial(values={"edit.layers": [40]}, state="Failed")
    good = Trial(values={"edit.layers": [3]}, state="Success", exact={"zh": 0.9}, locality_tokens={"zh": 0.7}, score=0.7875, size=1.0)
    assert table([failed, good]) == [
        ["trial", "edit.layers", "exact zh", "kept zh", "score", "size", "state"],
        ["01", "[40]", "-", "-", "-", "-", "Failed"],
        ["02", "[3]", "0.900", "0.700", "0.7875", "1.000", "Success"],
    ]


@pytest.fixture
def toy(tmp_path: Any, plain_env: dict[str, str]) -> Toy:
    return new_toy(tmp_path, plain_env)


@pytest.mark.slow
def test_a_search_keeps_the_best_trials_cells_and_every_trial(toy: Toy) -> None:
    toy.write("runs/best.yaml", "what: x\nparams: {grid.methods: [memit]}\nsearch: {edit.layers: [[1], [1, 2], [40]]}\n")
    done = toy.xledit("run", "best", "--jobs", "2")
    assert done.returncode == 0, done.stdout
    record = read_record(toy.root / "results" / "best")
    assert record.search is not None
    assert [(each.state, each.score) for each in record.search.trials] == [("Success", 0.3333), ("Success", 0.5), ("Failed", None)]
    assert record.search.chosen == {"edit.layers": [1, 2]}
    assert record.params is not None and (record.params["edit.layers"], record.params["data.split"]) == ([1, 2], "dev")
    assert {path.stem for path in (toy.root / "results/best/cells").iterdir()} == {"memit-zh", "memit-en", "memit-mixed"}
    assert toy.run("git", "status", "--porcelain").stdout.split() == ["??", "results/", "??", "runs/"]
    assert toy.xledit("use", "best").returncode == 0
    assert "layers: [1, 2]" in (toy.root / "params.yaml").read_text(encoding="utf-8")
