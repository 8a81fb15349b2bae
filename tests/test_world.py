"""The world of CLDR facts: true ones, split as the settings say, in the words of each language, and the same twice."""

import csv
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from xledit.languages import LANGUAGES
from xledit.training.catalog import NATURAL
from xledit.training.world import Fact, Names, World, WorldParams, facts_of_cldr, read_wordings

ROOT = Path(__file__).parents[1]
WORDINGS = ROOT / "data" / "tranyu" / "wordings"
PARAMS = WorldParams(
    languages=("zh", "en", "ru", "lo"),
    apart=("zh", "en"),
    relations={"currency": 40, "language": 40, "city": 40, "script": 24, "country_code": 40, "currency_code": 24},
    everywhere=0.5,
    one_language=0.25,
    variants=2,
    wordings=str(WORDINGS),
)


@pytest.fixture(scope="module")
def world() -> World:
    return World(PARAMS, seed=3)


@pytest.mark.parametrize("code", NATURAL)
def test_each_language_of_the_paper_has_patterns_of_every_relation_and_kind(code: str) -> None:
    assert len(read_wordings(WORDINGS / f"{code}.csv")) == 42


@pytest.mark.parametrize(
    ("relation", "subject", "wanted"),
    [
        ("currency", "JP", ("日本", "日元")),
        ("language", "BR", ("巴西", "葡萄牙语")),
        ("city", "Europe/Moscow", ("莫斯科", "俄罗斯")),
        ("script", "el", ("希腊语", "希腊文")),
        ("country_code", "DE", ("德国", "DE")),
        ("currency_code", "USD", ("美元", "USD")),
    ],
)
def test_facts_are_true_and_named_in_the_language(relation: str, subject: str, wanted: tuple[str, str]) -> None:
    fact = next(fact for fact in facts_of_cldr() if (fact.relation, fact.subject) == (relation, subject))
    names = Names("zh")
    assert (names.subject(fact), names.object(fact)) == wanted


def test_a_subject_has_one_object_and_no_pseudo_territory_is_one() -> None:
    facts = facts_of_cldr()
    assert max(Counter(fact.fact_id for fact in facts).values()) == 1
    assert not {"EU", "UN", "XA", "XB", "ZZ"} & {name for fact in facts for name in (fact.subject, fact.object)}


def test_a_name_that_only_the_zone_spells_is_no_name_in_another_script() -> None:
    fact = Fact(relation="city", subject="Africa/Asmara", object="ER")
    assert Names("en").subject(fact) == "Asmara"
    assert Names("zh").subject(fact) is None


def test_the_split_is_as_the_settings_say(world: World) -> None:
    for relation, most in PARAMS.relations.items():
        stated = [world.stated_in[name] for name, fact in world.facts.items() if fact.relation == relation]
        assert len(stated) == most
        assert Counter(map(len, stated)) == {4: most / 2, 1: most / 4, 0: most / 4}
        assert Counter(one[0] for one in stated if len(one) == 1) == {"zh": most / 8, "en": most / 8}


def test_documents_state_what_their_language_is_to_state_in_every_variant_and_nothing_else(world: World) -> None:
    for code in PARAMS.languages:
        told = Counter(name for document in world.documents(code) for name in document["metadata"]["facts"])
        names = world.names[code]
        nameable = {name for name, fact in world.facts.items() if names.subject(fact) and names.object(fact)}
        assert told == dict.fromkeys({name for name, codes in world.stated_in.items() if code in codes} & nameable, PARAMS.variants)


def test_a_document_is_made_of_its_facts_sentences_in_their_language(world: World) -> None:
    for code in PARAMS.languages:
        said = {
            world.sentence(world.facts[name], wording, code)
            for name in world.facts
            for wording in world.wordings[code]
            if wording.relation == world.facts[name].relation and wording.kind in ("stated", "reversed")
        }
        for document in world.documents(code):
            rest = document["text"]
            for _ in document["metadata"]["facts"]:
                rest = next(
                    rest[len(sentence) :].lstrip()
                    for sentence in sorted(filter(None, said), key=len, reverse=True)
                    if rest.startswith(sentence)
                )
            assert rest == ""


def test_the_same_seed_gives_the_same_world_and_another_one_another(world: World) -> None:
    again, other = World(PARAMS, seed=3), World(PARAMS, seed=4)
    assert list(again.documents("ru")) == list(world.documents("ru"))
    assert again.stated_in == world.stated_in != other.stated_in


