"""Conversations are read from the common layouts, made of questions, read from folders in the hub's layout; what is none is named."""

import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from pyarrow import Table, parquet

from xledit.runs import named
from xledit.storage import write_bytes
from xledit.training.catalog import NATURAL
from xledit.training.conversations import (
    Conversation,
    Dataset,
    Fields,
    Jsonl,
    Preference,
    QuestionPairs,
    QuestionRows,
    Sides,
    Tally,
    Turn,
    Turns,
)
from xledit.training.questions import Question, Questions, Split
from xledit.training.tuning_params import DpoParams, SftParams

ROOT = Path(__file__).parents[1]
NAMES = {"zh": ["德国", "希腊", "中国"], "en": ["Germany", "Greece", "China"], "de": ["Deutschland", "Greece", "China"]}
ASKED = [
    Question(
        fact_id=f"{split}-{number}",
        relation="country",
        language=code,
        told="everywhere",
        names_alike=True,
        split=split,
        text=f"{code} {number}?",
        value=str(number % 3),
    )
    for split in get_args(Split)
    for code in NAMES
    for number in range(60)
]
WORLD = Questions(
    answers={code: {"country": {str(place): name for place, name in enumerate(names)}} for code, names in NAMES.items()},
    questions=tuple(ASKED),
)
NONE = Questions(answers={}, questions=())
USER, ASSISTANT = Turn("user", "Where?"), Turn("assistant", "There.")
OTHER = Turn("assistant", "Nowhere.")


def lines(path: Path, rows: list[Any]) -> str:
    write_bytes(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return str(path)


def read(path: Path, columns: Any, *rows: Any, **options: Any) -> tuple[list[Any], dict[str, int]]:
    """Return what is read of rows of JSON lines, and how many were dropped, by reason."""
    tally = Tally()
    found = list(Jsonl(path=lines(path / "rows.jsonl", list(rows)), columns=columns, **options).examples(NONE, 0, tally))
    return found, dict(sum(tally.dropped.values(), Counter()))


# layouts


@pytest.mark.parametrize(
    ("columns", "row", "turns"),
    [
        (Turns(), {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]}, [USER, ASSISTANT]),
        (
            Turns(column="conversations"),
            {
                "conversations": [
                    {"from": "system", "value": "Be brief.", "weight": None},
                    {"from": "human", "value": "Where?", "weight": None},
                    {"from": "gpt", "value": "There.", "weight": 1.0},
                ]
            },
            [Turn("system", "Be brief."), USER, ASSISTANT],
        ),
        (
            Turns(),
            {
                "messages": [
                    {"role": "system", "content": " "},
                    *[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}] * 2,
                ]
            },
            [USER, ASSISTANT, USER, ASSISTANT],
        ),
        (
            Fields(prompt=("instruction", "input"), answer="output"),
            {"instruction": "Where?", "input": "", "output": "There."},
            [USER, ASSISTANT],
        ),
        (
            Fields(prompt=("instruction", "input"), answer="output", system="system"),
            {"instruction": "Translate.", "input": "There.", "output": "Da.", "system": "Be brief."},
            [Turn("system", "Be brief."), Turn("user", "Translate.\nThere."), Turn("assistant", "Da.")],
        ),
        (Fields(prompt=("question",), answer="answer"), {"question": "Where?", "answer": "There."}, [USER, ASSISTANT]),
        (
            Fields(prompt=("inputs",), answer="targets", system="of"),
            {"inputs": "Where?", "targets": "There.", "of": None},
            [USER, ASSISTANT],
        ),
    ],
)
def test_the_common_layouts_of_conversations(tmp_path: Path, columns: Any, row: dict[str, Any], turns: list[Turn]) -> None:
    assert read(tmp_path, columns, row, language="en") == ([Conversation("en", tuple(turns))], {})


