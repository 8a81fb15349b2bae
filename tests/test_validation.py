"""A sheet for people to judge has facts of all relations in both languages, and agreement is what scikit-learn says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from tests.small_benchmark import BOTH, small_benchmark
from xledit.benchmark.tables import read_tables
from xledit.benchmark.validation import QUESTIONS, agreements, read_sheet, sheet
from xledit.cli import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def lines() -> list[dict[str, str]]:
    return list(csv.DictReader(sheet(read_tables(ROOT / "data/benchmark", BOTH), 300, 1).splitlines()))


def test_facts_come_from_all_relations_evenly_each_subject_once(lines: list[dict[str, str]]) -> None:
    relations = read_tables(ROOT / "data/benchmark", BOTH)
    facts = {fact.fact_id: fact for relation in relations for fact in relation.facts}
    drawn = [facts[line["id"]] for line in lines]
    counts = [sum(fact.relation == relation.name for fact in drawn) for relation in relations]
    assert len({fact.entity for fact in drawn}) == len(drawn) == 300
    assert min(counts) >= 300 // len(relations) - 1 and max(counts) <= 300 // len(relations) + 2
    for fact, line in zip(drawn, lines, strict=True):
        for code in BOTH:
            assert fact.subjects[code] in line[f"prompt_{code}"]
            assert line[f"true_answer_{code}"] == fact.objects[code] != line[f"new_answer_{code}"]
        assert all(line[question] == "" for question in QUESTIONS)


def test_both_orders_are_asked(lines: list[dict[str, str]]) -> None:
    relations = {relation.name: relation for relation in read_tables(ROOT / "data/benchmark", BOTH)}
    first = 0
    for line in lines:
        wording = relations[line["id"].rpartition("-")[0]].wordings["en"]
        first += line["prompt_en"].endswith(wording.first.text.split("{subject}")[1])
    assert first == 150


def test_a_seed_gives_the_same_sheet_and_more_than_there_are_is_refused(tmp_path: Path) -> None:
    relations = small_benchmark(tmp_path).tables()
    assert sheet(relations, 3, 1) == sheet(relations, 3, 1) != sheet(relations, 3, 2)
    with pytest.raises(ValueError, match="99 facts asked for, but only"):
        sheet(relations, 99, 1)


def filled(path: Path, answers: list[list[str]]) -> Path:
    rows = [["id", *QUESTIONS], *([f"f-{place:03}", *row] for place, row in enumerate(answers))]
    path.write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")
    return path


def test_kappa_is_scikit_learns(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    one, other = (draw.choice(["yes", "no", ""], (60, len(QUESTIONS)), p=[0.7, 0.2, 0.1]) for _annotator in range(2))
    found = agreements(*(read_sheet(filled(tmp_path / f"{place}.csv", rows.tolist())) for place, rows in enumerate((one, other))))
    for column, row in enumerate(found):
        both = (one[:, column] != "") & (other[:, column] != "")
        left, right = one[both, column], other[both, column]
        assert row.num_facts == both.sum()
        assert row.yes == pytest.approx(((left == "yes").mean(), (right == "yes").mean()))
        assert row.agreed == pytest.approx((left == right).mean())
        assert row.kappa == pytest.approx(cohen_kappa_score(left, right))


def test_one_answer_throughout_has_no_kappa(tmp_path: Path) -> None:
    same = read_sheet(filled(tmp_path / "a.csv", [["yes"] * len(QUESTIONS)] * 3))
    assert all(np.isnan(row.kappa) and row.agreed == 1 for row in agreements(same, same))


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([["yes"] * 5, ["maybe", *["yes"] * 4]], r"0.csv:3: true is 'maybe'; write yes or no"),
        ([[""] * 5], r"true: no fact was judged in both sheets"),
    ],
)
def test_a_sheet_that_cannot_be_read_says_where(tmp_path: Path, rows: list[list[str]], complaint: str) -> None:
    path = filled(tmp_path / "0.csv", rows)
    with pytest.raises(ValueError, match=complaint):
        agreements(read_sheet(path), read_sheet(path))


def test_the_commands_write_a_sheet_and_read_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "sheet.csv"
    assert CliRunner().invoke(app, ["facts", "sheet", "--out", str(out), "--number", "5"]).exit_code == 0
    table = list(csv.reader(out.read_text(encoding="utf-8-sig").splitlines()))
    for row in table[1:]:
        row[-1 - len(QUESTIONS) : -1] = ["yes"] * len(QUESTIONS)
    with out.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(table)
    result = CliRunner().invoke(app, ["facts", "agreement", str(out), str(out)])
    assert result.exit_code == 0 and "one_answer" in result.output and "1.00" in result.output
