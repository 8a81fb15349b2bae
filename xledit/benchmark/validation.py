"""Validation of the benchmark by people: a sheet of facts to judge, and how far two who judged it agree."""

import csv
import io
import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from xledit.benchmark.read import Choice, Writer, in_turn
from xledit.benchmark.tables import Order, Relation, read_rows

Judgement = Literal["yes", "no", ""]
# what an annotator says of a fact, and what "yes" means
QUESTIONS = {
    "true": "the statement with the true answer is true, in all languages",
    "one_answer": "no other answer to the prompt is as right",
    "false_new": "the statement with the new answer is false",
    "natural_zh": "the Chinese sentence is one that a native writer could have written",
    "natural_en": "the English sentence is one that a native writer could have written",
}
LANGUAGES = ("zh", "en")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a filled sheet: the fact and the answer to each question, empty where none was given."""

    fact_id: str
    answers: dict[str, Judgement]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two annotators on one question: facts that both judged, the share of "yes" of each, the share of equal answers, Cohen's kappa.

    Kappa (Cohen 1960) is 1 for full agreement and 0 for what two who answer at random with these shares would have; NaN where both gave
    one answer throughout.
    """

    question: str
    num_facts: int
    yes: tuple[float, float]
    agreed: float
    kappa: float


def sheet(relations: Sequence[Relation], number: int, seed: int) -> str:
    """Return a CSV table of ``number`` facts to judge, drawn from all relations in turn, with an empty column per question.

    The sentences are those of one order, which changes from fact to fact, in Chinese and English.

    Raises ValueError when there are fewer facts.
    """
    draw = random.Random(f"{seed}/sheet")
    tables = [draw.sample(relation.facts, len(relation.facts)) for relation in draw.sample(relations, len(relations))]
    facts = list(itertools.islice(in_turn(tables), number))
    if len(facts) < number:
        raise ValueError(f"{number} facts asked for, but only {len(facts)} have subjects of their own")
    writer = Writer(relations, Choice(split="all", order="first", world_knowledge=True, probes={}), seed)
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(
        ["id", *(f"{what}_{code}" for code in LANGUAGES for what in ("prompt", "true_answer", "new_answer")), *QUESTIONS, "remark"]
    )
    for fact, order in zip(facts, itertools.cycle(get_args(Order)), strict=False):
        requests = writer.requests(fact, order)
        told = (text for code in LANGUAGES for text in (requests[code].prompt, requests[code].target_true, requests[code].target_new))
        table.writerow([fact.fact_id, *told, *("" for _question in QUESTIONS), ""])
    return file.getvalue()


def read_sheet(path: Path) -> dict[str, Judged]:
    """Return the answers of a filled sheet by fact. Raises ValueError with file, line and column for another answer than yes or no."""
    judged: dict[str, Judged] = {}
    for line, row in read_rows(path, ("id", *QUESTIONS)):
        answers = {question: row[question].strip().casefold() for question in QUESTIONS}
        if wrong := [question for question, answer in answers.items() if answer not in get_args(Judgement)]:
            raise ValueError(f"{path}:{line}: {wrong[0]} is {row[wrong[0]]!r}; write yes or no, or leave it empty")
        if row["id"] in judged:
            raise ValueError(f"{path}:{line}: fact {row['id']!r} stands there twice")
        judged[row["id"]] = Judged(fact_id=row["id"], answers=msgspec.convert(answers, dict[str, Judgement]))
    return judged


def agreements(one: dict[str, Judged], other: dict[str, Judged]) -> list[Agreement]:
    """Return the agreement on each question, over the facts that both judged. Raises ValueError where there is no such fact."""
    rows = []
    for question in QUESTIONS:
        pairs = [(one[name].answers[question], other[name].answers[question]) for name in one if name in other]
        pairs = [pair for pair in pairs if all(pair)]
        if not pairs:
            raise ValueError(f"{question}: no fact was judged in both sheets; give two fillings of one sheet")
        yes = [sum(pair[place] == "yes" for pair in pairs) / len(pairs) for place in (0, 1)]
        agreed = sum(left == right for left, right in pairs) / len(pairs)
        chance = yes[0] * yes[1] + (1 - yes[0]) * (1 - yes[1])
        kappa = (agreed - chance) / (1 - chance) if chance < 1 else math.nan
        rows.append(Agreement(question=question, num_facts=len(pairs), yes=(yes[0], yes[1]), agreed=agreed, kappa=kappa))
    return rows
