"""Each rule finds the row that breaks it, and only that; our own tables break none; CLM-Bench's counts are those of the fact sheet."""

from pathlib import Path

import pytest

from tests.small_benchmark import BOTH, CAPITAL, HEADER, SmallBenchmark, small_benchmark
from xledit.benchmark import rules as audit
from xledit.benchmark.inventory import columns, every_fact, take_stock
from xledit.benchmark.results import BenchmarkAudit
from xledit.benchmark.rules import ROW_RULES, SET_RULES, check_rows, findings
from xledit.benchmark.tables import read_tables
from xledit.storage import read_json

ROOT = Path(__file__).parents[1]


@pytest.fixture
def small(tmp_path: Path) -> SmallBenchmark:
    return small_benchmark(tmp_path)


def test_the_small_benchmark_breaks_no_rule_of_rows(small: SmallBenchmark) -> None:
    assert not findings(small.tables(), ROW_RULES)


PLANTED = [
    ("known_values", "facts/capital.csv", "capital-003,provinces_cities", "capital-003,places", "capital.csv:4", "domain is 'places'"),
    ("known_values", "facts/capital.csv", "capital-004,provinces_cities,world", "capital-004,food,moon", "capital.csv:5", "scope"),
    ("known_values", "facts/capital.csv", "capital-004", "capital-4", "capital.csv:5", "three digits"),
    ("one_row_per_fact", "facts/capital.csv", "capital-003", "capital-001", "capital.csv:4", "capital.csv:2"),
    ("one_row_per_fact", "facts/capital.csv", "日本", "法国", "capital.csv:4", "capital.csv:2"),
    ("one_row_per_fact", "facts/capital.csv", "Nippon", "Egypt", "capital.csv:4", "capital.csv:3"),
    ("aliases_are_other_names", "facts/capital.csv", "东瀛", "日本", "capital.csv:4", "the name itself"),
    ("aliases_are_other_names", "facts/capital.csv", "French Republic|Gaul", "Gaul|Gaul", "capital.csv:2", "given twice"),
    ("aliases_are_other_names", "facts/capital.csv", "French Republic|Gaul", "Gaul|", "capital.csv:2", "empty"),
    ("one_name_one_thing", "facts/tongue.csv", "约旦,Jordan,阿拉伯语,Arabic", "约旦,Jordan,阿拉伯语,Arab", "tongue.csv:4", "tongue.csv:3"),
    ("one_name_one_thing", "facts/capital.csv", "Al-Qahirah", "Paris", "capital.csv:3", "capital.csv:2"),
    ("one_name_one_thing", "facts/tongue.csv", "Jordan,阿拉伯语,Arabic,,,", "Jordan,阿拉伯语,Arabic,,,阿文", "tongue.csv:4", "other alias"),
    ("scripts", "facts/capital.csv", "Tokyo", "东京", "capital.csv:4", "Chinese or Japanese"),
    ("scripts", "facts/capital.csv", "东瀛", "Nihon国", "capital.csv:4", "'Nihon'"),
    ("scripts", "facts/capital.csv", "东瀛", "ニホン", "capital.csv:4", "kana"),
    ("scripts", "facts/capital.csv", "东瀛", "东瀛(旧)", "capital.csv:4", "half-width"),
    ("prompts_are_in_their_script", "prompts.csv", "Leaders of", "Leaders 的", "prompts.csv:12", "Chinese"),
    ("prompts_are_in_their_script", "prompts.csv", "去{subject}的首都，", "去{subject}的首都!", "prompts.csv:4", "half-width"),
    ("orders", "prompts.csv", "capital,en,first,,{subject}", "capital,en,first,,Old {subject}", "prompts.csv:10", "before the subject"),
    ("orders", "prompts.csv", "city of {subject} is", "city of {subject} is the town of", "prompts.csv:11", "after the subject"),
    ("orders", "prompts.csv", "，{subject}说\n", "，{subject}人都会说\n", "prompts.csv:17", "after the subject"),
    ("wordings_differ", "prompts.csv", "Leaders of {subject} sit in", "{subject} has its capitol in", "prompts.csv:12", "prompts.csv:10"),
    ("answer_not_in_prompt", "prompts.csv", "Leaders of", "Leaders in Cairo of", "capital.csv:3", "'Cairo'"),
    ("answer_not_in_prompt", "facts/capital.csv", "埃及,Egypt", "开罗国,Egypt", "capital.csv:3", "'开罗'"),
    ("answer_not_in_prompt", "facts/capital.csv", "埃及,Egypt", "埃及,CAIRO land", "capital.csv:3", "'Cairo'"),
    ("no_numbers", "facts/capital.csv", "东京,Tokyo", "东京,Tokyo 23", "capital.csv:4", "Tokyo 23"),
    ("no_numbers", "facts/capital.csv", "东京,Tokyo", "二十三,Tokyo", "capital.csv:4", "二十三"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "name", "old", "new", "place", "message"), PLANTED)
