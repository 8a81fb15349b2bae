"""The joint experiment: a cell does what its parts do alone, its rows are what definitions say, and what predicts what is found again."""

import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from ruamel.yaml import YAML
from scipy.stats import spearmanr

from stages.training import crossing_report
from tools import readme
from xledit.crossing.results import CellCrossing, CheckpointCrossing, EditCrossing, Grid, Names, SeedCrossing, Share
from xledit.crossing.settings import CrossingParams
from xledit.crossing.train import of_others, tokens_per_name
from xledit.interpret.results import Depth, LanguageNeurons, Pairs, Unification
from xledit.report.crossing import findings
from xledit.report.crossing.figure import crossing
from xledit.storage import read_json, write_json
from xledit.training.bpe import train
from xledit.training.people import People
from xledit.training.results import Recall

ROOT = Path(__file__).parents[1]
SECTION: dict[str, Any] = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))["tranyu"]["crossing"]
TINY = SECTION | {
    "seeds": [1, 2],
    "people": SECTION["people"] | {"persons": 48, "tellings": 3, "values": 4, "sentences": str(ROOT / "data/tranyu/people")},
    "tokenizer": {"vocabulary": 600, "characters": 20_000, "characters_apart": True},
    "architecture": SECTION["architecture"] | {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "context": 64},
    "tokens": 6_000,
    "pretrain": SECTION["pretrain"] | {"batch_tokens": 512, "late_batch_tokens": 512, "checkpoints": 2, "warmup_steps": 2},
    "edit": SECTION["edit"]
    | {
        "facts": 4,
        "methods": {"memit": {"old_key_weight": 1.0, "regularisation": 0.001}, "lora": {"steps": 2}},
        "vectors": SECTION["edit"]["vectors"] | {"steps": 2},
        "old_keys": 300,
    },
    "probes_per_group": 3,
    "sentences": 8,
    "neuron_sentences": 4,
}


def params(**changes: object) -> CrossingParams:
    return msgspec.convert(TINY | changes, CrossingParams)


# settings


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"seeds": [1, 1]}, "seeds: .* each once"),
        ({"people": TINY["people"] | {"languages": ["zh", "ru"]}}, "the balance is of English and one other language"),
        ({"edit": TINY["edit"] | {"methods": {"memit": {"old_key_wieght": 1.0}}}}, "methods.memit: .*old_key_wieght"),
        ({"edit": TINY["edit"] | {"methods": {"nothing": {}}}}, "nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_their_key(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match=complaint):
        params(**changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"names": ["whole", "half"]}, "Invalid enum value 'half'"),
        ({"english": [1.5]}, "Expected `float` <= 1"),
        ({"everywhere": [0.5, 0.5]}, "everywhere: .* each once"),
        ({"names": []}, "names: .* at least one"),
    ],
)
def test_a_grid_says_which_level_is_wrong(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match=complaint):
        msgspec.convert({"everywhere": [0.5], "english": [0.5], "names": ["whole"]} | changes, Grid)


def test_the_world_of_a_cell_tells_as_many_facts_whatever_share_of_them_in_both() -> None:
    for everywhere in (0.3, 0.6):
        world = params().world(everywhere, "whole")
        assert (world.everywhere, world.everywhere + world.one_language) == (everywhere, pytest.approx(0.9))
    with pytest.raises(ValueError, match=r"everywhere: 0.95 is more than tranyu.crossing.told, 0.9"):
        params().world(0.95, "whole")


def test_persons_are_named_as_the_cell_says() -> None:
    """Whole names are one token; in pieces they are several, because the tokenizer has read of other persons; own letters differ."""
    some = params(tokenizer=SECTION["tokenizer"], people=TINY["people"] | {"tellings": 12})
    tokens: dict[str, dict[str, float]] = {}
    for names in get_args(Names):
        world = People(some.world(0.5, names), 1)
        read = of_others(world) if names == "pieces" else {code: [row["text"] for row in world.documents(code)] for code in ("zh", "en")}
        for person in world.persons:
            assert (person.spelt("zh") == person.spelt("en")) == (names != "own")
            assert names != "pieces" or not any(person.spelt("en") in line for lines in read.values() for line in lines)
        tokens[names] = tokens_per_name(train({code: iter(lines) for code, lines in read.items()}, some.tokenizer), world)
    assert tokens["whole"] == {"zh": 1, "en": 1}
    assert tokens["pieces"]["zh"] == tokens["pieces"]["en"] > 1.5
    assert tokens["own"]["en"] == 1 < tokens["own"]["zh"]


