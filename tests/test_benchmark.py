"""The project's benchmark keeps what its README promises, its records are fair edits, and a bad table is named by file and line."""

import csv
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from xledit.datasets import benchmark
from xledit.datasets.selection import select
from xledit.records import Audit, EditRequest, FactRecords

FOLDER = Path(__file__).parents[1] / "data" / "benchmark"
BOTH = ("zh", "en")
NEIGHBOURS = 2
Row = dict[str, str]


def read(folder: Path = FOLDER, **changes: object) -> tuple[list[FactRecords], Audit]:
    settings = {"order": "first", "num_facts": 100, "skip_facts": 0, "num_neighbours": NEIGHBOURS, "seed": 17}
    return benchmark.read(folder, BOTH, **settings | changes)


def rows_of(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def relation_of(fact_id: str) -> str:
    return fact_id.rpartition("-")[0]


def names(row: Row, role: str, code: str) -> set[str]:
    """All established names of a row's subject or object in one language."""
    return {row[f"{role}_{code}"], *row[f"{role}_aliases_{code}"].split("|")} - {""}


TABLE = {row["id"]: row for path in sorted((FOLDER / "facts").glob("*.csv")) for row in rows_of(path)}
TEMPLATES = rows_of(FOLDER / "relations.csv")


@pytest.fixture(scope="module", params=["first", "last"])
def facts(request: pytest.FixtureRequest) -> list[FactRecords]:
    """The facts of a run, with the subject first or last."""
    return read(order=request.param)[0]


@pytest.fixture(scope="module")
def every_fact() -> list[FactRecords]:
    return read(num_facts=len(TABLE), num_neighbours=0)[0]


def prompts(fact: FactRecords, kind: str, code: str) -> list[str]:
    return [probe.prompt for probe in fact.probes[code] if probe.kind == kind]


# the tables


def test_there_are_enough_facts_and_relations(every_fact: list[FactRecords]) -> None:
    assert {fact.fact_id for fact in every_fact} == set(TABLE)
    assert len(every_fact) >= 150
    assert len({relation_of(fact_id) for fact_id in TABLE}) >= 6


def test_ids_are_those_of_their_table() -> None:
    for path in (FOLDER / "facts").glob("*.csv"):
        assert all(row["id"].rpartition("-")[::2] == (path.stem, row["id"][-3:]) for row in rows_of(path)), path


def test_every_table_has_its_relation() -> None:
    assert {path.stem for path in (FOLDER / "facts").glob("*.csv")} == {row["relation"] for row in TEMPLATES}


@pytest.mark.parametrize("relation", sorted({relation_of(fact_id) for fact_id in TABLE}))
def test_a_relation_has_five_objects(relation: str) -> None:
    assert len({row["object_zh"] for row in TABLE.values() if relation_of(row["id"]) == relation}) >= 5


@pytest.mark.parametrize("code", BOTH)
def test_an_answer_never_stands_in_a_prompt(code: str) -> None:
    wordings = {(row["relation"], row["template"]) for row in TEMPLATES if row["language"] == code}
    given_away = [
        (row["id"], template)
        for row in TABLE.values()
        for relation, template in wordings
        if relation == relation_of(row["id"])
        and row[f"object_{code}"].casefold() in template.replace("{subject}", row[f"subject_{code}"]).casefold()
    ]
    assert not given_away


def test_one_name_has_one_translation() -> None:
    """Otherwise the counterfactual target of one language could be the truth of the other."""
    pairs = {(row["object_zh"], row["object_en"]) for row in TABLE.values()}
    assert len(pairs) == len({zh for zh, _en in pairs}) == len({en for _zh, en in pairs})


# the records


def test_every_fact_has_every_language_and_kind(facts: list[FactRecords]) -> None:
    for fact in facts:
        assert tuple(fact.requests) == tuple(fact.rewordings) == tuple(fact.probes) == BOTH
        for code in BOTH:
            kinds = Counter(probe.kind for probe in fact.probes[code])
            assert (kinds["efficacy"], kinds["locality"]) == (1, NEIGHBOURS)
            assert kinds["paraphrase"] >= 1
            assert {probe.language for probe in fact.probes[code]} == {fact.requests[code].language} == {code}


def test_spans_hit_their_subject(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        subject = TABLE[fact.fact_id][f"subject_{code}"]
        assert fact.requests[code].subject == fact.rewordings[code].subject == subject
        assert all(subject in prompt for kind in ("efficacy", "paraphrase") for prompt in prompts(fact, kind, code))


def test_the_wordings_of_a_fact_are_all_different(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        assert prompts(fact, "efficacy", code) == [fact.requests[code].prompt]
        worded = [fact.requests[code].prompt, fact.rewordings[code].prompt, *prompts(fact, "paraphrase", code)]
        assert len(set(worded)) == len(worded)


def test_the_order_says_where_the_subject_stands() -> None:
    """Nothing but the mark of a title may stand before a subject that comes first."""
    first, last = read(order="first", num_facts=13)[0], read(order="last", num_facts=13)[0]
    for code, early, late in ((code, *pair) for code in BOTH for pair in zip(first, last, strict=True)):
        assert early.requests[code].up_to_subject.removeprefix("《") == early.requests[code].subject
        assert late.requests[code].subject_span[0] > 1


def test_the_target_is_a_false_answer_of_the_relation_and_the_same_one_in_every_language(every_fact: list[FactRecords]) -> None:
    answers = {(relation_of(row["id"]), row["object_zh"], row["object_en"]): row for row in TABLE.values()}
    for fact in every_fact:
        row = TABLE[fact.fact_id]
        target = answers[relation_of(fact.fact_id), fact.requests["zh"].target_new, fact.requests["en"].target_new]
        for code in BOTH:
            assert fact.requests[code].target_true == row[f"object_{code}"]
            assert not names(row, "object", code) & names(target, "object", code), fact.fact_id


def test_all_records_of_a_fact_have_its_answers(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        request = fact.requests[code]
        assert {probe.target_new for probe in fact.probes[code]} == {request.target_new} == {fact.rewordings[code].target_new}
        own = {probe.target_true for probe in fact.probes[code] if probe.kind != "locality"}
        assert own == {request.target_true} == {fact.rewordings[code].target_true}


def test_neighbours_are_unedited_facts_of_the_relation_whose_truth_is_not_the_new_target(facts: list[FactRecords]) -> None:
    edited = {fact.fact_id for fact in facts}
    for fact, code in itertools.product(facts, BOTH):
        near = {row[f"subject_{code}"]: row for row in TABLE.values() if relation_of(row["id"]) == relation_of(fact.fact_id)}
        start = fact.requests[code].subject_span[0]
        rest = len(fact.requests[code].prompt) - fact.requests[code].subject_span[1]
        asked = [probe for probe in fact.probes[code] if probe.kind == "locality"]
        for probe in asked:
            neighbour = near[probe.prompt[start : len(probe.prompt) - rest]]
            assert neighbour["id"] not in edited
            assert probe.target_true == neighbour[f"object_{code}"] != fact.requests[code].target_new
        assert len({probe.prompt for probe in asked}) == len(asked)


def test_neighbours_with_the_same_answer_come_first(facts: list[FactRecords]) -> None:
    edited = {fact.fact_id for fact in facts}
    for fact in facts:
        row = TABLE[fact.fact_id]
        same = sum(
            other["object_zh"] == row["object_zh"] and relation_of(other["id"]) == relation_of(row["id"]) and other["id"] not in edited
            for other in TABLE.values()
        )
        truths = [probe.target_true for probe in fact.probes["zh"] if probe.kind == "locality"]
        assert [truth == row["object_zh"] for truth in truths] == [place < same for place in range(NEIGHBOURS)]


def test_neighbours_are_the_same_subjects_in_every_language(facts: list[FactRecords]) -> None:
    translations = {row["subject_zh"]: row["subject_en"] for row in TABLE.values()}
    for fact in facts:
        for chinese, english in zip(prompts(fact, "locality", "zh"), prompts(fact, "locality", "en"), strict=True):
            assert any(zh in chinese and en in english for zh, en in translations.items())


@pytest.mark.parametrize("number", [1, 5, 13, 40, 100, 200])
def test_any_first_facts_cover_the_relations_evenly(number: int) -> None:
    counts = Counter(relation_of(fact.fact_id) for fact in read(num_facts=number, num_neighbours=0)[0])
    relations = {row["relation"] for row in TEMPLATES}
    assert max(counts.values()) - min(counts[relation] for relation in relations) <= 1


def test_no_two_requests_share_a_key(facts: list[FactRecords]) -> None:
    for code in BOTH:
        assert len({fact.requests[code].up_to_subject for fact in facts}) == len(facts)


def test_a_seed_gives_the_same_records_and_another_seed_other_targets() -> None:
    assert read(seed=3) == read(seed=3)
    first, other = (read(seed=seed)[0] for seed in (3, 4))
    assert [fact.fact_id for fact in first] == [fact.fact_id for fact in other]
    moved = [a.requests["zh"].target_new != b.requests["zh"].target_new for a, b in zip(first, other, strict=True)]
    assert sum(moved) > len(moved) / 2


def test_targets_do_not_depend_on_how_many_facts_are_edited() -> None:
    few, many = read(num_facts=10)[0], read(num_facts=50)[0]
    assert [fact.requests for fact in few] == [fact.requests for fact in many[:10]]


def test_skipped_facts_are_the_ones_that_a_run_without_skipping_takes_first() -> None:
    ids = [fact.fact_id for fact in read(num_facts=15)[0]]
    assert [fact.fact_id for fact in read(num_facts=5, skip_facts=10)[0]] == ids[10:]


def test_the_audit_counts_what_was_read_and_taken() -> None:
    audit = read()[1]
    assert (audit.source, audit.num_read, audit.num_selected, audit.dropped) == ("benchmark", len(TABLE), 100, {})
    assert audit.defects["fewer_neighbours_than_asked"] == {"zh": 0, "en": 0}
    assert read(num_neighbours=99)[1].defects["fewer_neighbours_than_asked"] == {"zh": 100, "en": 100}


# bad tables

RELATIONS = """relation,language,form,template
capital,zh,first,{subject}的首都是
capital,zh,last,作为首都，它属于{subject}，名为
capital,zh,paraphrase,国家{subject}的首都叫
capital,zh,paraphrase,说到{subject}，首都为
capital,en,first,{subject} has its capital in
capital,en,last,The city that governs {subject} is
capital,en,paraphrase,The seat of {subject} is
capital,en,paraphrase,Leaders of {subject} sit in
"""
FACTS = """id,subject_zh,subject_en,object_zh,object_en,object_aliases_zh,object_aliases_en
capital-001,法国,France,巴黎,Paris,花都,City of Light
capital-002,埃及,Egypt,开罗,Cairo,,Al-Qahirah
capital-003,日本,Japan,东京,Tokyo,,
capital-004,秘鲁,Peru,利马,Lima,,
"""


@dataclass(frozen=True)
class Tables:
    """A small benchmark of one relation."""

    folder: Path

    def write(self, relations: str | bytes = RELATIONS, facts: str | bytes = FACTS) -> None:
        (self.folder / "facts").mkdir(exist_ok=True)
        for name, content in (("relations.csv", relations), ("facts/capital.csv", facts)):
            (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def read(self, **changes: object) -> list[FactRecords]:
        return read(self.folder, **{"num_facts": 2, "num_neighbours": 1} | changes)[0]


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    found = Tables(tmp_path)
    found.write()
    return found


def test_the_small_benchmark_is_a_good_one(tables: Tables) -> None:
    assert [fact.fact_id for fact in tables.read()] == ["capital-001", "capital-002"]


def test_a_byte_order_mark_of_a_spreadsheet_does_no_harm(tables: Tables) -> None:
    tables.write(b"\xef\xbb\xbf" + RELATIONS.encode(), b"\xef\xbb\xbf" + FACTS.replace("\n", "\r\n").encode())
    assert len(tables.read()) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{subject}的首都是", "法国的首都是", r"relations\.csv:2: .*\{subject\} exactly once"),
        ("{subject}的首都是", "{subject}和{subject}", r"relations\.csv:2: .*\{subject\} exactly once"),
        ("sit in\n", "sit in \n", r"relations\.csv:9: .*begins or ends with a space"),
        ("zh,last", "zh,end", r"relations\.csv:3: form is 'end'; it must be first, last or paraphrase"),
        (",form,", ",shape,", r"relations\.csv:1: no column 'form'; found: relation, language, shape, template"),
        ("capital,en,paraphrase,Leaders of {subject} sit in\n", "", r"relations\.csv: relation 'capital', language 'en': .*2 paraphrase"),
        ("en,first", "fr,first", r"relations\.csv: relation 'capital', language 'en': needs one first"),
        ("capital,zh,last", "capital", r"relations\.csv:3: .*number of cells"),
        (RELATIONS.partition("\n")[2], "", r"relations\.csv"),
    ],
    ids=["no subject", "two subjects", "space at the end", "form", "column", "paraphrases", "language", "cells", "no rows"],
)
def test_a_bad_prompt_is_named_by_file_and_line(tables: Tables, old: str, new: str, message: str) -> None:
    assert RELATIONS.count(old) == 1
    tables.write(relations=RELATIONS.replace(old, new))
    with pytest.raises(ValueError, match=message):
        tables.read()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",subject_en", ",subject_fr", r"facts/capital\.csv:1: no column 'subject_en'; found: id, subject_zh, subject_fr"),
        ("capital-003", "capital-001", r"facts/capital\.csv:4: id 'capital-001' stands already at .*facts/capital\.csv:2"),
        ("日本", "法国", r"facts/capital\.csv:4: subject_zh '法国' stands already at .*facts/capital\.csv:2"),
        ("Japan", "France", r"facts/capital\.csv:4: subject_en 'France' stands already at .*facts/capital\.csv:2"),
        ("东京", "", r"facts/capital\.csv:4: object_zh is empty"),
        ("Tokyo", "  ", r"facts/capital\.csv:4: object_en is empty"),
        ("Tokyo,,", "Tokyo,", r"facts/capital\.csv:4: .*number of cells"),
        ("Tokyo,,", "Tokyo,,,", r"facts/capital\.csv:4: .*number of cells"),
        ("埃及,Egypt", "开罗国,Egypt", r"facts/capital\.csv:3: the answer '开罗' stands in the prompt"),
        ("埃及,Egypt", "埃及,CAIRO land", r"facts/capital\.csv:3: the answer 'Cairo' stands in the prompt"),
        ("东京,Tokyo", "巴黎 ,Paris ", r"facts/capital\.csv:4"),
        ("Tokyo,,", 'Tokyo,,"Edo', r"facts/capital\.csv"),
    ],
    ids=[
        "column", "id twice", "subject twice", "other subject twice", "empty", "blank", "few cells", "many cells", "answer in the prompt",
        "answer in another case", "space around a cell", "quote not closed",
    ],
)  # fmt: skip
def test_a_bad_fact_is_named_by_file_and_line(tables: Tables, old: str, new: str, message: str) -> None:
    assert FACTS.count(old) == 1
    tables.write(facts=FACTS.replace(old, new))
    with pytest.raises(ValueError, match=message):
        tables.read()


