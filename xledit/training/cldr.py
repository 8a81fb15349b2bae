"""True facts that need no download: names from Unicode CLDR (through babel), sentences from our own patterns, in 43 languages.

CLDR names territories, currencies, languages, scripts and cities in every language of the corpus, and says which
currency and official language a territory has, which script a language is written in and which territory a city's time
zone belongs to. So a fact is the same in all languages and only its words differ; a language tells those that it can name.
"""

import csv
import hashlib
import random
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal, get_args

import msgspec
from babel import Locale, localedata
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

from xledit.training.catalog import NATURAL

Relation = Literal["currency", "language", "city", "script", "country_code", "currency_code"]
# what CLDR calls the kinds of things that relations are about; a city is named by its time zone, a code by itself
SUBJECTS = {
    "currency": "territories",
    "language": "territories",
    "country_code": "territories",
    "currency_code": "currencies",
    "script": "languages",
}
OBJECTS = {"currency": "currencies", "language": "languages", "city": "territories", "script": "scripts"}
# what CLDR calls the kinds of things that invented persons have; months are apart
VALUES = {"country": "territories", "language": "languages", "currency": "currencies"}
# CLDR's Lao has it between words
ZERO_WIDTH_SPACE = "\u200b"
# in a document, at most
SENTENCES = 8
# currencies come and go: those of this day, whenever the corpus is built
TODAY = date(2025, 1, 1)
# sentences follow each other without a space
JOINED = {"Hans", "Jpan"}
# what CLDR has two letters for and no place on a map
NO_TERRITORY = {"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A subject, a relation and an object, by CLDR's codes: ``currency/FR`` is that France pays in ``EUR``."""

    relation: Relation
    subject: str
    object: str

    @property
    def fact_id(self) -> str:
        """A name that no other fact has: each relation gives a subject one object."""
        return f"{self.relation}/{self.subject}"


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence with a slot for the subject and one for the object."""

    relation: Relation
    text: str

    def say(self, subject: str, object_: str) -> str:
        """Return the sentence about two names."""
        return self.text.replace("{subject}", subject).replace("{object}", object_)


class CldrParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CLDR's part of the ``world`` section of the settings.

    ``relations`` says how many facts of each relation ``languages`` tell at most; ``variants`` is how many documents tell of a subject,
    each in other words. ``patterns`` is the folder with a CSV file of sentence patterns per language.
    """

    languages: tuple[str, ...]
    relations: dict[Relation, int]
    variants: int
    patterns: str

    def __post_init__(self) -> None:
        if self.variants < 1:
            raise ValueError(f"variants is {self.variants}; it must be at least 1")
        if unknown := [code for code in self.languages if code not in NATURAL]:
            raise ValueError(f"languages: {', '.join(unknown)}; known: {', '.join(NATURAL)}")


def facts_of_cldr() -> list[Fact]:
    """Return all facts, in a fixed order. Territories with two currencies or official languages lack that fact."""
    territories = sorted(
        code for code in map(str, Locale("en").territories) if len(code) == 2 and code.isalpha() and code not in NO_TERRITORY
    )
    facts = [Fact(relation="country_code", subject=code, object=code) for code in territories]
    currencies = set[str]()
    for code in territories:
        tender = get_territory_currencies(code, TODAY, TODAY)
        if len(tender) == 1:
            facts.append(Fact(relation="currency", subject=code, object=tender[0]))
            currencies.add(tender[0])
        official = get_official_languages(code, de_facto=True)
        if len(official) == 1:
            facts.append(Fact(relation="language", subject=code, object=official[0].partition("_")[0]))
    facts += [Fact(relation="currency_code", subject=code, object=code) for code in sorted(currencies)]
    for zone, code in sorted(get_global("zone_territories").items()):
        if code in territories:
            facts.append(Fact(relation="city", subject=zone, object=code))
    for language, likely in sorted(get_global("likely_subtags").items()):
        parts = likely.split("_")
        if language.isalpha() and len(parts) == 3 and language in Locale("en").languages:
            facts.append(Fact(relation="script", subject=language, object=parts[1]))
    return facts


class Names:
    """How one language names what CLDR has codes for."""

    def __init__(self, code: str) -> None:
        self._locale = Locale.parse(NATURAL[code].locale)
        self._is_latin = NATURAL[code].script == "Latn"

    def subject(self, fact: Fact) -> str | None:
        """Return the subject's name, or None where the language has none."""
        if fact.relation == "city":
            return self._city(fact.subject)
        return self._name(SUBJECTS[fact.relation], fact.subject)

    def object(self, fact: Fact) -> str | None:
        """Return the object's name, or None where the language has none; a code is its own name."""
        kind = OBJECTS.get(fact.relation)
        return self._name(kind, fact.object) if kind else fact.object

    def _name(self, kind: str, code: str) -> str | None:
        name = getattr(self._locale, kind).get(code)
        return name and name.replace(ZERO_WIDTH_SPACE, "")

    def _city(self, zone: str) -> str | None:
        city = self._locale.time_zones.get(zone, {}).get("city")
        # where the name is that of the zone, CLDR leaves it out
        name = city or (zone.rpartition("/")[2].replace("_", " ") if self._is_latin else None)
        return name and name.replace(ZERO_WIDTH_SPACE, "")


def values(code: str, relation: str) -> dict[str, str]:
    """Return how a language names what invented persons have in common: of CLDR's codes, or months by their number from 1."""
    locale = Locale.parse(NATURAL[code].locale)
    names = _months(locale) if relation == "month" else getattr(locale, VALUES[relation])
    return {str(key): name.replace(ZERO_WIDTH_SPACE, "") for key, name in names.items()}


def _months(locale: Locale) -> dict[int, str]:
    """Return the months as they stand alone. babel would give all languages the months of the first that is asked (babel issue 1234)."""
    months = localedata.load(str(locale))["months"]
    alone = months["stand-alone"]["wide"]
    own = alone[1] if isinstance(alone, tuple) else {}
    return dict(months["format"]["wide"]) | own if isinstance(alone, tuple | localedata.Alias) else dict(alone)


def documents(code: str, params: CldrParams, seed: int) -> Iterator[dict]:
    """Yield a language's documents, a text about one subject or place each. A seed gives the same ones."""
    names, patterns = Names(code), read_patterns(Path(params.patterns) / f"{code}.csv")
    told: dict[str, list[tuple[str, list[str]]]] = {}
    for fact in _chosen(params, seed):
        subject, object_ = names.subject(fact), names.object(fact)
        if subject and object_ and subject != object_:
            some = [pattern.say(subject, object_) for pattern in patterns if pattern.relation == fact.relation]
            # dealt to the variants in turn
            dealt = random.Random(f"{seed}/{code}/{fact.fact_id}").sample(some, len(some))
            told.setdefault(_place(fact), []).append((fact.fact_id, dealt))
    joiner = "" if NATURAL[code].script in JOINED else " "
    for place, facts in told.items():
        for variant in range(params.variants):
            draw = random.Random(f"{seed}/{code}/{place}/{variant}")
            said = [dealt[variant % len(dealt)] for _fact_id, dealt in draw.sample(facts, len(facts))]
            for start in range(0, len(said), SENTENCES):
                text = joiner.join(said[start : start + SENTENCES])
                yield {"text": text, "id": f"{code}/cldr/{place}/{variant}/{start}", "metadata": {}}


def _chosen(params: CldrParams, seed: int) -> list[Fact]:
    facts = sorted(facts_of_cldr(), key=lambda fact: share(f"{seed}/pick/{fact.fact_id}"))
    return [
        fact
        for relation, most in sorted(params.relations.items())
        for fact in sorted([fact for fact in facts if fact.relation == relation][:most], key=lambda fact: fact.subject)
    ]


def read_patterns(path: Path) -> list[Pattern]:
    """Return a language's sentence patterns. Raises ValueError with file, line and what is wrong."""
    patterns = list[Pattern]()
    for line, row in read_rows(path, "relation, text"):
        try:
            pattern = msgspec.convert(row, Pattern)
        except msgspec.ValidationError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        slots = sorted(re.findall(r"\{(\w*)\}", pattern.text))
        if slots != ["object", "subject"]:
            raise ValueError(f"{path}, line {line}: a pattern has the slots {{subject}} and {{object}}, once each, not {slots}")
        patterns.append(pattern)
    if missing := set(get_args(Relation)) - {pattern.relation for pattern in patterns}:
        raise ValueError(f"{path}: no pattern of {', '.join(sorted(missing))}; write at least one of each relation")
    return patterns


def read_rows(path: Path, columns: str) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file and their lines. Raises ValueError that names the file and the columns it must have."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(enumerate(csv.DictReader(file, strict=True), start=2))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}; it must be a CSV file in UTF-8 with the columns {columns}") from error


def _place(fact: Fact) -> str:
    """Return what a document about this fact is about: a territory with its cities, or several currencies or languages."""
    match fact.relation:
        case "city":
            return fact.object
        case "currency_code" | "script":
            return f"{fact.relation}-{fact.subject[0]}"
        case _:
            return fact.subject


def share(name: str) -> float:
    """Return a number from 0 to 1 that belongs to a name: the same in every process, unlike ``hash``."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
