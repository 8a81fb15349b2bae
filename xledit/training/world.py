"""A small world of true facts that needs no download: names from Unicode CLDR (through babel), sentences from our own patterns.

CLDR names territories, currencies, languages, scripts and cities in every language of the corpus, and says which
currency and official language a territory has, which script a language is written in and which territory a city's time
zone belongs to. So a fact is the same in all languages and only its words differ. Each fact is *stated* in all languages
of a run, in one of them only (does it cross?), or in none (what does guessing give?).
"""

import csv
import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Literal, get_args

import msgspec
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

from xledit import records
from xledit.records import EditRequest, FactRecords, Probe
from xledit.training.catalog import NATURAL
from xledit.training.results import Status

Relation = Literal["currency", "language", "city", "script", "country_code", "currency_code"]
Kind = Literal["stated", "reversed", "unseen", "question"]
SLOTS = {"stated": ("subject", "object"), "unseen": ("subject", "object"), "reversed": ("object", "subject"), "question": ("subject",)}
# what CLDR calls the kinds of things that relations are about; a city is named by its time zone, a code by itself
SUBJECTS = {
    "currency": "territories",
    "language": "territories",
    "country_code": "territories",
    "currency_code": "currencies",
    "script": "languages",
}
OBJECTS = {"currency": "currencies", "language": "languages", "city": "territories", "script": "scripts"}
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


