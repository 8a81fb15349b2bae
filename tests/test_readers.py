"""The field's data sets are read as published: a few invented rows in each layout, and what is wrong with rows and files."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.editing.prepare import READERS
from xledit.datasets import bizsre, bmike, counterfact, fact_records, mzsre, zsre
from xledit.datasets.wordings import NO_TRUTH
from xledit.records import Audit, FactRecords
from xledit.storage import write_json

Read = Callable[[Path, Sequence[str]], tuple[list[FactRecords], Audit]]
Rows = dict[str, list[dict[str, dict]]]
NAMES = {
    "en": ("Ruritania", "Elbonia", "Freedonia"),
    "zh": ("鲁里坦尼亚", "埃尔伯尼亚", "弗里多尼亚"),
    "ja": ("ルリタニア", "エルボニア", "フリードニア"),
    "cz": ("Ruritánie", "Elbonie", "Freedonie"),
}
# prompt, paraphrase, new and true answer, a question about something else and its answer, one that follows and its answer
TEXTS = {
    "en": (
        *("Who rules {}?", "Who is the ruler of {}?", "King {}", "Queen {}"),
        *("nq question: who built bridge {}", "Mason {}", "Where was the ruler of {} born?", "Town {}"),
    ),
    "zh": ("谁统治{}？", "{}的统治者是谁？", "国王{}", "女王{}", "谁造了第{}座桥", "石匠{}", "{}的统治者生于何处？", "城{}"),
    "ja": (
        *("{}を治めるのは誰ですか？", "{}の支配者は誰ですか？", "王{}", "女王{}"),
        *("第{}橋を造ったのは誰か", "石工{}", "{}の支配者はどこで生まれましたか？", "町{}"),
    ),
    "cz": (
        *("Kdo vládne zemi {}?", "Kdo je vládcem země {}?", "král {}", "královna {}"),
        *("kdo postavil most {}", "zedník {}", "Kde se narodil vládce země {}?", "město {}"),
    ),
}


def question(code: str, number: int) -> dict[str, object]:
    """The columns that all of ZsRE's descendants have."""
    src, rephrase, alt, _old, loc, loc_ans, *_port = TEXTS[code]
    name = NAMES[code][number]
    return {
        "subject": name,
        "src": src.format(name),
        "rephrase": rephrase.format(name),
        "alt": alt.format(number),
        "loc": loc.format(number),
        "loc_ans": loc_ans.format(number),
    }


def with_portability(code: str, number: int) -> dict[str, object]:
    asked, answer = TEXTS[code][-2].format(NAMES[code][number]), TEXTS[code][-1].format(number)
    return question(code, number) | {"portability": {"New Question": asked, "New Answer": answer}}


def with_case_id(code: str, number: int) -> dict[str, object]:
    asked, answer = TEXTS[code][-2].format(NAMES[code][number]), TEXTS[code][-1].format(number)
    return question(code, number) | {"case_id": 10 + number, "port": asked, "port_ans": answer}


def with_old(code: str, number: int) -> dict[str, object]:
    return with_case_id(code, number) | {"old": TEXTS[code][3].format(number)}


# reader, columns, the files of a folder with their languages
SETS: dict[str, tuple[Read, Callable[[str, int], dict], dict[str, tuple[str, ...]]]] = {
    "bizsre": (bizsre.read, with_portability, {"bizsre_test.json": ("en", "zh")}),
    "mzsre": (
        mzsre.read,
        with_portability,
        {"mzsre_test_duplicate_enzh.json": ("en", "zh"), "mzsre_test_duplicate_encz.json": ("en", "cz")},
    ),
    "bmike-zsre": (bmike.read, with_case_id, {"zsre_test_en.json": ("en", "cz"), "zsre_test_zh.json": ("en", "zh")}),
    "bmike-counterfact": (bmike.read, with_old, {"counterfact_test_zh.json": ("en", "zh"), "counterfact_test_ja.json": ("en", "ja")}),
    "bmike-wfd": (bmike.read, with_old, {"wfd_test_en.json": ("en", "cz"), "wfd_test_zh.json": ("en", "zh")}),
}


