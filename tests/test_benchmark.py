"""The records made of our own benchmark are fair edits and fair questions, aligned across languages."""

import csv
import itertools
from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_benchmark import BOTH, CAPITAL, PROBES, SmallBenchmark, read, small_benchmark
from xledit.benchmark.counterfactuals import by_subject, counterfactuals
from xledit.benchmark.tables import Order, Relation, read_tables
from xledit.datasets.selection import select
from xledit.records import EditRequest, FactRecords, Kind

FOLDER = Path(__file__).parents[1] / "data" / "benchmark"
RELATIONS = read_tables(FOLDER, BOTH)
TABLE = {fact.fact_id: fact for relation in RELATIONS for fact in relation.facts}
RINGS = ("locality", "near", "far")


def prompts(fact: FactRecords, kind: Kind, code: str) -> list[str]:
    return [probe.prompt for probe in fact.probes[code] if probe.kind == kind]


@pytest.fixture(scope="module", params=["first", "last", "both"])
def facts(request: pytest.FixtureRequest) -> list[FactRecords]:
    """The facts of a run on test, with the subject first, last, or half and half."""
    return read(FOLDER, num_facts=100, order=request.param)[0]


@pytest.fixture
def small(tmp_path: Path) -> SmallBenchmark:
    return small_benchmark(tmp_path)


# requests


def test_every_fact_has_every_language(facts: list[FactRecords]) -> None:
    for fact in facts:
        assert tuple(fact.requests) == tuple(fact.rewordings) == tuple(fact.probes) == BOTH
        for code in BOTH:
            kinds = Counter(probe.kind for probe in fact.probes[code])
            assert kinds["efficacy"] == 1
            assert kinds["paraphrase"] >= 2
            assert kinds["locality"] >= 1
            assert kinds["far"] >= 1
            assert {probe.language for probe in fact.probes[code]} == {fact.requests[code].language} == {code}