# a cell


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> CellCrossing:
    return run_cell(tmp_path_factory.mktemp("cell"))[0]


def run_cell(folder: Path) -> tuple[CellCrossing, bytes]:
    """Run the stage as DVC does, in a folder with params.yaml."""
    tree = {"seed": 0, "runtime": {"device": "cpu", "matmul_precision": "highest", "threads": 2}, "tranyu": {"crossing": TINY}}
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(tree, file)
    command = [sys.executable, "-m", "stages.training.crossing", "--everywhere", "0.5", "--english", "0.5", "--names", "pieces"]
    command += ["--out", "cell.json"]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    content = (folder / "cell.json").read_bytes()
    return msgspec.json.decode(content, type=CellCrossing), content


@pytest.mark.slow
def test_a_cell_measures_every_seed_at_every_checkpoint(cell: CellCrossing) -> None:
    assert (cell.names, [seed.seed for seed in cell.seeds]) == ("pieces", [1, 2])
    for seed in cell.seeds:
        tokens = [checkpoint.tokens for checkpoint in seed.checkpoints]
        assert len(tokens) == 2 and tokens == sorted(set(tokens))
        for checkpoint in seed.checkpoints:
            asked = [(row.method, row.edit_language, row.probe_language) for row in checkpoint.edits]
            assert sorted(asked) == sorted(itertools.product(("memit", "lora"), ("zh", "en"), ("zh", "en")))
            assert all(row.num_facts == 4 for row in checkpoint.edits)
            assert {row.depth for row in checkpoint.depths} == set(range(4))
            assert {row.status for row in checkpoint.recall} == {"everywhere", "here", "elsewhere", "nowhere"}
            assert {own.language for own in checkpoint.neurons} == {"zh", "en"}
    one, other = cell.seeds
    assert one.checkpoints != other.checkpoints


@pytest.mark.slow
def test_a_floor_is_of_the_unedited_model_whoever_edits(cell: CellCrossing) -> None:
    for checkpoint in (checkpoint for seed in cell.seeds for checkpoint in seed.checkpoints):
        floors: dict[tuple, set[float]] = {}
        for row in checkpoint.edits:
            for name, share in row.shares.items():
                floors.setdefault((row.probe_language, name), set()).add(share.floor)
        assert all(len(values) == 1 for values in floors.values())


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes(cell: CellCrossing, tmp_path: Path) -> None:
    again, content = run_cell(tmp_path)
    assert again == cell
    assert b"tmp" not in content


@pytest.mark.slow
def test_a_real_cell_goes_through_to_the_figure(cell: CellCrossing) -> None:
    found = findings.rows([cell])
    assert len(found) == 2 * 2
    assert findings.sentences(found)
    assert crossing(found).startswith("<?xml")


# rows, by hand


def pairs(value: float) -> Pairs:
    return Pairs(mean=value, low=value, high=value)


def edit(own: str, asked: str, **shares: tuple[float, float]) -> EditCrossing:
    some = {name: Share(value=value, floor=floor) for name, (value, floor) in shares.items()}
    return EditCrossing(method="memit", edit_language=own, probe_language=asked, num_facts=10, shares=some)


def checkpoint(tokens: int = 100, score: float = 0.5, elsewhere: float = 0.4) -> CheckpointCrossing:
    def recall(code: str, told: str, share: float, facts: int = 10, wording: str = "known") -> Recall:
        return Recall(language=code, told=told, wording=wording, names_alike=True, num_facts=facts, share=share, null=None)  # type: ignore[arg-type]

    both = {"exact": (0.9, 0.1), "efficacy": (1.0, 0.2), "control": (0.3, 0.2)}
    crossed = {"exact": (0.3, 0.1), "efficacy": (0.6, 0.2), "control": (0.4, 0.2)}
    like = {name: pairs(0.1) for name in Depth.__struct_fields__ if name not in ("depth", "pooling", "language", "language_shuffled")}
    return CheckpointCrossing(
        tokens=tokens,
        recall=(
            recall("zh", "everywhere", 0.9),
            recall("en", "everywhere", 0.7, facts=30),
            recall("zh", "en", elsewhere),
            recall("en", "zh", elsewhere),
            recall("zh", "zh", 1.0),
            recall("zh", "en", 0.0, wording="unseen"),
            recall("zh", "nowhere", 0.1),
            recall("en", "nowhere", 0.2),
        ),
        edits=tuple(
            edit(own, asked, **(both if own == asked else crossed))
            for own in ("zh", "en")
            for asked in ("zh", "en")
        ),
        unification=tuple(
            Unification(
                depth=depth, names_alike=True, num_facts=9, same=pairs(1), same_value=pairs(1), different=pairs(0), reworded=pairs(1),
                score=pairs(score + depth),
            )
            for depth in range(4)
        ),
        depths=tuple(
            Depth(depth=depth, pooling="last", **like | {"cka": pairs(0.5 + depth / 10)}, language=1.0, language_shuffled=0.5)
            for depth in range(4)
        ),
        neurons=tuple(
            LanguageNeurons(language=code, num_neurons={}, rise={"zh": 0.5, "en": 0.3}, random_rise={"zh": 0.1, "en": 0.2})
            for code in ("zh", "en")
        ),
    )  # fmt: skip


