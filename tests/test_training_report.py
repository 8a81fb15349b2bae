"""The page of the trained model: its numbers are those of its inputs, and where nothing was learned or asked it says so."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from stages.training import report as tranyu_report
from tests.conftest import ROOT
from tests.test_report import SCRIPT, check_page
from tools import readme
from xledit.interpret.results import Ablation, Depth, Importance, LanguageNeurons, LensDepth, Neurons, Pairs, Representations, Unification
from xledit.report.training import figures as training_figures
from xledit.report.training import interpret, tables
from xledit.report.training import page as training
from xledit.storage import write_json
from xledit.training.results import (
    CheckpointRecall,
    CorpusCounts,
    Fertility,
    LanguageTokens,
    Pretrained,
    Recall,
    StepCounts,
    Stretch,
    Wording,
)

NAN = float("nan")
PAPER = ROOT / "data/tranyu/paper_benchmarks.csv"


def step(name: str, documents: int, num_bytes: int | None = None, **dropped: int) -> StepCounts:
    return StepCounts(step=name, documents=documents, characters=num_bytes, bytes=num_bytes, dropped=dropped)


def counts(**dropped: int) -> tuple[StepCounts, ...]:
    left = 100 - sum(dropped.values())
    return step("source x", 100, 9000), step("quality", left, **dropped), step("kept", left, 5000)


def tokens(per_word: float, per_character: float, per_byte: float) -> LanguageTokens:
    """A language of which the reference makes half as many tokens."""
    ours = Fertility(per_word=per_word, per_character=per_character, per_byte=per_byte)
    reference = Fertility(per_word=per_word / 2, per_character=per_character / 2, per_byte=per_byte / 2)
    return LanguageTokens(documents=10, bytes=1000, tokens=round(1000 * per_byte), fertility=ours, reference=reference)


def recalled(language: str, told: str, alike: bool, of: int, /, null: float | None = 0.1, **said: int) -> list[Recall]:
    """Of ``of`` facts, how many are said in each wording."""
    wordings: list[Wording] = ["told", "known", "unseen"]
    return [
        Recall(language=language, told=told, wording=wording, names_alike=alike, num_facts=of, share=said[wording] / of, null=null)
        for wording in wordings
        if wording in said
    ]


CORPUS = CorpusCounts(languages={"zh": counts(short_lines=5), "en": counts(duplicates=10), "python": counts()})
TOKENS = {"zh": tokens(8.25, 0.75, 0.25), "en": tokens(1.75, 0.375, 0.375), "python": tokens(3.5, 0.5, 0.5)}
PRETRAINED = Pretrained(
    num_parameters=1_234_567,
    available={"zh": 1000, "python": 8000, "en": 1000},
    wanted={"zh": 2000, "python": 4000, "en": 4000},
    taken={"zh": 2000, "python": 4000, "en": 4000},
    losses=[
        Stretch(tokens=2000, loss=9.0, languages={"zh": 9.1, "en": 9.2, "python": 9.3}, skipped=0),
        Stretch(tokens=5000, loss=5.0, languages={"zh": 5.5, "en": None, "python": 4.5}, skipped=2),
        Stretch(tokens=10000, loss=3.0, languages={"zh": 2.5, "en": 4.25}, skipped=1),
    ],
)
# Chinese tells no facts of its own; told elsewhere, names alike, English knows them, Chinese does not; in other letters neither does
LAST = [
    *recalled("en", "everywhere", True, 20, told=20, known=19, unseen=12),
    *recalled("en", "everywhere", False, 20, told=19, known=17, unseen=8),
    *recalled("en", "en", True, 20, told=18, known=16, unseen=8),
    *recalled("en", "de", True, 30, null=0.05, known=24, unseen=0),
    *recalled("en", "ru", True, 10, null=0.25, known=6, unseen=0),
    *recalled("en", "ru", False, 20, known=1, unseen=0),
    *recalled("en", "nowhere", True, 20, known=3, unseen=0),
    *recalled("en", "nowhere", False, 20, known=1, unseen=0),
    *recalled("zh", "everywhere", True, 40, null=0.06, told=36, known=32, unseen=16),
    *recalled("zh", "en", True, 40, null=0.06, known=2, unseen=0),
    *recalled("zh", "en", False, 40, null=0.06, known=6, unseen=0),
    *recalled("zh", "nowhere", True, 50, null=0.06, known=3, unseen=0),
]
RECALL = [
    CheckpointRecall(number=1, tokens=2000, recall=[msgspec.structs.replace(each, share=0.0) for each in LAST]),
    CheckpointRecall(number=3, tokens=10000, recall=LAST),
]
PAIRS = Pairs(mean=0.5, low=0.25, high=0.75)
LIKE = (
    "means",
    "means_unrelated",
    "same",
    "different",
    "centred_same",
    "centred_different",
    "retrieval",
    "retrieval_within",
    "mexa",
    "cka",
    "cka_shuffled",
)
STATES = Representations(
    name="micro",
    languages=("zh", "en"),
    num_sentences=20,
    chance=0.05,
    chance_within=0.2,
    depths=[
        Depth(depth=depth, pooling=pooling, **dict.fromkeys(LIKE, PAIRS), language=0.9, language_shuffled=0.5)
        for depth in range(3)
        for pooling in ("last", "mean")
    ],
    unification=[
        Unification(
            depth=depth,
            names_alike=alike,
            num_facts=30 if alike else 20,
            same=PAIRS,
            same_value=PAIRS,
            different=PAIRS,
            reworded=PAIRS,
            score=Pairs(mean=0.7 - 0.2 * depth, low=0.1, high=0.8) if alike else Pairs(mean=None, low=None, high=None),
        )
        for alike in (True, False)
        for depth in range(3)
    ],
    num_prompts=10,
    lens=[LensDepth(depth=depth, asked=0.3, asked_null=0.1, others={"zh": 0.2}, others_null={"zh": 0.1}) for depth in range(3)],
)
NEURONS = Neurons(
    name="micro",
    languages=("zh", "en"),
    num_sentences=20,
    tokens_per_sentence={"zh": 9.5, "en": 8.0},
    loss={"zh": 2.5, "en": 2.0},
    importance=[
        Importance(layer=layer, component=component, language=code, width=8, raw=0.8, per_unit=0.1, per_nat=0.05, per_token=0.01)
        for layer in range(2)
        for component in ("mlp", "attention")
        for code in ("zh", "en")
    ],
    ablation=[Ablation(component=component, num_units=8, rank_correlation=0.9, ratio=1.1) for component in ("mlp", "attention")],
    num_neurons=16,
    specific=[
        LanguageNeurons(language=code, num_neurons={"0": 1}, rise={"zh": 0.4, "en": 0.1}, random_rise={"zh": 0.05, "en": 0.04})
        for code in ("zh", "en")
    ],
    overlap=PAIRS,
    overlap_halves=PAIRS,
    overlap_chance=0.03,
)
PARAMS = f"""
seed: 17
tranyu:
  world:
    people: {{persons: 80, names_alike: 0.5, relations: [country, "month{SCRIPT}"], values: 4, everywhere: 0.5, one_language: 0.3,
             tellings: 6, bare: 0.25, brackets: 0.0}}
  tokenizer: {{vocabulary: 8000}}
  reference: {{name: "other{SCRIPT}"}}
  mixture: {{type: temperature, temperature: 5.0}}
  architecture: {{hidden_size: 192}}
  pretrain: {{peak_lr: 2.0e-3}}
  run: {{name: micro}}
