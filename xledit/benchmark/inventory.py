"""Counts of the benchmark: facts by domain and relation, probes by kind, targets, lengths, and the defects that CLM-Bench has."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import mean
from typing import get_args

from xledit.benchmark.read import Choice, Writer
from xledit.benchmark.results import Inventory
from xledit.benchmark.tables import DOMAINS, Order, Relation
from xledit.datasets.rows import CHECKS, Row
from xledit.records import EditRequest, FactRecords, Kind

# checks that compare all pairs of rows: half a minute for 2,500 facts
SLOW_CHECKS = {"near_duplicate_prompt_pairs"}
ONE_OF_EACH: dict[Kind, int] = dict.fromkeys(get_args(Kind)[1:], 1)


def take_stock(relations: Sequence[Relation], seed: int, count_tokens: Callable[[str], int], *, slow_checks: bool = True) -> Inventory:
    """Return the counts of the whole benchmark, both splits. ``count_tokens`` is the tokenizer of the model at hand.

    Without ``slow_checks`` those of ``SLOW_CHECKS`` are left out.
    """
    orders: dict[Order, list[FactRecords]] = {order: every_fact(relations, order, seed) for order in get_args(Order)}
    facts = orders["first"]
    rows = columns(facts)
    languages = tuple(relations[0].wordings)
    targets = {
        relation.name: max(
            Counter(fact.requests[languages[0]].target_new for fact in facts if fact.labels["relation"] == relation.name).values()
        )
        for relation in relations
    }
    return Inventory(
        num_facts=len(facts),
        num_relations=len(relations),
        china=sum(fact.scope == "china" for relation in relations for fact in relation.facts),
        domains={domain: _counted(fact.labels["split"] for fact in facts if fact.labels["domain"] == domain) for domain in DOMAINS},
        splits=_counted(relation.split for relation in relations),
        relations={relation.name: {"facts": len(relation.facts), "most_used_target": targets[relation.name]} for relation in relations},
        probes={
            kind: {code: sum(any(probe.kind == kind for probe in fact.probes[code]) for fact in facts) for code in languages}
            for kind in get_args(Kind)
        },
        key_collisions={order: CHECKS["key_collisions"](columns(ordered)) for order, ordered in orders.items()},
        lengths=lengths([request for fact in facts for request in fact.requests.values()], count_tokens),
        same_length=_share_of_same_length(facts, count_tokens),
        checks={name: check(rows) for name, check in CHECKS.items() if slow_checks or name not in SLOW_CHECKS},
    )


def every_fact(relations: Sequence[Relation], order: Order, seed: int) -> list[FactRecords]:
    """Return the records of all facts, with one probe of each kind that can be asked."""
    writer = Writer(relations, Choice(split="all", order=order, world_knowledge=True, probes=ONE_OF_EACH), seed)
    return [writer.records(fact, order, edited=set()) for fact in writer.facts.values()]


def columns(facts: Sequence[FactRecords]) -> dict[str, list[Row]]:
    """Return facts as rows in CLM-Bench's layout, by language, as the checks of ``rows.CHECKS`` take them."""
    rows: dict[str, list[Row]] = {}
    for fact in facts:
        for code, request in fact.requests.items():
            neighbour = next((probe for probe in fact.probes[code] if probe.kind == "locality"), None)
            row = Row(
                language=code,
                case_id=fact.fact_id,
                prompt=request.prompt,
                target_new=request.target_new,
                subject=request.subject,
                ground_truth=request.target_true,
                rephrase_prompt=fact.rewordings[code].prompt,
                loc=neighbour.prompt if neighbour else "",
                loc_ans=neighbour.target_true if neighbour else "",
            )
            rows.setdefault(code, []).append(row)
    return rows


def lengths(requests: Sequence[EditRequest], count_tokens: Callable[[str], int]) -> dict[str, dict[str, float]]:
    """Return the mean number of tokens of prompts, subjects and answers, by language and field."""
    by_language: dict[str, list[EditRequest]] = {}
    for request in requests:
        by_language.setdefault(request.language, []).append(request)
    return {
        code: {
            name: round(mean(count_tokens(getattr(request, name)) for request in of_language), 2)
            for name in ("prompt", "subject", "target_new", "target_true")
        }
        for code, of_language in by_language.items()
    }


def _share_of_same_length(facts: Sequence[FactRecords], count_tokens: Callable[[str], int]) -> dict[str, float]:
    """Return the share of facts whose new answer has as many tokens as the true one, by language."""
    return {
        code: round(
            mean(count_tokens(fact.requests[code].target_new) == count_tokens(fact.requests[code].target_true) for fact in facts), 4
        )
        for code in facts[0].requests
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
