"""The report: what it says of synthetic results, and that it never shows text as markup, loads a thing, or hides a missing file."""

import contextlib
import itertools
import json
import logging
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from stages.editing import report
from tests.test_summary import summary as summarised
from tools import readme
from xledit.benchmark.results import BenchmarkAudit, Inventory
from xledit.evaluation.intervals import Estimate
from xledit.evaluation.metrics import METRICS, Metric, Place, shown_in
from xledit.evaluation.summary import CellSummary, Example, GroupSummary
from xledit.geometry.results import Alikeness, Likeness, Spread, UpdateGeometry, VectorGeometry
from xledit.manifest import Family, ModelManifest
from xledit.records import Audit
from xledit.report.common import drawing
from xledit.report.common import page as filters
from xledit.report.common.numbers import Measured
from xledit.report.editing import figures, glossary, sentences, tables
from xledit.report.editing.runs import RunRecord
from xledit.storage import read_json, write_json

LANGUAGES, METHODS, EDITS, LAYERS = ("zh", "en"), ("memit", "alphaedit"), ("zh", "en", "mixed"), (6, 7, 8, 9)
SCRIPT = "<script>alert(1)</script>"
NAN = float("nan")
PROMPTS = {
    "zh": ("故宫位于", "麻婆豆腐是", "《红楼梦》的作者是"),
    "en": ("The Palace Museum is in", "Mapo tofu is from", "The author of Dream of the"),
}


def estimate(value: float, half: float = 0.08) -> Estimate:
    return Estimate(value=value, low=max(value - half, 0), high=min(value + half, 1))


def measures(level: float) -> dict[str, Estimate]:
    return {
        name: estimate(round(level * share, 4))
        for name, share in zip(shown_in("every"), itertools.cycle((1, 0.9, 0.75, 0.5)), strict=False)
    }


def cell(method: str = "memit", edit: str = "zh", transfer: Estimate | None = None) -> CellSummary:
    own = (edit,) if edit in LANGUAGES else LANGUAGES
    others = [code for code in LANGUAGES if code not in own]
    found = transfer or Estimate(value=0.04, low=-0.02, high=0.1)
    return CellSummary(
        method=method,
        edit=edit,
        edit_languages=own,
        num_facts=100,
        metrics={code: measures(0.93 if code in own else 0.14) for code in sorted(LANGUAGES)},
        floor={code: measures(0.1) for code in sorted(LANGUAGES)},
        transfer={code: dict.fromkeys(shown_in("net_every"), found) for code in others},
        trans=estimate(0.31),
        groups=tuple(
            GroupSummary(
                label="order",
                value=value,
                num_facts=50,
                metrics={code: measures(0.77) for code in LANGUAGES},
                floor={code: measures(0.1) for code in LANGUAGES},
                transfer={code: dict.fromkeys(shown_in("net_every"), found) for code in others},
            )
            for value in ("first", "last")
        ),
        examples=tuple(
            Example(
                language=code, prompt=prompt, target_new="成都", target_true="北京", before="北京市中心", after=f"成都{SCRIPT} by {edit}"
            )
            for code in LANGUAGES
            for prompt in PROMPTS[code]
        ),
    )


def likeness(height: float) -> Likeness:
    return Likeness(
        num_facts=100, same=height + 0.3, same_error=0.01, different=0.3, different_sd=0.1, centred_same=height,
        centred_same_error=0.012, centred_different=-0.004, centred_different_sd=0.12, retrieval=min(height, 1), chance=0.01,
    )  # fmt: skip


def vectors() -> list[VectorGeometry]:
    return [
        VectorGeometry(
            layer=layer,
            what=what,
            across={"zh-en": likeness(0.45 - 0.03 * layer)},
            reworded={code: likeness(0.7 - 0.02 * layer) for code in LANGUAGES},
            within={code: Spread(mean=0.4, sd=0.1, centred_mean=-0.01, centred_sd=0.13) for code in LANGUAGES},
            random=0.0221,
        )
        for layer in LAYERS
        for what in ("keys", "deltas")
    ]


