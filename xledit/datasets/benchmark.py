"""Our own benchmark: tables that people edit, read into records. The format is described in data/benchmark/README.md."""

import csv
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from xledit.datasets.selection import RULE, select
from xledit.records import Audit, EditRequest, FactRecords, Probe

Order = Literal["first", "last"]
MIN_PARAPHRASES = 2


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a facts table. ``subjects``, ``objects`` and their ``aliases`` are by language."""

    fact_id: str
    relation: str
    place: str
    subjects: dict[str, str]
    objects: dict[str, str]
    object_aliases: dict[str, tuple[str, ...]]


class Templates(msgspec.Struct, frozen=True, kw_only=True):
    """The wordings of one relation in one language, each with ``{subject}`` once."""

    first: str
    last: str
    paraphrases: tuple[str, ...]


def read(
    folder: Path,
    languages: Sequence[str],
    *,
    order: Order,
    num_facts: int,
    skip_facts: int,
    num_neighbours: int,
    seed: int,
) -> tuple[list[FactRecords], Audit]:
    """Return the records of ``num_facts`` facts, taken from the relations in turn, and the audit.

    The counterfactual target is drawn from the other objects of the relation; locality asks the same question about
    other subjects of it that are not edited in this run, those with the same true object before others.

    Raises ValueError with file and line for a row that is not as the format says, and when facts are too few.
    """
    templates = read_templates(folder / "relations.csv", languages)
    facts = in_turn([read_facts(folder / "facts" / f"{relation}.csv", relation, languages) for relation in sorted(templates)])
    check_unique(facts, languages)
    # a fact needs neighbours to be built, and neighbours need to know what is edited: choose first, on the requests alone
    bare = [
        FactRecords(fact_id=fact.fact_id, requests=_requests(fact, facts, templates, order, seed), rewordings={}, probes={})
        for fact in facts
    ]
    chosen, dropped = select(bare, num_facts, skip_facts)
    edited = {fact.fact_id for fact in chosen}
    by_id = {fact.fact_id: fact for fact in facts}
    records = []
    for fact in chosen:
        neighbours = [other for other in facts if other.fact_id not in edited and other.relation == by_id[fact.fact_id].relation]
        records.append(_records(by_id[fact.fact_id], fact.requests, neighbours, templates, order, num_neighbours, seed))
    defects = {
        "key_collisions": {"all": len(dropped)},
        "fewer_neighbours_than_asked": {code: sum(_count_locality(fact, code) < num_neighbours for fact in records) for code in languages},
    }
    rules = (RULE, "a row that breaks the format stops the run, with its file and line")
    return records, Audit(source="benchmark", num_read=len(facts), num_selected=len(records), defects=defects, dropped=dropped, rules=rules)


def read_templates(path: Path, languages: Sequence[str]) -> dict[str, dict[str, Templates]]:
    """Return the wordings by relation and language. Raises ValueError with file and line, or with what is missing."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    for line, row in read_rows(path, ("relation", "language", "form", "template")):
        if row["form"] not in ("first", "last", "paraphrase"):
            raise ValueError(f"{path}:{line}: form is {row['form']!r}; it must be first, last or paraphrase")
        if row["template"].count("{subject}") != 1:
            raise ValueError(f"{path}:{line}: the prompt {row['template']!r} must have {{subject}} exactly once")
        if row["template"] != row["template"].strip():
            raise ValueError(
                f"{path}:{line}: the prompt {row['template']!r} begins or ends with a space; the language's joiner adds its own"
            )
        found.setdefault((row["relation"], row["language"]), {}).setdefault(row["form"], []).append(row["template"])
    if not found:
        raise ValueError(f"{path}: has no prompts")
    templates: dict[str, dict[str, Templates]] = {}
    for relation in dict.fromkeys(relation for relation, _code in found):
        for code in languages:
            forms = found.get((relation, code), {})
            counts = {form: len(forms.get(form, [])) for form in ("first", "last", "paraphrase")}
            if counts["first"] != 1 or counts["last"] != 1 or counts["paraphrase"] < MIN_PARAPHRASES:
                raise ValueError(
                    f"{path}: relation {relation!r}, language {code!r}: needs one first, one last and at least {MIN_PARAPHRASES} "
                    f"paraphrase prompts, found {counts}"
                )
            templates.setdefault(relation, {})[code] = Templates(
                first=forms["first"][0], last=forms["last"][0], paraphrases=tuple(forms["paraphrase"])
            )
    return templates


def read_facts(path: Path, relation: str, languages: Sequence[str]) -> list[Fact]:
    """Return the facts of one relation. Raises ValueError with file and line."""
    columns = ("id", *(f"{role}_{code}" for code in languages for role in ("subject", "object")))
    facts = []
    for line, row in read_rows(path, columns):
        fact = Fact(
            fact_id=row["id"],
            relation=relation,
            place=f"{path}:{line}",
            subjects={code: row[f"subject_{code}"] for code in languages},
            objects={code: row[f"object_{code}"] for code in languages},
            object_aliases={code: tuple(filter(None, (row.get(f"object_aliases_{code}") or "").split("|"))) for code in languages},
        )
        for name in columns:
            if not row[name].strip():
                raise ValueError(f"{fact.place}: {name} is empty")
            if row[name] != row[name].strip():
                raise ValueError(f"{fact.place}: {name} begins or ends with a space: {row[name]!r}")
        facts.append(fact)
    for fact in facts:
        if not false_answers(fact, facts):
            raise ValueError(f"{fact.place}: no other fact of {relation!r} has another object; a counterfactual target is drawn from those")
    return facts


