"""The page of the trained model: its numbers are those of its inputs, and where nothing was learned or asked it says so."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from stages.training import report as tranyu_report
from tests.test_report import SCRIPT, check_page
from tools import readme
from xledit.interpret.results import Ablation, Depth, Importance, LanguageNeurons, LensDepth, Neurons, Pairs, Representations
from xledit.report.training import figures as training_figures
from xledit.report.training import page as training
from xledit.report.training import tables
from xledit.storage import write_json
from xledit.training.results import (
    CheckpointRecall,
    CorpusCounts,
    Fertility,
    LanguageTokens,
    Pretrained,
    Recall,
    Status,
    StepCounts,
    Stretch,
)

NAN = float("nan")


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


def recalled(language: str, status: Status, of: int, seen: int, unseen: int = 0) -> list[Recall]:
    return [
        Recall(language=language, status=status, seen=kind, num_facts=of, share=number / of, num_unlike=of, share_unlike=number / of)
        for kind, number in ((True, seen), (False, unseen))
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
# Chinese has no facts of its own; facts stated elsewhere are known in English, not in Chinese
LAST = [
    *recalled("en", "everywhere", 40, 36, 20),
    *recalled("en", "here", 20, 16, 8),
    *recalled("en", "elsewhere", 40, 30),
    *recalled("en", "nowhere", 40, 4),
    *recalled("zh", "everywhere", 40, 32, 16),
    *recalled("zh", "elsewhere", 40, 2),
    *recalled("zh", "nowhere", 40, 2),
]
RECALL = [
    CheckpointRecall(number=1, tokens=2000, recall=[msgspec.structs.replace(each, share=0.0, share_unlike=0.0) for each in LAST]),
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
  world: {{relations: {{city: 80}}, everywhere: 0.6, one_language: 0.3, variants: 4, apart: [zh, en]}}
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
    tranyu_report.main(reports=reports)
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
    assert "relations city 80, everywhere 0.6" in text


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


def test_recall_stands_beside_its_interval_and_number_of_facts(text: str) -> None:
    found = rows_of(text, "Recall")
    assert list(found) == ["mean", "English en", "Chinese zh"]
    # Wilson's interval of 4 in 40, worked out by hand: (4 + z²/2 ± z sqrt(4 * 36 / 40 + z²/4)) / (40 + z²) with z = 1.96
    assert found["English en"][:5] == ["seen", "0.90 0.77 to 0.96 40 facts", "0.80 0.58 to 0.92 20 facts", "0.75 0.60 to 0.86 40 facts", "0.10 0.04 to 0.23 40 facts"]  # fmt: skip  # noqa: E501
    assert found["English en"][5:7] == ["not seen", "0.50 0.35 to 0.65 40 facts"]
    assert found["mean"][:3] == ["seen", "0.85 0.80 to 0.90 80 asked", "0.80 0.80 to 0.80 20 asked"]
    assert found["Chinese zh"][2] == "—"


def test_facts_cross_where_they_are_known_better_than_by_guessing() -> None:
    assert tables.above_guessing(LAST, "elsewhere", seen=True) == (["en"], 2)
    assert tables.above_guessing(LAST, "here", seen=True) == (["en"], 1)
    assert tables.above_guessing(LAST, "elsewhere", seen=False) == ([], 2)
    assert training.crossing(LAST) == (
        "Facts stated in another language only, and spelt otherwise there, are recalled clearly more often than guessing gives in "
        "1 of 2 languages, English (40% are recalled in the mean of the languages, of facts stated nowhere 8%)."
    )
    seen, unseen = training.about_recall(LAST)
    assert "85% of facts stated in every language (2 of 2), 80% of facts stated in this language only (1 of 1)" in seen
    assert "0% of facts stated in another language only (0 of 2), 0% of facts stated nowhere." in unseen


def test_what_does_not_cross_or_was_never_learned_is_told_apart() -> None:
    chinese = [each for each in LAST if each.language == "zh"]
    assert training.crossing(chinese).startswith("Nothing shows that a fact crosses: ")
    assert training.crossing(RECALL[0].recall).startswith("No kind of fact is recalled clearly more often than guessing gives")
    by_spelling = [
        msgspec.structs.replace(each, num_unlike=20, share_unlike=0.1 if each.status == "elsewhere" else each.share) for each in LAST
    ]
    assert training.crossing(by_spelling).startswith("Nothing shows that a fact crosses: ")
    assert "(10% are recalled" in training.crossing(by_spelling)
    without = [each for each in LAST if each.status != "nowhere"]
    assert training.crossing(without).endswith("whether facts cross cannot be told.")
    assert "(" not in training.about_recall(without)[0]


def test_a_run_of_code_alone_has_a_page() -> None:
    text = page(recall=[CheckpointRecall(number=1, tokens=10000, recall=[])], tokens={"python": TOKENS["python"]})
    check_page(text)
    assert rows_of(text, "Recall") == {"mean": ["seen", *"————", "not seen", *"————"]}
    assert "whether facts cross cannot be told" in text
    assert "There is no natural language" in text


def test_metrics_are_the_last_losses_and_what_is_recalled(reports: Path) -> None:
    found = json.loads(made(reports)["metrics.json"])
    of_model = {"best_retrieval_within_pattern": 0.5, "neuron_overlap": 0.5, "neuron_overlap_halves": 0.5}
    assert found.pop("analyses") == {"micro, last checkpoint": of_model, f"other{SCRIPT}": of_model}
    assert found == {
        "loss": {"all": 3.0, "en": 4.25, "python": 4.5, "zh": 2.5},
        "recall": {
            "en": {
                "everywhere": {"seen": 0.9, "unseen": 0.5},
                "here": {"seen": 0.8, "unseen": 0.4},
                "elsewhere": {"seen": 0.75, "unseen": 0.0},
                "nowhere": {"seen": 0.1, "unseen": 0.0},
            },
            "mean": {
                "everywhere": {"seen": 0.85, "unseen": 0.45},
                "here": {"seen": 0.8, "unseen": 0.4},
                "elsewhere": {"seen": 0.4, "unseen": 0.0},
                "nowhere": {"seen": 0.075, "unseen": 0.0},
            },
            "zh": {
                "everywhere": {"seen": 0.8, "unseen": 0.4},
                "elsewhere": {"seen": 0.05, "unseen": 0.0},
                "nowhere": {"seen": 0.05, "unseen": 0.0},
            },
        },
    }


@pytest.mark.parametrize("name", ["corpus", "tokenizer", "pretrain", "recall"])
def test_a_missing_file_is_named(reports: Path, name: str) -> None:
    (reports / f"{name}.json").unlink()
    with pytest.raises(ValueError, match=rf"{name}\.json: not found; run `dvc repro`"):
        tranyu_report.main(reports=reports)
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
    found = readme.recall_table(reports / "recall.json")
    assert found[1] == ["mean [lowest, highest]", "seen", "85 [80, 90]", "80 [80, 80]", "40 [5, 75]", "8 [5, 10]"]
    assert found[5] == ["Chinese", "seen", "80 [65, 90] of 40", "", "5 [1, 17] of 40", "5 [1, 17] of 40"]
    assert {"mixture", "fertility", "recall"} <= readme.TABLES.keys()


def test_the_report_starts_without_torch_and_the_libraries_of_the_corpus() -> None:
    heavy = ("torch", "transformers", "babel", "datatrove", "django")
    check = f"import stages.training.report, tools.readme, sys; sys.exit(any(name in sys.modules for name in {heavy}))"
    root = Path(tranyu_report.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