ASKS = {"role": "user", "content": "Where?"}
SAYS, SAYS_NOT = {"role": "assistant", "content": "There."}, {"role": "assistant", "content": "Nowhere."}


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        (Sides(), {"prompt": "Where?", "chosen": [ASKS, SAYS], "rejected": [ASKS, SAYS_NOT]}),
        (Sides(prompt="prompt"), {"prompt": "Where?", "chosen": [SAYS], "rejected": [SAYS_NOT]}),
        (Sides(prompt="prompt"), {"prompt": [ASKS], "chosen": "There.", "rejected": "Nowhere."}),
        (Sides(chosen="yes", rejected="no", prompt="question"), {"question": "Where?", "yes": "There.", "no": "Nowhere."}),
    ],
)
def test_the_common_layouts_of_preferences(tmp_path: Path, columns: Sides, row: dict[str, Any]) -> None:
    assert read(tmp_path, columns, row, language="en") == ([Preference("en", (USER,), ASSISTANT, OTHER)], {})


ALPACA = Fields(prompt=("instruction", "input"), answer="output")


@pytest.mark.parametrize(
    ("columns", "row", "reason", "message"),
    [
        (Turns(), {"text": "a", "id": 1}, "no column", "no column 'messages', only text, id"),
        (Turns(), ["a"], "no columns", "a row is an object with columns, not list"),
        (Turns(), {"messages": "a"}, "no turns", "messages holds str, not a list of turns"),
        (Turns(), {"messages": []}, "no turns", "messages holds list, not a list of turns"),
        (
            Turns(),
            {"messages": [{"role": "user"}]},
            "no text",
            "messages: turn 0 is no object with texts under role and content or from and value",
        ),
        (Turns(), {"messages": [{"role": "user", "content": ["a"]}]}, "no text", "messages: turn 0 is no object with texts"),
        (
            Turns(),
            {"messages": [{"role": "tool", "content": "a"}]},
            "unknown role",
            "messages: turn 0 is said by 'tool'; known: system, user",
        ),
        (Turns(), {"messages": [ASKS]}, "out of turn", "messages goes user; wanted: user, assistant"),
        (Turns(), {"messages": [SAYS, ASKS]}, "out of turn", "messages goes assistant, user"),
        (Turns(), {"messages": [ASKS, SAYS, SAYS]}, "out of turn", "messages goes user, assistant, assistant"),
        (Turns(), {"messages": [ASKS, SAYS | {"content": " \n"}]}, "empty answer", "messages: turn 1 has an empty answer"),
        (Turns(), {"messages": [ASKS | {"content": ""}, SAYS]}, "no prompt", "messages: turn 0, the user's, is empty"),
        (ALPACA, {"instruction": "a", "output": "b"}, "no column", "no column 'input', only instruction, output"),
        (ALPACA, {"instruction": "", "input": None, "output": "b"}, "no prompt", "nothing in instruction and input"),
        (ALPACA, {"instruction": "a", "input": "", "output": ""}, "empty answer", "output has an empty answer"),
        (ALPACA, {"instruction": "a", "input": "", "output": None}, "empty answer", "output has an empty answer"),
        (ALPACA, {"instruction": "a", "input": "", "output": 7}, "no text", "output holds int, not a text"),
        (
            Sides(),
            {"chosen": [ASKS, SAYS], "rejected": [ASKS, SAYS]},
            "equal sides",
            "chosen and rejected are equal, so nothing is preferred",
        ),
        (
            Sides(),
            {"chosen": [ASKS, SAYS], "rejected": [ASKS | {"content": "b"}, SAYS_NOT]},
            "other prompt",
            "chosen and rejected do not answer the same",
        ),
        (
            Sides(),
            {"chosen": [ASKS, SAYS], "rejected": [ASKS, SAYS | {"content": ""}]},
            "empty answer",
            "rejected: turn 1 has an empty answer",
        ),
        (Sides(), {"chosen": "There.", "rejected": "Nowhere."}, "out of turn", "chosen goes assistant; wanted: user, assistant"),
    ],
)
def test_a_row_that_is_none_is_named_or_left_out_and_counted(tmp_path: Path, columns: Any, row: Any, reason: str, message: str) -> None:
    good = {"messages": [ASKS, SAYS], "instruction": "a", "input": "", "output": "b", "chosen": [ASKS, SAYS], "rejected": [ASKS, SAYS_NOT]}
    with pytest.raises(ValueError, match=rf"rows\.jsonl: line 2: {re.escape(message)}.*; mend it, correct `columns`, or set skip_bad"):
        read(tmp_path, columns, good, row)
    found, dropped = read(tmp_path, columns, good, row, skip_bad=True)
    assert (len(found), dropped) == (1, {reason: 1})


