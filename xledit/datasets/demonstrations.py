"""Examples to show beside an edit, in context: facts that are not edited, each in one of IKE's three roles (arXiv 2305.12740)."""

import itertools
import random
from collections.abc import Sequence

from xledit.languages import language
from xledit.records import Demonstration, FactRecords

# IKE's mixture of its three kinds, 1:3:4
SHARES = {"copy": 1, "update": 3, "retain": 4}


def draw(
    facts: Sequence[FactRecords], edited: Sequence[FactRecords], languages: Sequence[str], number: int, seed: int
) -> dict[str, list[Demonstration]]:
    """Return ``number`` demonstrations per language, drawn and ordered by the seed: the same facts and kinds in each language.

    A ``copy`` asks a new fact as it was told, an ``update`` in other words; a ``retain`` asks about something else and gets
    the true answer. Facts that lack a request, a rewording or a locality question in a language are not shown, nor facts
    that are edited, whose subject stands in an edited fact's prompts or answers, that speak of an edited subject, or that
    ask what an edited fact's probes ask.

    Raises ValueError when there are too few such facts.
    """
    chance = random.Random(f"{seed} demonstrations")
    kinds = _kinds(number)
    chance.shuffle(kinds)
    texts = {text.casefold() for fact in edited for text in fact.texts}
    everything = "\n".join(sorted(texts))
    subjects = {request.subject.casefold() for fact in edited for request in fact.requests.values()}
    ids = {fact.fact_id for fact in edited}

    def apart(fact: FactRecords) -> bool:
        own = {request.subject.casefold() for request in fact.requests.values()}
        prompts = [text.casefold() for text in _prompts(fact)]
        return (
            fact.fact_id not in ids
            and not any(subject in everything for subject in own)
            and not any(subject in text for subject in subjects for text in prompts)
            and texts.isdisjoint(prompts)
        )

    shuffled = chance.sample(facts, len(facts))
    shown = list(itertools.islice((fact for fact in shuffled if _has_all_kinds(fact, languages) and apart(fact)), number))
    if len(shown) < number:
        raise ValueError(
            f"data.demonstrations is {number}, but only {len(shown)} facts can be shown beside the {len(edited)} edited ones; "
            "ask for fewer, or for 0 where no method shows any"
        )
    return {code: [_demonstration(fact, code, kind) for fact, kind in zip(shown, kinds, strict=True)] for code in languages}


def _kinds(number: int) -> list[str]:
    """Return ``number`` kinds in the proportions of SHARES, rounded by largest remainders, the rarer kind first."""
    exact = {kind: number * share / sum(SHARES.values()) for kind, share in SHARES.items()}
    counts = {kind: int(count) for kind, count in exact.items()}
    remainders = sorted(exact, key=lambda kind: counts[kind] - exact[kind])
    for kind in remainders[: number - sum(counts.values())]:
        counts[kind] += 1
    return [kind for kind, count in counts.items() for _ in range(count)]


def _has_all_kinds(fact: FactRecords, languages: Sequence[str]) -> bool:
    return all(code in fact.requests and code in fact.rewordings and _elsewhere(fact, code) for code in languages)


def _elsewhere(fact: FactRecords, code: str) -> list[tuple[str, str]]:
    return [(probe.prompt, probe.target_true) for probe in fact.probes[code] if probe.kind == "locality"]


def _prompts(fact: FactRecords) -> list[str]:
    """Return every prompt that a demonstration of the fact can ask."""
    worded = [request.prompt for requests in (fact.requests, fact.rewordings) for request in requests.values()]
    return worded + [prompt for code in fact.probes for prompt, _answer in _elsewhere(fact, code)[:1]]


def _demonstration(fact: FactRecords, code: str, kind: str) -> Demonstration:
    request = fact.requests[code]
    questions = {
        "copy": (request.prompt, request.target_new),
        "update": (fact.rewordings[code].prompt, request.target_new),
        "retain": _elsewhere(fact, code)[0],
    }
    prompt, answer = questions[kind]
    new_fact = language(code).sentence(request.prompt, request.target_new)
    return Demonstration(fact_id=fact.fact_id, language=code, new_fact=new_fact, prompt=prompt, answer=answer)
