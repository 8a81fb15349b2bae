"""ZsRE in MEND's format (Levy et al., K17-1034; Mitchell et al., arXiv 2110.11309): English questions, new and true answers.

Files ``zsre_mend_eval.json`` and ``zsre_mend_train.json`` (rome.baulab.info/data/dsets),
``zsre_mend_train_10000.json`` and ``zsre_mend_eval_portability_gpt4.json`` (EasyEdit's Google Drive): a list of rows
with subject, src, pred, rephrase, alt, answers (a list), loc ("nq question: ..."), loc_ans, cond, and in the last
file portability (New Question, New Answer). The names are those that memit's dsets/zsre.py and EasyEdit's
dataset/zsre.py and examples/run_zsre_llama2.py read and that others list; the data file itself was not at hand.
``pred`` (what MEND's model said) and ``cond`` are not read. As in EasyEdit the edit writes ``alt`` and the truth is
the first of ``answers``; memit writes ``answers`` and has no truth.
"""

from collections.abc import Sequence
from pathlib import Path

from xledit.datasets.questions import Question
from xledit.datasets.wordings import collect, decode, english_only, fact_ids
from xledit.records import Audit, FactRecords

SOURCE = "ZsRE in MEND's format, arXiv 2110.11309, rome.baulab.info/data/dsets"
REMEDY = "the file is zsre_mend_eval.json or zsre_mend_train.json as released at rome.baulab.info/data/dsets"


class Row(Question, frozen=True, kw_only=True):
    """One row, with the true answers that the sets made of it lack."""

    answers: tuple[str, ...]

    @property
    def truths(self) -> tuple[str, ...]:
        """The true answers."""
        return self.answers


def read(path: Path, languages: Sequence[str]) -> tuple[list[FactRecords], Audit]:
    """Return the records of all rows that can be edited, and the audit of all.

    Raises ValueError with the file, and the row where there is one, when it is not as expected, and for a language other than English.
    """
    english_only("ZsRE", languages)
    rows = decode(path, list[Row], REMEDY)
    ids = fact_ids("zsre", [row.case_id for row in rows])
    return collect(SOURCE, [(fact_id, [row.wording("en")]) for fact_id, row in zip(ids, rows, strict=True)])