class Wording(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence with a slot for the subject and, but in a question, one for the object, where ``stated`` and ``unseen`` end."""

    relation: Relation
    kind: Kind
    text: str

    def say(self, subject: str, object_: str = "") -> str:
        """Return the sentence about two names."""
        return self.text.replace("{subject}", subject).replace("{object}", object_)

    def prompt(self, subject: str) -> str:
        """Return what comes before the object."""
        return self.text.partition("{object}")[0].replace("{subject}", subject)


class FactProbe(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence that states a fact in one language; ``text[start:end]`` is the object.

    ``seen``: the corpus has this wording, and of facts that it states this very sentence. ``spelt_alike``: another language of
    ``apart`` spells the object the same, so the fact may cross by spelling.
    """

    fact_id: str
    language: str
    status: Status
    seen: bool
    spelt_alike: bool
    text: str
    start: int
    end: int


class WorldParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``world`` section of the settings.

    Facts are stated in ``languages``: a share ``everywhere`` in all of them, a share ``one_language`` in one of ``apart``
    only, evenly; the rest is held out. ``relations`` says how many facts of each relation there are at most. ``variants`` is
    how many documents tell of a subject, each in other words: more is easier to learn and longer to read.
    """

    languages: tuple[str, ...]
    apart: tuple[str, ...]
    relations: dict[Relation, int]
    everywhere: float
    one_language: float
    variants: int
    wordings: str

    def __post_init__(self) -> None:
        if min(self.everywhere, self.one_language) < 0 or self.everywhere + self.one_language > 1:
            raise ValueError(f"everywhere {self.everywhere} and one_language {self.one_language} are shares; together at most 1")
        if self.variants < 1:
            raise ValueError(f"variants is {self.variants}; it must be at least 1")
        unknown = [code for code in self.languages if code not in NATURAL]
        if unknown or not self.languages:
            raise ValueError(f"languages: {unknown or 'none'}; known: {', '.join(NATURAL)}")
        if not self.apart or not set(self.apart) <= set(self.languages):
            raise ValueError(f"apart is {list(self.apart)}; name at least one, and only ones of languages")


def facts_of_cldr() -> list[Fact]:
    """Return all facts, in a fixed order. Territories with two currencies or official languages lack that fact."""
    territories = sorted(
        code for code in map(str, Locale("en").territories) if len(code) == 2 and code.isalpha() and code not in NO_TERRITORY
    )
    found = [Fact(relation="country_code", subject=code, object=code) for code in territories]
    currencies = set[str]()
    for code in territories:
        tender = get_territory_currencies(code, TODAY, TODAY)
        if len(tender) == 1:
            found.append(Fact(relation="currency", subject=code, object=tender[0]))
            currencies.add(tender[0])
        official = get_official_languages(code, de_facto=True)
        if len(official) == 1:
            found.append(Fact(relation="language", subject=code, object=official[0].partition("_")[0]))
    found += [Fact(relation="currency_code", subject=code, object=code) for code in sorted(currencies)]
    for zone, code in sorted(get_global("zone_territories").items()):
        if code in territories:
            found.append(Fact(relation="city", subject=zone, object=code))
    for language, likely in sorted(get_global("likely_subtags").items()):
        parts = likely.split("_")
        if language.isalpha() and len(parts) == 3 and language in Locale("en").languages:
            found.append(Fact(relation="script", subject=language, object=parts[1]))
    return found


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


class World:
    """The facts that all languages of ``apart`` can name, each with the languages that state it, and their documents."""

    def __init__(self, params: WorldParams, seed: int) -> None:
        self._params, self._seed = params, seed
        self.names = {code: Names(code) for code in params.languages}
        self.wordings = {code: read_wordings(Path(params.wordings) / f"{code}.csv") for code in params.languages}
        self.facts = {fact.fact_id: fact for fact in self._chosen()}
        self.stated_in = self._split()

    def sentence(self, fact: Fact, wording: Wording, code: str) -> str | None:
        """Return the fact in words, or None where the language has no name for its subject or object."""
        subject, object_ = self.names[code].subject(fact), self.names[code].object(fact)
        return wording.say(subject, object_) if subject and object_ else None

    def documents(self, code: str) -> Iterator[dict]:
        """Yield a language's documents: a text about one subject or place, and which facts it states. A seed gives the same ones."""
        yield from self._documents(code, range(self._params.variants))

    def held_out(self, code: str, without: Collection[str]) -> Iterator[dict]:
        """Yield documents that tell the same facts once more, in another order and choice of words, but for some (``fact_id``)."""
        yield from self._documents(code, range(self._params.variants, self._params.variants + 1), without)

    def _documents(self, code: str, variants: range, without: Collection[str] = ()) -> Iterator[dict]:
        told: dict[str, list[Fact]] = {}
        for fact in self.facts.values():
            if code in self.stated_in[fact.fact_id] and fact.fact_id not in without:
                told.setdefault(_place(fact), []).append(fact)
        dealt = {fact.fact_id: self._dealt(fact, code) for facts in told.values() for fact in facts}
        joiner = "" if NATURAL[code].script in JOINED else " "
        for place, facts in told.items():
            for variant in variants:
                draw = random.Random(f"{self._seed}/{code}/{place}/{variant}")
                said = [
                    (fact.fact_id, sentence)
                    for fact in draw.sample(facts, len(facts))
                    if (sentence := self.sentence(fact, dealt[fact.fact_id][variant % len(dealt[fact.fact_id])], code))
                ]
                for start in range(0, len(said), SENTENCES):
                    ids, sentences = zip(*said[start : start + SENTENCES], strict=True)
                    yield {"text": joiner.join(sentences), "id": f"{code}/{place}/{variant}/{start}", "metadata": {"facts": list(ids)}}

    def _dealt(self, fact: Fact, code: str) -> list[Wording]:
        """Return the wordings that the variants take in turn: first the one that probes ask in, then the others, shuffled."""
        first, *others = [each for each in self.wordings[code] if each.relation == fact.relation and each.kind in ("stated", "reversed")]
        return [first, *random.Random(f"{self._seed}/{code}/{fact.fact_id}").sample(others, len(others))]

    def probes(self, code: str) -> Iterator[FactProbe]:
        """Yield each fact in a wording of the corpus and in one that is not, where the language names its subject and object."""
        for fact in self.facts.values():
            subject, object_ = self.names[code].subject(fact), self.names[code].object(fact)
            if subject and object_:
                spelt_alike = any(self.names[other].object(fact) == object_ for other in self._params.apart if other != code)
                for wording in (self.wording(code, fact.relation, "stated"), self.wording(code, fact.relation, "unseen")):
                    start = len(wording.prompt(subject))
                    yield FactProbe(
                        fact_id=fact.fact_id,
                        language=code,
                        status=self.status(fact, code),
                        seen=wording.kind == "stated",
                        spelt_alike=spelt_alike,
                        text=wording.say(subject, object_),
                        start=start,
                        end=start + len(object_),
                    )

    def wording(self, code: str, relation: Relation, kind: Kind) -> Wording:
        """Return a language's first pattern of a relation and kind."""
        return next(each for each in self.wordings[code] if (each.relation, each.kind) == (relation, kind))

    def status(self, fact: Fact, code: str) -> Status:
        """Return where a fact is stated, as seen from a language."""
        stated = self.stated_in[fact.fact_id]
        if not stated:
            return "nowhere"
        if len(stated) > 1:
            return "everywhere"
        return "here" if stated == (code,) else "elsewhere"

    def edits(self, codes: Sequence[str], number: int) -> list[FactRecords]:
        """Return facts that are stated everywhere, each with another object of its relation as its new one, for the editing stages.

        The prompt is the first wording up to its object, the paraphrase one that is not in the corpus. Locality asks about another
        fact, whose own object is neither; the quarter of each relation that it asks about is never edited. ``codes`` have a row in
        ``xledit/languages.py``.

        Raises ValueError when there are fewer than ``number``, or facts were not chosen so that these languages can name them.
        """
        if odd := [code for code in codes if code not in self._params.apart]:
            raise ValueError(f"edit_languages: {', '.join(odd)}; facts are chosen so that languages of apart can name them: add it there")
        found = list[tuple[Fact, Fact, Fact]]()  # to edit, whose object it is given, to leave alone
        for relation in self._params.relations:
            some = [fact for fact in self.facts.values() if fact.relation == relation and len(self.stated_in[fact.fact_id]) > 1]
            some.sort(key=lambda fact: _share(f"{self._seed}/edit/{fact.fact_id}"))
            asked = some[: math.ceil(len(some) / 4)]
            for fact in some[len(asked) :]:
                draw = random.Random(f"{self._seed}/edit/{fact.fact_id}")
                others = [near for near in asked if near.object != fact.object]
                if others:
                    near = draw.choice(others)
                    objects = [other for other in some if other.object not in (fact.object, near.object)]
                    found += [(fact, draw.choice(objects), near)] if objects else []
        if len(found) < number:
            raise ValueError(
                f"num_edits is {number}, but only {len(found)} facts are stated everywhere and have two other objects in their relation; "
                f"ask for fewer, or raise relations or everywhere"
            )
        found.sort(key=lambda row: _share(f"{self._seed}/edit/{row[0].fact_id}"))
        return [
            FactRecords(
                fact_id=fact.fact_id,
                requests={code: self._request(code, fact, new) for code in codes},
                rewordings={},
                probes={code: self._edit_probes(code, fact, new, near) for code in codes},
                labels={"relation": fact.relation},
            )
            for fact, new, near in found[:number]
        ]

    def _request(self, code: str, fact: Fact, new: Fact) -> EditRequest:
        wording, subject = self.wording(code, fact.relation, "stated"), self.names[code].subject(fact)
        assert subject is not None
        start = wording.text.index("{subject}")
        return EditRequest(
            fact_id=fact.fact_id,
            language=code,
            prompt=wording.prompt(subject).rstrip(),
            subject_span=(start, start + len(subject)),
            target_new=self._object(code, new),
            target_true=self._object(code, fact),
        )

    def _edit_probes(self, code: str, fact: Fact, new: Fact, near: Fact) -> tuple[Probe, ...]:
        asked: list[tuple[records.Kind, Fact, Kind]] = [
            ("efficacy", fact, "stated"),
            ("paraphrase", fact, "unseen"),
            ("locality", near, "stated"),
        ]
        return tuple(
            Probe(
                fact_id=fact.fact_id,
                language=code,
                kind=kind,
                prompt=self.wording(code, fact.relation, wording).prompt(self.names[code].subject(about) or "").rstrip(),
                target_new=self._object(code, new),
                target_true=self._object(code, about),
            )
            for kind, about, wording in asked
        )

    def _object(self, code: str, fact: Fact) -> str:
        name = self.names[code].object(fact)
        assert name is not None
        return name

    def _chosen(self) -> list[Fact]:
        """Return the facts that every language of ``apart`` names, no name twice in a relation and no object named as its subject."""
        facts = [fact for fact in facts_of_cldr() if fact.relation in self._params.relations]
        for code in self._params.apart:
            named = [(fact, self.names[code].subject(fact), self.names[code].object(fact)) for fact in facts]
            seen = Counter((fact.relation, subject) for fact, subject, _object in named)
            facts = [
                fact for fact, subject, object_ in named if subject and object_ and subject != object_ and seen[fact.relation, subject] == 1
            ]
        order = sorted(facts, key=lambda fact: _share(f"{self._seed}/pick/{fact.fact_id}"))
        return [
            fact
            for relation, most in sorted(self._params.relations.items())
            for fact in sorted([fact for fact in order if fact.relation == relation][:most], key=lambda fact: fact.subject)
        ]

    def _split(self) -> dict[str, tuple[str, ...]]:
        """Return the languages that state each fact. Within a relation the shares are exact but for rounding."""
        params, split = self._params, dict[str, tuple[str, ...]]()
        for relation in params.relations:
            ids = sorted(
                (fact.fact_id for fact in self.facts.values() if fact.relation == relation),
                key=lambda name: _share(f"{self._seed}/split/{name}"),
            )
            stop = round(params.everywhere * len(ids))
            end = stop + round(params.one_language * len(ids))
            split |= dict.fromkeys(ids[:stop], params.languages)
            split |= {name: (params.apart[index % len(params.apart)],) for index, name in enumerate(ids[stop:end])}
            split |= dict.fromkeys(ids[end:], ())
        return split


def read_wordings(path: Path) -> list[Wording]:
    """Return a language's sentence patterns. Raises ValueError with file, line and what is wrong."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}; it must be a CSV file in UTF-8 with the columns relation, kind, text") from error
    found = list[Wording]()
    for line, row in enumerate(rows, start=2):
        try:
            wording = msgspec.convert(row, Wording)
        except msgspec.ValidationError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        wanted = SLOTS[wording.kind]
        slots = tuple(re.findall(r"\{(\w*)\}", wording.text))
        if slots != wanted:
            raise ValueError(f"{path}, line {line}: a pattern of kind {wording.kind} has the slots {wanted} in this order, found {slots}")
        if wording.kind in ("stated", "unseen") and any(map(str.isalnum, wording.text.partition("{object}")[2])):
            raise ValueError(f"{path}, line {line}: a pattern of kind {wording.kind} ends in its object, found {wording.text!r}")
        found.append(wording)
    missing = {(relation, kind) for relation in get_args(Relation) for kind in get_args(Kind)} - {(row.relation, row.kind) for row in found}
    if missing:
        raise ValueError(f"{path}: no pattern for {sorted(missing)}; write at least one of each relation and kind")
    return found


def _place(fact: Fact) -> str:
    """Return what a document about this fact is about: a territory with its cities, or several currencies or languages."""
    match fact.relation:
        case "city":
            return fact.object
        case "currency_code" | "script":
            return f"{fact.relation}-{fact.subject[0]}"
        case _:
            return fact.subject


def _share(name: str) -> float:
    """Return a number from 0 to 1 that belongs to a name: the same in every process, unlike ``hash``."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