def model(seed: int, *checkpoints: CheckpointCrossing) -> SeedCrossing:
    return SeedCrossing(seed=seed, num_parameters=1, tokens_per_name={"zh": 3, "en": 1}, checkpoints=checkpoints)


def test_a_row_is_what_its_definitions_say() -> None:
    cell = CellCrossing(everywhere=0.3, english=0.9, names="own", seeds=(model(7, checkpoint()),))
    (row,) = findings.rows([cell])
    assert (row.model, row.place, row.tokens, row.tokens_per_name) == ((0.3, 0.9, "own", 7), 0, 100, 2)
    assert row.known == pytest.approx((0.9 * 10 + 0.7 * 30) / 40)
    assert row.facts == pytest.approx(0.4 - 0.15)
    memit = row.edits["memit"]
    assert memit.stored == pytest.approx(0.9)
    assert memit.gain == pytest.approx(0.8)
    assert memit.reach == pytest.approx(0.4)
    assert memit.control == pytest.approx(0.2)
    assert memit.crossing == pytest.approx(0.2)
    assert memit.net_transfer == pytest.approx(0.2 / 0.8)
    assert memit.said == pytest.approx(0.2)
    assert row.unification == pytest.approx(0.5 + 1.5), "the mean of the depths between the layers"
    assert row.cka == pytest.approx(0.65 - 0.1)
    assert row.neurons == pytest.approx((0.4 + 0.1) / 2)


def test_edits_that_gained_next_to_nothing_have_no_net_transfer() -> None:
    nothing = tuple(
        edit(own, asked, exact=(0.1, 0.1), efficacy=(0.29, 0.2), control=(0.2, 0.2))
        for own, asked in itertools.product(("zh", "en"), ("zh", "en"))
    )
    one = msgspec.structs.replace(checkpoint(), edits=nothing)
    cell = CellCrossing(everywhere=0.3, english=0.9, names="own", seeds=(model(7, one),))
    (row,) = findings.rows([cell])
    assert row.edits["memit"].crossing == pytest.approx(0.09)
    assert math.isnan(row.edits["memit"].net_transfer)


# predictions


def grid() -> list[CellCrossing]:
    """Models whose unification at the first checkpoint orders how far facts cross at the last; cells come in no order."""
    draw = np.random.default_rng(0)
    cells = []
    for names, everywhere in itertools.product(("own", "whole"), (0.6, 0.3)):
        seeds = []
        for number in range(6):
            first, last = sorted(draw.random(2))
            early, late = checkpoint(100, score=float(first), elsewhere=0.2), checkpoint(200, score=float(last), elsewhere=float(first))
            seeds.append(model(number, early, late))
        cells.append(CellCrossing(everywhere=everywhere, english=0.5, names=names, seeds=tuple(seeds)))
    return cells


def test_what_predicts_is_found_and_what_does_not_is_not() -> None:
    found = findings.findings(findings.rows(grid())).predictions
    assert set(found) == {"all", "whole", "own"}
    for kind, models in (("all", 24), ("own", 12)):
        by_place = {(row.measure, row.target, row.tokens): row for row in found[kind]}
        early = by_place["unification", "facts", 100]
        assert (early.correlation.value, early.num_models) == (1.0, models)
        assert math.isnan(by_place["retrieval", "facts", 100].correlation.value or 0), "the same in all models"
        late = by_place["unification", "facts", 200].correlation
        assert late.value is not None and late.low is not None and late.high is not None and late.low < late.value < min(1, late.high)


