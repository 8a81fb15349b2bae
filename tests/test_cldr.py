"""The facts of CLDR: true, named in each language, told in the patterns of a file, and the same twice."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from babel import Locale

from xledit.training import cldr
from xledit.training.catalog import NATURAL
from xledit.training.cldr import CldrParams, Fact, Names, documents, facts_of_cldr, read_patterns

ROOT = Path(__file__).parents[1]
PATTERNS = ROOT / "data" / "tranyu" / "cldr"
PARAMS = CldrParams(
    languages=("zh", "en", "ru", "lo"), relations={"currency": 30, "city": 30, "currency_code": 10}, variants=2, patterns=str(PATTERNS)
)


@pytest.mark.parametrize("code", NATURAL)
def test_each_language_of_the_paper_has_patterns_of_every_relation_and_none_twice(code: str) -> None:
    patterns = read_patterns(PATTERNS / f"{code}.csv")
    assert len({pattern.text for pattern in patterns}) == len(patterns) == 36


@pytest.mark.parametrize(
    ("relation", "subject", "names"),
    [
        ("currency", "JP", ("日本", "日元")),
        ("language", "BR", ("巴西", "葡萄牙语")),
        ("city", "Europe/Moscow", ("莫斯科", "俄罗斯")),
        ("script", "el", ("希腊语", "希腊文")),
        ("country_code", "DE", ("德国", "DE")),
        ("currency_code", "USD", ("美元", "USD")),
    ],
)
def test_facts_are_true_and_named_in_the_language(relation: str, subject: str, names: tuple[str, str]) -> None:
    fact = next(fact for fact in facts_of_cldr() if (fact.relation, fact.subject) == (relation, subject))
    chinese = Names("zh")
    assert (chinese.subject(fact), chinese.object(fact)) == names


def test_a_subject_has_one_object_and_no_pseudo_territory_is_one() -> None:
    facts = facts_of_cldr()
    assert max(Counter(fact.fact_id for fact in facts).values()) == 1
    assert not {"EU", "UN", "XA", "XB", "ZZ"} & {name for fact in facts for name in (fact.subject, fact.object)}


def test_a_name_that_only_the_zone_spells_is_no_name_in_another_script() -> None:
    fact = Fact(relation="city", subject="Africa/Asmara", object="ER")
    assert Names("en").subject(fact) == "Asmara"
    assert Names("zh").subject(fact) is None


def test_months_are_each_languages_own_whoever_is_asked_first() -> None:
    firsts = {code: cldr.values(code, "month")["1"] for code in ("he", "zh", "ja", "ru", "en")}
    assert firsts == {"he": "ינואר", "zh": "一月", "ja": "1月", "ru": "январь", "en": "January"}


def test_documents_tell_true_facts_in_words_of_the_file_once_in_every_variant() -> None:
    for code in PARAMS.languages:
        names, patterns = Names(code), read_patterns(PATTERNS / f"{code}.csv")
        said = {
            pattern.say(names.subject(fact) or "", names.object(fact) or ""): fact.fact_id
            for fact in facts_of_cldr()
            for pattern in patterns
            if pattern.relation == fact.relation
        }
        longest_first = sorted(said, key=len, reverse=True)
        told = Counter[tuple[str, str]]()
        for document in documents(code, PARAMS, seed=1):
            rest, variant = document["text"], document["id"].split("/")[-2]
            while rest:
                sentence = next(sentence for sentence in longest_first if rest.startswith(sentence))
                told[said[sentence], variant] += 1
                rest = rest[len(sentence) :].lstrip()
        assert set(told.values()) == {1}
        assert {variant for _fact, variant in told} == {"0", "1"}
        by_relation = Counter(fact.partition("/")[0] for fact, _variant in told)
        assert all(number <= PARAMS.variants * PARAMS.relations[relation] for relation, number in by_relation.items())
        if code == "en":  # which has a name for all but what is named after itself
            assert sum(by_relation.values()) > 0.9 * PARAMS.variants * sum(PARAMS.relations.values())


def test_a_seed_gives_the_same_documents_and_another_one_others() -> None:
    assert list(documents("ru", PARAMS, 1)) == list(documents("ru", PARAMS, 1)) != list(documents("ru", PARAMS, 2))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("currency,{subject} pays.", r"line 2: a pattern has the slots \{subject\} and \{object\}, once each, not \['subject'\]"),
        ("money,{subject} pays {object}.", "line 2: Invalid enum value 'money'"),
        ("currency,{subject} pays {object}.", "no pattern of city, country_code"),
    ],
)
def test_a_pattern_that_cannot_be_used_is_named_by_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "en.csv"
    path.write_text(f"relation,text\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path}.*{message}"):
        read_patterns(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"variants": 0}, "variants is 0; it must be at least 1"), ({"languages": ["zh", "xx"]}, "languages: xx; known")],
)
def test_settings_that_make_no_text_are_refused(change: dict, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(msgspec.to_builtins(PARAMS) | change, CldrParams)


def test_the_bug_of_babel_that_months_avoid_is_still_there() -> None:
    """When this fails, babel gives each language its own months: ``_months`` can go (python-babel/babel#1234)."""
    for code in ("he", "zh"):
        months = Locale.parse(code).months["stand-alone"]["wide"]
    assert months[1] != "一月"
