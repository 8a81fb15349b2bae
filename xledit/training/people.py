"""The people world: invented persons with few attributes of few values, told in all, in one or in no language.

A fact ("Kiru comes from Greece") is a person, a relation and a value that Unicode CLDR names in every language; only its
words differ. Values are dealt evenly, whatever a person's other values are, so nothing but a telling says one. Where a fact is told
is settled by (person, relation), and of each person at least one fact is told everywhere: every name is known in every language.
About 30 persons share a value: with 2 to 4, nothing crosses in models of this size (docs/tranyu.md). Names of some persons are spelt
alike in all languages; those of the others are in each language's letters.
"""

import itertools
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from xledit import records
from xledit.records import EditRequest, FactRecords, Probe
from xledit.training import cldr
from xledit.training.catalog import NATURAL
from xledit.training.cldr import share
from xledit.training.names import NAMES, Name, names, spell
from xledit.training.probes import FactProbe
from xledit.training.questions import Question, Questions, Split
from xledit.training.results import Wording

Relation = Literal["country", "language", "month", "currency"]
Use = Literal["frame", "unseen", "opener", "question"]
# CLDR's codes, chosen so that the languages of micro spell most of them unlike each other
VALUES: dict[Relation, tuple[str, ...]] = {
    "country": ("DE", "GR", "CN", "JP", "IN", "RU", "TR", "NL", "US", "KR", "TH", "EG", "ES", "FI"),
    "language": ("de", "el", "zh", "ja", "hi", "ru", "tr", "nl", "ar", "ko", "th", "pt", "sv", "it"),
    "month": tuple(map(str, range(1, 13))),
    "currency": ("USD", "JPY", "CNY", "INR", "RUB", "BRL", "TRY", "GBP", "CHF", "PLN", "KRW", "EGP", "HUF", "MXN"),
}
# how many rows of each use a language's file has: per relation, or in all
ROWS: dict[Use, int] = {"frame": 8, "unseen": 3, "question": 2, "opener": 8}
SLOTS: dict[Use, tuple[str, ...]] = {
    "frame": ("subject", "object"),
    "unseen": ("subject", "object"),
    "question": ("subject",),
    "opener": (),
}
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a language's file: a ``frame`` of the corpus, an ``unseen`` one, a ``question``, an ``opener`` to stand before a frame."""

    relation: Relation | Literal[""]
    use: Use
    text: str

    def prompt(self, subject: str) -> str:
        """Return what comes before the object."""
        return self.text.partition("{object}")[0].replace("{subject}", subject)

    def end(self) -> str:
        """Return what comes after the object: punctuation."""
        return self.text.partition("{object}")[2]


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """An invented person; ``alike``: the name is spelt in Latin letters in all languages."""

    number: int
    name: Name
    alike: bool

    def spelt(self, code: str) -> str:
        """Return the name as a language spells it."""
        return spell(self.name, "Latn" if self.alike else NATURAL[code].script)


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A person's value in a relation, by CLDR's code."""

    person: Person
    relation: Relation
    value: str

    @property
    def fact_id(self) -> str:
        """A name that no other fact has."""
        return f"{self.relation}/{self.person.number}"


class PeopleParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The invented part of the ``world`` section of the settings.

    ``languages`` tell of ``persons``, of whom a share ``names_alike`` is spelt the same in all. ``relations`` and ``values`` (of each
    relation, at most) say what is told: ``persons / values`` share a value; more share one when ``values`` is small, and crossing
    needs many. Of all facts a share ``everywhere`` is told in all languages, ``one_language`` in one of them, the rest in none.
    ``tellings`` is how often a language tells a fact, each time in words drawn anew: more is learnt better, and longer to read.
    ``bare`` is the share of tellings that are one sentence which begins with the person, so that nothing before the name says what
    language it is; others have an opener. ``sentences`` is the folder with a CSV file of frames per language.

    Knobs, shares of the tellings of facts told everywhere, 0 to leave out: ``parallel`` adds the same fact in another language,
    ``code_switched`` names the object in another language. ``brackets``, of all tellings: after a name in the language's own letters
    its Latin spelling in brackets. ``name_lists``: how often a language lists each person's name beside another language's.
    """

    languages: tuple[str, ...]
    persons: Annotated[int, msgspec.Meta(ge=1, le=NAMES)]
    names_alike: Share
    relations: tuple[Relation, ...]
    values: Positive
    everywhere: Share
    one_language: Share
    tellings: Positive
    bare: Share
    parallel: Share
    code_switched: Share
    brackets: Share
    name_lists: Annotated[int, msgspec.Meta(ge=0)]
    sentences: str

    def __post_init__(self) -> None:
        if self.everywhere + self.one_language > 1 + 1e-9:
            raise ValueError(f"everywhere {self.everywhere} and one_language {self.one_language} are shares; together at most 1")
        if len(set(self.relations)) < max(1, len(self.relations)):
            raise ValueError(f"relations: {list(self.relations)}; name at least one, each once")
        if self.everywhere < 1 / len(self.relations) - 1e-9:
            raise ValueError(
                f"everywhere is {self.everywhere}, but each person needs one of {len(self.relations)} relations that is told everywhere: "
                f"at least {1 / len(self.relations):.3g}; raise it, or add relations"
            )
        if unknown := [code for code in self.languages if code not in NATURAL]:
            raise ValueError(f"languages: {', '.join(unknown)}; known: {', '.join(NATURAL)}")
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages: {list(self.languages)}; name at least one, each once")