def test_a_rank_correlation_is_scipys_and_its_interval_covers() -> None:
    """Of many samples of a normal pair with a known rank correlation about 95 % of the intervals hold it."""
    draw = np.random.default_rng(3)
    sample = np.round(draw.random((30, 2)), 1)
    ranked: Any = spearmanr(*sample.T)
    assert findings.correlation(sample).value == pytest.approx(ranked.statistic, abs=1e-4)
    assert math.isnan(findings.correlation(sample[:4]).value or 0)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)
    intervals = [findings.correlation(draw.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 12)) for _sample in range(1000)]
    assert 0.92 < np.mean([(one.low or 0) <= truth <= (one.high or 0) for one in intervals]) < 0.98


def test_sentences_and_figure_are_of_the_last_checkpoints_and_name_every_level() -> None:
    found = findings.rows(grid())
    text = " ".join(findings.sentences(found))
    mean = np.mean([row.facts for row in found if row.place == 1 and row.names == "whole"])
    assert f"alike, one token {mean:.2f} [" in text
    assert "0.3: facts" in text and "0.6: facts" in text and "memit" in text and "24 models" in text
    svg = crossing(found)
    assert svg == crossing(found)
    titles = ("names alike, one token", "names in own letters", "30% told in both, 50% English", "60% told in both, 50% English")
    for words in ("facts cross", "edits cross (memit)", "unification", *titles):
        assert words in svg


def test_levels_are_compared_where_nothing_else_differs() -> None:
    wide = CellCrossing(everywhere=0.6, english=0.9, names="whole", seeds=grid()[2].seeds)
    found = findings.rows([*grid(), wide])
    whole = findings.of_kind(found, "whole")
    by_balance = findings.alike_but_for(whole, lambda row: row.english, lambda row: row.everywhere)
    assert {level: {row.everywhere for row in rows} for level, rows in by_balance.items()} == {0.5: {0.6}, 0.9: {0.6}}
    by_share = findings.alike_but_for(whole, lambda row: row.everywhere, lambda row: row.english)
    assert {level: {row.english for row in rows} for level, rows in by_share.items()} == {0.3: {0.5}, 0.6: {0.5}}
    text = findings.sentences(found)
    assert sum(line.startswith("By English's share of the tokens") for line in text) == 1, "one kind of names has two balances"


def test_the_report_is_of_the_cells_that_the_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, cell in enumerate(grid()):
        write_json(tmp_path / f"cells/{number}.json", cell)
    for names, models in ((["whole"], 12), (["pieces"], 0)):
        wanted = {"everywhere": [0.3, 0.6], "english": [0.5], "names": names}
        settings = {"tranyu": {"crossing_grid": wanted | {"everywhere": [0.3]}, "crossing_balance": wanted | {"everywhere": [0.6]}}}
        with (tmp_path / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(settings, file)
        if not models:
            with pytest.raises(ValueError, match=r"cells: no cell of tranyu\.crossing_grid or crossing_balance"):
                crossing_report.main(Path("cells"), Path("reports"))
            continue
        crossing_report.main(Path("cells"), Path("reports"))
        written = read_json(Path("reports/rows.json"), list[findings.Row])
        assert {row.names for row in written} == {*names} and len(written) == 2 * models
        assert read_json(Path("reports/findings.json"), findings.Findings).ends[0].num_models == 6
        assert Path("reports/crossing.svg").read_text(encoding="utf-8") == crossing(written)


def test_the_readmes_tables_are_the_findings(tmp_path: Path) -> None:
    found = findings.findings(findings.rows(grid()))
    write_json(tmp_path / "findings.json", found)
    table = readme.crossing_table(tmp_path / "findings.json")
    kinds = ("alike, one token", "in own letters")
    assert [row[:3] for row in table[1:]] == [[kind, share, "50%"] for kind in kinds for share in ("30%", "60%")]
    assert table[1][table[0].index("facts cross")] == findings.said(found.ends[0].facts)
    assert table[1][table[0].index("memit: stored")] == "90%"
    rows = readme.predictions_table(tmp_path / "findings.json")
    assert rows[1][:2] == ["unification", "facts"] and {len(row) for row in rows} == {len(rows[0])}
    assert {"crossing", "predictions"} <= readme.TABLES.keys()
