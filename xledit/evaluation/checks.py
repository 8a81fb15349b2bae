"""When a model counts as ruined while it is edited. No torch: the report asks, too."""

import math
from collections.abc import Mapping

# a model whose held-out text is this many times more perplexing than before its edits counts as ruined
COLLAPSE_RATIO = 10.0


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
