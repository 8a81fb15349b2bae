"""The records every stage talks in: plain structs, no torch.

Records are flat and worded in one language each; a *pair* is two records with one ``fact_id``.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

Kind = Literal["efficacy", "paraphrase", "alias", "translated", "portability", "locality", "near", "far"]


class EditRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fact to write, in one language: ``prompt`` should be continued by ``target_new``.

    ``subject_span`` counts characters: ``prompt[start:end]`` is the subject, wherever it stands.

    Raises:
        ValueError: the span is not inside the prompt, a target is blank, or both targets are the same.
    """

    fact_id: str
    language: str
    prompt: str
    subject_span: tuple[int, int]
    target_new: str
    target_true: str

    def __post_init__(self) -> None:
        start, end = self.subject_span
        if not 0 <= start < end <= len(self.prompt):
            raise ValueError(
                f"fact {self.fact_id} ({self.language}): subject span {self.subject_span} is not inside the prompt {self.prompt!r}"
            )
        check_targets(self.fact_id, self.language, self.target_new, self.target_true)

    @property
    def subject(self) -> str:
        """The subject as it stands in the prompt."""
        return self.prompt[slice(*self.subject_span)]

    @property
    def up_to_subject(self) -> str:
        """The prompt up to the end of the subject: all that a causal model's key at the subject can see."""
        return self.prompt[: self.subject_span[1]]


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question about an edited fact, in one language, with the new and the true answer.

    ``efficacy`` is the edited prompt, ``paraphrase`` another wording, ``alias`` another name of the subject,
    ``translated`` a wording rendered literally from another language; ``portability`` asks what follows from the fact.
    For ``locality``, ``near`` and ``far`` the prompt asks about something else (another subject of the relation, another
    relation of the subject, another domain); its true answer should stay ahead of the edit's new one.
    """

    fact_id: str
    language: str
    kind: Kind
    prompt: str
    target_new: str
    target_true: str

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError(f"fact {self.fact_id} ({self.language}): the prompt of a {self.kind} probe is empty")
        check_targets(self.fact_id, self.language, self.target_new, self.target_true)


class Demonstration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One example for a context, in one language: told ``new_fact``, a sentence, ``prompt`` is continued by ``answer``.

    The fact is none that is edited; demonstrations of several languages with one ``fact_id`` say the same.
    """

    fact_id: str
    language: str
    new_fact: str
    prompt: str
    answer: str

    def __post_init__(self) -> None:
        for name in ("new_fact", "prompt", "answer"):
            if not getattr(self, name).strip():
                raise ValueError(f"fact {self.fact_id} ({self.language}): the {name} of a demonstration is empty")


class AnswerScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model says of one answer: sum of its tokens' log-probabilities (nats), its tokens, and the argmax at each."""

    logprob: float
    tokens: tuple[int, ...]
    argmax: tuple[int, ...]


class Score(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one model, edited or not, says to one probe. ``generated`` is its free greedy continuation, or None if not asked."""

    fact_id: str
    language: str
    kind: Kind
    prompt: str
    target_new: str
    target_true: str
    new: AnswerScore
    true: AnswerScore
    generated: str | None


def check_targets(fact_id: str, language: str, target_new: str, target_true: str) -> None:
    """Raise ValueError when a target is blank or the new one is the true one."""
    for name, target in (("target_new", target_new), ("target_true", target_true)):
        if not target.strip():
            raise ValueError(f"fact {fact_id} ({language}): {name} is empty; give the answer a text or drop the fact")
    if target_new.strip() == target_true.strip():
        raise ValueError(f"fact {fact_id} ({language}): target_new and target_true are both {target_new!r}; an edit needs another answer")


class FactRecords(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All records of one fact, by language: the request, the same request in other words where there is one, the probes.

    ``labels`` say what kind of fact it is (``order``, ``split``, ``domain``, ...); results are also given label by label.
    """

    fact_id: str
    requests: dict[str, EditRequest]
    rewordings: dict[str, EditRequest]
    probes: dict[str, tuple[Probe, ...]]
    labels: dict[str, str] = {}

    @property
    def texts(self) -> list[str]:
        """All prompts and answers of the fact, in all languages."""
        asked = [*self.requests.values(), *self.rewordings.values(), *(probe for probes in self.probes.values() for probe in probes)]
        return [text for record in asked for text in (record.prompt, record.target_new, record.target_true)]


class Audit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``prepare`` found in a data set and what it did about it.

    ``defects`` counts rows by check and language (``all`` where the check is not about one); ``dropped`` gives, for
    each row that was left out, its id and the rule.
    """

    source: str
    num_read: int
    num_selected: int
    defects: dict[str, dict[str, int]]
    dropped: dict[str, str]
    rules: tuple[str, ...]


# our way, or that of published editing code, which takes every text for English: a space goes before the answer, openings are English
PracticeName = Literal["ours", "published"]
PUBLISHED_LANGUAGE = "en"
Worded = TypeVar("Worded", EditRequest, Probe)


def as_published(records: Sequence[Worded]) -> list[Worded]:
    """Return the records as published code treats all of them: as English, whatever their words."""
    return [msgspec.structs.replace(record, language=PUBLISHED_LANGUAGE) for record in records]


def worded_for(practice: PracticeName, records: Sequence[Worded]) -> list[Worded]:
    """Return the records as a practice words them."""
    return as_published(records) if practice == "published" else list(records)


def aligned(requests: Mapping[str, Sequence[EditRequest]]) -> dict[str, list[EditRequest]]:
    """Return the requests of each language in the order of the first one's facts: they are joined by id, never by position.

    Raises ValueError that names a fact which one language has and another has not, or has twice.
    """
    by_id = {code: {request.fact_id: request for request in found} for code, found in requests.items()}
    order = next(iter(by_id.values()))
    for code, found in by_id.items():
        if len(found) != len(requests[code]):
            raise ValueError(f"requests in {code!r}: {len(requests[code]) - len(found)} facts are there twice; run `dvc repro` again")
        if odd := sorted(found.keys() ^ order.keys()):
            raise ValueError(f"requests in {code!r} and {next(iter(by_id))!r}: fact {odd[0]} is in one of them only; run `dvc repro` again")
    return {code: [found[fact_id] for fact_id in order] for code, found in by_id.items()}