class Folder:
    """A data set's folder, rewritten from its rows before each reading."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._read, columns, files = SETS[name]
        self.rows: Rows = {file: [{code: columns(code, number) for code in codes} for number in range(3)] for file, codes in files.items()}

    def change(self, code: str, number: int, **changes: object) -> None:
        """Change a language's row in each file that has it."""
        for rows in self.rows.values():
            if code in rows[number]:
                rows[number][code] |= changes

    def read(self, *languages: str, path: Path | None = None) -> tuple[list[FactRecords], Audit]:
        for file, rows in self.rows.items():
            (self.path / file).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        return self._read(path or self.path, languages)


@pytest.fixture(params=SETS)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Folder:
    return Folder(tmp_path, request.param)


def named(tmp_path: Path, name: str) -> Folder:
    return Folder(tmp_path, name)


def test_parallel_questions_are_one_fact_in_each_language(folder: Folder) -> None:
    facts, audit = folder.read("zh", "en")
    assert [(fact.requests["zh"].subject, fact.requests["en"].subject) for fact in facts] == list(
        zip(NAMES["zh"], NAMES["en"], strict=True)
    )
    assert [fact.requests["en"].prompt for fact in facts] == [f"Who rules {name}?" for name in NAMES["en"]]
    assert [fact.requests["zh"].target_new for fact in facts] == ["国王0", "国王1", "国王2"]
    assert all(set(fact.requests) == set(fact.rewordings) == set(fact.probes) == {"zh", "en"} for fact in facts)
    assert (audit.num_read, audit.num_selected, audit.dropped) == (3, 3, {})


def test_parallel_questions_give_probes_of_four_kinds(folder: Folder) -> None:
    fact = folder.read("en", "zh")[0][1]
    truth = fact.requests["zh"].target_true
    assert [(probe.kind, probe.prompt, probe.target_new, probe.target_true) for probe in fact.probes["zh"]] == [
        ("efficacy", "谁统治埃尔伯尼亚？", "国王1", truth),
        ("paraphrase", "埃尔伯尼亚的统治者是谁？", "国王1", truth),
        ("locality", "谁造了第1座桥", "国王1", "石匠1"),
        ("portability", "埃尔伯尼亚的统治者生于何处？", "城1", NO_TRUTH),
    ]


@pytest.mark.parametrize(
    ("code", "changes", "reason"),
    [
        ("zh", {"subject": "别国"}, "subject not in prompt (zh)"),
        ("zh", {"subject": " "}, "empty subject (zh)"),
        ("en", {"src": None}, "subject not in prompt (en)"),
        ("en", {"alt": ""}, "empty target (en)"),
        ("zh", {"alt": None}, "empty target (zh)"),
    ],
)
def test_a_row_that_cannot_be_an_edit_drops_the_fact_with_the_reason(
    folder: Folder, code: str, changes: dict[str, object], reason: str
) -> None:
    dropped = folder.read("en", "zh")[0][1].fact_id
    folder.change(code, 1, **changes)
    facts, audit = folder.read("en", "zh")
    assert audit.dropped == {dropped: reason} and len(facts) == 2
    assert (audit.num_read, audit.num_selected) == (3, 2)


def test_a_row_without_a_language_drops_the_fact_in_that_language_only(folder: Folder) -> None:
    for rows in folder.rows.values():
        rows[2].pop("zh", None)
    assert list(folder.read("en", "zh")[1].dropped.values()) == ["no zh"]
    assert folder.read("en", path=folder.path / next(iter(folder.rows)))[1].dropped == {}


def test_subjects_are_found_in_any_case(folder: Folder) -> None:
    folder.change("en", 0, subject="ruritania")
    request = folder.read("en", "zh")[0][0].requests["en"]
    assert (request.subject, request.subject_span) == ("Ruritania", (10, 19))


