"""The checks of a model between batches of edits, and when a model counts as collapsed. No torch, because the report imports it."""

import math
from collections.abc import Mapping

import msgspec

# a model whose held-out text is this many times more perplexing than before its edits counts as collapsed
COLLAPSE_RATIO = 10.0


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One check of a model between two batches of edits.

    ``num_facts`` counts the facts written so far. ``fresh`` is the share of the newest batch that the model recalls, ``kept`` that of a
    sample of all earlier facts (None before there are any). ``text_nats`` is the mean negative log-probability of a token of held-out text
    (nats) by language. ``weight_norms`` is by layer the Frobenius norm of the memory's weight divided by that of the unedited one: 1 before
    any edit, rising in a model that is about to collapse. A number that is not finite is null in JSON and is read back as None.
    ``collapsed`` is the result of the function ``collapsed`` for ``text_nats``.
    """

    num_facts: int
    fresh: float
    kept: float | None
    text_nats: dict[str, float | None]
    weight_norms: dict[str, float | None]
    collapsed: bool


def collapsed(nats: Mapping[str, float | None], unedited: Mapping[str, float | None]) -> bool:
    """Return whether edits have made the model collapse: in any language, its perplexity is over ten times the unedited model's.

    ``nats`` and ``unedited`` are by language the mean negative log-probability of the same held-out text (nats per token), so ten times the
    perplexity is ln 10 more. A value that is not finite (None when read back from JSON) counts as collapsed. Perplexity is used because it
    rises as the model gets worse at downstream tasks, and is cheap (arXiv 2402.09656). The threshold is ours.

    A measure of transfer says nothing about a collapsed model: its answers are equally bad in every language, and so it scores up to 99 on
    the `trans` of arXiv 2601.17397, the smaller reliability divided by the larger.

    Raises ValueError when the languages are not those of the unedited model, or its own text is not finite.
    """
    if not nats or nats.keys() != unedited.keys():
        raise ValueError(f"held-out text in {sorted(nats)}, of the unedited model in {sorted(unedited)}; ask both in the same languages")
    return any(_excess(code, nats[code], unedited[code]) > math.log(COLLAPSE_RATIO) for code in nats)


def _excess(code: str, nats: float | None, unedited: float | None) -> float:
    """Return by how many nats the text is less likely; infinite where the edited model gives no finite number."""
    if unedited is None or not math.isfinite(unedited):
        raise ValueError(f"{code}: the unedited model gives its text {unedited} nats; use float32, or another model")
    return nats - unedited if nats is not None and math.isfinite(nats) else math.inf
