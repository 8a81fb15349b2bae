"""Our own benchmark: checked tables to requests and probes. The tables' format is described in data/benchmark/README.md."""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from xledit.benchmark.counterfactuals import by_subject, counterfactuals
from xledit.benchmark.rules import check_rows
from xledit.benchmark.tables import Fact, Order, Relation, Template, Wordings, read_tables
from xledit.datasets.selection import RULE, select
from xledit.records import Audit, EditRequest, FactRecords, Kind, Probe

Orders = Literal["first", "last", "both"]
RULES = (
    "a row that breaks a rule of the tables stops the run, with its file, line and rule",
    "a fact whose subject is edited already in another relation is not edited: it is asked as that fact's near neighbour",
    RULE,
)


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of the benchmark that a run uses, from the ``data`` section of params.yaml.

    ``split``: settings are chosen on ``dev`` and reported on ``test``. ``order``: where the subject stands in the edited
    prompt of both languages; ``both`` gives half of the facts each. ``world_knowledge`` takes facts without a Chinese
    subject, too. ``probes``: at most so many of each kind per fact and language; 0 leaves a kind out.
    """

    split: Literal["dev", "test", "all"]
    order: Orders
    world_knowledge: bool
    probes: dict[Kind, int]

    def __post_init__(self) -> None:
        for kind, number in self.probes.items():
            if number < 0:
                raise ValueError(f"probes.{kind} is {number}; it must be at least 0")


def read(
    folder: Path, languages: Sequence[str], params: Choice, *, num_facts: int, skip_facts: int, seed: int
) -> tuple[list[FactRecords], Audit]:
    """Return the records of ``num_facts`` facts, taken from the relations in turn, and the audit.

    Raises ValueError with file, line and rule for rows that break one, and when facts are too few.
    """
    relations = read_tables(folder, languages)
    check_rows(relations)
    writer = Writer(relations, params, seed)
    tables = [
        [fact for fact in relation.facts if params.world_knowledge or fact.scope == "china"]
        for relation in relations
        if params.split in ("all", relation.split)
    ]
    facts = list(in_turn([sorted(table, key=writer.breadth, reverse=True) for table in tables]))
    orders = alternate(facts, params.order)
    # neighbours need to know what is edited: choose first, on the requests alone
    bare = [
        FactRecords(fact_id=fact.fact_id, requests=writer.requests(fact, orders[fact.fact_id]), rewordings={}, probes={}) for fact in facts
    ]
    chosen, dropped = select(bare, num_facts, skip_facts)
    edited = {fact.fact_id for fact in chosen}
    records = [writer.records(fact, orders[fact.fact_id], edited) for fact in facts if fact.fact_id in edited]
    fewer = {
        f"fewer_{kind}_probes_than_asked": {
            code: sum(sum(probe.kind == kind for probe in fact.probes[code]) < number for fact in records) for code in languages
        }
        for kind, number in params.probes.items()
    }
    defects = {"key_collisions": {"all": len(dropped)}} | fewer
    num_read = sum(map(len, tables))
    return records, Audit(source="benchmark", num_read=num_read, num_selected=len(records), defects=defects, dropped=dropped, rules=RULES)


def spare(folder: Path, languages: Sequence[str], params: Choice, edited: Sequence[FactRecords], *, seed: int) -> list[FactRecords]:
    """Return the records of the dev facts that share no subject with ``edited``: examples to show beside the edits.

    No name of their subjects stands in an edited fact's prompts or answers, or is a name of its subject. Each has one
    locality question, about a fact for which this holds, too. A run on test shows it nothing of test.
    """
    relations = read_tables(folder, languages)
    dev = [relation for relation in relations if relation.split == "dev"]
    all_facts = {fact.fact_id: fact for relation in relations for fact in relation.facts}
    texts = [text for fact in edited for text in (*fact.texts, *all_facts[fact.fact_id].subject_names)]
    everything = "\n".join(texts).casefold()
    touched = {
        fact.fact_id for relation in dev for fact in relation.facts if any(name.casefold() in everything for name in fact.subject_names)
    }
    facts = [
        fact
        for relation in dev
        for fact in relation.facts
        if fact.fact_id not in touched and (params.world_knowledge or fact.scope == "china")
    ]
    writer, orders = Writer(dev, msgspec.structs.replace(params, probes={"locality": 1}), seed), alternate(facts, params.order)
    return [writer.records(fact, orders[fact.fact_id], touched) for fact in facts]


def in_turn(tables: Sequence[Sequence[Fact]]) -> Iterator[Fact]:
    """Yield one fact of each table in turn, so that any first N cover the tables evenly; none whose subject has been yielded."""
    waiting, taken = [iter(table) for table in tables], set[tuple[str, ...]]()
    while waiting:
        for facts in list(waiting):
            fact = next((fact for fact in facts if fact.entity not in taken), None)
            if fact is None:
                waiting.remove(facts)
            else:
                taken.add(fact.entity)
                yield fact


def alternate(facts: Iterable[Fact], orders: Orders) -> dict[str, Order]:
    """Return each fact's order by id: the one asked for, or both in turn within each relation, every other relation from the second on."""
    if orders != "both":
        return {fact.fact_id: orders for fact in facts}
    places: dict[str, int] = {}
    order_of: dict[str, Order] = {}
    for fact in facts:
        # the next relation begins with the other order
        places.setdefault(fact.relation, len(places))
        order_of[fact.fact_id] = ("first", "last")[places[fact.relation] % 2]
        places[fact.relation] += 1
    return order_of