def test_a_blank_question_or_one_with_the_new_target_as_answer_is_left_out_and_counted(folder: Folder) -> None:
    folder.change("zh", 0, loc_ans="")
    folder.change("zh", 1, loc_ans="国王1 ")
    folder.change("en", 2, rephrase=None)
    facts, audit = folder.read("en", "zh")
    assert [sum(probe.kind == "locality" for probe in fact.probes["zh"]) for fact in facts] == [0, 0, 1]
    assert sum(probe.kind == "paraphrase" for probe in facts[2].probes["en"]) == 0 and "en" not in facts[2].rewordings
    assert audit.defects["locality_left_out"] == {"en": 0, "zh": 2} and audit.defects["empty_paraphrase"] == {"en": 1, "zh": 0}


def test_a_paraphrase_is_a_rewording_only_with_its_subject_and_other_words(folder: Folder) -> None:
    folder.change("en", 0, rephrase="Who rules Ruritania?")
    folder.change("en", 1, rephrase="Who rules there?")
    facts, audit = folder.read("en", "zh")
    assert ["en" in fact.rewordings for fact in facts] == [False, False, True]
    assert [probe.prompt for probe in facts[1].probes["en"] if probe.kind == "paraphrase"] == ["Who rules there?"]
    assert audit.defects["paraphrase_equals_prompt"]["en"] == audit.defects["subject_not_in_paraphrase"]["en"] == 1


@pytest.mark.parametrize(("name", "truth", "missing"), [("bizsre", NO_TRUTH, 3), ("bmike-zsre", NO_TRUTH, 3), ("bmike-wfd", "女王0", 0)])
def test_the_true_answer_is_read_where_there_is_one_and_else_its_lack_is_counted(
    tmp_path: Path, name: str, truth: str, missing: int
) -> None:
    facts, audit = named(tmp_path, name).read("zh")
    assert facts[0].requests["zh"].target_true == truth
    assert audit.defects["truth_not_given"] == {"zh": missing}


@pytest.mark.parametrize(("old", "reason"), [(None, "no true answer (zh)"), ("国王0", "target equals truth (zh)")])
def test_a_fact_without_or_with_a_wrong_truth_is_dropped(tmp_path: Path, old: str | None, reason: str) -> None:
    wfd = named(tmp_path, "bmike-wfd")
    wfd.change("zh", 0, old=old)
    assert wfd.read("zh")[1].dropped == {"bmike-wfd-10": reason}


def test_files_of_three_languages_are_joined_by_case_id_in_any_order(tmp_path: Path) -> None:
    part = named(tmp_path, "bmike-counterfact")
    part.rows["counterfact_test_ja.json"].reverse()
    facts, audit = part.read("en", "zh", "ja")
    assert [fact.requests["ja"].subject for fact in facts] == list(NAMES["ja"]) and audit.dropped == {}
    assert [fact.fact_id for fact in facts] == ["bmike-counterfact-10", "bmike-counterfact-11", "bmike-counterfact-12"]
    del part.rows["counterfact_test_ja.json"][0]
    assert part.read("en", "zh", "ja")[1].dropped == {"bmike-counterfact-12": "no ja"}


def test_files_that_differ_in_english_are_not_of_one_fact(tmp_path: Path) -> None:
    pairs = named(tmp_path, "mzsre")
    del pairs.rows["mzsre_test_duplicate_encz.json"][0]
    facts, audit = pairs.read("zh", "cs")
    assert not facts and set(audit.dropped.values()) == {"the files differ in English", "no cs"}


def test_a_repeated_case_id_is_a_fact_of_its_own(tmp_path: Path) -> None:
    part = named(tmp_path, "bmike-zsre")
    for code in ("en", "zh", "cz"):
        part.change(code, 2, case_id=10)
    assert [fact.fact_id for fact in part.read("en", "zh")[0]] == ["bmike-zsre-10", "bmike-zsre-11", "bmike-zsre-10-row-2"]


