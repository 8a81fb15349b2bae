"""The rules of our own tables, checked before anything is edited with them: each yields the rows that break it, by file and line.

``ROW_RULES`` are about single rows; ``prepare`` stops at a row that breaks one. ``SET_RULES`` are about the benchmark as a whole
(enough facts, all domains, nothing leaks from dev to test); `make audit` and a test check them.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

import msgspec
from rapidfuzz import fuzz

from xledit.benchmark.counterfactuals import counterfactuals, gives_away
from xledit.benchmark.tables import DOMAINS, Fact, Order, Relation, Scope, Wordings
from xledit.languages import language

# facts and relations of each part
MIN_SIZE: dict[Scope, tuple[int, int]] = {"china": (1200, 30), "world": (400, 10)}
MIN_FACTS_PER_RELATION, MIN_FACTS_PER_DOMAIN = 20, 20
MIN_OBJECTS = 5
MAX_FACTS_PER_SUBJECT = 4
MAX_SIMILARITY = 90.0  # per cent, rapidfuzz's normalised edit similarity
SHOWN = 10

CHINESE = re.compile("[\u3400-\u9fff\u3000-\u303f\uff00-\uffef]")
KANA = re.compile("[\u3040-\u30ff]")
LATIN = re.compile("[A-Za-z]+")
HALF_WIDTH = re.compile(r"[,;:?!()\[\]\"']")
NUMBER = re.compile(r"[0-9]|^[一二三四五六七八九十百千万零〇]+[年月日个]?$")


class Finding(msgspec.Struct, frozen=True):
    """A row that breaks a rule: ``place`` is file and line."""

    place: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}: {self.message}"


Violations = Iterator[tuple[str, str]]  # place and message
Rule = Callable[[Sequence[Relation]], Violations]


def check_rows(relations: Sequence[Relation]) -> None:
    """Raise ValueError with file, line and rule of the rows that break one."""
    broken = findings(relations, ROW_RULES)
    if broken:
        more = f"\n... and {len(broken) - SHOWN} more; `make audit` lists all" if len(broken) > SHOWN else ""
        raise ValueError("\n".join(map(str, broken[:SHOWN])) + more)


def findings(relations: Sequence[Relation], rules: dict[str, Rule]) -> list[Finding]:
    """Return the rows that break the rules, rule by rule."""
    return [Finding(place, name, message) for name, rule in rules.items() for place, message in rule(relations)]


def _facts(relations: Sequence[Relation]) -> Iterator[Fact]:
    return itertools.chain.from_iterable(relation.facts for relation in relations)


def _names(fact: Fact, code: str) -> Iterator[tuple[str, str]]:
    """Yield column and text of each name that a fact has in a language."""
    yield f"subject_{code}", fact.subjects[code]
    yield f"object_{code}", fact.objects[code]
    for alias in fact.subject_aliases[code]:
        yield f"subject_aliases_{code}", alias
    for alias in fact.object_aliases[code]:
        yield f"object_aliases_{code}", alias


def known_values(relations: Sequence[Relation]) -> Violations:
    """Domain and scope are of the lists, and the id is the relation's name and a number."""
    for fact in _facts(relations):
        if fact.domain not in DOMAINS:
            yield fact.place, f"domain is {fact.domain!r}; known: {', '.join(DOMAINS)}"
        if fact.scope not in Scope.__args__:
            yield fact.place, f"scope is {fact.scope!r}; it must be one of {', '.join(Scope.__args__)}"
        if not re.fullmatch(re.escape(fact.relation) + r"-\d{3}", fact.fact_id):
            yield fact.place, f"id is {fact.fact_id!r}; it must be {fact.relation}- and three digits"