def alikeness(cosine: float) -> Alikeness:
    return Alikeness(
        cosine=cosine, neurons=0.2 + cosine, rank=10, key_angle_mean=80 - 20 * cosine, key_angle_min=40.0, value_angle_mean=70.0,
        value_angle_min=31.0, norm_left=3.21, norm_right=2.87, additivity_error=0.2, additivity_cosine=0.98,
    )  # fmt: skip


def updates(method: str) -> list[UpdateGeometry]:
    pairs = {
        "half: en and en, different facts": 0.09, "half: en and en, same facts in other words": 0.5,
        "half: zh and en, different facts": 0.01, "half: zh and en, same facts": 0.06,
        "half: zh and zh, different facts": 0.11, "half: zh and zh, same facts in other words": 0.61,
        "run: zh and en, same facts": 0.05,
    }  # fmt: skip
    return [
        UpdateGeometry(
            layer=layer,
            method=method,
            pairs={name: alikeness(cosine + 0.01 * (layer - 7)) for name, cosine in pairs.items()},
            random_key_angle=87.9,
            random_value_angle=82.4,
            chance_neurons=0.0256,
        )
        for layer in LAYERS
    ]


MODEL = ModelManifest(
    name="embedded", revision=None, source="embedded", family="gemma3_text", dtype="float32", num_layers=18, d_model=640, d_key=2048,
    vocabulary=262144, num_parameters=268_098_176, row=Family(norm_after_memory="post_feedforward_layernorm"), probed=False,
    weights="a5fd3b62230aa5ec60212297dc9d20ea" * 2,
)  # fmt: skip
AUDIT = Audit(
    source="benchmark", num_read=420, num_selected=100, defects={"key_collisions": {"all": 2}, "fewer_neighbours": {"zh": 1, "en": 0}},
    dropped={"tea_province-004": "same key as tea_province-001", f"x{SCRIPT}": "same key"}, rules=("same key, other value: dropped",),
)  # fmt: skip
BENCHMARK = BenchmarkAudit(
    benchmark=Inventory(
        num_facts=2596, num_relations=67, china=2576, domains={"food": {"dev": 32, "test": 100}, "sport": {"test": 120}},
        splits={"dev": 18, "test": 49}, relations={"dish_province": {"facts": 32, "most_used_target": 3}},
        probes={"portability": {"zh": 950, "en": 951}, "translated": {"zh": 2596, "en": 0}},
        key_collisions={"first": {"zh": 300, "en": 310}, "last": {"zh": 0, "en": 0}},
        lengths={"zh": {"prompt": 10.5}, "en": {"prompt": 10.7}}, same_length={"zh": 0.7, "en": 0.5},
        checks={"null_truths": {"zh": 0, "en": 0}, "id_mismatches": {"all": 0}},
    ),
    findings={"scripts": 0}, clm_bench={"null_truths": {"zh": 0, "en": 19}}, clm_bench_facts=1010,
)  # fmt: skip
PARAMS = """
seed: 17
data: {order: both, skip_facts: 0, split: test}
grid: {languages: [zh, en], edits: [zh, en, mixed], methods: [memit, alphaedit], direct: []}
edit: {layers: [6, 7, 8, 9]}
covariance: {max_tokens: 20000}
vectors: {clamp: 1.5, steps: 20}
methods: {memit: {old_key_weight: 100.0}, alphaedit: {ridge: 0.05}, rome: {}}
"""


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the stages before ``report`` leave it; the working directory is its parent."""
    monkeypatch.chdir(tmp_path)
    return prepared()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the stage writes for these results."""
    with contextlib.chdir(tmp_path_factory.mktemp("run")):
        return made(prepared())


@pytest.fixture(scope="module")
def text(files: dict[str, bytes]) -> str:
    """The page."""
    return files["index.html"].decode()


