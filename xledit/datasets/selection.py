"""The facts of a data set that one run edits: as many as asked for, no two with the same key."""

from collections.abc import Sequence

from xledit.records import FactRecords

RULE = (
    "a fact whose prompt up to the end of its subject equals an earlier selected fact's, in any language, is dropped: same key, other value"
)


def select(facts: Sequence[FactRecords], num_facts: int, skip_facts: int) -> tuple[list[FactRecords], dict[str, str]]:
    """Return ``num_facts`` facts after the first ``skip_facts`` usable ones, and the ids dropped with the reason.

    Raises ValueError when there are too few.
    """
    taken: dict[tuple[str, str], str] = {}
    usable: list[FactRecords] = []
    dropped: dict[str, str] = {}
    for fact in facts:
        keys = [(request.language, request.up_to_subject) for request in fact.requests.values()]
        rival = next((taken[key] for key in keys if key in taken), None)
        if rival is not None:
            dropped[fact.fact_id] = f"same key as {rival}"
            continue
        taken |= dict.fromkeys(keys, fact.fact_id)
        usable.append(fact)
        if len(usable) == skip_facts + num_facts:
            return usable[skip_facts:], dropped
    raise ValueError(
        f"edit.num_facts is {num_facts} after data.skip_facts {skip_facts}, but the data set has only "
        f"{len(usable)} usable facts; ask for fewer"
    )