def one_row_per_fact(relations: Sequence[Relation]) -> Violations:
    """No id occurs twice, and no subject twice in a relation: it would have two objects or be a duplicate."""
    ids: dict[str, str] = {}
    for relation in relations:
        subjects: dict[tuple[str, str], str] = {}
        for fact in relation.facts:
            if fact.fact_id in ids:
                yield fact.place, f"id {fact.fact_id!r} stands already at {ids[fact.fact_id]}"
            ids[fact.fact_id] = fact.place
            for code in fact.subjects:
                for name in (fact.subjects[code], *fact.subject_aliases[code]):
                    if (code, name) in subjects and subjects[code, name] != fact.place:
                        yield fact.place, f"subject {name!r} ({code}) stands already at {subjects[code, name]}"
                    subjects[code, name] = fact.place


def aliases_are_other_names(relations: Sequence[Relation]) -> Violations:
    """An alias is not empty, not the name itself, not given twice."""
    for fact in _facts(relations):
        for code in fact.subjects:
            for role, name, aliases in (
                ("subject", fact.subjects[code], fact.subject_aliases[code]),
                ("object", fact.objects[code], fact.object_aliases[code]),
            ):
                counts = Counter((name, *aliases))
                for alias, times in counts.items():
                    if times > 1 or not alias.strip() or alias != alias.strip():
                        yield fact.place, f"{role}_aliases_{code} has {alias!r}, which is empty, padded, the name itself or given twice"


def one_name_one_thing(relations: Sequence[Relation]) -> Violations:
    """Within a relation an object has one name and the same aliases in each language, and no alias is another object's."""
    for relation in relations:
        first: dict[tuple[str, str], Fact] = {}
        owners: dict[tuple[str, str], Fact] = {}
        for fact in relation.facts:
            for code, name in fact.objects.items():
                earlier = first.setdefault((code, name), fact)
                if earlier.answer != fact.answer:
                    yield fact.place, f"object {fact.answer} is {earlier.answer} at {earlier.place}"
                elif earlier.object_aliases != fact.object_aliases:
                    yield fact.place, f"object {name!r} has other aliases than at {earlier.place}"
                for text in (name, *fact.object_aliases[code]):
                    owner = owners.setdefault((code, text), fact)
                    if owner.answer != fact.answer:
                        yield fact.place, f"{text!r} names {fact.answer} and, at {owner.place}, {owner.answer}"


def scripts(relations: Sequence[Relation]) -> Violations:
    """Each name is written in its language's script; Latin letters in a Chinese name stand in an English one, too (TCL)."""
    for fact in _facts(relations):
        latin = {text for code in fact.subjects if language(code).script == "Latn" for _column, text in _names(fact, code)}
        for code in fact.subjects:
            for column, text in _names(fact, code):
                if language(code).script == "Latn":
                    if CHINESE.search(text) or KANA.search(text):
                        yield fact.place, f"{column} {text!r} has Chinese or Japanese characters"
                    continue
                if language(code).script == "Hans" and KANA.search(text):
                    yield fact.place, f"{column} {text!r} has kana"
                foreign = [letters for letters in LATIN.findall(text) if not any(letters in name for name in latin)]
                if foreign and latin:  # without a language in Latin letters there is nothing to hold them against
                    yield fact.place, f"{column} {text!r} has the letters {foreign[0]!r}, which no English name has"
                if HALF_WIDTH.search(text):
                    yield fact.place, f"{column} {text!r} has half-width punctuation"


def prompts_are_in_their_script(relations: Sequence[Relation]) -> Violations:
    """No Chinese in an English prompt, no Latin letters or half-width punctuation in a Chinese one."""
    for relation in relations:
        for code, wording in relation.wordings.items():
            for template in _templates(wording):
                text = template.text.replace("{subject}", "")
                if language(code).script == "Latn":
                    if CHINESE.search(text) or KANA.search(text):
                        yield template.place, f"the {code} prompt {template.text!r} has Chinese or Japanese characters"
                elif LATIN.search(text) or HALF_WIDTH.search(text):
                    yield template.place, f"the {code} prompt {template.text!r} has Latin letters or half-width punctuation"


