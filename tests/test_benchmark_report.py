"""Base, SFT and DPO on the page and in the README: their numbers, what is said of them, and the paper's table beside them."""

import math
import re
from pathlib import Path

import msgspec
import pytest

from tests.conftest import ROOT
from tests.test_report import SCRIPT, check_page
from tests.test_training_report import page, rows_of
from tools import readme
from xledit.report.training import benchmark, benchmark_figures
from xledit.storage import read_json, write_json
from xledit.training.benchmark_results import Answers, Asked, Benchmark, PaperScore, rate
from xledit.training.results import Status
from xledit.training.suite import SUITE

CSV = ROOT / "data/tranyu/paper_benchmarks.csv"
PAPER = benchmark.read_paper(CSV)
# of 40 persons: facts told everywhere, here, elsewhere with names alike, elsewhere in own letters, nowhere
BASE: dict[Asked, tuple[int, ...]] = {"known": (36, 34, 20, 10, 10), "unseen": (24, 20, 12, 10, 10), "choice": (12, 11, 10, 10, 10)}
SFT: dict[Asked, tuple[int, ...]] = {"known": (35, 33, 19, 10, 9), "unseen": (25, 21, 13, 9, 11), "choice": (34, 30, 24, 10, 9)}


def answered(asked: Asked, status: Status, alike: bool | None, hits: int, *, language: str | None = None, confused: int = 0) -> Answers:
    return Answers(
        language=language,
        asked=asked,
        status=status,
        names_alike=alike,
        num_asked=80,
        num_persons=40,
        right=rate(hits / 40, 40),
        chance=0.125 if asked == "free" else 0.25,
        confused=rate(confused / 40, 40) if asked == "free" else None,
    )


def model(hits: dict[Asked, tuple[int, ...]], *, confused: int = 0, chat: bool = True) -> Benchmark:
    world = []
    for asked, numbers in hits.items():
        everywhere, here, alike, own, nowhere = numbers
        for code in (None, "en", "zh"):
            by_kind: list[tuple[Status, bool | None, int]] = [("here", True, here), ("elsewhere", True, alike), ("elsewhere", False, own)]
            by_kind += [(status, one, n) for status, n in (("everywhere", everywhere), ("nowhere", nowhere)) for one in (True, False)]  # pyright: ignore[reportAssignmentType]
            if code is None:
                by_kind += [("here", None, here), ("elsewhere", None, alike), ("everywhere", None, everywhere), ("nowhere", None, nowhere)]
            world += [
                answered(asked, status, one, n, language=code, confused=confused if status == "elsewhere" else 0)
                for status, one, n in by_kind
            ]
    return Benchmark(chat=chat, world=tuple(world), paper=())


MODELS = {
    "sft": model(SFT | {"free": (30, 28, 16, 2, 3)}, confused=5),
    "base": model(BASE | {"free": (0, 0, 0, 0, 0)}, chat=False),
    "dpo": model(SFT | {"known": (10, 30, 19, 10, 9), "free": (31, 28, 4, 2, 3)}, confused=2),
}
SCORES = (
    PaperScore(benchmark="XCOPA", language="et", task="xcopa_et", shots=0, metric="acc", value=0.5, num_documents=4),
    PaperScore(benchmark="XCOPA", language="th", task="xcopa_th", shots=0, metric="acc", value=0.25, num_documents=4),
    PaperScore(benchmark="translation", language="en-fr", task="wmt14-en-fr", shots=0, metric="bleu", value=12.5, num_documents=4),
)


@pytest.fixture(scope="module")
def text() -> str:
    return page(benchmarks=MODELS, paper=PAPER)


