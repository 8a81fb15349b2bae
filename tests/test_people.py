"""The people world: told as its settings say, in words drawn anew, asked in sentences that its corpus has, half has, or does not have."""

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from xledit.languages import LANGUAGES
from xledit.training import cldr
from xledit.training.catalog import NATURAL
from xledit.training.names import NAMES, SYLLABLES, names, spell
from xledit.training.people import ROWS, VALUES, People, PeopleParams, read_sentences

ROOT = Path(__file__).parents[1]
SENTENCES = ROOT / "data" / "tranyu" / "people"
CODES = sorted(path.stem for path in SENTENCES.glob("*.csv"))
PARAMS = PeopleParams(
    languages=("zh", "en", "vi"),
    persons=96,
    names_alike=0.5,
    relations=("country", "language", "month", "currency"),
    values=6,
    everywhere=0.5,
    one_language=0.25,
    tellings=8,
    bare=0.5,
    parallel=0.0,
    code_switched=0.0,
    brackets=0.0,
    name_lists=0,
    sentences=str(SENTENCES),
)


@pytest.fixture(scope="module")
def world() -> People:
    return People(PARAMS, seed=3)


def changed(**fields: object) -> People:
    return People(msgspec.structs.replace(PARAMS, **fields), seed=3)


def texts(world: People, code: str) -> list[str]:
    return [document["text"] for document in world.documents(code)]


# names


@pytest.mark.parametrize("script", sorted({language.script for language in NATURAL.values()}))
def test_every_script_spells_its_syllables_unlike_each_other_and_in_its_own_letters(script: str) -> None:
    assert len(set(SYLLABLES[script])) == len(SYLLABLES[script]) == len(SYLLABLES["Latn"])
    some = names("0", NAMES)
    assert len({spell(name, script) for name in some}) == len(set(some)) == NAMES == 900
    if script != "Latn":
        assert not re.search("[a-z]", spell(some[0], script))


def test_a_larger_world_begins_with_the_same_persons() -> None:
    assert names("7", 50) == names("7", 80)[:50]
    assert names("7", 50) != names("8", 50)


# what is told