def _templates(wording: Wordings):
    return (*wording.native, *wording.translated, *wording.portability.values())


def orders(relations: Sequence[Relation]) -> Violations:
    """The subject opens the ``first`` prompt (a bracket may stand before it) and all but ends the ``last`` one."""
    for relation in relations:
        for code, wording in relation.wordings.items():
            before = wording.first.text.index("{subject}")
            if before > 1:
                yield wording.first.place, f"the {code} prompt of form first has {wording.first.text[:before]!r} before the subject"
            after = wording.last.text.split("{subject}")[1]
            size = len(after.split()) if language(code).joiner else len(after.strip("》"))
            if size > 3:
                yield wording.last.place, f"the {code} prompt of form last has {after!r} after the subject"


def wordings_differ(relations: Sequence[Relation]) -> Violations:
    """No two native prompts of a relation in one language are near-duplicates."""
    for relation in relations:
        for code, wording in relation.wordings.items():
            for a, b in itertools.combinations(wording.native, 2):
                likeness = fuzz.ratio(a.text.replace("{subject}", ""), b.text.replace("{subject}", ""))
                if likeness > MAX_SIMILARITY:
                    yield b.place, f"the {code} prompt {b.text!r} is {likeness:.0f} % that of {a.place}"


def answer_not_in_prompt(relations: Sequence[Relation]) -> Violations:
    """The true answer stands nowhere in a native prompt."""
    for relation in relations:
        for fact in relation.facts:
            for code, name in fact.objects.items():
                if gives_away(fact, {code: name}, relation):
                    yield fact.place, f"the answer {name!r} stands in a {code} prompt about {fact.subjects[code]!r}"


def no_numbers(relations: Sequence[Relation]) -> Violations:
    """No object is a number or a date."""
    for fact in _facts(relations):
        for name in fact.objects.values():
            if NUMBER.search(name):
                yield fact.place, f"the object {name!r} is a number or a date"


def enough_objects(relations: Sequence[Relation]) -> Violations:
    """A counterfactual target is drawn from the relation's other objects."""
    for relation in relations:
        number = len({fact.answer for fact in relation.facts})
        if number < MIN_OBJECTS:
            yield relation.place, f"relation {relation.name!r} has {number} objects; at least {MIN_OBJECTS}"


def size_and_balance(relations: Sequence[Relation]) -> Violations:
    """Both parts are as large and as broad as they say, and no relation is of both."""
    facts = list(_facts(relations))
    for scope, (min_facts, min_relations) in MIN_SIZE.items():
        number = sum(fact.scope == scope for fact in facts)
        of_scope = sum(any(fact.scope == scope for fact in relation.facts) for relation in relations)
        if number < min_facts or of_scope < min_relations:
            yield "relations.csv", f"{number} facts in {of_scope} relations of scope {scope}; at least {min_facts} in {min_relations}"
    for relation in relations:
        if len(relation.facts) < MIN_FACTS_PER_RELATION:
            yield relation.place, f"relation {relation.name!r} has {len(relation.facts)} facts; at least {MIN_FACTS_PER_RELATION}"
    domains = Counter(fact.domain for fact in facts)
    for domain in DOMAINS:
        if domains[domain] < MIN_FACTS_PER_DOMAIN:
            yield "facts", f"domain {domain} has {domains[domain]} facts; at least {MIN_FACTS_PER_DOMAIN}"
    for relation in relations:
        if len(scopes := {fact.scope for fact in relation.facts}) > 1:
            yield relation.place, f"relation {relation.name!r} has facts of the scopes {', '.join(sorted(scopes))}; a relation has one"