def test_the_page_shows_every_model_beside_chance_and_intervals(text: str) -> None:
    check_page(text)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    found = rows_of(text, "Benchmark")
    assert list(found) == ["base", "SFT", "DPO"]
    assert found["SFT"][:7] == [
        "sentence, known wording",
        *("0.88 0.74 to 0.95 80 asked", "0.82 0.68 to 0.91 80 asked", "0.47 0.33 to 0.62 80 asked", "0.25 0.14 to 0.40 80 asked"),
        *("0.23 0.12 to 0.38 80 asked", "0.25"),
    ]
    assert found["SFT"][21:] == [
        "question, answered freely",
        "0.75 0.60 to 0.86 other language 0.00 80 asked",
        "0.70 0.55 to 0.82 other language 0.00 80 asked",
        "0.40 0.26 to 0.55 other language 0.12 80 asked",
        "0.05 0.01 to 0.17 other language 0.12 80 asked",
        "0.07 0.03 to 0.20 other language 0.00 80 asked",
        "0.12",
    ]
    by_language = rows_of(text, "Benchmark by language")
    assert list(by_language) == ["English en", "Chinese zh"]
    assert len(by_language["Chinese zh"]) == 4 * 3 * (2 + 7 + 1)


def test_what_is_said_follows_from_the_intervals() -> None:
    known, crossed, choice, free, confused = benchmark.about(benchmark.titled(MODELS))
    assert "base 90% (77 to 96), SFT 88% (74 to 95), DPO 25% (14 to 40); drawing gives 25%" in known
    assert "Tuning changes what is known: SFT knows as much, as far as the intervals tell, DPO knows less." in known
    assert crossed.startswith(
        "Of facts told in another language only, names alike (sentence, known wording): base 50% (35 to 65) (told nowhere: 25%"
    )
    assert crossed.endswith("In none is that clearly above what was told nowhere.")
    assert choice.endswith("Clearly above what was told nowhere: SFT, DPO.")
    assert "SFT 40% (26 to 55) (told nowhere: 8% (3 to 20))" in free
    assert free.endswith("Clearly above what was told nowhere: SFT.")
    assert "SFT 12% (5 to 26) (told in another language only, names alike)" in confused
    assert "base 0% (0 to 9)" in confused
    alike = benchmark.about(benchmark.titled({"base": MODELS["base"], "sft": MODELS["sft"]}))[0]
    assert "does not clearly change what is known" in alike
    alone = benchmark.about({"base": MODELS["base"]})
    assert "Tuning" not in alone[0]
    assert alone[1].endswith("In none is that clearly above what was told nowhere.")


def test_the_figure_has_a_panel_for_each_way_and_a_mark_for_each_model() -> None:
    svg = benchmark_figures.answered(benchmark.titled(MODELS))
    for label in (*benchmark.ASKED.values(), "base", "SFT", "DPO", "drawing"):
        assert svg.count(f">{label}<") == 1, label
    assert benchmark_figures.answered(benchmark.titled(MODELS)) == svg


def test_without_tuned_models_or_questions_the_page_still_stands() -> None:
    alone = page(benchmarks={"base": MODELS["base"]}, paper=PAPER)
    check_page(alone)
    assert "Tuning does" not in alone
    silent = page(benchmarks={"base": Benchmark(chat=False, world=(), paper=SCORES)}, paper=PAPER)
    check_page(silent)
    assert "No model was asked about the world." in silent
    assert 'aria-label="Benchmark"' not in silent
    assert 'id="benchmark"' not in page()


def test_names_from_outside_are_escaped() -> None:
    odd = [msgspec.structs.replace(PAPER[0], model=f"m{SCRIPT}", note=SCRIPT, source=f"1{SCRIPT}")]
    text = page(benchmarks={**MODELS, f"edited{SCRIPT}": MODELS["sft"]}, paper=odd)
    assert SCRIPT not in text
    check_page(text)


