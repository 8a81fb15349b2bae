"""What the tuned variants are taught and asked: questions about the world's persons, and all answers that a relation has."""

from collections.abc import Mapping
from typing import Literal

import msgspec

# whose persons: those whose questions tune a model, or those that it is asked about afterwards
Split = Literal["train", "test"]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question in one language whose answer is the object of a fact; ``value`` is CLDR's code of that object.

    ``told`` and ``names_alike`` are those of ``probes.FactProbe``: where the corpus tells the fact, and whether the asked language spells
    the person as the one that tells it does. A person is of one split in all languages and relations.
    """

    fact_id: str
    relation: str
    language: str
    told: str
    names_alike: bool
    split: Split
    text: str
    value: str


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """All questions, and ``answers[language][relation][value]``: what the language calls each value that the relation has."""

    answers: Mapping[str, Mapping[str, Mapping[str, str]]]
    questions: tuple[Question, ...]

    def answer(self, question: Question, language: str | None = None) -> str:
        """Return the right answer, in the question's language or another one."""
        return self.answers[language or question.language][question.relation][question.value]

    def others(self, question: Question) -> list[str]:
        """Return the wrong answers in the question's language, in CLDR's order of their codes."""
        names = self.answers[question.language][question.relation]
        return [names[value] for value in sorted(names) if value != question.value]