def test_a_rule_finds_the_row_that_breaks_it(
    small: SmallBenchmark, rule: str, name: str, old: str, new: str, place: str, message: str
) -> None:
    small.change(name, old, new)
    found = findings(small.tables(), {rule: ROW_RULES[rule]})
    assert found
    assert all(finding.place.endswith(place) and message in finding.message for finding in found), found
    with pytest.raises(ValueError, match=rf"{place}: {rule}: "):
        check_rows(small.tables())


def test_every_rule_of_rows_has_a_planted_row() -> None:
    assert {row[0] for row in PLANTED} == set(ROW_RULES)


def test_many_findings_are_cut_short_in_the_error(small: SmallBenchmark) -> None:
    small.write("facts/capital.csv", CAPITAL.replace("provinces_cities", "places").replace("capital-0", "capital-x"))
    small.write("facts/river.csv", HEADER + "".join(f"r{i},x,x,河{i}a,River {i},水{i}b,Water {i},,,,,\n" for i in range(10, 30)))
    with pytest.raises(ValueError, match=r"and \d+ more; `make audit` lists all"):
        check_rows(small.tables())


def test_names_of_both_splits_leak(small: SmallBenchmark) -> None:
    assert not findings(small.tables(), {"no_leak": SET_RULES["no_leak"]})
    small.change("facts/capital.csv", "French Republic|Gaul", "French Republic|Paris")
    (found,) = findings(small.tables(), {"no_leak": SET_RULES["no_leak"]})
    assert found.place.endswith("capital.csv:2")
    assert "'Paris' is in test and, at" in found.message
    assert "river.csv:2, in dev" in found.message


def test_a_subject_of_two_relations_is_spelt_the_same(small: SmallBenchmark) -> None:
    rule = {"one_subject_one_translation": SET_RULES["one_subject_one_translation"]}
    assert not findings(small.tables(), rule)
    small.change("facts/tongue.csv", "埃及,Egypt", "埃及,Misr")
    (found,) = findings(small.tables(), rule)
    assert found.place.endswith("tongue.csv:3")


def test_a_fact_that_two_relations_state_is_found(small: SmallBenchmark) -> None:
    rule = {"one_fact_one_relation": SET_RULES["one_fact_one_relation"]}
    assert not findings(small.tables(), rule)
    small.change("facts/tongue.csv", "埃及,Egypt,阿拉伯语,Arabic", "埃及,Egypt,开罗,Cairo")
    (found,) = findings(small.tables(), rule)
    assert found.place.endswith("tongue.csv:3")


def test_two_facts_with_one_key_are_found(small: SmallBenchmark) -> None:
    """France opens the prompts of two relations, which is no finding; in its other place it would be one."""
    rule = {"keys_differ": SET_RULES["keys_differ"]}
    assert not findings(small.tables(), rule)
    small.change("prompts.csv", "tongue,en,last,,The official language of {subject} is", "tongue,en,last,,The capital city of {subject} is")
    assert [finding.place.rpartition("/")[2] for finding in findings(small.tables(), rule)] == ["tongue.csv:2", "tongue.csv:3"]


