"""What a look at a model in the middle of its edits finds, and when it counts as ruined. No torch: the report reads it, too."""

import math
from collections.abc import Mapping

import msgspec

# a model whose held-out text is this many times more perplexing than before its edits counts as ruined
COLLAPSE_RATIO = 10.0


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One look at a model in the middle of its edits.

    ``num_facts`` counts the facts written so far. ``fresh`` is the share of the newest batch that the model recalls, ``kept`` that of
    a sample of all earlier facts (None before there are any). ``text_nats`` is the mean negative log-probability of a token
    of held-out text (nats) by language. ``weight_norms`` is the Frobenius norm of a layer's memory over that of the unedited
    one, by layer: 1 is untouched, a model that is about to break grows. What is not finite is null in JSON and comes back
    as None. ``collapsed`` is what the function ``collapsed`` says of ``text_nats``.
    """

    num_facts: int
    fresh: float
    kept: float | None
    text_nats: dict[str, float | None]
    weight_norms: dict[str, float | None]
    collapsed: bool


def collapsed(nats: Mapping[str, float | None], unedited: Mapping[str, float | None]) -> bool:
    """Return whether the edits have ruined the model: in any language, its perplexity is over ten times the unedited model's.

    Both are mean negative log-probabilities of the same held-out text (nats per token), so ten times the perplexity is
    ln 10 more; what is not finite (None, as JSON gives it back) is ruined, too. Perplexity is the sign because it goes up
    as the model gets worse at downstream tasks, and is cheap (arXiv 2402.09656). The threshold is ours.

    A measure of transfer says nothing about a ruined model: it answers every language alike, badly, and so scores up to 99
    on the `trans` of arXiv 2601.17397, the smaller reliability over the larger.

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