def no_leak(relations: Sequence[Relation]) -> Violations:
    """No subject, under any name, is in dev and in test."""
    dev: dict[tuple[str, str], str] = {}
    for split in ("dev", "test"):
        for fact in _facts([relation for relation in relations if relation.split == split]):
            for code in fact.subjects:
                for name in (fact.subjects[code], *fact.subject_aliases[code]):
                    if split == "dev":
                        dev[code, name] = fact.place
                    elif (code, name) in dev:
                        yield fact.place, f"{name!r} is in test and, at {dev[code, name]}, in dev"


def subjects_are_varied(relations: Sequence[Relation]) -> Violations:
    """No subject is in more than a few facts."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for fact in _facts(relations):
        places[fact.entity].append(fact.place)
    for entity, fact_places in places.items():
        if len(fact_places) > MAX_FACTS_PER_SUBJECT:
            yield fact_places[-1], f"{entity} is the subject of {len(fact_places)} facts; at most {MAX_FACTS_PER_SUBJECT}"


def one_subject_one_translation(relations: Sequence[Relation]) -> Violations:
    """A subject is spelt the same in every relation, in every language: the near probes find it by its names."""
    first: dict[tuple[str, str], Fact] = {}
    for fact in _facts(relations):
        for code, name in fact.subjects.items():
            other = first.setdefault((code, name), fact)
            if other.entity != fact.entity:
                yield fact.place, f"{fact.entity} is {other.entity} at {other.place}"


def one_fact_one_relation(relations: Sequence[Relation]) -> Violations:
    """No two relations say the same of a subject: asked as a near probe, it would count a right edit as a fault."""
    places: dict[tuple[tuple[str, ...], tuple[str, ...]], str] = {}
    for fact in _facts(relations):
        pair = fact.entity, fact.answer
        if pair in places:
            yield fact.place, f"{fact.entity}: {fact.answer} stands already at {places[pair]}"
        places[pair] = fact.place


def keys_differ(relations: Sequence[Relation]) -> Violations:
    """No two facts share their text up to the subject's end, but for one subject that opens the prompts of two relations."""
    first: dict[tuple[str, str, str], Fact] = {}
    for relation in relations:
        for fact, (code, wording), order in itertools.product(relation.facts, relation.wordings.items(), get_args(Order)):
            prompt, (_start, end) = wording.in_order(order).worded(fact.subjects[code])
            other = first.setdefault((order, code, prompt[:end]), fact)
            if other is not fact and (order == "last" or other.entity != fact.entity):
                yield fact.place, f"the {code} key {prompt[:end]!r} ({order}) is that of {other.place}"


def targets_are_balanced(relations: Sequence[Relation]) -> Violations:
    """No object is the counterfactual target of many more facts of its relation than others are."""
    for relation in relations:
        uses = Counter(target.answer for target in counterfactuals(relation, 0, {}).values())
        fair = len(relation.facts) / len({fact.answer for fact in relation.facts})
        for answer, number in uses.items():
            if number > 2 * fair + 2:
                yield relation.place, f"{answer} is the target of {number} facts of {relation.name!r}; {fair:.1f} would be even"


def near_duplicates(relations: Sequence[Relation]) -> Violations:
    """No two subjects of a relation are near-duplicates in every language."""
    for relation in relations:
        for a, b in itertools.combinations(relation.facts, 2):
            if all(fuzz.ratio(a.subjects[code], b.subjects[code]) > MAX_SIMILARITY for code in a.subjects):
                yield b.place, f"{b.entity} is nearly {a.entity} at {a.place}"


ROW_RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        known_values,
        one_row_per_fact,
        aliases_are_other_names,
        one_name_one_thing,
        scripts,
        prompts_are_in_their_script,
        orders,
        wordings_differ,
        answer_not_in_prompt,
        no_numbers,
    )
}
SET_RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        enough_objects,
        size_and_balance,
        no_leak,
        subjects_are_varied,
        one_subject_one_translation,
        one_fact_one_relation,
        keys_differ,
        targets_are_balanced,
        near_duplicates,
    )
}