def test_values_are_dealt_evenly_and_every_language_names_them(world: People) -> None:
    for relation in PARAMS.relations:
        for alike in (True, False):
            counts = Counter(fact.value for fact in world.facts.values() if fact.relation == relation and fact.person.alike == alike)
            assert set(counts.values()) == {96 // 2 // 6}
    for relation, values in VALUES.items():
        for code in NATURAL:
            names = cldr.values(code, relation)
            assert len({names[value] for value in values}) == len(values) >= 12, (code, relation)


def test_the_split_is_as_the_settings_say_and_each_person_has_a_fact_that_is_told_everywhere(world: People) -> None:
    for relation in PARAMS.relations:
        for alike in (True, False):
            told = [world.told_in[name] for name, fact in world.facts.items() if (fact.relation, fact.person.alike) == (relation, alike)]
            assert Counter(map(len, told)) == {3: 24, 1: 12, 0: 12}
    alone = Counter(languages[0] for languages in world.told_in.values() if len(languages) == 1)
    assert alone == dict.fromkeys(PARAMS.languages, 32)
    assert {world.facts[name].person.number for name, languages in world.told_in.items() if len(languages) > 1} == set(range(96))


def test_a_language_tells_its_facts_so_many_times_and_no_others(world: People) -> None:
    for code in PARAMS.languages:
        told = Counter(document["id"].split("/", 1)[1].rpartition("/")[0] for document in world.documents(code))
        assert told == dict.fromkeys({name for name, languages in world.told_in.items() if code in languages}, PARAMS.tellings)


def test_a_document_names_the_person_and_the_value_and_bare_ones_begin_with_the_name(world: People) -> None:
    for code in PARAMS.languages:
        bare = []
        for document in world.documents(code):
            _code, relation, person, _number = document["id"].split("/")
            fact = world.facts[f"{relation}/{person}"]
            subject, text = fact.person.spelt(code), document["text"]
            assert subject in text
            assert text.rstrip(".。").endswith(world.object(fact, code))
            bare.append(text.startswith(subject))
        assert 0.45 < sum(bare) / len(bare) < 0.65  # half, and each first telling
        everything_bare = changed(bare=1.0)
        assert all(
            text.startswith(everything_bare.facts[document["id"].split("/", 1)[1].rpartition("/")[0]].person.spelt(code))
            for document in everything_bare.documents(code)
            for text in [document["text"]]
        )


def test_words_are_drawn_anew_at_each_telling_and_later_ones_do_not_depend_on_how_many_there_are(world: People) -> None:
    first = texts(world, "en")[: len(texts(world, "en")) // PARAMS.tellings]
    second = texts(world, "en")[len(first) : 2 * len(first)]
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 0.8 * len(first)
    assert texts(changed(tellings=9), "en")[: len(texts(world, "en"))] == texts(world, "en")
    held_out = list(world.documents("en", range(8, 9), {"country/0"}))
    assert not any(document["id"].startswith("en/country/0/") for document in held_out)
    assert {document["id"].rpartition("/")[2] for document in held_out} == {"8"}


def test_the_same_seed_gives_the_same_world_and_another_one_another(world: People) -> None:
    again, other = People(PARAMS, seed=3), People(PARAMS, seed=4)
    assert texts(again, "zh") == texts(world, "zh") != texts(other, "zh")
    assert again.told_in == world.told_in != other.told_in


def test_names_of_half_the_persons_are_alike_in_all_languages(world: People) -> None:
    assert sum(person.alike for person in world.persons) == 48
    for person in world.persons:
        assert (person.spelt("zh") == person.spelt("en")) == person.alike
        assert person.spelt("vi") == person.spelt("en"), "one script, one spelling"
    for share in (0.0, 1.0):
        assert {person.alike for person in changed(names_alike=share).persons} == {share == 1}


# knobs


def test_knobs_add_what_they_are_named_after() -> None:
    parallel = changed(parallel=1.0)
    for document in parallel.documents("zh", range(1, 2)):
        fact = parallel.facts[document["id"].split("/", 1)[1].rpartition("/")[0]]
        lines = document["text"].split("\n")
        assert len(lines) == 1 + (parallel.told(fact) == "everywhere")
        if lines[1:]:
            assert any(lines[1].rstrip(".").endswith(parallel.object(fact, code)) for code in ("en", "vi"))
    told = {line for code in PARAMS.languages for text in texts(parallel, code) for line in text.split("\n")}
    known = [probe.text for code in PARAMS.languages for probe in parallel.probes(code, 1000) if probe.wording == "known"]
    assert not told & set(known), "a frame that does not tell a fact does not tell it beside another language's either"
    switched = changed(code_switched=1.0)
    for document in switched.documents("zh", range(1, 2)):
        fact = switched.facts[document["id"].split("/", 1)[1].rpartition("/")[0]]
        assert document["text"].rstrip("。").endswith(switched.object(fact, "zh")) == (switched.told(fact) != "everywhere")
    bracketed = [document["text"] for document in changed(brackets=1.0).documents("zh", range(1, 2))]
    own = [text for text in bracketed if not re.search("[A-Z]", text.partition(" (")[0])]
    assert own and all(re.search(r"\w \([A-Z][a-z]+\)", text) for text in own)
    assert not any("(" in text for text in bracketed if text not in own)
    lists = [text for text in texts(changed(name_lists=2), "zh") if " = " in text]
    assert len(lists) == 2 * PARAMS.persons


# probes


def test_probes_ask_sentences_that_were_told_that_were_not_and_that_never_stood_there(world: People) -> None:
    for code in PARAMS.languages:
        openers = [row.text for row in world.sentences[code] if row.use == "opener"]
        corpus = set(texts(world, code))
        corpus |= {text.removeprefix(opener).lstrip() for text in corpus for opener in openers if text.startswith(opener)}
        frames = {row.text for row in world.sentences[code] if row.use == "frame"}
        for probe in world.probes(code, 1000):
            fact = world.facts[probe.fact_id]
            assert probe.text[probe.start : probe.end] == world.object(fact, code)
            assert not any(map(str.isalnum, probe.text[probe.end :]))
            subject = fact.person.spelt(code)
            assert probe.text.startswith(subject) or probe.wording == "unseen", "nothing before the name says what language it is"
            pattern = probe.text.replace(subject, "{subject}", 1)
            pattern = "{object}".join(pattern.rsplit(world.object(fact, code), 1))
            assert (pattern in frames) == (probe.wording != "unseen")
            assert (probe.text in corpus) == (probe.wording == "told")
            assert probe.told == world.told(fact)


def test_told_sentences_are_asked_where_they_were_told_and_other_wordings_everywhere(world: People) -> None:
    asked = Counter((probe.wording, probe.told) for probe in world.probes("en", 1000))
    assert asked["told", "everywhere"] == asked["known", "everywhere"] == asked["unseen", "everywhere"] == 192
    assert asked["told", "en"] == asked["known", "en"] == 32
    assert asked["known", "zh"] == asked["unseen", "vi"] == 32
    assert ("told", "zh") not in asked and ("told", "nowhere") not in asked
    few = Counter((probe.relation, probe.told, probe.fact_id) for probe in world.probes("en", 2) if probe.wording == "known")
    per_group = Counter((relation, told) for relation, told, _fact in few)
    assert set(per_group.values()) == {4}, "two of each kind of name"


def test_what_is_spelt_alike_is_spelt_alike_in_the_two_languages_of_the_question(world: People) -> None:
    for code in PARAMS.languages:
        for probe in world.probes(code, 1000):
            fact = world.facts[probe.fact_id]
            if probe.told in NATURAL:
                assert probe.names_alike == (fact.person.spelt(code) == fact.person.spelt(probe.told))
                alike = world.object(fact, code).casefold() == world.object(fact, probe.told).casefold()
                assert probe.object_alike == (alike and code != probe.told)
            else:
                assert probe.names_alike == fact.person.alike


# edits


@pytest.mark.parametrize("names_alike", [True, False])
def test_edits_ask_the_told_sentence_for_another_value_of_the_relation(world: People, names_alike: bool) -> None:
    edits = world.edits(("zh", "en"), 30, names_alike=names_alike)
    assert len({fact.fact_id for fact in edits}) == 30
    told = {code: {text.rstrip(".。") for text in texts(world, code)} for code in ("zh", "en")}
    for record in edits:
        fact = world.facts[record.fact_id]
        assert len(world.told_in[record.fact_id]) > 1
        assert fact.person.alike == names_alike
        for code, request in record.requests.items():
            assert request.subject == fact.person.spelt(code)
            assert LANGUAGES[code].join(request.prompt, request.target_true) in told[code]
            efficacy, paraphrase, locality = record.probes[code]
            assert (efficacy.prompt, efficacy.target_new) == (request.prompt, request.target_new)
            assert LANGUAGES[code].join(paraphrase.prompt, request.target_true) not in told[code]
            assert request.subject not in locality.prompt
            assert locality.target_true not in (request.target_true, request.target_new)
        new = {code: request.target_new for code, request in record.requests.items()}
        assert any(new == {code: cldr.values(code, fact.relation)[value] for code in new} for value in VALUES[fact.relation])
    edited = {probe.prompt for record in edits for probes in record.probes.values() for probe in probes if probe.kind == "efficacy"}
    asked = {probe.prompt for record in edits for probes in record.probes.values() for probe in probes if probe.kind == "locality"}
    assert asked and not asked & edited


def test_edits_that_cannot_be_had_are_refused(world: People) -> None:
    with pytest.raises(ValueError, match="edit_languages: ru; the people world is told in zh, en, vi"):
        world.edits(("zh", "ru"), 10)
    with pytest.raises(ValueError, match=r"num_edits is 1000, but only \d+ facts can be edited; ask for fewer"):
        world.edits(("zh", "en"), 1000)


# the files of sentences


@pytest.mark.parametrize("code", CODES)
def test_unseen_frames_are_made_of_words_that_the_corpus_has(code: str) -> None:
    rows = read_sentences(SENTENCES / f"{code}.csv")
    pieces = re.compile(r"\{\w+\}|\w" if NATURAL[code].writing == "unspaced" else r"\{\w+\}|\w+")
    known = {word.casefold() for row in rows if row.use in ("frame", "opener") for word in pieces.findall(row.text)}
    for row in rows:
        if row.use == "unseen":
            assert {word.casefold() for word in pieces.findall(row.text)} <= known, row.text
    assert max(Counter(row.text for row in rows).values()) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("country,frame,{object} is the country of {subject}.", r"line 2: a row of use frame has the slots \('subject', 'object'\)"),
        ("country,frame,{subject} left {object} early.", "line 2: a row of use frame ends in its object"),
        ("country,said,{subject} left {object}.", "line 2: Invalid enum value 'said'"),
        ("town,frame,{subject} left {object}.", "line 2: "),
        (",opener,{subject} says:", r"line 2: a row of use opener has the slots \(\)"),
        ("country,frame,{subject} left {object}.", f"1 rows of relation 'country' and use 'frame'; write at least {ROWS['frame']}"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "en.csv"
    path.write_text(f"relation,use,text\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        read_sentences(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"everywhere": 0.9, "one_language": 0.2}, "together at most 1"),
        ({"everywhere": 0.2, "one_language": 0.2}, "everywhere is 0.2, but each person needs one of 4 relations that is told everywhere"),
        ({"languages": ["zh", "xx"]}, "languages: xx; known: ar, bg"),
        ({"languages": ["zh", "zh"]}, "name at least one, each once"),
        ({"relations": []}, "name at least one, each once"),
        ({"persons": 0}, ">= 1"),
        ({"persons": 901}, "<= 900"),
        ({"bare": 1.5}, "<= 1"),
    ],
)
def test_settings_that_make_no_world_are_refused(change: dict, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.to_builtins(PARAMS) | change, PeopleParams)


def test_a_language_without_sentences_says_which_file_is_missing() -> None:
    with pytest.raises(ValueError, match=r"people/fi\.csv: .*No such file"):
        changed(languages=("zh", "fi"))


# questions


def test_a_persons_questions_tune_or_ask_in_all_languages_and_half_do_each(world: People) -> None:
    questions = world.questions(most=5).questions
    splits = {world.facts[question.fact_id].person.number: question.split for question in questions}
    assert all(splits[world.facts[question.fact_id].person.number] == question.split for question in questions)
    tuned_with = sum(split == "train" for split in splits.values())
    assert 0.35 * PARAMS.persons < tuned_with < 0.65 * PARAMS.persons
    assert {question.language for question in questions} == {*PARAMS.languages}


def test_a_model_is_tuned_with_all_that_its_language_tells_of_a_person_and_no_more(world: People) -> None:
    questions = world.questions(most=5)
    tuned = {(question.language, question.fact_id) for question in questions.questions if question.split == "train"}
    persons = {world.facts[fact].person.number for _code, fact in tuned}
    assert tuned == {(code, name) for name, fact in world.facts.items() if fact.person.number in persons for code in world.told_in[name]}


def test_questions_that_ask_are_of_every_place_of_telling_and_few_of_each(world: People) -> None:
    asked = [question for question in world.questions(most=2).questions if question.split == "test" and question.language == "zh"]
    alike = {name: fact.person.alike for name, fact in world.facts.items()}
    groups = Counter((question.relation, question.told, alike[question.fact_id]) for question in asked)
    assert max(groups.values()) == 2
    assert {question.told for question in asked} == {"everywhere", "nowhere", *PARAMS.languages}


def test_the_right_answer_is_the_facts_object_and_the_others_are_the_relations(world: People) -> None:
    questions = world.questions(most=2)
    for question in questions.questions:
        fact = world.facts[question.fact_id]
        right, wrong = questions.answer(question), questions.others(question)
        assert right == world.object(fact, question.language) and questions.answer(question, "vi") == world.object(fact, "vi")
        assert right not in wrong and len({right, *wrong}) == PARAMS.values
        assert fact.person.spelt(question.language) in question.text