@pytest.mark.parametrize("code", ["cs", "cz"])
def test_a_language_is_known_by_the_datas_code_and_by_the_usual_one(tmp_path: Path, code: str) -> None:
    facts = named(tmp_path, "mzsre").read(code, "en")[0]
    assert [fact.requests[code].subject for fact in facts] == list(NAMES["cz"]) and facts[0].requests[code].language == code


def test_english_alone_is_read_from_a_file_that_has_it(folder: Folder) -> None:
    if "counterfact_test_zh.json" in folder.rows:
        folder.rows["counterfact_test_en.json"] = folder.rows["counterfact_test_zh.json"]
    assert [fact.requests["en"].subject for fact in folder.read("en")[0]] == list(NAMES["en"])


def test_a_language_without_a_file_is_an_error_with_the_files_there_are(folder: Folder) -> None:
    with pytest.raises(ValueError, match="'th'"):
        folder.read("en", "th")
    with pytest.raises(ValueError, match=f"{folder.path / 'elsewhere'}: no one file .*found: no such file; the files are those of"):
        folder.read("zh", path=folder.path / "elsewhere")


def test_a_language_that_a_file_does_not_have_is_an_error_with_those_it_has(folder: Folder) -> None:
    file = next(name for name, rows in folder.rows.items() if "zh" in rows[0])
    with pytest.raises(ValueError, match=f"{file}: no language 'th'; it has: en, zh;"):
        folder.read("th", path=folder.path / file)


@pytest.mark.parametrize("content", ['[{"en": "中国"}]'.encode("gbk"), b'[{"en": ', b'{"en": {}}', b"[1]"])
def test_an_unreadable_file_is_an_error_with_its_name_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    for read in (bizsre.read, mzsre.read, bmike.read, counterfact.read, zsre.read):
        with pytest.raises(ValueError, match=r"rows\.json: .*; the files? (is|are) "):
            read(path, ["en"])


def test_a_missing_column_is_an_error_with_its_name_and_row(folder: Folder) -> None:
    file = next(name for name, rows in folder.rows.items() if "zh" in rows[0])
    del folder.rows[file][2]["zh"]["loc_ans"]
    with pytest.raises(ValueError, match=rf"{file}: .*`loc_ans` - at `\$\[2\]"):
        folder.read("zh")