"""


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the stages before ``report`` leave it; the working directory is its parent."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    for name, value in {"corpus": CORPUS, "tokenizer": TOKENS, "pretrain": PRETRAINED, "recall": RECALL}.items():
        write_json(Path("reports") / f"{name}.json", value)
    for kind in ("trained", "reference"):
        write_json(Path("reports") / "representations" / f"{kind}.json", STATES)
        write_json(Path("reports") / "neurons" / f"{kind}.json", NEURONS)
    return Path("reports")


def made(reports: Path) -> dict[str, bytes]:
    tranyu_report.main(reports=reports, paper=PAPER)
    return {name: (reports / name).read_bytes() for name in ("index.html", "recall.svg", "metrics.json")}


def page(**changed: object) -> str:
    plain = {"name": "micro", "seed": 17, "reference": "other", "settings": {}, "corpus": CORPUS, "tokens": TOKENS}
    return training.render(training.TrainingRun(**plain | {"pretrained": PRETRAINED, "recall": RECALL} | changed))  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def text() -> str:
    """The page of these results."""
    return page()


def rows_of(text: str, table: str) -> dict[str, list[str]]:
    """Return the cells of a table by its row heads, as text."""
    part = text[text.index(f'aria-label="{table}"') :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    plain = [
        [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in re.split(r"</t[hd]>", row)[:-1]] for row in body.split("</tr>")[:-1]
    ]
    found: dict[str, list[str]] = {}
    for head, *cells in plain:
        found.setdefault(head, []).extend(cells)
    return found


def test_the_same_results_give_the_same_well_formed_page_that_loads_nothing(reports: Path) -> None:
    files = made(reports)
    assert made(reports) == files
    text = files["index.html"].decode()
    check_page(text)
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?\s*(?:https?:)?//|<script|@import", text, re.IGNORECASE)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert f"other{SCRIPT}" not in text
    assert "“other&lt;script&gt;" in text
    assert "hidden_size 192" in text
    assert "persons 80, names alike 0.5, relations country, month&lt;script&gt;" in text
    assert "everywhere 0.5, one language 0.3, tellings 6, bare 0.25</dd>" in text
    assert "facts of invented persons" in text


def test_the_corpus_is_told_by_language_and_filter() -> None:
    text = page(corpus=CorpusCounts(languages=CORPUS.languages | {"de": (step("source", 20), step("kept", 10, **{SCRIPT: 10}))}))
    assert SCRIPT not in text
    found = rows_of(text, "The corpus by language")
    assert list(found) == ["German de", "English en", "Chinese zh", "Python"]
    assert found["English en"] == ["100", "0", "10", "0", "90", "5,000", "375"]
    assert found["German de"] == ["20", "10", "0", "0", "10", "—", "—"]
    assert training.about_corpus(CORPUS).startswith("Of 300 documents in 2 natural languages and 1 of programming, 285 are kept")
    assert "duplicates dropped 10 (3%), short_lines dropped 5 (2%)." in training.about_corpus(CORPUS)
    assert "no filter dropped any" in training.about_corpus(CorpusCounts(languages={"en": counts()}))


def test_the_mixture_is_the_one_that_was_read(text: str) -> None:
    assert rows_of(text, "Mixture") == {
        "English en": ["1,000", "4,000", "4.0", "10.0 %", "40.0 %", "28.8 %"],
        "Chinese zh": ["1,000", "2,000", "2.0", "10.0 %", "20.0 %", "10.4 %"],
        "Python": ["8,000", "4,000", "0.5", "80.0 %", "40.0 %", "—"],
    }
    said = training.about_mixture(PRETRAINED)
    assert "moves 40% of the tokens" in said
    assert "Python, of which there is most, has 40.0% of what was read instead of 80.0%" in said
    assert "between 0.5 times (Python) and 4.0 times (English)" in said
    as_it_is = msgspec.structs.replace(PRETRAINED, taken={code: 2 * number for code, number in PRETRAINED.available.items()})
    assert "The mixture changes nothing" in training.about_mixture(as_it_is)


def test_a_language_that_the_mixture_leaves_out_has_no_tokens_read() -> None:
    without = msgspec.structs.replace(PRETRAINED, taken={"zh": 2000, "en": 4000})
    assert rows_of(page(pretrained=without), "Mixture")["Python"][1:3] == ["0", "0.0"]


def test_fertility_is_per_word_and_per_character_where_no_spaces_separate_words(text: str) -> None:
    assert rows_of(text, "Fertility") == {
        "English en": ["1.75", "0.88", "", "", "0.375", "0.188", "2.00"],
        "Chinese zh": ["", "", "0.75", "0.38", "0.250", "0.125", "2.00"],
        "Python": ["3.50", "1.75", "", "", "0.500", "0.250", "2.00"],
    }
    said = training.about_fertility(TOKENS)
    assert "for 2 of 2 natural languages: from 2.00 times as many" in said
    swapped = {code: msgspec.structs.replace(each, fertility=each.reference, reference=each.fertility) for code, each in TOKENS.items()}
    assert "for none of 2 natural languages: from 0.50 times" in training.about_fertility(swapped)


def test_the_last_loss_of_a_language_is_from_when_it_was_last_read(text: str) -> None:
    found = rows_of(text, "Loss by language")
    assert found["Python"] == ["9.30", "4.50", "3.246", "5,000"]  # 4.5 / ln 2 * 0.5
    assert found["Chinese zh"] == ["9.10", "2.50", "0.902", "10,000"]
    said = training.about_losses(PRETRAINED, TOKENS)
    assert "fell from 9.00 to 3.00 nats per token, and so it did in 3 of 3 languages" in said
    assert "Chinese ends lowest with 0.90 bits, Python highest with 3.25" in said
    assert "3 updates skipped" in text


def test_a_loss_that_is_not_finite_survives_json_and_is_a_dash(reports: Path) -> None:
    broken = Stretch(tokens=12000, loss=NAN, languages={"en": NAN}, skipped=4)
    write_json(reports / "pretrain.json", msgspec.structs.replace(PRETRAINED, losses=[*PRETRAINED.losses, broken]))
    files = made(reports)
    text = files["index.html"].decode()
    assert rows_of(text, "Loss by language")["English en"] == ["9.20", "—", "—", "12,000"]
    assert "The loss before the last checkpoint is not finite" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    found = json.loads(files["metrics.json"])["loss"]
    assert (found["all"], found["en"], found["zh"]) == (None, None, 2.5)


def test_a_loss_that_does_not_fall_is_said_to_teach_nothing() -> None:
    still = msgspec.structs.replace(PRETRAINED, losses=PRETRAINED.losses[:1])
    assert "has not fallen (9.00 nats per token at first, 9.00 at last): the model has learned nothing" in training.about_losses(
        still, TOKENS
    )


def test_recall_stands_beside_its_interval_its_null_and_number_of_facts(text: str) -> None:
    found = rows_of(text, "Recall by language")
    assert list(found) == ["English en", "Chinese zh"]
    assert found["English en"][:10] == [
        *(
            "the told sentence names alike",
            "1.00 0.84 to 1.00 guessing 0.10 20 facts",
            "0.90 0.70 to 0.97 guessing 0.10 20 facts",
            "—",
            "—",
        ),
        # told in German and in Russian: 24 + 6 of 40; guessing (30 * 0.05 + 10 * 0.25) / 40
        *("a known wording names alike", "0.95 0.76 to 0.99 guessing 0.10 20 facts", "0.80 0.58 to 0.92 guessing 0.10 20 facts"),
        *("0.75 0.60 to 0.86 guessing 0.10 40 facts", "0.15 0.05 to 0.36 20 facts"),
    ]
    assert found["English en"][::5] == [
        f"{wording} {names}"
        for names in ("names alike", "own letters")
        for wording in ("the told sentence", "a known wording", "an unseen wording")
    ]
    # no row of told sentences in own letters: Chinese has no such facts
    assert found["Chinese zh"][15:] == [
        *("a known wording own letters", "—", "—", "0.15 0.07 to 0.29 guessing 0.06 40 facts", "—"),
        *("an unseen wording own letters", "—", "—", "0.00 0.00 to 0.09 guessing 0.06 40 facts", "—"),
    ]
    mean = rows_of(text, "Recall")
    assert list(mean) == ["mean"]
    assert mean["mean"][5:10] == [
        *("a known wording names alike", "0.88 0.80 to 0.95 guessing 0.08 60 asked", "0.80 0.80 to 0.80 guessing 0.10 20 asked"),
        *("0.40 0.05 to 0.75 guessing 0.08 80 asked", "0.10 0.06 to 0.15 70 asked"),
    ]


def test_wilsons_interval_is_the_one_worked_out_by_hand() -> None:
    # 4 of 40: (4 + z²/2 ± z sqrt(4 * 36 / 40 + z²/4)) / (40 + z²) with z = 1.96
    share = tables.recalled(LAST, "nowhere", wording="known", language="en").share
    assert (share.value, share.low, share.high) == (0.1, pytest.approx(0.0396, abs=1e-4), pytest.approx(0.2305, abs=1e-4))


def test_pairs_are_told_by_rows_and_asked_by_columns(text: str) -> None:
    pairs = tables.pair_rows(LAST, "known", names_alike=True)
    assert {told: list(cells) for told, cells in pairs.items()} == {told: ["en", "zh"] for told in ("de", "en", "ru")}
    assert rows_of(text, "Recall by pair") == {
        "German de": ["0.80 0.05", "— —"],
        "English en": ["0.80 0.10", "0.05 0.06"],
        "Russian ru": ["0.60 0.25", "— —"],
    }
    assert text.count('<td class="crosses">0.80 <small>0.10') == 1
    own = tables.pair_rows(LAST, "known", names_alike=False)
    assert {told: {asked: cell.num_facts for asked, cell in cells.items()} for told, cells in own.items()} == {
        "en": {"en": 0, "zh": 40},
        "ru": {"en": 20, "zh": 0},
    }


def test_guessing_is_weighted_by_facts_within_a_language_and_not_between_languages() -> None:
    found = tables.recalled(LAST, "elsewhere", wording="known", names_alike=True, language="en")
    assert (found.share.value, found.num_facts, found.null) == (0.75, 40, pytest.approx(0.1))
    mean = tables.recalled(LAST, "elsewhere", wording="known", names_alike=True)
    assert (mean.share.value, mean.share.low, mean.share.high) == (pytest.approx(0.4), 0.05, 0.75)
    assert (mean.num_facts, mean.null) == (80, pytest.approx(0.08))
    both = tables.recalled(LAST, "elsewhere", wording="known", language="en")
    assert (both.share.value, both.num_facts, both.null) == (pytest.approx(31 / 60), 60, pytest.approx(0.1))
    unknown = tables.recalled([*LAST, *recalled("en", "vi", True, 40, null=None, known=0)], "elsewhere", wording="known", names_alike=True)
    assert math.isnan(unknown.null)
    assert unknown.share.high == pytest.approx(30 / 80)


def test_facts_cross_where_they_are_known_better_than_by_guessing() -> None:
    assert tables.above_guessing(LAST, "elsewhere", wording="known", names_alike=True) == (["en"], 2)
    assert tables.above_guessing(LAST, "elsewhere", wording="known", names_alike=False) == ([], 2)
    assert tables.above_guessing(LAST, "here", wording="known") == (["en"], 1)
    assert tables.above_guessing(LAST, "everywhere", wording="told") == (["en", "zh"], 2)
    assert tables.above_guessing(LAST, "elsewhere", wording="unseen") == ([], 2)
    assert training.crossing(LAST) == (
        "Of facts told in another language only, asked in a known wording, the model recalls in the mean of the languages 40% where "
        "names are spelt alike "
        "(guessing 8%: 32 points above it; clearly above in 1 of 2 languages) and 10% where letters differ "
        "(guessing 8%: 2 points above it; clearly above in none of 2 languages)."
    )


def test_guessing_is_what_both_kinds_of_names_give() -> None:
    # all 5 that are said among the 8 of 12, or of 32: 56 / 792 = 0.07, 56 / 201376 = 0.0003
    few = [*recalled("en", "de", True, 8, known=5), *recalled("en", "nowhere", True, 4, known=0)]
    assert tables.above_guessing(few, "elsewhere", wording="known", names_alike=True) == ([], 1)
    more = [*few, *recalled("en", "nowhere", False, 20, known=0)]
    assert tables.above_guessing(more, "elsewhere", wording="known", names_alike=True) == (["en"], 1)


def test_less_than_guessing_is_not_above_it() -> None:
    below = [*recalled("en", "de", True, 40, known=0), *recalled("en", "nowhere", True, 40, known=30)]
    assert tables.above_guessing(below, "elsewhere", wording="known", names_alike=True) == ([], 1)


def test_each_wording_has_its_sentence() -> None:
    told, known, unseen = training.about_recall(LAST)
    assert told == (
        "Asked in the very sentence that told the fact, the model recalls in the mean of the languages 94% of facts told in every language "
        "(guessing 8%; 2 of 2); 90% of facts told in this language only (guessing 10%; 1 of 1)."
    )
    assert "a known wording that did not tell the fact, the model recalls in the mean of the languages 85% of facts told in every" in known
    assert "; 40% of facts told in another language only, names alike (guessing 8%; 1 of 2); 10% of facts" in known
    assert known.endswith("own letters (guessing 8%; 0 of 2); 8% of facts told nowhere.")
    assert "0% of facts told in another language only, names alike (guessing 8%; 0 of 2)" in unseen


def test_what_does_not_cross_or_was_never_learned_is_told_apart() -> None:
    chinese = [each for each in LAST if each.language == "zh"]
    assert training.crossing(chinese).startswith("Nothing shows that a fact crosses: of facts told in another language only")
    assert "5% where names are spelt alike (guessing 6%: 1 point below it; clearly above in none of 1 language)" in training.crossing(
        chinese
    )
    assert training.crossing(RECALL[0].recall).startswith("No kind of fact is recalled clearly more often than guessing gives")
    by_heart = [msgspec.structs.replace(each, share=float(each.wording == "told")) for each in LAST]
    assert training.crossing(by_heart).startswith("Nothing shows that a fact crosses: ")
    assert "0% where letters differ (guessing 8%: 8 points below it; " in training.crossing(by_heart)
    alike = [each for each in LAST if each.names_alike]
    assert training.crossing(alike).startswith("Of facts")
    assert "where letters differ" not in training.crossing(alike)


def test_without_facts_told_nowhere_there_is_no_guessing() -> None:
    without = [msgspec.structs.replace(each, null=None) for each in LAST if each.told != "nowhere"]
    assert training.crossing(without).endswith("whether facts cross cannot be told.")
    assert "(" not in training.about_recall(without)[1]
    text = page(recall=[CheckpointRecall(number=1, tokens=10000, recall=without)])
    check_page(text)
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert rows_of(text, "Recall")["mean"][6] == "0.88 0.80 to 0.95 guessing — 60 asked"
    assert rows_of(text, "Recall by pair")["English en"] == ["0.80 —", "0.05 —"]


def test_where_one_relation_has_no_facts_told_nowhere_the_points_are_left_out() -> None:
    partly = [msgspec.structs.replace(each, null=None) if each.told == "de" else each for each in LAST]
    assert "40% where names are spelt alike (clearly above in 1 of 2 languages) and 10%" in training.crossing(partly)
    assert "names alike (1 of 2); 10% of facts" in training.about_recall(partly)[1]


def test_a_run_of_code_alone_has_a_page() -> None:
    text = page(recall=[CheckpointRecall(number=1, tokens=10000, recall=[])], tokens={"python": TOKENS["python"]})
    check_page(text)
    assert 'aria-label="Recall' not in text
    assert "No fact was asked." in text
    assert "invented persons" not in text
    assert "whether facts cross cannot be told" in text
    assert "There is no natural language" in text
    assert training.about_recall([]) == []


def test_the_figure_of_recall_has_a_line_for_each_kind_of_facts() -> None:
    svg = training_figures.recall(RECALL)
    labels = [f">{label}<" for _status, _alike, label in tables.KINDS]
    assert [svg.count(label) for label in labels] == [1] * 5
    assert len(set(training_figures.LOOKS)) == len(tables.KINDS)
    heights = [
        float(first) - float(last) for first, last in re.findall(r'd="M [\d.]+ ([\d.]+)\nL [\d.]+ ([\d.]+)\n"[^>]*stroke-width: 1.6', svg)
    ]
    # those of the table, from 0 at the first checkpoint
    assert [0.8 * height / heights[1] for height in heights] == pytest.approx([0.85, 0.8, 0.4, 0.1, 0.08])


def test_metrics_are_the_last_losses_and_what_is_recalled(reports: Path) -> None:
    found = json.loads(made(reports)["metrics.json"])
    of_model = {
        "best_retrieval_within_pattern": 0.5,
        "unification_names_alike": 0.7,
        "unification_own_letters": None,
        "neuron_overlap": 0.5,
        "neuron_overlap_halves": 0.5,
    }
    assert found.pop("analyses") == {"micro, last checkpoint": of_model, f"other{SCRIPT}": of_model}
    assert found.pop("benchmark") == {}
    assert found == {
        "loss": {"all": 3.0, "en": 4.25, "python": 4.5, "zh": 2.5},
        "recall": {
            "mean": {
                "alike": {
                    "everywhere": {"told": 0.95, "known": 0.875, "unseen": 0.5},
                    "here": {"told": 0.9, "known": 0.8, "unseen": 0.4},
                    "elsewhere": {"known": 0.4, "unseen": 0.0},
                    "nowhere": {"known": 0.105, "unseen": 0.0},
                },
                "own": {
                    "everywhere": {"told": 0.95, "known": 0.85, "unseen": 0.4},
                    "elsewhere": {"known": 0.1, "unseen": 0.0},
                    "nowhere": {"known": 0.05, "unseen": 0.0},
                },
            },
            "en": {
                "alike": {
                    "everywhere": {"told": 1.0, "known": 0.95, "unseen": 0.6},
                    "here": {"told": 0.9, "known": 0.8, "unseen": 0.4},
                    "elsewhere": {"known": 0.75, "unseen": 0.0},
                    "nowhere": {"known": 0.15, "unseen": 0.0},
                },
                "own": {
                    "everywhere": {"told": 0.95, "known": 0.85, "unseen": 0.4},
                    "elsewhere": {"known": 0.05, "unseen": 0.0},
                    "nowhere": {"known": 0.05, "unseen": 0.0},
                },
            },
            "zh": {
                "alike": {
                    "everywhere": {"told": 0.9, "known": 0.8, "unseen": 0.4},
                    "elsewhere": {"known": 0.05, "unseen": 0.0},
                    "nowhere": {"known": 0.06, "unseen": 0.0},
                },
                "own": {"elsewhere": {"known": 0.15, "unseen": 0.0}},
            },
        },
    }


@pytest.mark.parametrize("name", ["corpus", "tokenizer", "pretrain", "recall"])
def test_a_missing_file_is_named(reports: Path, name: str) -> None:
    (reports / f"{name}.json").unlink()
    with pytest.raises(ValueError, match=rf"{name}\.json: not found; run `dvc repro`"):
        tranyu_report.main(reports=reports, paper=PAPER)
    assert not (reports / "index.html").exists()


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="unknown language 'xx'"):
        page(tokens=TOKENS | {"xx": TOKENS["en"]})


def test_every_language_has_a_line_and_those_of_which_most_was_read_a_name() -> None:
    codes = list(training.NATURAL)
    many = Pretrained(
        num_parameters=1,
        available=dict.fromkeys(codes, 10),
        wanted={},
        taken={code: place + 1 for place, code in enumerate(codes)},
        losses=[Stretch(tokens=number, loss=1.0, languages=dict.fromkeys(codes, 1.0), skipped=0) for number in (10, 20)],
    )
    svg = training_figures.losses(many)
    named = [code for code in codes if f">{training.NATURAL[code].name}<" in svg]
    assert named == codes[-training_figures.NAMED :]
    assert svg.count(">others<") == 1


def test_tables_of_the_readme_are_those_of_the_page(reports: Path) -> None:
    assert readme.mixture_table(reports / "pretrain.json")[1:] == [
        ["English", "1,000", "4,000", "4.0", "10.0", "40.0", "28.8", "4.25"],
        ["Chinese", "1,000", "2,000", "2.0", "10.0", "20.0", "10.4", "2.50"],
        ["Python", "8,000", "4,000", "0.5", "80.0", "40.0", "", "4.50"],
    ]
    assert readme.fertility_table(reports / "tokenizer.json")[1:] == [
        ["en", "English", "1.75", "0.88"],
        ["zh", "Chinese", "0.75 per character", "0.38"],
    ]
    assert readme.recall_table(reports / "recall.json")[1:] == [
        ["mean", "94", "85", "45", "80", "40 (8)", "10 (8)", "8"],
        ["English", "98", "90", "50", "80", "75 (10)", "5 (10)", "10"],
        ["Chinese", "90", "80", "40", "", "5 (6)", "15 (6)", "6"],
    ]
    assert {"mixture", "fertility", "recall"} <= readme.TABLES.keys()


def test_the_report_starts_without_torch_and_the_libraries_of_the_corpus() -> None:
    heavy = ("torch", "transformers", "babel", "datatrove", "django")
    check = f"import stages.training.report, tools.readme, sys; sys.exit(any(name in sys.modules for name in {heavy}))"
    root = Path(tranyu_report.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0


def test_unification_is_said_at_its_largest_and_that_it_has_no_scale_where_it_has_none() -> None:
    said, nothing = interpret.about_unification(STATES)
    assert "differ by 0.00 at most): the model has nothing of these facts that languages could share" in nothing
    assert "spelt alike lies 0.70 of the way" in said
    assert "after layer 0" in said and "0.10 to 0.80 by pair of languages, 30 facts" in said
    model = interpret.Analysed(title="micro", states=STATES, neurons=NEURONS)
    numbers = interpret.metrics_tree([model])["micro"]
    assert isinstance(numbers, dict)
    assert (numbers["unification_names_alike"], numbers["unification_own_letters"]) == (0.7, None)