def test_a_target_that_is_used_too_often_is_found(small: SmallBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = {"targets_are_balanced": SET_RULES["targets_are_balanced"]}
    assert not findings(small.tables(), rule)
    nile = next(relation.facts[1] for relation in small.tables() if relation.name == "river")
    monkeypatch.setattr(audit, "counterfactuals", lambda relation, _seed, _followed: {f"{relation.name}-{i}": nile for i in range(7)})
    assert len(findings(small.tables(), rule)) == 3


def test_a_subject_of_too_many_facts_is_found(small: SmallBenchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_FACTS_PER_SUBJECT", 1)
    found = findings(small.tables(), {"subjects_are_varied": SET_RULES["subjects_are_varied"]})
    assert [finding.message.partition(" is the subject")[0] for finding in found] == ["('法国', 'France')", "('埃及', 'Egypt')"]


def test_subjects_that_are_nearly_the_same_in_every_language_are_found(small: SmallBenchmark) -> None:
    rule = {"near_duplicates": SET_RULES["near_duplicates"]}
    long = "川渝滇黔湘鄂赣皖苏浙闽粤"
    small.change("facts/tongue.csv", "约旦,Jordan", f"{long},Kingdom of Jordania")
    assert not findings(small.tables(), rule)
    text = (small.folder / "facts/tongue.csv").read_text(encoding="utf-8")
    small.write("facts/tongue.csv", text.replace("巴西,Brazil", f"{long}桂,Kingdom of Jordanias"))
    (found,) = findings(small.tables(), rule)
    assert found.place.endswith("tongue.csv:5")


def test_size_and_balance_name_what_is_too_few(small: SmallBenchmark) -> None:
    messages = [finding.message for finding in findings(small.tables(), {"size_and_balance": SET_RULES["size_and_balance"]})]
    assert "10 facts in 3 relations of scope china; at least 1200 in 30" in messages
    assert "1 facts in 1 relations of scope world; at least 400 in 10" in messages
    assert "relation 'river' has 3 facts; at least 20" in messages
    assert "domain sport has 0 facts; at least 20" in messages
    assert "relation 'capital' has facts of the scopes china, world; a relation has one" in messages
    few = findings(small.tables(), {"enough_objects": SET_RULES["enough_objects"]})
    assert {finding.message.split("'")[1] for finding in few} == {"capital", "river", "tongue"}


# the committed tables


def test_our_own_tables_break_no_rule() -> None:
    found = findings(read_tables(ROOT / "data/benchmark", BOTH), ROW_RULES | SET_RULES)
    assert not found, "\n".join(map(str, found))


def test_the_relation_that_is_worded_in_a_third_language_breaks_no_rule() -> None:
    (relation,) = read_tables(ROOT / "data/benchmark", ("zh", "en", "ja"))
    assert len(relation.facts) >= 20
    assert not findings([relation], ROW_RULES)


def test_the_committed_audit_is_of_the_committed_tables() -> None:
    """All but the counts of tokens, which need the model's tokenizer."""
    kept = read_json(ROOT / "reports/audit.json", BenchmarkAudit)
    seed = 17
    fresh = take_stock(read_tables(ROOT / "data/benchmark", BOTH), seed, len, slow_checks=False)
    assert kept.findings == dict.fromkeys(ROW_RULES | SET_RULES, 0)
    for name in ("num_facts", "num_relations", "china", "domains", "splits", "relations", "probes", "key_collisions"):
        assert getattr(kept.benchmark, name) == getattr(fresh, name), name
    assert {name: kept.benchmark.checks[name] for name in fresh.checks} == fresh.checks


def test_our_own_benchmark_holds_what_its_readme_promises() -> None:
    stock = read_json(ROOT / "reports/audit.json", BenchmarkAudit).benchmark
    for code in BOTH:
        assert stock.probes["portability"][code] >= 400
        assert stock.key_collisions["last"][code] == 0
        for check in ("null_truths", "target_equals_truth", "duplicate_prompts", "contradictory_edits", "locality_question_foreign"):
            assert stock.checks[check][code] == 0, check
    assert stock.probes["translated"]["zh"] >= 150


def test_stock_is_taken_of_every_fact(small: SmallBenchmark) -> None:
    stock = take_stock(small.tables(), 17, len)
    assert (stock.num_facts, stock.num_relations, stock.china) == (11, 3, 10)
    assert stock.domains["provinces_cities"] == {"test": 4}
    assert stock.domains["mountains_rivers"] == {"dev": 3}
    assert stock.probes["near"] == {"zh": 4, "en": 4}
    # France and Egypt are in two relations
    assert stock.key_collisions == {"first": {"zh": 4, "en": 4}, "last": {"zh": 0, "en": 0}}
    assert stock.lengths["zh"]["target_true"] == pytest.approx((2 * 4 + 3 * 3 + 3 + 4 + 4 + 2) / 11, abs=0.005)
    assert stock.relations["river"] == {"facts": 3, "most_used_target": 1}


def test_facts_become_rows_of_the_other_benchmarks_layout(small: SmallBenchmark) -> None:
    facts = every_fact(small.tables(), "first", 17)
    rows = columns(facts)
    assert list(rows) == ["zh", "en"]
    row = next(row for row in rows["en"] if row.case_id == "capital-001")
    assert (row.prompt, row.subject, row.truth) == ("France has its capital in", "France", "Paris")
    assert row.rephrase_prompt == "Leaders of France sit in"
    assert row.loc.endswith(" has its capital in")
    assert row.loc_ans in {"Cairo", "Tokyo", "Lima"}
