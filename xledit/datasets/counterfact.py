"""CounterFact (Meng et al., arXiv 2202.05262): 21,919 counterfactual edits in English.

Published by the authors as ``counterfact.json`` and ``multi_counterfact.json`` (rome.baulab.info/data/dsets; read by
github.com/kmeng01/memit, dsets/counterfact.py), and on the HF hub as azhx/counterfact: one list of rows with case_id,
pararel_idx, requested_rewrite (prompt with ``{}``, subject, relation_id, target_new and target_true, each with
``str`` and ``id``), paraphrase_prompts, neighborhood_prompts, attribute_prompts, generation_prompts. The names are
those that memit's experiments read and that others list; the data file itself was not at hand. Not read: pararel_idx,
relation_id, the targets' ``id``, attribute_prompts, generation_prompts; nor EasyEdit's ``counterfact-edit.json``, a
flat layout of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from string import Formatter

import msgspec

from xledit.datasets.wordings import Wording, collect, decode, english_only, fact_ids
from xledit.records import Audit, FactRecords

SOURCE = "CounterFact, arXiv 2202.05262, rome.baulab.info/data/dsets"
REMEDY = "the file is counterfact.json or multi_counterfact.json as released at rome.baulab.info/data/dsets"


class Target(msgspec.Struct, frozen=True):
    """An answer: the text in the column ``str``."""

    text: str = msgspec.field(name="str")


class Rewrite(msgspec.Struct, frozen=True):
    """The edit. ``prompt`` is a template of ``str.format`` with one ``{}``."""

    prompt: str
    subject: str
    target_new: Target
    target_true: Target


class Row(msgspec.Struct, frozen=True):
    """One row; the neighbours' true answer is the edit's."""

    case_id: int | str
    requested_rewrite: Rewrite
    paraphrase_prompts: tuple[str, ...]
    neighborhood_prompts: tuple[str, ...]


def read(path: Path, languages: Sequence[str]) -> tuple[list[FactRecords], Audit]:
    """Return the records of all rows that can be edited, and the audit of all.

    Raises ValueError with the file, and the row where there is one, when it is not as expected, and for a language other than English.
    """
    english_only("CounterFact", languages)
    rows = decode(path, list[Row], REMEDY)
    ids = fact_ids("counterfact", [row.case_id for row in rows])
    return collect(SOURCE, [(fact_id, [_wording(row)]) for fact_id, row in zip(ids, rows, strict=True)])


def fill(template: str, subject: str) -> tuple[str, tuple[int, int] | None]:
    """Return the prompt and the span of its subject; the template and None where it does not have exactly one ``{}``."""
    try:
        parts = [(text, field) for text, field, *_ in Formatter().parse(template)]
    except ValueError:  # a single brace
        return template, None
    if [field for _text, field in parts if field is not None] != [""]:
        return template, None
    place = next(index for index, (_text, field) in enumerate(parts) if field is not None)
    before, after = ("".join(text for text, _field in pieces) for pieces in (parts[: place + 1], parts[place + 1 :]))
    return before + subject + after, (len(before), len(before) + len(subject))


def _wording(row: Row) -> Wording:
    edit = row.requested_rewrite
    prompt, span = fill(edit.prompt, edit.subject)
    return Wording(
        language="en",
        subject=edit.subject,
        prompt=prompt,
        span=span,
        target_new=edit.target_new.text,
        truths=(edit.target_true.text,),
        paraphrases=row.paraphrase_prompts,
        locality=tuple((question, edit.target_true.text) for question in row.neighborhood_prompts),
    )