def zsre_row(number: int, **changes: object) -> dict[str, object]:
    more = {"pred": "Duke", "answers": [f"Queen {number}", f"Her Majesty {number}"], "cond": "Queen >> King || Who?"}
    return question("en", number) | more | changes


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def test_zsre_writes_the_alternative_over_the_first_answer(tmp_path: Path) -> None:
    facts, audit = zsre.read(write(tmp_path / "zsre_mend_eval.json", [zsre_row(number) for number in range(3)]), ["en"])
    assert [fact.fact_id for fact in facts] == ["zsre-0", "zsre-1", "zsre-2"] and audit.dropped == {}
    assert [(fact.requests["en"].target_new, fact.requests["en"].target_true) for fact in facts[:2]] == [
        ("King 0", "Queen 0"),
        ("King 1", "Queen 1"),
    ]
    assert [(probe.kind, probe.prompt, probe.target_true) for probe in facts[1].probes["en"]] == [
        ("efficacy", "Who rules Elbonia?", "Queen 1"),
        ("paraphrase", "Who is the ruler of Elbonia?", "Queen 1"),
        ("locality", "nq question: who built bridge 1", "Mason 1"),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"alt": ""}, "empty target (en)"),
        ({"answers": []}, "no true answer (en)"),
        ({"alt": "her majesty 1"}, "target equals truth (en)"),
        ({"subject": "Sylvania"}, "subject not in prompt (en)"),
    ],
)
def test_zsre_rows_that_cannot_be_edits_are_dropped_with_the_reason(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    audit = zsre.read(write(tmp_path / "rows.json", [zsre_row(0), zsre_row(1, **changes)]), ["en"])[1]
    assert audit.dropped == {"zsre-1": reason} and audit.num_selected == 1


def test_zsre_without_its_answers_is_an_error_with_the_row(tmp_path: Path) -> None:
    rows = [zsre_row(0), question("en", 1)]
    with pytest.raises(ValueError, match=r"rows\.json: .*`answers` - at `\$\[1\]"):
        zsre.read(write(tmp_path / "rows.json", rows), ["en"])


def counterfact_row(number: int, **changes: object) -> dict[str, object]:
    """A row as published; ``changes`` go into the edit."""
    name = NAMES["en"][number]
    edit = {
        "prompt": "The ruler of {} is",
        "relation_id": "P6",
        "target_new": {"str": f"King {number}", "id": "Q1"},
        "target_true": {"str": f"Queen {number}", "id": "Q2"},
        "subject": name,
    }
    return {
        "case_id": 40 + number,
        "pararel_idx": 7,
        "requested_rewrite": edit | changes,
        "paraphrase_prompts": [f"It rained. In {name.lower()} reigns", "There reigns"],
        "neighborhood_prompts": ["The ruler of Sylvania is", "Over Grandia reigns"],
        "attribute_prompts": ["The ruler of Syldavia is"],
        "generation_prompts": [f"{name} is known for"],
    }


def test_counterfact_subjects_stand_where_the_slot_was(tmp_path: Path) -> None:
    rows = [counterfact_row(0), counterfact_row(1, prompt="Elbonia, or {}, {{old}}, is ruled by")]
    facts, audit = counterfact.read(write(tmp_path / "counterfact.json", rows), ["en"])
    assert [fact.requests["en"].prompt for fact in facts] == ["The ruler of Ruritania is", "Elbonia, or Elbonia, {old}, is ruled by"]
    assert [fact.requests["en"].subject_span for fact in facts] == [(13, 22), (12, 19)]
    assert [fact.fact_id for fact in facts] == ["counterfact-40", "counterfact-41"] and audit.dropped == {}
    assert facts[0].rewordings["en"].subject == "ruritania"


def test_counterfact_neighbours_share_the_true_answer(tmp_path: Path) -> None:
    fact = counterfact.read(write(tmp_path / "counterfact.json", [counterfact_row(2)]), ["en"])[0][0]
    assert [(probe.kind, probe.prompt, probe.target_new, probe.target_true) for probe in fact.probes["en"]] == [
        ("efficacy", "The ruler of Freedonia is", "King 2", "Queen 2"),
        ("paraphrase", "It rained. In freedonia reigns", "King 2", "Queen 2"),
        ("paraphrase", "There reigns", "King 2", "Queen 2"),
        ("locality", "The ruler of Sylvania is", "King 2", "Queen 2"),
        ("locality", "Over Grandia reigns", "King 2", "Queen 2"),
    ]


@pytest.mark.parametrize("prompt", ["The ruler is", "{} and {}", "{0} is", "{subject} is", "} {} is", "{} { is"])
def test_counterfact_prompts_without_exactly_one_slot_are_dropped(tmp_path: Path, prompt: str) -> None:
    rows = [counterfact_row(0), counterfact_row(1, prompt=prompt)]
    assert counterfact.read(write(tmp_path / "rows.json", rows), ["en"])[1].dropped == {"counterfact-41": "subject not in prompt (en)"}


def test_counterfact_without_a_target_is_an_error_with_the_row(tmp_path: Path) -> None:
    rows = [counterfact_row(0), counterfact_row(1, target_true={"id": "Q2"})]
    with pytest.raises(ValueError, match=r"rows\.json: .*`str` - at `\$\[1\]\.requested_rewrite\.target_true"):
        counterfact.read(write(tmp_path / "rows.json", rows), ["en"])


@pytest.mark.parametrize("read", [counterfact.read, zsre.read])
def test_sets_in_english_only_say_so(tmp_path: Path, read: Read) -> None:
    with pytest.raises(ValueError, match="no language 'zh'; it has: en"):
        read(tmp_path, ["en", "zh"])
    with pytest.raises(ValueError, match=f"{tmp_path}: not read .*; the file is"):
        read(tmp_path, ["en"])


texts = st.text(st.sampled_from("ab {}王国?"), max_size=5) | st.none()
columns = st.fixed_dictionaries(dict.fromkeys((*question("en", 0), "old"), texts))


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries({"en": columns, "zh": columns}), min_size=1, max_size=4))
def test_whatever_the_texts_each_row_is_read_whole_or_dropped_with_a_reason(rows: list[dict]) -> None:
    with tempfile.TemporaryDirectory() as made:
        facts, audit = bmike.read(write(Path(made) / "any_test_zh.json", rows), ("en", "zh"))
    assert len(facts) + len(audit.dropped) == audit.num_read == len(rows)
    for fact in facts:
        row = rows[int(fact.fact_id.removeprefix("bmike-any-"))]
        for code in ("en", "zh"):
            assert fact.requests[code].subject.casefold() == row[code]["subject"].casefold()
            assert fact.requests[code].prompt == row[code]["src"] and fact.probes[code][0].kind == "efficacy"


