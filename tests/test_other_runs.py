"""The page's runs beside the default one: rows worked out by hand, a figure that marks a collapse, and no foreign text as markup."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.test_report import SCRIPT, cell, estimate, made, prepared
from tools import readme
from xledit.evaluation.checks import Check
from xledit.evaluation.metrics import shown_in
from xledit.evaluation.summary import CellSummary
from xledit.report.common.numbers import Measured
from xledit.report.editing import figures, sentences
from xledit.report.editing.runs import (
    CELLS,
    RECORD,
    MethodRow,
    RunCells,
    RunRecord,
    Timing,
    best,
    method_rows,
    perplexity_ratios,
    read_all,
    value_of,
)
from xledit.storage import write_json

NAN = float("nan")
COMPARED = tuple(shown_in("compared"))
DATE = "2026-01-31"


def check(num_facts: int, zh: float | None = 3.0, en: float | None = 4.0, kept: float | None = 0.5, collapsed: bool = False) -> Check:
    return Check(
        num_facts=num_facts,
        fresh=0.75,
        kept=kept if num_facts else None,
        text_nats={"zh": zh, "en": en},
        weight_norms={"4": 1 + num_facts / 100, "5": None if collapsed else 1.0},
        collapsed=collapsed,
    )


def with_checks(checks: Sequence[Check], method: str = "memit", edit: str = "zh") -> CellSummary:
    return msgspec.structs.replace(cell(method, edit), checks=tuple(checks))


WHOLE = (check(0), check(10), check(20))
BROKEN = (check(0), check(10), check(20, zh=3.0 + math.log(50), collapsed=True))


def run_of(cells: Sequence[CellSummary], cpu_s: dict[str, float] | None = None, **fields: object) -> RunCells:
    timings = {name: Timing(stage=name, wall_s=1.0, cpu_s=taken) for name, taken in (cpu_s or {}).items()}
    plain: dict[str, object] = {"name": "some", "what": "Some methods", "commit": "c" * 40, "date": DATE, "params": {}, "timings": timings}
    return RunCells(record=RunRecord(**plain | fields), cells=tuple(cells))  # pyright: ignore[reportArgumentType]


def row_of(method: str, edit: str = "zh", **fields: object) -> MethodRow:
    plain: dict[str, object] = {
        "own": dict.fromkeys(COMPARED, 0.5), "other": {}, "transfer": Measured(0.1), "control": Measured(0.0), "perplexity": {},
        "cpu_s": 1.0, "num_stored": 8, "collapsed": False,
    }  # fmt: skip
    return MethodRow(method=method, edit=edit, **plain | fields)  # pyright: ignore[reportArgumentType]


# sentences


def test_what_became_of_plain_text_is_said_by_the_languages_names_and_a_collapse_first() -> None:
    ruined, whole = with_checks(BROKEN), with_checks((check(0), check(10, zh=3.0 + math.log(2))), edit="mixed")
    first, *_others, last = sentences.transfer([ruined, whole])
    assert first.startswith("The model edited in Chinese has collapsed after 20 facts: it no longer reads plain text")
    assert last.endswith("edited in Chinese: Chinese × 50.00, English × 1.00; mixed: Chinese × 2.00, English × 1.00.")


# rows


def test_there_is_a_row_per_method_and_edit_in_the_order_of_the_run() -> None:
    rows = method_rows(run_of([cell("rome", "zh"), cell("memit", "mixed"), cell("memit", "zh")]))
    assert [(row.method, row.edit) for row in rows] == [("rome", "zh"), ("memit", "mixed"), ("memit", "zh")]


def test_a_row_tells_the_edited_language_from_the_other_one() -> None:
    metrics = {"zh": {"efficacy": estimate(0.9), "exact": estimate(0.6)}, "en": {"efficacy": estimate(0.2), "exact": estimate(0.1)}}
    found = msgspec.structs.replace(cell("memit", "zh"), metrics=metrics)
    (row,) = method_rows(run_of([found]))
    assert (row.own["efficacy"], row.own["exact"]) == (0.9, 0.6)
    assert (row.other["efficacy"], row.other["exact"]) == (0.2, 0.1)
    assert math.isnan(row.own["portability"])
    assert (row.transfer, row.control) == (Measured(0.04, -0.02, 0.1), Measured(0.04, -0.02, 0.1))


def test_an_edit_of_all_languages_has_their_mean_and_nothing_to_cross_to() -> None:
    metrics = {"zh": {"efficacy": estimate(0.9)}, "en": {"efficacy": estimate(0.4)}}
    found = msgspec.structs.replace(cell("memit", "mixed"), metrics=metrics)
    (row,) = method_rows(run_of([found]))
    assert row.own["efficacy"] == pytest.approx(0.65)
    assert all(math.isnan(value) for value in (*row.other.values(), row.transfer.value, row.control.value))


@pytest.mark.parametrize(
    ("edit", "checks", "num_stored", "cpu_s"),
    [("zh", (), 100, 0.6), ("zh", WHOLE, 20, 3.0), ("mixed", WHOLE, 20, 1.5), ("zh", BROKEN[:2], 10, 6.0)],
    ids=["no checks", "all stored", "two languages", "stopped early"],
)
def test_seconds_are_per_fact_that_was_stored_and_language(edit: str, checks: Sequence[Check], num_stored: int, cpu_s: float) -> None:
    (row,) = method_rows(run_of([with_checks(checks, edit=edit)], {f"apply@memit-{edit}": 60.0, "evaluate@memit-zh": 999.0}))
    assert row.num_stored == num_stored
    assert row.cpu_s == pytest.approx(cpu_s)


def test_what_was_not_timed_or_watched_is_not_made_up() -> None:
    (row,) = method_rows(run_of([cell("ike", "zh")], {"apply@memit-zh": 60.0}))
    assert math.isnan(row.cpu_s)
    assert (row.perplexity, row.collapsed, row.num_stored) == ({}, False, 100)


def test_a_row_has_collapsed_if_its_last_check_has() -> None:
    whole, broken = method_rows(run_of([with_checks(WHOLE), with_checks(BROKEN, "rome")]))
    assert (whole.collapsed, broken.collapsed) == (False, True)
    assert whole.perplexity == {"zh": 1.0, "en": 1.0}
    assert broken.perplexity == {"zh": pytest.approx(50), "en": 1.0}


# perplexity


def test_perplexity_is_held_against_the_unedited_models_in_each_language() -> None:
    checks = [check(0, zh=3.0, en=4.0), check(4, zh=3.0 + math.log(2), en=4.0 - math.log(4)), check(8, zh=3.0, en=4.0)]
    assert perplexity_ratios(checks, 1) == {"zh": pytest.approx(2), "en": pytest.approx(0.25)}
    assert perplexity_ratios(checks, 0) == perplexity_ratios(checks) == {"zh": 1.0, "en": 1.0}
    assert perplexity_ratios([]) == {}


@pytest.mark.parametrize(("before", "after"), [(3.0, None), (None, 3.0), (None, None)])
def test_perplexity_that_is_not_finite_is_infinitely_worse(before: float | None, after: float | None) -> None:
    assert perplexity_ratios([check(0, zh=before), check(4, zh=after)]) == {"zh": math.inf, "en": 1.0}


def test_perplexity_beyond_all_numbers_is_still_a_number() -> None:
    assert 1e300 < perplexity_ratios([check(0), check(4, zh=1e6)])["zh"] < math.inf


# the best


def test_more_is_better_but_of_seconds_and_perplexity() -> None:
    rows = [
        row_of("a", own=dict.fromkeys(COMPARED, 0.9), cpu_s=5.0, perplexity={"zh": 1.0, "en": 3.0}, transfer=Measured(0.3, 0.1, 0.5)),
        row_of("b", own=dict.fromkeys(COMPARED, 0.6), cpu_s=0.5, perplexity={"zh": 2.0, "en": 1.0}, transfer=Measured(0.1, 0.0, 0.2)),
    ]
    assert {column: best(rows, "zh", column) for column in (*COMPARED, "transfer")} == dict.fromkeys((*COMPARED, "transfer"), "a")
    assert [best(rows, "zh", column) for column in ("cpu_s", "perplexity")] == ["b", "b"]
    assert value_of(rows[0], "perplexity") == 3.0, "the worst language"


def test_the_best_is_of_its_own_edit() -> None:
    rows = [row_of("a", own={"exact": 0.6}), row_of("b", "en", own={"exact": 0.9})]
    assert [best(rows, edit, "exact") for edit in ("zh", "en", "mixed")] == ["a", "b", ""]


def test_a_collapsed_model_is_never_the_best() -> None:
    rows = [row_of("a", own={"exact": 0.6}), row_of("b", own={"exact": 1.0}, cpu_s=0.1, collapsed=True)]
    assert [best(rows, "zh", column) for column in ("exact", "cpu_s")] == ["a", "a"]
    assert best(rows[1:], "zh", "exact") == ""


def test_a_method_that_stores_little_and_a_transfer_that_may_be_none_are_never_the_best() -> None:
    idle = row_of("a", own={"exact": 0.49, "locality": 1.0}, transfer=Measured(0.9, 0.8, 1.0))
    wide, sure = (
        row_of(name, own={"exact": 0.5, "locality": 0.2}, transfer=Measured(*interval))
        for name, interval in (("b", (0.5, 0.0, 3.0)), ("c", (0.1, 0.01, 0.2)))
    )
    assert best([idle, wide, sure], "zh", "locality") == "b"
    assert best([idle, wide, sure], "zh", "transfer") == "c"
    assert best([idle, wide], "zh", "transfer") == ""


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_not_known_is_never_the_best(order: tuple[int, int]) -> None:
    both = (row_of("a", own={"exact": NAN}, cpu_s=NAN), row_of("b", own={"exact": 0.5}, perplexity={"zh": math.inf}))
    rows = [both[place] for place in order]
    assert [best(rows, "zh", column) for column in ("exact", "cpu_s", "perplexity")] == ["b", "b", "b"]
    assert best([row for row in rows if row.method == "a"], "zh", "exact") == ""


def test_only_cells_of_several_batches_are_sequences() -> None:
    cells = [cell(), with_checks(WHOLE[:2]), with_checks(WHOLE)]
    assert run_of(cells).sequences == (cells[2],)


# the figure


def crosses(svg: str) -> int:
    """How often the marker that says collapsed is drawn: matplotlib defines it once per line and uses it there."""
    return len(re.findall(r'<use [^>]*style="[^"]*stroke-width: 2\.2', svg))


def test_the_figure_is_the_same_bytes_twice() -> None:
    cells = [with_checks(WHOLE), with_checks(BROKEN, "rome")]
    assert figures.sequence(cells) == figures.sequence(cells)


def test_the_figure_marks_a_collapse_in_each_panel_and_nothing_else() -> None:
    assert crosses(figures.sequence([with_checks(WHOLE)])) == 0
    finite = with_checks((*BROKEN[:2], msgspec.structs.replace(BROKEN[2], weight_norms={"4": 7.0, "5": 1.0})))
    assert crosses(figures.sequence([with_checks(WHOLE), finite])) == 3


def test_the_figure_bears_what_is_not_finite() -> None:
    ruined = (check(0), check(10), check(20, zh=None, en=None, kept=0.0, collapsed=True))
    assert crosses(figures.sequence([with_checks(ruined)])) >= 1


# reading and showing


def put(folder: Path, found: RunCells) -> None:
    write_json(folder / found.record.name / RECORD, found.record)
    for summary in found.cells:
        write_json(folder / found.record.name / CELLS / f"{summary.method}-{summary.edit}.json", summary)


def test_the_readme_says_how_each_model_of_a_sequence_ended_and_whose_perplexity_rose(tmp_path: Path) -> None:
    put(tmp_path, run_of([with_checks(BROKEN)], name="a"))  # JSON keeps keys sorted: English comes back before Chinese
    [_names, row] = readme.collapse_table(tmp_path / "a")
    assert row == ["memit", "zh", "20", "collapsed", "75", "50", "en × 1.0, zh × 50.0", "1.20"]


def test_runs_whose_settings_are_known_are_read_with_their_cells_in_the_order_of_these(tmp_path: Path) -> None:
    cells = [cell("alphaedit", "zh"), cell("memit", "mixed"), cell("memit", "zh"), cell("rome", "zh")]
    params = {"grid.methods": ["rome", "memit"], "grid.edits": ["zh", "mixed"]}
    put(tmp_path, run_of(cells, name="b", params=params))
    put(tmp_path, run_of(cells[:1], name="a"))
    (tmp_path / "no_run").mkdir()
    put(tmp_path, run_of(cells, name="by_hand", params=None))
    found = read_all(tmp_path)
    assert [run.record.name for run in found] == ["a", "b"]
    assert [(row.method, row.edit) for row in found[1].cells] == [("rome", "zh"), ("memit", "zh"), ("memit", "mixed"), ("alphaedit", "zh")]
    assert read_all(tmp_path / "nowhere") == []


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The section of a run whose words and settings are hostile, with a collapse in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        reports = prepared()
        params = {"grid.methods": ["memit", "rome"], f"x{SCRIPT}": f'">{SCRIPT}'}
        whole, broken = with_checks(WHOLE), with_checks(BROKEN, "rome")
        stored = {"zh": whole.metrics["zh"] | {"exact": estimate(0.9)}, "en": whole.metrics["en"]}
        cells = [msgspec.structs.replace(whole, metrics=stored), broken]
        put(Path("results"), run_of(cells, {"apply@memit-zh": 60.0}, what=f'Many batches "{SCRIPT}', params=params))
        text = made(reports)["index.html"].decode()
    return text[text.index('<section aria-labelledby="runs"') : text.index('<section aria-labelledby="data"')]


def test_the_page_escapes_what_a_run_says_of_itself(page: str) -> None:
    assert "<script" not in page
    assert "Many batches" in page
    assert page.count("&lt;script&gt;") >= 5, "heading, settings twice, the table's label and the figure's"
    assert 'Many batches "' not in page, "a quote must not end an attribute"


def test_the_page_says_which_model_has_collapsed_and_gives_it_no_mark(page: str) -> None:
    whole, broken = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert "collapsed" not in whole
    assert "collapsed</span>" in broken
    assert "†" in whole
    assert "†" not in broken
    assert "× 50.00" in broken
    assert ">20</td>" in whole


def test_the_page_shows_seconds_where_they_are_known(page: str) -> None:
    whole, broken = re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", page, re.DOTALL)
    assert "<td>3.00 †</td>" in whole
    assert 'title="not measured"' in broken


def test_the_page_has_the_figure_of_a_sequence_with_ids_of_its_own(page: str) -> None:
    assert page.count("<figure>") == 1
    assert 'id="sequence-some-' in page


def test_without_runs_the_page_has_no_section_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = made(prepared())["index.html"].decode()
    assert 'id="runs"' not in text
    assert "5. The data" in text