def test_spans_hit_their_subject(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        subject = TABLE[fact.fact_id].subjects[code]
        assert fact.requests[code].subject == fact.rewordings[code].subject == subject
        assert all(subject in prompt for kind in ("efficacy", "paraphrase", "translated") for prompt in prompts(fact, kind, code))


def test_the_wordings_of_a_fact_are_all_different(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        assert prompts(fact, "efficacy", code) == [fact.requests[code].prompt]
        worded = [fact.requests[code].prompt, fact.rewordings[code].prompt, *prompts(fact, "paraphrase", code)]
        assert len(set(worded)) == len(worded)


def test_the_order_says_where_the_subject_stands_in_both_languages(facts: list[FactRecords]) -> None:
    """Nothing but the mark of a title or a quotation may stand before a subject that comes first."""
    for fact, code in itertools.product(facts, BOTH):
        request = fact.requests[code]
        if fact.labels["order"] == "first":
            assert request.up_to_subject.lstrip('《“"') == request.subject
        else:
            assert request.subject_span[0] > 1


def test_both_orders_get_half_of_the_facts_of_every_relation() -> None:
    counts = Counter((fact.labels["relation"], fact.labels["order"]) for fact in read(FOLDER, num_facts=400, order="both")[0])
    for relation in {name for name, _order in counts}:
        assert abs(counts[relation, "first"] - counts[relation, "last"]) <= 4, relation
    orders = Counter(fact.labels["order"] for fact in read(FOLDER, num_facts=100, order="both")[0])
    assert min(orders.values()) >= 35


def test_no_two_requests_share_a_key_or_a_subject(facts: list[FactRecords]) -> None:
    for code in BOTH:
        assert len({fact.requests[code].up_to_subject for fact in facts}) == len(facts)
    assert len({TABLE[fact.fact_id].entity for fact in facts}) == len(facts)


def test_a_split_is_kept_to_and_labelled() -> None:
    for split in ("dev", "test"):
        found = read(FOLDER, num_facts=60, split=split)[0]
        splits = {relation.name: relation.split for relation in RELATIONS}
        assert {fact.labels["split"] for fact in found} == {splits[TABLE[fact.fact_id].relation] for fact in found} == {split}


def test_world_knowledge_is_asked_for_or_left_out() -> None:
    for wanted in (False, True):
        found = read(FOLDER, num_facts=200, split="dev", world_knowledge=wanted)[0]
        assert any(TABLE[fact.fact_id].scope == "world" for fact in found) == wanted


def test_a_question_about_another_domain_is_of_the_part_that_the_run_is_about() -> None:
    world = {
        relation.wordings["en"].in_order(order).worded(fact.subjects["en"])[0]
        for relation in RELATIONS
        for fact in relation.facts
        for order in get_args(Order)
        if fact.scope == "world"
    }
    for wanted in (False, True):
        facts = read(FOLDER, num_facts=200, world_knowledge=wanted, probes={"far": 1})[0]
        asked = [probe.prompt for fact in facts for probe in fact.probes["en"] if probe.kind == "far"]
        assert len(asked) == 200 and any(prompt in world for prompt in asked) == wanted


@pytest.mark.parametrize("number", [1, 40, 100, 200])
def test_any_first_facts_cover_the_relations_evenly(number: int) -> None:
    counts = Counter(fact.labels["relation"] for fact in read(FOLDER, num_facts=number, probes={})[0])
    relations = [relation.name for relation in RELATIONS if relation.split == "test" and relation.facts[0].scope == "china"]
    assert max(counts.values()) - min(counts[relation] for relation in relations) <= 1


# counterfactual targets


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_targets_are_false_answers_of_the_relation_used_a_few_times_each(relation: Relation) -> None:
    answers = {fact.answer for fact in relation.facts}
    targets = counterfactuals(relation, 17, {})
    for fact in relation.facts:
        target = targets[fact.fact_id]
        assert target.answer in answers
        assert not fact.answer_names & target.answer_names, fact.fact_id
    uses = Counter(target.answer for target in targets.values())
    fair = len(relation.facts) / len(answers)
    assert max(uses.values()) <= 2 * fair + 2


def test_targets_are_about_as_long_as_the_truth() -> None:
    """Closer than targets drawn at random would be."""
    gaps, random_gaps = [], []
    for relation in RELATIONS:
        targets = counterfactuals(relation, 17, {})
        for fact, other in zip(relation.facts, relation.facts[1:] + relation.facts[:1], strict=True):
            for code in BOTH:
                gaps.append(abs(len(targets[fact.fact_id].objects[code]) - len(fact.objects[code])))
                random_gaps.append(abs(len(other.objects[code]) - len(fact.objects[code])))
    assert sum(gaps) < 0.7 * sum(random_gaps)


def test_the_target_of_a_fact_is_the_same_in_every_language_record_and_size_of_run(facts: list[FactRecords]) -> None:
    targets = {relation.name: {fact.answer for fact in relation.facts} for relation in RELATIONS}
    for fact in facts:
        assert tuple(request.target_new for request in fact.requests.values()) in targets[fact.labels["relation"]]
        for code in BOTH:
            request = fact.requests[code]
            own = {(probe.target_new, probe.target_true) for probe in fact.probes[code] if probe.kind not in (*RINGS, "portability")}
            assert own == {(request.target_new, request.target_true)}
            assert (fact.rewordings[code].target_new, fact.rewordings[code].target_true) == (request.target_new, request.target_true)
            assert {probe.target_new for probe in fact.probes[code] if probe.kind in RINGS} == {request.target_new}
    few, many = read(FOLDER, num_facts=10)[0], read(FOLDER, num_facts=50)[0]
    assert [fact.requests for fact in few] == [fact.requests for fact in many[:10]]


def test_a_seed_gives_the_same_records_and_another_seed_other_targets() -> None:
    assert read(FOLDER, num_facts=30, seed=3) == read(FOLDER, num_facts=30, seed=3)
    relation = next(relation for relation in RELATIONS if relation.name == "music_composer")
    first, other = (counterfactuals(relation, seed, {}) for seed in (3, 4))
    assert sum(first[fact_id].answer != other[fact_id].answer for fact_id in first) > len(first) / 4


def test_where_it_can_a_target_leaves_something_to_ask_of_portability(small: SmallBenchmark) -> None:
    """Quito, as long as the others but without a river here, is no target where answers may be used twice."""
    gaul = "capital-005,provinces_cities,china,高卢,Gallia,巴黎,Paris,,,花都,City of Light,\n"
    small.write("facts/capital.csv", CAPITAL.replace("秘鲁,Peru,利马,Lima", "厄国,Ecuador,基多,Quito") + gaul)
    capital, river, _tongue = small.tables()

    def drawn(followed: list[Relation]) -> set[str]:
        return {target.objects["en"] for seed in range(10) for target in counterfactuals(capital, seed, by_subject(followed)).values()}

    assert "Quito" not in drawn([river])
    assert "Quito" in drawn([])


@given(seed=st.integers(0, 10_000))
def test_no_target_is_an_alias_of_the_truth_or_stands_in_a_prompt(seed: int) -> None:
    relation = next(relation for relation in RELATIONS if relation.name == "person_state")
    for fact_id, target in counterfactuals(relation, seed, {}).items():
        fact = TABLE[fact_id]
        assert not fact.answer_names & target.answer_names
        for code in BOTH:
            for template in relation.wordings[code].native:
                assert target.objects[code].casefold() not in template.worded(fact.subjects[code])[0].casefold()


# probes


def test_probes_are_fair(facts: list[FactRecords]) -> None:
    for fact, code in itertools.product(facts, BOTH):
        for probe in fact.probes[code]:
            assert probe.target_new != probe.target_true
            assert probe.target_new.casefold() not in probe.prompt.casefold(), probe
            assert probe.target_true.casefold() not in probe.prompt.casefold(), probe
            if probe.kind in RINGS:
                assert probe.prompt != fact.requests[code].prompt


def test_at_most_as_many_probes_of_a_kind_as_asked() -> None:
    wanted = {"paraphrase": 1, "alias": 2, "locality": 2, "far": 0}
    for fact, code in itertools.product(read(FOLDER, num_facts=50, probes=wanted)[0], BOTH):
        counts = Counter(probe.kind for probe in fact.probes[code])
        assert counts.pop("efficacy") == 1
        assert all(number <= wanted[kind] for kind, number in counts.items())
        assert (counts["paraphrase"], counts["locality"]) == (1, 2)


def test_neighbours_are_unedited_facts_of_the_relation_and_those_with_the_same_answer_come_first(facts: list[FactRecords]) -> None:
    edited = {fact.fact_id for fact in facts}
    for fact, code in itertools.product(facts, BOTH):
        request, own = fact.requests[code], TABLE[fact.fact_id]
        start, end = request.subject_span[0], len(request.prompt) - request.subject_span[1]
        others = {other.subjects[code]: other for other in TABLE.values() if other.relation == own.relation and other.fact_id not in edited}
        found = [others[prompt[start : len(prompt) - end]] for prompt in prompts(fact, "locality", code)]
        assert found
        same = [other.answer == own.answer for other in found]
        assert same == sorted(same, reverse=True)


def test_near_and_far_are_what_they_say(small: SmallBenchmark) -> None:
    (france, *_rest), _audit = small.read(num_facts=3)
    assert france.fact_id == "capital-001"
    assert prompts(france, "near", "en") == ["France has an official language called"]
    assert prompts(france, "near", "zh") == ["法国的官方语言是"]
    far = [probe for probe in france.probes["en"] if probe.kind == "far"]
    assert far
    assert not any("capital" in probe.prompt for probe in far)
    answers = {fact.objects["en"] for relation in small.tables() if relation.name != "capital" for fact in relation.facts}
    assert {probe.target_true for probe in far} <= answers


def test_a_relation_whose_answer_all_but_follows_is_not_asked_as_near(small: SmallBenchmark) -> None:
    small.change("relations.csv", "capital,test,", "capital,test,tongue")
    assert prompts(small.read(num_facts=3)[0][0], "near", "en") == []


def test_a_subject_is_edited_in_one_relation_only_and_asked_as_near_in_the_other(small: SmallBenchmark) -> None:
    found, _audit = small.read(num_facts=5)
    assert [fact.fact_id for fact in found] == ["capital-001", "tongue-002", "capital-003", "tongue-003", "tongue-004"]
    with pytest.raises(ValueError, match=r"edit\.num_facts is 6 after data\.skip_facts 0, .* only 5 usable facts; ask for fewer"):
        small.read(num_facts=6)


def test_portability_asks_for_the_new_answers_own_answer(small: SmallBenchmark) -> None:
    rivers = {"Paris": "Seine", "Cairo": "Nile", "Tokyo": "Sumida"}
    asked = 0
    for fact in small.read(num_facts=5)[0]:
        for probe in fact.probes["en"]:
            if probe.kind == "portability":
                asked += 1
                assert probe.target_new == rivers[fact.requests["en"].target_new]
                assert probe.target_true == rivers[fact.requests["en"].target_true]
                assert probe.prompt == f"The river that flows through the capital of {fact.requests['en'].subject} is the"
    assert asked


def test_an_alias_takes_the_subjects_place_in_the_edited_prompt(small: SmallBenchmark) -> None:
    france = small.read(num_facts=1)[0][0]
    assert prompts(france, "alias", "en") == ["French Republic has its capital in", "Gaul has its capital in"]
    assert prompts(france, "alias", "zh") == ["法兰西的首都是"]


@pytest.mark.parametrize(("order", "prompt"), [("first", "法国有它的首都在"), ("last", "那个城市统治法国的是")])
def test_the_translated_wording_has_the_subject_where_the_edited_prompt_has_it(small: SmallBenchmark, order: str, prompt: str) -> None:
    france = small.read(num_facts=1, order=order)[0][0]
    assert prompts(france, "translated", "zh") == [prompt]
    assert prompts(france, "translated", "en") == []


def test_rings_are_the_same_questions_in_every_language(facts: list[FactRecords]) -> None:
    pairs = {(fact.objects["zh"], fact.objects["en"]) for fact in TABLE.values()}
    for fact in facts:
        for kind in RINGS:
            truths = [[probe.target_true for probe in fact.probes[code] if probe.kind == kind] for code in BOTH]
            assert all(pair in pairs for pair in zip(*truths, strict=True)), (fact.fact_id, kind)


# the audit of a run


def test_skipped_facts_are_the_ones_that_a_run_without_skipping_takes_first() -> None:
    ids = [fact.fact_id for fact in read(FOLDER, num_facts=15)[0]]
    assert [fact.fact_id for fact in read(FOLDER, num_facts=5, skip_facts=10)[0]] == ids[10:]


def test_the_audit_counts_what_was_read_and_taken() -> None:
    audit = read(FOLDER, num_facts=50, world_knowledge=True)[1]
    in_test = sum(len(relation.facts) for relation in RELATIONS if relation.split == "test")
    assert (audit.source, audit.num_read, audit.num_selected, audit.dropped) == ("benchmark", in_test, 50, {})
    assert audit.defects["fewer_paraphrase_probes_than_asked"] == {"zh": 50, "en": 50}


def test_a_row_that_breaks_a_rule_stops_the_run_with_file_line_and_rule(small: SmallBenchmark) -> None:
    small.change("facts/capital.csv", "埃及,Egypt", "开罗国,Egypt")
    with pytest.raises(ValueError, match=r"facts/capital\.csv:3: answer_not_in_prompt: the answer '开罗' stands in a zh prompt"):
        small.read()


@pytest.mark.parametrize(
    ("tokyo", "others"), [("巴黎,Paris", "巴黎,Paris"), ("花都,City of Light", "巴黎,Paris")], ids=["one object", "an alias of the other"]
)
def test_a_relation_without_a_false_answer_is_refused(small: SmallBenchmark, tokyo: str, others: str) -> None:
    text = CAPITAL
    for old, new in (("东京,Tokyo", tokyo), ("开罗,Cairo", others), ("利马,Lima", others)):
        text = text.replace(old, new)
    small.write("facts/capital.csv", text)
    with pytest.raises(ValueError, match=r"facts/capital\.csv:\d: (no other fact|one_name_one_thing)"):
        small.read()


def test_a_number_of_probes_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probes\.near is -1; it must be at least 0"):
        read(FOLDER, probes=PROBES | {"near": -1})


def test_every_relation_is_in_a_table_of_its_own() -> None:
    with (FOLDER / "relations.csv").open(encoding="utf-8", newline="") as file:
        names = {row["relation"] for row in csv.DictReader(file)}
    assert names == {path.stem for path in (FOLDER / "facts").glob("*.csv")} == {relation.name for relation in RELATIONS}


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