# facts that already are records


def test_records_come_back_as_they_were_written(tmp_path: Path) -> None:
    facts, _ = named(tmp_path, "bizsre").read("zh", "en")
    write_json(tmp_path / "facts.json", facts)
    again, audit = fact_records.read(tmp_path / "facts.json", ("zh",))
    assert again == facts
    assert (audit.num_read, audit.num_selected, audit.dropped) == (3, 3, {})


def test_a_record_without_a_language_is_named_and_so_is_a_file_of_something_else(tmp_path: Path) -> None:
    facts, _ = named(tmp_path, "bizsre").read("zh", "en")
    write_json(tmp_path / "facts.json", facts)
    with pytest.raises(ValueError, match=rf"facts\.json: fact {facts[0].fact_id} has no request or probes in ja; it has: en, zh"):
        fact_records.read(tmp_path / "facts.json", ("zh", "ja"))
    (tmp_path / "facts.json").write_text('[{"fact_id": "a"}]', encoding="utf-8")
    with pytest.raises(ValueError, match=r"facts\.json: .*requests.*the file is a list of FactRecords"):
        fact_records.read(tmp_path / "facts.json", ("zh",))


def questions_at(folder: Path, name: str) -> tuple[Path, tuple[str, ...]]:
    """The files of one of ``SETS``, and languages that they have."""
    named(folder, name).read("zh", "en")
    return folder, ("zh", "en")


def records_at(folder: Path) -> tuple[Path, tuple[str, ...]]:
    write_json(folder / "facts.json", named(folder, "bizsre").read("zh", "en")[0])
    return folder / "facts.json", ("zh", "en")


# reader of the stage `prepare` -> a data set as published, and languages that it has
SAMPLES: dict[str, Callable[[Path], tuple[Path, tuple[str, ...]]]] = {
    "bizsre": lambda folder: questions_at(folder, "bizsre"),
    "bmike": lambda folder: questions_at(folder, "bmike-zsre"),
    "counterfact": lambda folder: (write(folder / "counterfact.json", [counterfact_row(number) for number in range(3)]), ("en",)),
    "mzsre": lambda folder: questions_at(folder, "mzsre"),
    "records": records_at,
    "zsre": lambda folder: (write(folder / "zsre_mend_eval.json", [zsre_row(number) for number in range(3)]), ("en",)),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_whole_facts_whose_spans_are_their_subjects(tmp_path: Path, name: str) -> None:
    assert name in SAMPLES, f"add a sample of {name} to SAMPLES"
    path, languages = SAMPLES[name](tmp_path)
    facts, audit = READERS[name](path, languages)
    assert len(facts) == audit.num_read == 3
    assert len({fact.fact_id for fact in facts}) == 3
    for place, fact in enumerate(facts):
        assert set(fact.requests) == set(fact.probes) == set(languages)
        for code in languages:
            assert fact.requests[code].subject.casefold() == NAMES[code][place].casefold()
            assert {probe.language for probe in fact.probes[code]} == {code}
            assert fact.probes[code][0].kind == "efficacy"
            assert fact.probes[code][0].prompt == fact.requests[code].prompt