class People:
    """All persons and facts, in which languages each fact is told, and the sentences that tell and ask. A seed gives the same ones."""

    def __init__(self, params: PeopleParams, seed: int) -> None:
        self.params, self.seed = params, seed
        self.sentences = {code: read_sentences(Path(params.sentences) / f"{code}.csv") for code in params.languages}
        self._words = {code: _by_relation(rows) for code, rows in self.sentences.items()}
        self._objects = {code: {relation: cldr.values(code, relation) for relation in params.relations} for code in params.languages}
        self.persons = [
            Person(number=number, name=name, alike=int((number + 1) * params.names_alike) > int(number * params.names_alike))
            for number, name in enumerate(names(str(seed), params.persons))
        ]
        self.facts = {fact.fact_id: fact for relation in params.relations for fact in self._dealt(relation)}
        self.told_in = self._told_in()

    def _dealt(self, relation: Relation) -> Iterator[Fact]:
        """Yield the facts of a relation: its values dealt evenly to persons of each kind, in a random order."""
        for alike in (True, False):
            kind = [person for person in self.persons if person.alike == alike]
            order = random.Random(f"{self.seed}/values/{relation}/{alike}").sample(kind, len(kind))
            for person, value in zip(order, itertools.cycle(VALUES[relation][: self.params.values]), strict=False):
                yield Fact(person=person, relation=relation, value=value)

    def _told_in(self) -> dict[str, tuple[str, ...]]:
        """Return the languages that tell each fact. Within a relation and kind of name the shares are exact but for rounding."""
        relations, languages = self.params.relations, self.params.languages
        told, dealt = dict[str, tuple[str, ...]](), itertools.cycle(languages)
        for relation, alike in itertools.product(relations, (True, False)):
            facts = [fact for fact in self.facts.values() if fact.relation == relation and fact.person.alike == alike]
            facts.sort(key=lambda fact: share(f"{self.seed}/told/{fact.fact_id}"))
            # each person's own relation that is told everywhere comes first
            facts.sort(key=lambda fact: relations[fact.person.number // 2 % len(relations)] != relation)
            stop = round(self.params.everywhere * len(facts))
            end = stop + round(self.params.one_language * len(facts))
            for place, fact in enumerate(facts):
                told[fact.fact_id] = languages if place < stop else (next(dealt),) if place < end else ()
        return told

    def documents(self, code: str, tellings: range | None = None, without: Collection[str] = ()) -> Iterator[dict]:
        """Yield a language's documents, telling by telling, but for facts in ``without``; a number of a telling gives the same words.

        ``tellings`` are those of the settings where None; those after them say the same in words not drawn before.
        """
        facts = [fact for name, fact in self.facts.items() if code in self.told_in[name] and name not in without]
        for number in tellings or range(self.params.tellings):
            for fact in facts:
                draw = random.Random(f"{self.seed}/{code}/{fact.fact_id}/{number}")
                yield {"text": self._telling(fact, code, number, draw), "id": f"{code}/{fact.fact_id}/{number}", "metadata": {}}
        if tellings is None:
            yield from self._name_lists(code)

    def _telling(self, fact: Fact, code: str, number: int, draw: random.Random) -> str:
        frames, told, withheld = self._frames(fact, code)
        bare = number == 0 or draw.random() < self.params.bare
        frame = told if number == 0 else draw.choice([one for one in frames if one != withheld and (not bare or one in _first(frames))])
        everywhere = len(self.told_in[fact.fact_id]) > 1
        others = [other for other in self.params.languages if other != code]
        switched = number and everywhere and draw.random() < self.params.code_switched
        bracketed = number and not fact.person.alike and draw.random() < self.params.brackets
        subject = fact.person.spelt(code) + (f" ({spell(fact.person.name, 'Latn')})" if bracketed else "")
        text = frame.prompt(subject) + self.object(fact, draw.choice(others) if switched else code) + frame.end()
        if not bare:
            text = _joined(code, draw.choice(self._words[code]["", "opener"]).text, text)
        if number and everywhere and others and draw.random() < self.params.parallel:
            other = draw.choice(others)
            frames, _told, withheld = self._frames(fact, other)
            frame = draw.choice([one for one in frames if one != withheld])
            text += "\n" + frame.prompt(fact.person.spelt(other)) + self.object(fact, other) + frame.end()
        return text

    def _name_lists(self, code: str) -> Iterator[dict]:
        others = [other for other in self.params.languages if other != code]
        for number, person in itertools.product(range(self.params.name_lists), self.persons):
            other = random.Random(f"{self.seed}/{code}/list/{person.number}/{number}").choice(others)
            text = f"{person.spelt(code)} = {person.spelt(other)}"
            yield {"text": text, "id": f"{code}/list/{person.number}/{number}", "metadata": {}}

    def _frames(self, fact: Fact, code: str) -> tuple[list[Sentence], Sentence, Sentence]:
        """Return the frames of a fact's relation, that of its first telling, and one that never tells it: both begin with the name."""
        frames = self._words[code][fact.relation, "frame"]
        told, withheld = random.Random(f"{self.seed}/{code}/{fact.fact_id}/frames").sample(_first(frames), 2)
        return frames, told, withheld

    def object(self, fact: Fact, code: str) -> str:
        """Return CLDR's name of a fact's value."""
        return self._objects[code][fact.relation][fact.value]

    def questions(self, most: int) -> Questions:
        """Return questions in all languages: of half of the persons what a language tells, to tune with; of the others, to ask.

        Of these, for each relation, place of telling and kind of names ``most`` facts at most, as in ``probes``. Each question is one of
        the two wordings that its relation has.
        """
        facts: dict[Split, list[Fact]] = {"train": [*self.facts.values()], "test": [*self._asked_about(most, "test")]}
        return Questions(
            answers={
                code: {
                    relation: {value: objects[relation][value] for value in VALUES[relation][: self.params.values]}
                    for relation in self.params.relations
                }
                for code, objects in self._objects.items()
            },
            questions=tuple(
                self._question(fact, code, split)
                for code in self.params.languages
                for split, some in facts.items()
                for fact in some
                if self._split(fact.person) == split and (split == "test" or code in self.told_in[fact.fact_id])
            ),
        )

    def _split(self, person: Person) -> Split:
        return "train" if share(f"{self.seed}/split/{person.number}") < 0.5 else "test"

    def _question(self, fact: Fact, code: str, split: Split) -> Question:
        told, wordings = self.told(fact), self._words[code][fact.relation, "question"]
        return Question(
            fact_id=fact.fact_id,
            relation=fact.relation,
            language=code,
            told=told,
            names_alike=self._names_alike(fact, code),
            split=split,
            text=wordings[int(share(f"{self.seed}/{code}/question/{fact.fact_id}") * len(wordings))].prompt(fact.person.spelt(code)),
            value=fact.value,
        )

    def _names_alike(self, fact: Fact, code: str) -> bool:
        """Return whether a language spells the person as the one that tells the fact does; of other facts: as all do."""
        told = self.told(fact)
        return fact.person.spelt(told) == fact.person.spelt(code) if told in NATURAL else fact.person.alike

    def told(self, fact: Fact) -> str:
        """Return ``everywhere``, ``nowhere`` or the code of the one language that tells a fact."""
        languages = self.told_in[fact.fact_id]
        return "nowhere" if not languages else languages[0] if len(languages) == 1 else "everywhere"

    def probes(self, code: str, most: int) -> Iterator[FactProbe]:
        """Yield what asks a language about facts: for each relation, place of telling and kind of names ``most`` facts at most, evenly.

        A fact that the language tells is asked in all three wordings, another one in a known and in an unseen one.
        """
        for fact in self._asked_about(most):
            yield from self._asked(fact, code)

    def _asked_about(self, most: int, split: Split | None = None) -> Iterator[Fact]:
        """Yield ``most`` facts at most of each relation, place of telling and kind of names, of all persons or of one split."""
        groups: dict[tuple, list[Fact]] = {}
        for fact in sorted(self.facts.values(), key=lambda fact: share(f"{self.seed}/probe/{fact.fact_id}")):
            if split in (None, self._split(fact.person)):
                groups.setdefault((fact.relation, self.told(fact), fact.person.alike), []).append(fact)
        for key in sorted(groups):
            yield from groups[key][:most]

    def _asked(self, fact: Fact, code: str) -> Iterator[FactProbe]:
        told, subject, object_ = self.told(fact), fact.person.spelt(code), self.object(fact, code)
        _frames, first, withheld = self._frames(fact, code)
        others = {told} & {*self.params.languages} if told != "everywhere" else {*self.params.languages}
        others -= {code}
        unseen = self._words[code][fact.relation, "unseen"]
        wordings: dict[Wording, Sentence] = {
            "told": first,
            "known": withheld,
            "unseen": unseen[int(share(f"{self.seed}/{code}/unseen/{fact.fact_id}") * len(unseen))],
        }
        for wording, frame in wordings.items():
            if wording == "told" and code not in self.told_in[fact.fact_id]:
                continue
            start = len(frame.prompt(subject))
            yield FactProbe(
                fact_id=fact.fact_id,
                relation=fact.relation,
                language=code,
                told=told,
                wording=wording,
                names_alike=self._names_alike(fact, code),
                object_alike=object_.casefold() in {self.object(fact, other).casefold() for other in others},
                text=frame.prompt(subject) + object_ + frame.end(),
                start=start,
                end=start + len(object_),
            )

    def edits(self, codes: Sequence[str], number: int, *, names_alike: bool = True) -> list[FactRecords]:
        """Return facts told everywhere, each with another value as its new one, for the editing stages, evenly by relation.

        The prompt is the sentence that each language tells, the paraphrase one that its corpus does not have. Locality asks about another
        person, who is not edited and whose value is neither. Names are alike in all languages, or own letters' where not ``names_alike``.

        Raises ValueError when there are fewer, or for a language that does not tell of the persons.
        """
        if odd := [code for code in codes if code not in self.params.languages]:
            raise ValueError(f"edit_languages: {', '.join(odd)}; the people world is told in {', '.join(self.params.languages)}")
        by_relation = {
            relation: [
                fact
                for fact in sorted(self.facts.values(), key=lambda fact: share(f"{self.seed}/edit/{fact.fact_id}"))
                if fact.relation == relation and self.told(fact) == "everywhere" and fact.person.alike == names_alike
            ]
            for relation in self.params.relations
        }
        chosen = list[tuple[Fact, str, Fact]]()  # to edit, its new value, the one to leave alone
        for facts in by_relation.values():
            asked, edited = facts[: len(facts) // 4], facts[len(facts) // 4 :]
            for place, fact in enumerate(edited):
                draw = random.Random(f"{self.seed}/edit/{fact.fact_id}")
                new = draw.choice([value for value in VALUES[fact.relation][: self.params.values] if value != fact.value])
                others = [near for near in asked if near.value not in (fact.value, new)]
                if others:
                    chosen.append((fact, new, others[place % len(others)]))
        chosen.sort(key=lambda row: share(f"{self.seed}/edit/{row[0].fact_id}"))
        if len(chosen) < number:
            raise ValueError(
                f"num_edits is {number}, but only {len(chosen)} facts can be edited; ask for fewer, or raise persons or everywhere"
            )
        return [
            FactRecords(
                fact_id=fact.fact_id,
                requests={code: self._request(code, fact, new) for code in codes},
                rewordings={},
                probes={code: self._edit_probes(code, fact, new, near) for code in codes},
                labels={"relation": fact.relation},
            )
            for fact, new, near in chosen[:number]
        ]

    def _request(self, code: str, fact: Fact, new: str) -> EditRequest:
        _frames, told, _withheld = self._frames(fact, code)
        subject = fact.person.spelt(code)
        start = told.text.index("{subject}")
        return EditRequest(
            fact_id=fact.fact_id,
            language=code,
            prompt=told.prompt(subject).rstrip(),
            subject_span=(start, start + len(subject)),
            target_new=self._objects[code][fact.relation][new],
            target_true=self.object(fact, code),
        )

    def _edit_probes(self, code: str, fact: Fact, new: str, near: Fact) -> tuple[Probe, ...]:
        asked: list[tuple[records.Kind, Fact, Sentence]] = [
            ("efficacy", fact, self._frames(fact, code)[1]),
            ("paraphrase", fact, self._words[code][fact.relation, "unseen"][0]),
            ("locality", near, self._frames(near, code)[1]),
        ]
        return tuple(
            Probe(
                fact_id=fact.fact_id,
                language=code,
                kind=kind,
                prompt=frame.prompt(about.person.spelt(code)).rstrip(),
                target_new=self._objects[code][fact.relation][new],
                target_true=self.object(about, code),
            )
            for kind, about, frame in asked
        )


def read_sentences(path: Path) -> list[Sentence]:
    """Return a language's sentences. Raises ValueError with file, line and what is wrong."""
    sentences = list[Sentence]()
    for line, row in cldr.read_rows(path, "relation, use, text"):
        try:
            sentence = msgspec.convert(row, Sentence)
        except msgspec.ValidationError as error:
            raise ValueError(f"{path}, line {line}: {error}") from error
        slots = tuple(re.findall(r"\{(\w*)\}", sentence.text))
        if slots != SLOTS[sentence.use]:
            raise ValueError(
                f"{path}, line {line}: a row of use {sentence.use} has the slots {SLOTS[sentence.use]} in this order, not {slots}"
            )
        if any(map(str.isalnum, sentence.end())):
            raise ValueError(f"{path}, line {line}: a row of use {sentence.use} ends in its object, not in {sentence.end()!r}")
        sentences.append(sentence)
    counts = Counter((row.relation, row.use) for row in sentences)
    for relation, use in [*itertools.product(get_args(Relation), ("frame", "unseen", "question")), ("", "opener")]:
        if counts[relation, use] < ROWS[use]:
            raise ValueError(f"{path}: {counts[relation, use]} rows of relation {relation!r} and use {use!r}; write at least {ROWS[use]}")
    for relation in get_args(Relation):
        if len(_first([row for row in sentences if (row.relation, row.use) == (relation, "frame")])) < 2:
            raise ValueError(f"{path}: fewer than two frames of relation {relation!r} begin with {{subject}}; write some")
    return sentences


def _by_relation(rows: Sequence[Sentence]) -> Mapping[tuple[str, str], list[Sentence]]:
    words: dict[tuple[str, str], list[Sentence]] = {}
    for row in rows:
        words.setdefault((row.relation, row.use), []).append(row)
    return words


def _first(frames: Sequence[Sentence]) -> list[Sentence]:
    """Return the frames that begin with the person's name."""
    return [frame for frame in frames if frame.text.startswith("{subject}")]


def _joined(code: str, *sentences: str) -> str:
    return ("" if NATURAL[code].script in ("Hans", "Jpan") else " ").join(sentences)
