"""Shared by the readers of other data sets: a fact in one language, checked, then dropped with a reason or turned into records."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from xledit.datasets.rows import find
from xledit.records import Audit, EditRequest, FactRecords, Probe

T = TypeVar("T")
# stands for the true answer where the data give none, as in memit's dsets/zsre.py and LangEdit's dsets/mzsre.py
NO_TRUTH = "<|endoftext|>"
RULES = (
    "a fact is dropped when, in a language asked, it is missing, its subject, target or true answer is blank, its prompt lacks its "
    "subject, or its target is a true answer (but for case)",
    "all paraphrases are asked; the first that has the subject (in any case) and differs from the prompt is the rewording",
    "a question about something else or about what follows is left out when it or its answer is blank; one about something else also when "
    "its answer is the fact's new target",
    f"where the data give no true answer (as of what follows), {NO_TRUTH!r} stands for it: comparing with it means nothing",
)


class Wording(msgspec.Struct, frozen=True, kw_only=True):
    """One fact in one language, as a data set words it; blank texts are empty.

    ``span`` is the subject's in the prompt, None where it is not there. ``truths`` are the true answers, the best first.
    ``locality`` asks about something else and ``portability`` what follows from the edit: questions with their answers.
    """

    language: str
    subject: str
    prompt: str
    span: tuple[int, int] | None
    target_new: str
    truths: tuple[str, ...]
    paraphrases: tuple[str, ...]
    locality: tuple[tuple[str, str], ...]
    portability: tuple[tuple[str, str], ...] = ()

    @property
    def elsewhere(self) -> list[tuple[str, str]]:
        """The questions about something else that the edit can spoil."""
        return [(question, answer) for question, answer in _filled(self.locality) if answer.strip() != self.target_new.strip()]

    @property
    def following(self) -> list[tuple[str, str]]:
        """The questions that follow from the edit."""
        return _filled(self.portability)

    @property
    def unusable(self) -> str | None:
        """Why the fact cannot be an edit, or None."""
        if not self.subject.strip():
            return "empty subject"
        if not self.target_new.strip():
            return "empty target"
        if not self.truths or not self.truths[0].strip():
            return "no true answer"
        if self.target_new.strip().casefold() in (truth.strip().casefold() for truth in self.truths):
            return "target equals truth"
        return None if self.span else "subject not in prompt"


DEFECTS: dict[str, Callable[[Wording], int]] = {
    "truth_not_given": lambda wording: wording.truths == (NO_TRUTH,),
    "empty_paraphrase": lambda wording: sum(not text.strip() for text in wording.paraphrases),
    "paraphrase_equals_prompt": lambda wording: wording.paraphrases.count(wording.prompt),
    "subject_not_in_paraphrase": lambda wording: sum(not find(wording.subject, text) for text in wording.paraphrases),
    "locality_left_out": lambda wording: len(wording.locality) - len(wording.elsewhere),
    "portability_left_out": lambda wording: len(wording.portability) - len(wording.following),
}


def _filled(questions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the questions that have a text and an answer."""
    return [(question.strip(), answer) for question, answer in questions if question.strip() and answer.strip()]


def collect(source: str, rows: Sequence[tuple[str, Sequence[Wording] | str]]) -> tuple[list[FactRecords], Audit]:
    """Return the records of all usable facts, and the audit of all.

    ``rows`` has, for each fact id, the fact's wording in each language asked for, or the reason why there is none.
    """
    facts: list[FactRecords] = []
    dropped: dict[str, str] = {}
    defects: dict[str, dict[str, int]] = {name: {} for name in DEFECTS}
    for fact_id, wordings in rows:
        if isinstance(wordings, str):
            dropped[fact_id] = wordings
            continue
        for wording in wordings:
            for name, number in DEFECTS.items():
                defects[name][wording.language] = defects[name].get(wording.language, 0) + number(wording)
        reason = next((f"{wording.unusable} ({wording.language})" for wording in wordings if wording.unusable), None)
        if reason:
            dropped[fact_id] = reason
        else:
            facts.append(_records(fact_id, wordings))
    return facts, Audit(source=source, num_read=len(rows), num_selected=len(facts), defects=defects, dropped=dropped, rules=RULES)


def _records(fact_id: str, wordings: Sequence[Wording]) -> FactRecords:
    requests, rewordings, probes = {}, {}, {}
    for wording in wordings:
        answers = {"fact_id": fact_id, "language": wording.language, "target_new": wording.target_new, "target_true": wording.truths[0]}
        assert wording.span is not None  # collect() has dropped the others
        request = EditRequest(prompt=wording.prompt, subject_span=wording.span, **answers)
        requests[wording.language] = request
        paraphrases = [text for text in wording.paraphrases if text.strip()]
        reworded = next(((text, span) for text in paraphrases if text != wording.prompt and (span := find(wording.subject, text))), None)
        if reworded:
            rewordings[wording.language] = msgspec.structs.replace(request, prompt=reworded[0], subject_span=reworded[1])
        probes[wording.language] = (
            Probe(kind="efficacy", prompt=wording.prompt, **answers),
            *(Probe(kind="paraphrase", prompt=text, **answers) for text in paraphrases),
            *(Probe(kind="locality", prompt=question, **answers | {"target_true": answer}) for question, answer in wording.elsewhere),
            *(
                Probe(kind="portability", prompt=question, **answers | {"target_new": new, "target_true": NO_TRUTH})
                for question, new in wording.following
            ),
        )
    return FactRecords(fact_id=fact_id, requests=requests, rewordings=rewordings, probes=probes)


def decode(path: Path, kind: type[T], remedy: str) -> T:
    """Return a JSON file's content as ``kind``. Raises ValueError with the file, the row where there is one, and the remedy."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ValueError(f"{path}: not read ({error.strerror}); {remedy}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error} (rows count from 0); {remedy}") from error


def fact_ids(prefix: str, ids: Sequence[int | str | None]) -> list[str]:
    """Return an id per row, made of the row's own id or else of its number; a repeated one gets the number, too."""
    names: dict[str, None] = {}
    for row, own in enumerate(ids):
        name = f"{prefix}-{row if own is None else own}"
        names[f"{name}-row-{row}" if name in names else name] = None
    return list(names)


def english_only(name: str, languages: Sequence[str]) -> None:
    """Raise ValueError when another language than English is asked of a data set that has no other."""
    unknown = [code for code in languages if code != "en"]
    if unknown:
        raise ValueError(f"{name} has no language {unknown[0]!r}; it has: en")