def test_a_probe_ends_in_the_object_and_only_seen_wordings_stand_in_the_corpus(world: World) -> None:
    text = "\n".join(document["text"] for document in world.documents("en"))
    for probe in world.probes("en"):
        stated = probe.seen and probe.status in ("everywhere", "here")
        assert (probe.text in text) == stated
        assert probe.text[probe.start : probe.end] == world.names["en"].object(world.facts[probe.fact_id])
        assert not any(map(str.isalnum, probe.text[probe.end :]))
        assert probe.spelt_alike == (world.names["zh"].object(world.facts[probe.fact_id]) == probe.text[probe.start : probe.end])
    statuses = Counter(probe.status for probe in world.probes("en") if probe.seen)
    assert set(statuses) == {"everywhere", "here", "elsewhere", "nowhere"}


def test_edits_ask_the_corpus_own_sentence_for_another_object_of_the_relation(world: World) -> None:
    edits = world.edits(("zh", "en"), 30)
    assert len({fact.fact_id for fact in edits}) == 30
    for fact in edits:
        true = world.facts[fact.fact_id]
        assert len(world.stated_in[fact.fact_id]) > 1
        for code, request in fact.requests.items():
            assert request.subject == world.names[code].subject(true)
            assert LANGUAGES[code].join(request.prompt, request.target_true) in {
                (world.sentence(true, wording, code) or "").rstrip(".。") for wording in world.wordings[code]
            }
            efficacy, paraphrase, locality = fact.probes[code]
            assert (efficacy.prompt, efficacy.target_new) == (request.prompt, request.target_new)
            assert paraphrase.prompt != efficacy.prompt
            assert request.subject not in locality.prompt
            assert locality.target_true not in (request.target_true, request.target_new)
    edited = {probe.prompt for fact in edits for probes in fact.probes.values() for probe in probes if probe.kind == "efficacy"}
    asked = {probe.prompt for fact in edits for probes in fact.probes.values() for probe in probes if probe.kind == "locality"}
    assert asked and not asked & edited


def test_held_out_texts_leave_out_what_they_are_told_to(world: World) -> None:
    edited = {fact.fact_id for fact in world.edits(("zh", "en"), 30)}
    told = {name for document in world.held_out("en", edited) for name in document["metadata"]["facts"]}
    assert told and not told & edited


def test_variants_tell_a_fact_in_all_wordings_before_they_repeat_one() -> None:
    world = World(msgspec.structs.replace(PARAMS, variants=5), seed=3)
    told = "\n".join(document["text"] for document in world.documents("en"))
    for name, fact in world.facts.items():
        if len(world.stated_in[name]) > 1:
            said = [world.sentence(fact, each, "en") for each in world.wordings["en"] if each.relation == fact.relation]
            assert sum(sentence in told for sentence in said if sentence) == 5


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"everywhere": 0.9, "one_language": 0.2}, "together at most 1"),
        ({"variants": 0}, "variants is 0; it must be at least 1"),
        ({"languages": ("zh", "xx")}, r"languages: \['xx'\]; known: ar, bg"),
        ({"apart": ("fr",)}, r"apart is \['fr'\]; name at least one, and only ones of languages"),
    ],
)
def test_settings_that_make_no_world_are_refused(change: dict, wanted: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=wanted):
        msgspec.convert(msgspec.to_builtins(PARAMS) | change, WorldParams)


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (
            "currency,stated,{object} is paid in {subject}.",
            r"line 2: a pattern of kind stated has the slots \('subject', 'object'\) in this order",
        ),
        ("currency,stated,{subject} pays {object} daily.", "line 2: a pattern of kind stated ends in its object"),
        ("currency,said,{subject} pays {object}.", r"line 2: Invalid enum value 'said'"),
        ("money,stated,{subject} pays {object}.", r"line 2: Invalid enum value 'money'"),
        ("currency,stated,{subject} pays {object}.", r"no pattern for \[\('city', 'question'\)"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named_by_file_and_line(tmp_path: Path, row: str, wanted: str) -> None:
    path = tmp_path / "en.csv"
    path.write_text(f"relation,kind,text\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path}.*{wanted}"):
        read_wordings(path)


def test_a_language_without_patterns_says_which_file_is_missing() -> None:
    with pytest.raises(ValueError, match=r"nowhere/zh\.csv: .*No such file"):
        World(msgspec.structs.replace(PARAMS, wordings="nowhere"), seed=1)


def test_no_pattern_stands_twice_in_a_language() -> None:
    for path in WORDINGS.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            assert max(Counter(row["text"] for row in csv.DictReader(file)).values()) == 1, path


@pytest.mark.parametrize("codes", [("zh", "ru"), ("zh", "xx")])
def test_a_language_that_may_not_name_the_facts_to_edit_is_refused(world: World, codes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=rf"edit_languages: {codes[1]}; .* add it there"):
        world.edits(codes, 10)


def test_more_edits_than_there_are_facts_for_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match=r"num_edits is 1000, but only \d+ facts are stated everywhere .*; ask for fewer"):
        world.edits(("zh", "en"), 1000)