class Writer:
    """Words facts as requests and probes, from all tables, the counterfactual targets drawn for them, and the run's settings."""

    def __init__(self, relations: Sequence[Relation], params: Choice, seed: int) -> None:
        self._params, self._seed = params, seed
        self._relations = {relation.name: relation for relation in relations}
        self.facts = {fact.fact_id: fact for relation in relations for fact in relation.facts}
        self._by_subject = by_subject(relations)
        self._targets = {
            fact_id: target
            for relation in relations
            for fact_id, target in counterfactuals(relation, seed, self._followed(relation)).items()
        }
        self._same_subject: dict[tuple[str, ...], list[Fact]] = {}
        for fact in self.facts.values():
            self._same_subject.setdefault(fact.entity, []).append(fact)

    def breadth(self, fact: Fact) -> int:
        """Return how many of the two rare kinds of probe (near, portability) the fact has, 0 to 2: facts with more are taken first."""
        target = self._targets[fact.fact_id].answer
        hops = self._followed(self._relations[fact.relation]).values()
        return (len(self._same_subject[fact.entity]) > 1) + any({fact.answer, target} <= table.keys() for table in hops)

    def requests(self, fact: Fact, order: Order) -> dict[str, EditRequest]:
        """Return the fact's request in each language."""
        return {code: self._request(fact, code, wording.in_order(order)) for code, wording in self._wordings(fact)}

    def records(self, fact: Fact, order: Order, edited: set[str]) -> FactRecords:
        """Return all records of a fact; its neighbours are facts that are not in ``edited``."""
        relation = self._relations[fact.relation]
        labels = {"relation": fact.relation, "domain": fact.domain, "split": relation.split, "order": order}
        return FactRecords(
            fact_id=fact.fact_id,
            requests=self.requests(fact, order),
            rewordings={code: self._request(fact, code, wording.paraphrases[0]) for code, wording in self._wordings(fact)},
            probes={code: tuple(self._probes(fact, order, code, edited - {fact.fact_id})) for code in fact.subjects},
            labels=labels,
        )

    def _probes(self, fact: Fact, order: Order, code: str, edited: set[str]) -> Iterator[Probe]:
        numbers: dict[Kind, int] = {"efficacy": 1, **self._params.probes}
        for kind, number in numbers.items():
            fair = (row for row in self._asked(kind, fact, order, code, edited) if _fair(*row))
            for prompt, new, true in itertools.islice(fair, number):
                yield Probe(fact_id=fact.fact_id, language=code, kind=kind, prompt=prompt, target_new=new, target_true=true)

    def _asked(self, kind: Kind, fact: Fact, order: Order, code: str, edited: set[str]) -> Iterable[tuple[str, str, str]]:
        """Return prompt, new answer and true answer of all probes of one kind that can be asked."""
        wording, target = self._relations[fact.relation].wordings[code], self._targets[fact.fact_id]
        main, subject, answers = wording.in_order(order), fact.subjects[code], (target.objects[code], fact.objects[code])
        match kind:
            case "efficacy":
                return [(main.worded(subject)[0], *answers)]
            case "paraphrase":  # the first one is the rewording, which gets edit vectors of its own
                return [(template.worded(subject)[0], *answers) for template in wording.paraphrases[1:]]
            case "alias":
                return [(main.worded(alias)[0], *answers) for alias in fact.subject_aliases[code]]
            case "translated":  # from the English prompt with the subject in the same place
                chosen = wording.translated[:1] if main is wording.first else wording.translated[1:]
                return [(template.worded(subject)[0], *answers) for template in chosen]
            case "portability":
                tables = [(template, self._by_subject.get(hop, {})) for hop, template in wording.portability.items()]
                return [
                    (template.worded(subject)[0], table[target.answer].objects[code], table[fact.answer].objects[code])
                    for template, table in tables
                    if {target.answer, fact.answer} <= table.keys()
                ]
            case _:
                return (self._ask_other(fact, other, order, code) for other in self._others(kind, fact, order, edited))

    def _ask_other(self, fact: Fact, other: Fact, order: Order, code: str) -> tuple[str, str, str]:
        """Return the question about another fact, in the order of the edited one, with the edit's new answer and its own."""
        template = self._relations[other.relation].wordings[code].in_order(order)
        return template.worded(other.subjects[code])[0], self._targets[fact.fact_id].objects[code], other.objects[code]

    def _others(self, kind: Kind, fact: Fact, order: Order, edited: set[str]) -> Iterator[Fact]:
        """Yield facts that the edit should leave alone, in the order in which they are asked about.

        ``locality``: other subjects of the relation, those with the same true object first (CounterFact's neighbours);
        ``near``: the same subject in another relation; ``far``: another domain, of the part that the run is about.
        """
        draw = random.Random(f"{self._seed} {kind} {fact.fact_id}")
        if kind == "near":
            tied = (fact.relation, *self._relations[fact.relation].tied_to)
            candidates = [other for other in self._same_subject[fact.entity] if other.relation not in tied]
        elif kind == "locality":
            candidates = [other for other in self._relations[fact.relation].facts if other.entity != fact.entity]
        else:
            elsewhere = sorted(
                name
                for name, relation in self._relations.items()
                if relation.facts[0].domain != fact.domain and (self._params.world_knowledge or relation.facts[0].scope == "china")
            )
            facts = self._relations[draw.choice(elsewhere)].facts if elsewhere else ()
            candidates = [other for other in facts if other.domain != fact.domain and other.entity != fact.entity]
        candidates = [other for other in candidates if other.fact_id not in edited]
        for other in sorted(candidates, key=lambda other: (kind == "locality" and other.answer != fact.answer, draw.random())):
            # fair in every language, so that the languages are asked the same questions
            if all(_fair(*self._ask_other(fact, other, order, code)) for code in fact.subjects):
                yield other

    def _request(self, fact: Fact, code: str, template: Template) -> EditRequest:
        prompt, span = template.worded(fact.subjects[code])
        target = self._targets[fact.fact_id].objects[code]
        return EditRequest(
            fact_id=fact.fact_id, language=code, prompt=prompt, subject_span=span, target_new=target, target_true=fact.objects[code]
        )

    def _wordings(self, fact: Fact) -> Iterable[tuple[str, Wordings]]:
        return self._relations[fact.relation].wordings.items()

    def _followed(self, relation: Relation) -> Mapping[str, Mapping[tuple[str, ...], Fact]]:
        hops = {hop for wording in relation.wordings.values() for hop in wording.portability}
        return {hop: self._by_subject[hop] for hop in sorted(hops) if hop in self._by_subject}


def _fair(prompt: str, new: str, true: str) -> bool:
    """Return whether a probe tells two answers apart and gives neither away."""
    return new != true and not any(answer.casefold() in prompt.casefold() for answer in (new, true))