def read_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and row of a CSV table. Raises ValueError with file and line for what is not one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: not found; each relation of relations.csv has a table of its name in facts/") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}); save the table as UTF-8") from error
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}; close each quote") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}:1: no column {missing[0]!r}; found: {', '.join(reader.fieldnames or ())}")
    for line, row in rows:
        if None in row or None in row.values():
            raise ValueError(f"{path}:{line}: has another number of cells than the header; quote cells that hold a comma")
        yield line, row


def check_unique(facts: Sequence[Fact], languages: Sequence[str]) -> None:
    """Raise ValueError with both places when an id or a subject occurs twice."""
    seen: dict[tuple[str, str], str] = {}
    for fact in facts:
        for key in (("id", fact.fact_id), *((f"subject_{code}", fact.subjects[code]) for code in languages)):
            if key in seen:
                raise ValueError(f"{fact.place}: {key[0]} {key[1]!r} stands already at {seen[key]}")
            seen[key] = fact.place


def in_turn(tables: Sequence[Sequence[Fact]]) -> list[Fact]:
    """Return one fact of each relation in turn, so that any first N cover the relations evenly."""
    return [table[index] for index in range(max(map(len, tables))) for table in tables if index < len(table)]


def false_answers(fact: Fact, facts: Sequence[Fact]) -> list[dict[str, str]]:
    """Return the objects of the fact's relation that are neither its own nor another name of it, each by language."""
    true = {name for code in fact.objects for name in (fact.objects[code], *fact.object_aliases[code])}
    others = {tuple(other.objects.values()): other for other in facts if other.relation == fact.relation}
    return [
        other.objects
        for names, other in others.items()
        if not true & {*names, *(alias for aliases in other.object_aliases.values() for alias in aliases)}
    ]


def counterfactual(fact: Fact, facts: Sequence[Fact], seed: int) -> dict[str, str]:
    """Return another object of the fact's relation, by language; the same draw for the same seed and fact."""
    return random.Random(f"{seed} {fact.fact_id}").choice(false_answers(fact, facts))


def _worded(template: str, subject: str) -> tuple[str, tuple[int, int]]:
    """Return the prompt and the span of its subject."""
    start = template.index("{subject}")
    return template.replace("{subject}", subject), (start, start + len(subject))


def _requests(
    fact: Fact, facts: Sequence[Fact], templates: dict[str, dict[str, Templates]], order: Order, seed: int
) -> dict[str, EditRequest]:
    target = counterfactual(fact, facts, seed)
    requests = {}
    for code, wording in templates[fact.relation].items():
        prompt, span = _worded(getattr(wording, order), fact.subjects[code])
        for asked in (prompt, *(_worded(other, fact.subjects[code])[0] for other in (wording.first, wording.last, *wording.paraphrases))):
            if fact.objects[code].casefold() in asked.casefold():
                raise ValueError(f"{fact.place}: the answer {fact.objects[code]!r} stands in the prompt {asked!r}")
        requests[code] = EditRequest(
            fact_id=fact.fact_id, language=code, prompt=prompt, subject_span=span, target_new=target[code], target_true=fact.objects[code]
        )
    return requests


def _records(
    fact: Fact,
    requests: dict[str, EditRequest],
    neighbours: Sequence[Fact],
    templates: dict[str, dict[str, Templates]],
    order: Order,
    num_neighbours: int,
    seed: int,
) -> FactRecords:
    first = next(iter(requests))
    draw = random.Random(f"{seed} neighbours {fact.fact_id}")
    # CounterFact's neighbourhood: the same true object first; never one whose truth is what the edit writes
    fitting = [other for other in neighbours if other.objects[first] != requests[first].target_new]
    fitting.sort(key=lambda other: (other.objects[first] != fact.objects[first], draw.random()))
    rewordings, probes = {}, {}
    for code, request in requests.items():
        wording = templates[fact.relation][code]
        worded = [_worded(template, fact.subjects[code]) for template in wording.paraphrases]
        rewordings[code] = msgspec.structs.replace(request, prompt=worded[0][0], subject_span=worded[0][1])
        answers = {"fact_id": fact.fact_id, "language": code, "target_new": request.target_new, "target_true": request.target_true}
        probes[code] = (
            Probe(kind="efficacy", prompt=request.prompt, **answers),
            *(Probe(kind="paraphrase", prompt=prompt, **answers) for prompt, _span in worded[1:]),
            *(
                Probe(
                    kind="locality",
                    prompt=_worded(getattr(wording, order), other.subjects[code])[0],
                    **answers | {"target_true": other.objects[code]},
                )
                for other in fitting[:num_neighbours]
            ),
        )
    return FactRecords(fact_id=fact.fact_id, requests=requests, rewordings=rewordings, probes=probes)


def _count_locality(fact: FactRecords, code: str) -> int:
    return sum(probe.kind == "locality" for probe in fact.probes[code])
