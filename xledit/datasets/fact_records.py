"""Facts that are records already: a JSON list of ``FactRecords``, as the stage ``world`` or another tool writes it."""

from collections.abc import Sequence
from pathlib import Path

from xledit.datasets.wordings import decode
from xledit.records import Audit, FactRecords

REMEDY = "the file is a list of FactRecords (xledit/records.py), as stages/training/world.py writes it"


def read(path: Path, languages: Sequence[str]) -> tuple[list[FactRecords], Audit]:
    """Return the facts and an audit that finds nothing. Raises ValueError with the file, and the fact that lacks a language."""
    facts = decode(path, list[FactRecords], REMEDY)
    for fact in facts:
        missing = [code for code in languages if code not in fact.requests or code not in fact.probes]
        if missing:
            raise ValueError(f"{path}: fact {fact.fact_id} has no request or probes in {missing[0]}; it has: {', '.join(fact.requests)}")
    return facts, Audit(source=str(path), num_read=len(facts), num_selected=len(facts), defects={}, dropped={}, rules=())
