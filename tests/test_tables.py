"""Tables are read as they stand, and one that is not as the format says is named by file and line."""

from pathlib import Path

import pytest

from tests.small_benchmark import BOTH, CAPITAL, PROMPTS, RELATIONS, TEXTS, SmallBenchmark, small_benchmark
from xledit.benchmark.tables import read_tables


@pytest.fixture
def small(tmp_path: Path) -> SmallBenchmark:
    return small_benchmark(tmp_path)


def test_every_cell_is_read_with_its_file_and_line(small: SmallBenchmark) -> None:
    relations = {relation.name: relation for relation in small.tables()}
    assert {name: relation.split for name, relation in relations.items()} == {"capital": "test", "river": "dev", "tongue": "test"}
    france, _egypt, japan, peru = relations["capital"].facts
    assert france.subjects == {"zh": "法国", "en": "France"}
    assert france.objects == {"zh": "巴黎", "en": "Paris"}
    assert france.subject_aliases == {"zh": ("法兰西",), "en": ("French Republic", "Gaul")}
    assert france.object_aliases == {"zh": ("花都",), "en": ("City of Light",)}
    assert france.answer_names == {"巴黎", "Paris", "花都", "City of Light"}
    assert france.place.endswith("facts/capital.csv:2")
    assert (japan.note, peru.scope, peru.domain) == ("a note", "world", "provinces_cities")


def test_wordings_are_sorted_by_their_form(small: SmallBenchmark) -> None:
    wording = next(relation for relation in small.tables() if relation.name == "capital").wordings["zh"]
    assert wording.first.text == "{subject}的首都是"
    assert [len(found) for found in (wording.paraphrases, wording.translated, wording.portability, wording.native)] == [3, 2, 1, 5]
    assert wording.portability["river"].worded("法国") == ("流经法国首都的河是", (2, 4))


def test_a_relation_that_is_not_worded_in_a_language_is_left_out(small: SmallBenchmark) -> None:
    small.write("prompts.csv", "".join(line for line in PROMPTS.splitlines(keepends=True) if not line.startswith("tongue,en")))
    assert [relation.name for relation in small.tables()] == ["capital", "river"]
    assert len(read_tables(small.folder, ["zh"])) == 3


def test_a_byte_order_mark_of_a_spreadsheet_does_no_harm(small: SmallBenchmark) -> None:
    before = small.tables()
    for name, text in TEXTS.items():
        small.write(name, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert small.tables() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("capital,zh,first,,{subject}的首都是", "capital,zh,first,,法国的首都是", r"prompts\.csv:2: .*\{subject\} exactly once"),
        ("capital,zh,first,,{subject}的首都是", "capital,zh,first,,{subject}和{subject}", r"prompts\.csv:2: .*\{subject\} exactly once"),
        ("sit in\n", "sit in \n", r"prompts\.csv:12: .*begins or ends with a space"),
        ("capital,zh,last", "capital,zh,end", r"prompts\.csv:3: form is 'end'; it must be one of first, last, paraphrase"),
        (",form,", ",shape,", r"prompts\.csv:1: no column 'form'; found: relation, language, shape, hop, template"),
        ("capital,en,paraphrase,,Leaders of {subject} sit in\n", "", r"prompts\.csv: relation 'capital', language 'en': .*2\}"),
        ("capital,en,first", "capital,fr,first", r"prompts\.csv: relation 'capital', language 'en': needs one first"),
        ("capital,zh,last,", "capital,zh", r"prompts\.csv:3: .*number of cells"),
        ("capital,zh,last,,", "capital,zh,last,river,", r"prompts\.csv:3: hop is 'river'; portability prompts name"),
        ("capital,zh,portability,river", "capital,zh,portability,", r"prompts\.csv:9: hop is ''; portability prompts name"),
        ("capital,zh,portability,river", "capital,zh,portability,lake", r"prompts\.csv:9: relation 'lake' is not in .*relations\.csv"),
        ("capital,zh,last", "hauptstadt,zh,last", r"prompts\.csv:3: relation 'hauptstadt' is not in .*relations\.csv"),
        (PROMPTS.partition("\n")[2], "", r"relations\.csv:2: relation 'capital' has no prompts"),
    ],
)
def test_a_bad_prompt_is_named_by_file_and_line(small: SmallBenchmark, old: str, new: str, message: str) -> None:
    small.change("prompts.csv", old, new)
    with pytest.raises(ValueError, match=message):
        small.tables()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("capital,test", "capital,train", r"relations\.csv:2: split is 'train'; it must be one of dev, test"),
        ("river,dev", "capital,dev", r"relations\.csv:3: relation 'capital' stands already at .*relations\.csv:2"),
        ("split", "part", r"relations\.csv:1: no column 'split'"),
        (RELATIONS.partition("\n")[2], "", r"prompts\.csv:2: relation 'capital' is not in"),
    ],
)
def test_a_bad_relation_is_named_by_file_and_line(small: SmallBenchmark, old: str, new: str, message: str) -> None:
    small.change("relations.csv", old, new)
    with pytest.raises(ValueError, match=message):
        small.tables()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",subject_en", ",subject_fr", r"facts/capital\.csv:1: no column 'subject_en'; found: id, domain, scope, subject_zh, subject_fr"),
        ("东京", "", r"facts/capital\.csv:4: object_zh is empty"),
        ("Tokyo", "  ", r"facts/capital\.csv:4: object_en is empty"),
        ("Tokyo", " Tokyo", r"facts/capital\.csv:4: object_en begins or ends with a space"),
        ("capital-003,provinces_cities", "capital-003,", r"facts/capital\.csv:4: domain is empty"),
        ("Tokyo,东瀛", "Tokyo", r"facts/capital\.csv:4: .*number of cells"),
        ("Tokyo,东瀛", "Tokyo,东瀛,", r"facts/capital\.csv:4: .*number of cells"),
        ("Tokyo,东瀛", 'Tokyo,"东瀛', r"facts/capital\.csv:"),
    ],
)
def test_a_bad_fact_is_named_by_file_and_line(small: SmallBenchmark, old: str, new: str, message: str) -> None:
    small.change("facts/capital.csv", old, new)
    with pytest.raises(ValueError, match=message):
        small.tables()


@pytest.mark.parametrize(("name", "text"), [("relations.csv", RELATIONS), ("prompts.csv", PROMPTS), ("facts/capital.csv", CAPITAL)])
def test_a_table_that_is_not_utf8_is_named_by_file_and_line(small: SmallBenchmark, name: str, text: str) -> None:
    lines = text.encode().splitlines(keepends=True)
    lines[2] = b"\xb7\xa8\xb9\xfa" + lines[2]
    small.write(name, b"".join(lines))
    with pytest.raises(ValueError, match=rf"{name}:3: not UTF-8 .*; save the table as UTF-8"):
        small.tables()


@pytest.mark.parametrize("name", TEXTS)
def test_a_missing_table_is_named(small: SmallBenchmark, name: str) -> None:
    (small.folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: not found"):
        small.tables()


def test_an_unknown_language_is_refused_with_the_known_ones(small: SmallBenchmark) -> None:
    with pytest.raises(ValueError, match="unknown language 'xx'; known: zh, en"):
        read_tables(small.folder, [*BOTH, "xx"])