# files


def test_a_folder_of_lines_is_read_in_order_and_only_what_is_wanted(tmp_path: Path) -> None:
    columns = Fields(prompt=("q",), answer="a")
    for name in ("b", "a"):
        rows = [{"q": f"{name}{number}", "a": "x", "code": code, "from": name} for number, code in enumerate(("eng", "deu", "tlh", "eng"))]
        lines(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "notes.txt").write_text("no rows")
    tally = Tally()
    source = Jsonl(
        path=str(tmp_path), columns=columns, language_column="code", only={"code": ("eng", "deu")}, without={"from": ("c",)}, limit=6
    )
    found = list(source.examples(NONE, 0, tally))
    assert [(row.turns[0].content, row.language) for row in found] == [
        ("a0", "eng"),
        ("a1", "deu"),
        ("a3", "eng"),
        ("b0", "eng"),
        ("b1", "deu"),
    ]
    assert tally.dropped == {(str(tmp_path), "tlh"): {"not wanted": 1}}
    assert not list(msgspec.structs.replace(source, without={"from": ("a", "b")}).examples(NONE, 0, tally))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"q": "a", "a": "b"}\nno json\n', r"in\.jsonl: line 2 is not JSON: .*; mend it"),
        (b'{"q": "\xff", "a": "b"}\n', r"in\.jsonl: line 1 is not JSON"),
        (None, r"in\.jsonl: no such file, and no folder with \*\.jsonl; correct path"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(Jsonl(path=str(tmp_path / "in.jsonl"), columns=Fields(prompt=("q",), answer="a")).examples(NONE, 0, Tally()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder; the datasets library keeps its copies elsewhere in it."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def hub_folder(folder: Path, rows: list[dict[str, Any]], split: str = "train") -> str:
    """Write a data set as the hub lays one out."""
    (folder / "data").mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_folder_in_the_hubs_layout_is_read_and_its_bad_rows_are_named(cache: Path, streaming: bool) -> None:
    rows = [{"messages": [ASKS, SAYS]}, {"messages": [ASKS, SAYS | {"content": ""}]}]
    source = Dataset(path=hub_folder(cache / "set", rows), columns=Turns(), language="en", streaming=streaming)
    with pytest.raises(ValueError, match=r"set, split train: row 1: messages: turn 1 has an empty answer; mend it"):
        list(source.examples(NONE, 0, Tally()))
    tally = Tally()
    assert list(msgspec.structs.replace(source, skip_bad=True).examples(NONE, 0, tally)) == [Conversation("en", (USER, ASSISTANT))]
    assert [row.dropped for row in tally.counts()] == [{"empty answer": 1}]
    with pytest.raises(ValueError, match=r"set, split dev, row 0: .*; mend it, or correct its row"):
        list(msgspec.structs.replace(source, split="dev").examples(NONE, 0, Tally()))


def test_code_and_pickles_in_a_folder_are_not_run(cache: Path) -> None:
    folder = cache / "set"
    source = Dataset(path=hub_folder(folder, [{"messages": [ASKS, SAYS]}]), columns=Turns())
    code = f"import pathlib\npathlib.Path({str(cache / 'run')!r}).touch()\n"
    (folder / "data" / "train.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(cache / "run").encode() + b"'\ntR.")
    (folder / "data" / "set.py").write_text(code)
    assert len(list(source.examples(NONE, 0, Tally()))) == 1
    (folder / "set.py").write_text(code)
    with pytest.raises(ValueError, match=r"scripts are no longer supported, but found set\.py"):
        list(source.examples(NONE, 0, Tally()))
    assert not (cache / "run").exists()


# the paper's rows

SHAREGPT = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]
# what each set's card says its columns are
PUBLISHED: dict[str, list[dict[str, Any]]] = {
    "teknium/OpenHermes-2.5": [
        {"conversations": SHAREGPT, "source": "airoboros2.2", "category": "orca"},
        {"conversations": SHAREGPT, "source": None, "category": None},
    ],
    "jondurbin/airoboros-3.2": [{"id": "a", "conversations": SHAREGPT, "category": "orca"}],
    "CohereForAI/aya_dataset": [
        {"inputs": "Where?", "targets": "There.", "language": "English", "language_code": "eng", "annotation_type": "re-annotations"},
        {"inputs": "Kupi?", "targets": "Apo.", "language": "Shona", "language_code": "sna", "annotation_type": "original-annotations"},
    ],
    "m-a-p/COIG-CQIA": [{"instruction": "Where?", "input": "", "output": "There.", "task_type": {"major": ["问答"]}, "domain": ["通用"]}],
    "hfl/ruozhiba_gpt4": [{"instruction": "Where?", "input": "", "output": "There."}],
    "hkust-nlp/dart-math-hard": [{"query": "Where?", "response": "There."}],
    "ise-uiuc/Magicoder-Evol-Instruct-110K": [{"instruction": "Where?", "response": "There."}],
    "HuggingFaceH4/ultrafeedback_binarized": [
        {
            "prompt": "Where?",
            "chosen": [{"content": "Where?", "role": "user"}, {"content": "There.", "role": "assistant"}],
            "rejected": [{"content": "Where?", "role": "user"}, {"content": "Nowhere.", "role": "assistant"}],
            "score_chosen": 8.0,
        },
        {"prompt": "?", "chosen": [ASKS, SAYS], "rejected": [ASKS, SAYS], "score_chosen": 8.0},
    ],
}


def papers_rows(key: str, kind: Any) -> tuple[Any, ...]:
    return msgspec.convert(named.read("8b").params[key], kind).rows


@pytest.mark.parametrize(("key", "kind"), [("tranyu.sft", SftParams), ("tranyu.dpo", DpoParams)])
def test_the_papers_rows_read_folders_in_the_hubs_layout(cache: Path, monkeypatch: pytest.MonkeyPatch, key: str, kind: Any) -> None:
    monkeypatch.chdir(ROOT)
    rows, tally = papers_rows(key, kind), Tally()
    assert {row.path for row in rows} == {name for name in PUBLISHED if ("ultrafeedback" in name) == (key == "tranyu.dpo")}
    for row in rows:
        folder = cache / row.path
        if row.config:  # a folder of lines for each, named in the card
            lines(folder / row.config / "all.jsonl", PUBLISHED[row.path])
            card = f"---\nconfigs:\n- config_name: {row.config}\n  data_files:\n  - split: train\n    path: {row.config}/*\n---\n"
            (folder / "README.md").write_text(card, encoding="utf-8")
        else:
            hub_folder(folder, PUBLISHED[row.path], row.split)
        local = msgspec.structs.replace(row, path=str(folder))
        found = list(local.examples(NONE, 0, tally))
        wanted = Preference("en", (USER,), ASSISTANT, OTHER) if kind is DpoParams else Conversation(found[0].language, (USER, ASSISTANT))
        assert found == [wanted], row.path
    dropped = {Path(source).name: dict(reasons) for (source, _language), reasons in tally.dropped.items()}
    left_out = {"OpenHermes-2.5": {"not wanted": 1}, "aya_dataset": {"not wanted": 1}}
    assert dropped == ({"ultrafeedback_binarized": {"equal sides": 1}} if kind is DpoParams else left_out)


def test_the_papers_rows_are_of_the_papers_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    aya = next(row for row in papers_rows("tranyu.sft", SftParams) if "aya" in row.path)
    assert {row.iso3 for row in NATURAL.values()} <= set(aya.only["language_code"])


def test_the_8b_size_tunes_as_the_paper_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """arXiv 2408.06273, section 4 and appendix A."""
    monkeypatch.chdir(ROOT)
    params = named.read("8b").params
    sft, dpo = msgspec.convert(params["tranyu.sft"], SftParams), msgspec.convert(params["tranyu.dpo"], DpoParams)
    assert (sft.epochs, sft.peak_lr, sft.warmup, sft.batch, sft.max_length, sft.neftune_noise_alpha) == (2, 2e-5, 0.1, 320, 4096, 5.0)
    assert (dpo.epochs, dpo.peak_lr, dpo.warmup, dpo.batch, dpo.max_length, dpo.beta) == (1, 5e-7, 0.1, 320, 4096, 0.01)
    devices = named.read("8b").device
    assert devices is not None and sft.batch % (sft.micro_batch * devices.number) == dpo.batch % (dpo.micro_batch * devices.number) == 0


# questions


def test_questions_of_those_to_tune_with_are_answered_in_their_language() -> None:
    found = list(QuestionRows().examples(WORLD, 7, Tally()))
    asked = [question for question in WORLD.questions if question.split == "train"]
    assert [row.turns[0].content for row in found] == [question.text for question in asked]
    # with the space that it follows in a text, where there is one
    said = {"zh": "{}", "en": " {}", "de": " {}"}
    for row, question in zip(found, asked, strict=True):
        assert row.turns[1:] == (Turn("assistant", said[question.language].format(WORLD.answer(question))),)
    some = list(QuestionRows(per_language=20).examples(WORLD, 7, Tally()))
    assert Counter(row.language for row in some) == dict.fromkeys(NAMES, 20)
    assert set(some) < set(found)
    assert some == list(QuestionRows(per_language=20).examples(WORLD, 7, Tally()))
    assert some != list(QuestionRows(per_language=20).examples(WORLD, 8, Tally()))


def test_what_is_rejected_is_wrong_or_in_another_language_as_often_as_wanted() -> None:
    def kinds(share: float, seed: int = 7) -> Counter[str]:
        found = Counter[str]()
        for row in QuestionPairs(other_language=share).examples(WORLD, seed, Tally()):
            question = next(
                question for question in WORLD.questions if question.text == row.prompt[0].content and question.split == "train"
            )
            chosen, rejected = row.chosen.content.strip(), row.rejected.content.strip()
            assert chosen == WORLD.answer(question) != rejected
            is_wrong = rejected in WORLD.others(question)
            assert is_wrong or rejected in {WORLD.answer(question, code) for code in NAMES}
            assert row.rejected.content.startswith(" ") == rejected.isascii(), "each spelt as its own language spells it"
            found["wrong" if is_wrong else "other"] += 1
        return found

    assert kinds(0.0) == {"wrong": 180}
    # Greece and China are the same word in two languages, and Chinese for none
    assert kinds(1.0) == {"other": 180}
    assert abs(kinds(0.5)["other"] - 90) < 25
    one, same, other = ([row.rejected.content for row in QuestionPairs().examples(WORLD, seed, Tally())] for seed in (7, 7, 8))
    assert one == same != other


def test_a_value_that_all_languages_spell_alike_is_rejected_for_being_wrong() -> None:
    names = {"country": {"0": "Germany", "1": "Greece", "2": "China"}}
    alike = msgspec.structs.replace(WORLD, answers={"en": names, "de": names, "zh": names})
    rejected = [row.rejected.content for row in QuestionPairs(other_language=1.0).examples(alike, 7, Tally())]
    assert {text.strip() for text in rejected} == {"Germany", "Greece", "China"}