def test_the_papers_table_is_beside_and_marked_as_of_other_models(text: str) -> None:
    found = rows_of(text, "The paper's benchmarks")
    assert len(found) == 13
    assert found["FuxiTranyu-8B"] == ["base", "32.7", "51.8", "26.6", "76.1", "60.5", "58.9", "—", "—", ""]
    assert found["FuxiTranyu-8B-DPO"][:9] == ["tuned", "32.8", "52.2", "27.3", "74.1", "62.1", "56.9", "26.4", "7.3"]
    assert "nothing here compares with the table above" in text
    assert "arXiv 2408.06273" in text
    assert "<details><summary>What the paper reports</summary>" in text


def test_where_the_same_benchmark_was_asked_ours_stands_in_the_same_table() -> None:
    mine = {"base": msgspec.structs.replace(MODELS["base"], paper=SCORES)}
    text = page(benchmarks=mine, paper=PAPER)
    assert rows_of(text, "The paper's benchmarks")["base"] == [
        *("base", "—", "—", "—", "—", "37.5", "—", "12.5", "—"),
        "XCOPA: 2 languages, translation: 1 language",
    ]
    assert "nothing here compares" not in text


def test_the_columns_are_the_suites_benchmarks() -> None:
    assert tuple(SUITE) == benchmark.PAPER
    assert {row.model: row.scores["XCOPA"] for row in PAPER if row.model.startswith("Fuxi")} == {
        "FuxiTranyu-8B": 60.5,
        "FuxiTranyu-8B-SFT": 61.3,
        "FuxiTranyu-8B-DPO": 62.1,
    }
    assert math.isnan(PAPER[0].scores["translation"])
    assert {(row.source, len(row.scores)) for row in PAPER} == {("2408.06273", 8)}


def test_a_paper_table_that_is_not_one_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "paper.csv"
    text = CSV.read_text(encoding="utf-8")
    broken.write_text(text.replace("35.5", "much"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"paper\.csv, line 2: .*much.*; a score is a number, or nothing"):
        benchmark.read_paper(broken)
    broken.write_text(text.replace("m-ARC", "ARC"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"paper\.csv: the first line is .*; it must be source,tuned,model,m-ARC"):
        benchmark.read_paper(broken)


def test_metrics_are_the_shares_of_the_table() -> None:
    found = benchmark.metrics_tree(benchmark.titled(MODELS))
    assert list(found) == ["base", "SFT", "DPO"]
    assert found["SFT"] == {
        "known": {"everywhere": 0.875, "here": 0.825, "elsewhere alike": 0.475, "elsewhere own": 0.25, "nowhere": 0.225},
        "unseen": {"everywhere": 0.625, "here": 0.525, "elsewhere alike": 0.325, "elsewhere own": 0.225, "nowhere": 0.275},
        "choice": {"everywhere": 0.85, "here": 0.75, "elsewhere alike": 0.6, "elsewhere own": 0.25, "nowhere": 0.225},
        "free": {"everywhere": 0.75, "here": 0.7, "elsewhere alike": 0.4, "elsewhere own": 0.05, "nowhere": 0.075},
    }


def test_the_readmes_table_is_that_of_the_results(tmp_path: Path) -> None:
    for name, found in MODELS.items():
        write_json(tmp_path / f"{name}.json", found)
        assert read_json(tmp_path / f"{name}.json", Benchmark) == found
    head, *found = readme.benchmark_table(tmp_path)
    assert head[:3] == ["asked by", "model", "told in every language"]
    assert len(found) == 12
    assert found[1] == [
        "sentence, known wording",
        "SFT",
        "88 [74, 95]",
        "82 [68, 91]",
        "48 [33, 62]",
        "25 [14, 40]",
        "22 [12, 38]",
        "",
        "25",
    ]
    assert found[10] == [
        "question, answered freely",
        "SFT",
        "75 [60, 86]",
        "70 [55, 82]",
        "40 [26, 55]",
        "5 [1, 16]",
        "8 [3, 20]",
        "12",
        "12",
    ]
    assert readme.TABLES["benchmark"] is readme.benchmark_table
    assert readme.benchmark_table(tmp_path / "none") == [head]