def test_an_answer_in_another_wording_is_named_too(tables: Tables) -> None:
    tables.write(relations=RELATIONS.replace("The seat of {subject} is", "What Cairo was to old {subject} is"))
    with pytest.raises(ValueError, match=r"facts/capital\.csv:3: the answer 'Cairo' stands in the prompt"):
        tables.read()


@pytest.mark.parametrize("name", ["relations", "facts"])
def test_a_table_that_is_not_utf8_is_named_by_file_and_line(tables: Tables, name: str) -> None:
    content = {"relations": RELATIONS, "facts": FACTS}[name].encode().splitlines(keepends=True)
    content[2] = content[2].decode().encode("gbk")
    tables.write(**{name: b"".join(content)})
    with pytest.raises(ValueError, match=r"(relations|facts/capital)\.csv:3: not UTF-8 .*; save the table as UTF-8"):
        tables.read()


@pytest.mark.parametrize("name", ["relations.csv", "facts/capital.csv"])
def test_a_missing_table_is_named(tables: Tables, name: str) -> None:
    (tables.folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: not found"):
        tables.read()


@pytest.mark.parametrize(
    ("tokyo", "others"),
    [("巴黎,Paris", "巴黎,Paris"), ("巴黎,Lutetia", "巴黎,Paris"), ("花都,City of Light", "巴黎,Paris")],
    ids=["one object", "one of two names", "an alias of the other"],
)
def test_a_relation_without_a_false_answer_is_refused(tables: Tables, tokyo: str, others: str) -> None:
    facts = FACTS
    for old, new in (("东京,Tokyo", tokyo), ("开罗,Cairo", others), ("利马,Lima", others)):
        facts = facts.replace(old, new)
    tables.write(facts=facts)
    with pytest.raises(ValueError, match=r"facts/capital\.csv"):
        tables.read(num_facts=4)


def test_an_alias_of_the_truth_is_never_the_target(tables: Tables) -> None:
    tables.write(facts=FACTS.replace("东京,Tokyo", "花都,City of Light"))
    targets = {fact.requests["zh"].target_new for seed in range(20) for fact in tables.read(num_facts=1, seed=seed)}
    assert targets == {"开罗", "利马"}


def test_more_facts_than_there_are_are_refused(tables: Tables) -> None:
    with pytest.raises(ValueError, match=r"edit\.num_facts is 4 after data\.skip_facts 1, .* only 4 usable facts; ask for fewer"):
        tables.read(num_facts=4, skip_facts=1)


# selection


def fact_with(fact_id: str, zh: str, en: str) -> FactRecords:
    requests = {
        code: EditRequest(
            fact_id=fact_id, language=code, prompt=f"{subject} x", subject_span=(0, len(subject)), target_new="a", target_true="b"
        )
        for code, subject in (("zh", zh), ("en", en))
    }
    return FactRecords(fact_id=fact_id, requests=requests, rewordings={}, probes={})


COLLIDING = [
    fact_with(*names) for names in (("1", "法国", "France"), ("2", "法兰西", "France"), ("3", "法国", "Gaul"), ("4", "埃及", "Egypt"))
]


def test_the_later_of_two_facts_with_one_key_in_any_language_is_dropped() -> None:
    chosen, dropped = select(COLLIDING, num_facts=2, skip_facts=0)
    assert [fact.fact_id for fact in chosen] == ["1", "4"]
    assert dropped == {"2": "same key as 1", "3": "same key as 1"}


def test_dropped_facts_take_no_keys_and_do_not_count() -> None:
    reuses = fact_with("5", "意大利", "Gaul")
    assert [fact.fact_id for fact in select([*COLLIDING, reuses], num_facts=2, skip_facts=1)[0]] == ["4", "5"]
    with pytest.raises(ValueError, match="only 2 usable"):
        select(COLLIDING, num_facts=3, skip_facts=0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_no_two_selected_facts_share_a_key_in_any_order(order: tuple[int, ...]) -> None:
    chosen, dropped = select([COLLIDING[place] for place in order], num_facts=2, skip_facts=0)
    for code in BOTH:
        assert len({fact.requests[code].up_to_subject for fact in chosen}) == 2
    assert not {fact.fact_id for fact in chosen} & set(dropped)
