"""The counterfactual targets of edits: each another object of the relation, all used about equally often."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from xledit.benchmark.tables import Fact, Relation

FORBIDDEN = 1e6
# cost of a target that leaves no portability question; 1 is the cost of a target twice as long as the true answer
NO_PORTABILITY = 0.5
NOISE = 0.2


def counterfactuals(relation: Relation, seed: int, followed: Mapping[str, Mapping[tuple[str, ...], Fact]]) -> dict[str, Fact]:
    """Return, for each fact of a relation by id, the fact whose object is its counterfactual target.

    The targets of a relation are assigned together (least total cost): never true, never another name of the truth,
    nowhere in the fact's prompts; used equally often as far as that allows; as long as the true answer; and, where
    portability can ask further, with another answer there (``followed``: second relation -> its facts by subject).
    The same seed and table give the same targets.

    Raises ValueError with file and line when a fact has no false answer.
    """
    answers = list({fact.answer: fact for fact in relation.facts}.values())
    costs = np.array([[_cost(fact, other, relation, seed, followed) for other in answers] for fact in relation.facts])
    for fact, row in zip(relation.facts, costs, strict=True):
        if row.min() >= FORBIDDEN:
            raise ValueError(f"{fact.place}: no other fact of {fact.relation!r} has another object that its prompts do not give away")
    # as few uses of the most used target as can be
    for uses in range(-(-len(relation.facts) // len(answers)), len(relation.facts) + 1):
        rows, columns = linear_sum_assignment(np.repeat(costs, uses, axis=1))
        if len(rows) == len(costs) and costs[rows, columns // uses].max() < FORBIDDEN:
            return {relation.facts[row].fact_id: answers[column // uses] for row, column in zip(rows, columns, strict=True)}
    raise AssertionError("each fact alone has a target, so uses = facts fits")


def _cost(fact: Fact, other: Fact, relation: Relation, seed: int, followed: Mapping[str, Mapping[tuple[str, ...], Fact]]) -> float:
    if fact.answer_names & other.answer_names or gives_away(fact, other.objects, relation):
        return FORBIDDEN
    length = sum(abs(np.log2(len(other.objects[code]) / len(name))) for code, name in fact.objects.items())
    hops = [_differ(table.get(fact.answer), table.get(other.answer)) for table in followed.values()]
    digest = hashlib.sha256(f"{seed} {fact.fact_id} {other.answer}".encode()).digest()
    return length + (NO_PORTABILITY if hops and not any(hops) else 0.0) + NOISE * digest[0] / 255


def _differ(true: Fact | None, new: Fact | None) -> bool:
    return true is not None and new is not None and not true.answer_names & new.answer_names


def gives_away(fact: Fact, objects: Mapping[str, str], relation: Relation) -> bool:
    """Return whether one of the texts (``objects``, by language) stands in a native prompt of the fact in that language."""
    return any(
        text.casefold() in template.worded(fact.subjects[code])[0].casefold()
        for code, text in objects.items()
        for template in relation.wordings[code].native
    )


def by_subject(relations: Sequence[Relation]) -> dict[str, dict[tuple[str, ...], Fact]]:
    """Return each relation's facts by ``Fact.entity``, by relation. The second step of portability is looked up there."""
    return {relation.name: {fact.entity: fact for fact in relation.facts} for relation in relations}