def prepared() -> Path:
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    write_json(Path("artifacts/model.json"), MODEL)
    folder = Path("reports")
    write_json(folder / "data.json", AUDIT)
    write_json(folder / "audit.json", BENCHMARK)
    write_json(folder / "geometry" / "vectors.json", vectors())
    for code in LANGUAGES:
        write_json(Path("artifacts") / "tokens" / f"{code}.json", {"requests": 100, "prompt_and_target_would_merge": 3})
    for method in METHODS:
        write_json(folder / "geometry" / f"{method}.json", updates(method))
        for edit in EDITS:
            write_json(folder / "cells" / f"{method}-{edit}.json", cell(method, edit))
    return folder


def made(folder: Path) -> dict[str, bytes]:
    report.main(reports=folder, artifacts=Path("artifacts"), results=Path("results"))
    names = ("index.html", "transfer.svg", "metrics.json", "plots/transfer.json", "plots/cosines.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_our_benchmark_stands_beside_the_other_one(text: str) -> None:
    data = text[text.index('id="data"') : text.index('id="examples"')]
    assert "2596 facts in 67 relations, 99.2 % about China" in data
    assert re.search(r"null truths</th><td>0</td><td>0</td><td>0</td><td>19</td>", data)
    assert "facts by domain and split" in data


def test_groups_of_facts_stand_apart(text: str) -> None:
    matrix = text[text.index('id="transfer"') : text.index('id="geometry"')]
    assert [matrix.count(f"order: {value}<br>memit") for value in ("first", "last")] == [4, 4]


def test_the_same_results_give_the_same_bytes(files: dict[str, bytes], reports: Path) -> None:
    assert made(reports) == files


def test_the_page_escapes_text_of_model_and_data(text: str) -> None:
    assert SCRIPT not in text
    assert text.count("成都&lt;script&gt;") == len(METHODS) * len(EDITS) * len(LANGUAGES) * 3
    assert "x&lt;script&gt;" in text


def test_the_page_loads_nothing_and_runs_nothing(files: dict[str, bytes], text: str) -> None:
    assert not re.findall(r"(?:src|href|srcset|action|data)\s*=\s*[\"']?\s*(?:https?:)?//", text, re.IGNORECASE)
    assert not re.findall(r"<(?:script|link|iframe|img|object|embed)\b|@import|url\((?!#)", text, re.IGNORECASE)
    assert not re.findall(r"<(?:script|image)\b|@import", files["transfer.svg"].decode(), re.IGNORECASE)


def check_page(text: str) -> None:
    """Fail unless every element is closed, ids are unique, and links within the page lead somewhere."""
    void = {"meta", "br", "path", "use"}

    class Checker(HTMLParser):
        stack: list[str] = []  # noqa: RUF012
        ids: list[str] = []  # noqa: RUF012
        links: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.ids += [value for name, value in attrs if name == "id" and value]
            self.links += [value[1:] for name, value in attrs if name.endswith("href") and value]
            if tag not in void:
                self.stack.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.handle_starttag(tag, attrs)
            if tag not in void:
                self.stack.pop()

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert self.stack.pop() == tag

    checker = Checker()
    checker.feed(text)
    assert not checker.stack
    assert len(checker.ids) == len(set(checker.ids))
    assert set(checker.links) <= set(checker.ids)


def test_the_page_is_well_formed_with_unique_ids_and_marks_its_languages(text: str) -> None:
    check_page(text)
    assert '<h4 lang="zh-Hans">故宫位于 …</h4>' in text


def test_marks_say_which_answer_a_free_text_opens_with(text: str) -> None:
    cards = len(METHODS) * len(LANGUAGES) * 3
    assert len(re.findall(r'</q> <span class="mark new">', text)) == cards * len(EDITS)
    assert len(re.findall(r'</q> <span class="mark true">', text)) == cards


def test_only_a_text_that_opens_with_an_answer_says_it() -> None:
    assert tables.opens_with(" Chengdu, of course", "Chengdu")
    assert not tables.opens_with("not Chengdu", "Chengdu")


def test_every_number_of_the_transfer_matrix_stands_beside_its_interval_and_floor(text: str) -> None:
    matrix = text[text.index('aria-label="Transfer matrix"') : text.index("Facts of one kind apart")]
    whole = r"<b>\d\.\d\d</b>\s*<small>\d\.\d\d to \d\.\d\d</small>\s*<small class=\"floor\">floor \d\.\d\d</small>"
    assert len(re.findall(whole, matrix)) == len(METHODS) * len(EDITS) * len(LANGUAGES) * len(shown_in("headline"))


def test_a_missing_cell_is_named(reports: Path) -> None:
    (reports / "cells" / "memit-en.json").unlink()
    with pytest.raises(ValueError, match=r"memit-en\.json: not found; run `dvc repro`"):
        made(reports)


def test_a_file_of_another_grid_is_warned_of_and_not_read(reports: Path, caplog: pytest.LogCaptureFixture) -> None:
    (reports / "cells" / "rome-zh.json").write_text("not even JSON")
    with caplog.at_level(logging.WARNING, logger="xledit"):
        assert [(found.method, found.edit) for found in report.read_cells(reports / "cells")] == list(itertools.product(METHODS, EDITS))
    assert [record.getMessage() for record in caplog.records] == [
        "reports/cells/rome-zh.json: not in the grid of params.yaml, not read; delete it"
    ]


def test_metrics_are_few_and_plain(files: dict[str, bytes]) -> None:
    found = json.loads(files["metrics.json"])
    leaves = [value for method in found.values() for edit in method.values() for value in edit.values()]
    crossing = sum(edit in LANGUAGES for edit in EDITS)
    assert len(leaves) == len(METHODS) * (len(EDITS) * len(shown_in("dvc")) + crossing * len(shown_in("net_dvc"))) == 26
    assert all(isinstance(value, float) and round(value, 4) == value for value in leaves)
    assert found["memit"]["zh"]["transfer"] == 0.04
    assert set(found["memit"]["mixed"]) == set(shown_in("dvc"))


def test_plot_labels_are_unique_and_have_the_nulls(files: dict[str, bytes]) -> None:
    bars, points = json.loads(files["plots/transfer.json"]), json.loads(files["plots/cosines.json"])
    assert len({row["cell"] for row in bars}) == len(bars) == 12
    assert (bars[0]["efficacy"], bars[0]["floor_efficacy"]) == (0.93, 0.1)
    assert {"memit zh->en", "alphaedit mixed->zh"} <= {row["cell"] for row in bars}
    assert len({(row["layer"], row["object"]) for row in points}) == len(points)
    assert {"keys: same fact, zh-en", "keys: different facts, zh-en", "deltas: same fact reworded, en"} <= {row["object"] for row in points}


def test_what_is_not_defined_is_null_in_json_and_a_dash_on_the_page(reports: Path) -> None:
    nothing = Estimate(value=NAN, low=NAN, high=NAN)
    write_json(reports / "cells" / "memit-zh.json", cell(transfer=nothing))
    files = made(reports)
    assert json.loads(files["metrics.json"])["memit"]["zh"]["transfer"] is None
    text = files["index.html"].decode()
    assert '<span class="none" title="nothing was gained in the edited language, so there is nothing to transfer">—</span>' in text
    assert "the edit gains nothing in its own language, so there is nothing to transfer" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


@pytest.mark.parametrize(
    ("low", "value", "high", "expected"),
    [
        (-0.1, 0.1, 0.3, "not told from zero"),
        (0.0, 0.1, 0.3, "not told from zero"),
        (0.01, 0.1, 0.3, "crosses"),
        (0.7, 0.9, 1.1, "arrives whole"),
        (-0.3, -0.2, -0.1, "pushes away"),
        (NAN, NAN, NAN, "undefined"),
        (NAN, 0.4, NAN, "no interval"),
    ],
)
def test_a_verdict_claims_no_more_than_the_interval(low: float, value: float, high: float, expected: str) -> None:
    found = Measured(value, low, high)
    assert sentences.verdict(found) == expected
    said = " ".join(sentences.transfer([cell(transfer=Estimate(value=value, low=low, high=high))]))
    assert sentences.VERDICTS[sentences.verdict(found)] in said


def test_vectors_at_their_null_are_said_to_share_nothing() -> None:
    at_null = [msgspec.structs.replace(row, across={"zh-en": likeness(0.01)}) for row in vectors()]
    assert "In no layer is this more than two standard errors above the null" in sentences.vectors(at_null, "keys")[0]
    assert "1.9 null standard deviations above the null" in sentences.vectors(vectors(), "keys")[0]


def test_updates_are_told_beside_their_nulls() -> None:
    cosine, neurons, key_angle, value_angle, additivity = sentences.updates(updates("memit"), LANGUAGES)
    assert "0.055 in this run; with half of the facts 0.065 for the same facts and 0.015 for different ones" in cosine
    assert "closer than different ones in 4 of 4 layers" in cosine
    assert "Chance is 0.026; with half of the facts the languages overlap 10.4 times as much" in neurons
    assert "Random directions: 88." in key_angle
    assert "Random directions: 82." in value_angle
    assert "differs from the sum of the two no more than two halves of different facts in one language do" in additivity


def test_a_grid_of_one_language_alone_and_one_layer_is_reported(reports: Path) -> None:
    Path("params.yaml").write_text(PARAMS.replace("edits: [zh, en, mixed], methods: [memit, alphaedit]", "edits: [zh], methods: [memit]"))
    write_json(reports / "geometry" / "vectors.json", [msgspec.structs.replace(row, reworded={}) for row in vectors()[:2]])
    halves = {name: pair for name, pair in updates("memit")[0].pairs.items() if not name.startswith("run") and "words" not in name}
    write_json(reports / "geometry" / "memit.json", [msgspec.structs.replace(updates("memit")[0], pairs=halves)])
    text = made(reports)["index.html"].decode()
    assert "Edited in Chinese" in text
    assert "Edited in English" not in text


def test_the_names_of_compared_updates_are_those_of_the_stage() -> None:
    torch = pytest.importorskip("torch")
    from stages.editing.update_geometry import null_pairs
    from xledit.editing.artifacts import SavedVectors
    from xledit.editing.methods.memit import Memit
    from xledit.editing.tensors import LayerMemory, SecondMoment

    def some(num_facts: int) -> SavedVectors:
        keys, values, targets = torch.randn(3, num_facts, 12, dtype=torch.float64).unbind()
        return SavedVectors(tuple(map(str, range(num_facts))), {6: LayerMemory(keys, values, keys)}, {6: targets})

    solve = Memit(old_key_weight=1.0, regularisation=0.1).solve_unedited(SecondMoment(torch.eye(12, dtype=torch.float64), 12))
    assert solve is not None
    found = null_pairs({code: some(6) for code in LANGUAGES}, {code: some(3) for code in LANGUAGES}, 6, solve)
    assert set(found) == {name for name in updates("memit")[0].pairs if name.startswith("half")}


def test_the_headline_table_is_aligned_and_printed(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(reports)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "reports/index.html"
    assert lines[0].split()[:3] == ["method", "edit", "probe"]
    crossing = next(line for line in lines if line.startswith("memit      zh     en "))
    assert "0.14 (0.10)" in crossing
    assert crossing.endswith("0.04 [-0.02, 0.10]")
    assert crossing.index("0.04 [") == lines[0].index("net transfer")


def test_the_glossary_says_what_each_metric_means_in_its_row(text: str) -> None:
    shown = text[text.index('id="measures"') :]
    terms = re.findall(r"<dt>(?:<code>)?(.*?)(?:</code>)?</dt>", shown)
    assert terms == [*shown_in("every"), *glossary.others()]
    assert {row.meaning for row in METRICS.values()} <= {*glossary.measures().values(), *glossary.others().values()}
    assert glossary.others()["control (of net transfer)"] == METRICS["control"].meaning


def test_a_new_row_is_in_summary_glossary_figure_and_every_table_without_another_edit(
    reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Metric(
        name="half_said",
        kind="efficacy",
        function=lambda score, before: 1.0 if score.generated == before.generated else 0.5,
        meaning="A half where the answer is another one.",
        shown=get_args(Place),
        called={
            "figure": "half of it",
            "net_answer": "half of an answer",
            "net_headline": "net transfer, half",
            "net_dvc": "transfer_half",
        },
    )
    monkeypatch.setitem(METRICS, row.name, row)
    summary = summarised("zh", ["zh"])
    assert (summary.floor["zh"][row.name].value, summary.metrics["zh"][row.name].value) == (1, 0.625)
    assert all(row.name in metrics for group in summary.groups for metrics in group.metrics.values())
    assert row.name in summary.transfer["en"]

    for method, edit in itertools.product(METHODS, EDITS):
        write_json(reports / "cells" / f"{method}-{edit}.json", cell(method, edit))
    record = RunRecord(name="some", what="Some", commit="c" * 40, date="2026-01-31", params={})
    write_json(Path("results/some/run.json"), record)
    write_json(Path("results/some/cells/memit-zh.json"), cell())
    files = made(reports)
    text = files["index.html"].decode()
    assert f"<dt><code>{row.name}</code></dt><dd>{row.meaning}</dd>" in text
    assert text.count(f'<th scope="col">{row.name}</th>') == 2, "the transfer matrix, and facts of one label apart"
    assert text.count(f'<th scope="col">net transfer:<br>{row.name}</th>') == 2
    assert text.count(f'<th scope="row">{row.name}</th>') == text.count(f"net transfer of {row.name}</th>") == len(METHODS)
    assert text.count('<th scope="col">half said</th>') == 1, "methods side by side"
    assert "zh R / G / L / half_said</th>" in text
    assert "Net transfer of the half of an answer, over" in text
    assert "efficacy and exact match and half of it by edit" in text
    assert "half of it, 95 % interval" in files["transfer.svg"].decode()
    assert {row.name, "transfer_half"} <= json.loads(files["metrics.json"])["memit"]["zh"].keys()
    assert {row.name, f"floor_{row.name}"} <= json.loads(files["plots/transfer.json"])[0].keys()
    assert f"{row.name} (floor)" in capsys.readouterr().out
    heads = [readme.cells_table(reports / "cells")[0], readme.kinds_table(reports / "cells")[0], readme.groups_table(reports / "cells")[0]]
    assert all("half said" in head for head in [*heads, readme.best_table(Path("results/some"))[0]])
    assert "net transfer, half" in heads[0]


def test_numbers_have_a_real_minus_and_no_negative_zero() -> None:
    assert [filters.number(value) for value in (-0.5, -0.001, 0.125)] == ["−0.50", "0.00", "0.12"]
    assert "—" in filters.number(math.nan, why='a "reason"')


def test_inline_figures_take_the_colours_of_the_page_and_keep_labels_as_text() -> None:
    found = drawing.inline(figures.transfer([cell()]), "one", 'a "label" <b>')
    assert "#0072b2" not in found
    assert "var(--series-0)" in found
    assert 'aria-label="a &quot;label&quot; &lt;b&gt;"' in found
    assert "zh → en" in found


def test_undefined_estimates_survive_the_way_through_json(tmp_path: Path) -> None:
    write_json(tmp_path / "cell.json", cell(transfer=Estimate(value=NAN, low=NAN, high=NAN)))
    found = read_json(tmp_path / "cell.json", CellSummary)
    assert math.isnan(tables.measured(found.transfer["en"]["exact"]).value)


def test_the_report_starts_without_torch() -> None:
    check = "import stages.editing.report, tools.headline, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    root = Path(report.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
