"""What the stages ``sft`` and ``dpo`` conclude, in reports/tranyu: plain structs, no library of the extra ``training``."""

from collections import Counter
from collections.abc import Sequence

import msgspec


class RowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many conversations (or preferences) of a source and language were learnt from, and how many were dropped, by reason."""

    source: str
    language: str
    taken: int
    dropped: dict[str, int]


class TunedStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step: its loss, gradient norm before it was shortened, and learning rate.

    SFT: ``token_accuracy`` is the share of the answers' tokens that were likeliest, the loss is in nats per such token.
    DPO: ``reward_accuracy`` is the share of pairs whose chosen answer gained more than the rejected one, ``reward_margin`` by how much,
    beta times nats; the loss is that of equation 7 of arXiv 2305.18290, ln 2 at first. What does not apply is None.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    token_accuracy: float | None = None
    reward_accuracy: float | None = None
    reward_margin: float | None = None


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What was learnt from, and the steps."""

    rows: list[RowCounts]
    steps: list[TunedStep]


def sentence(rows: Sequence[RowCounts]) -> str:
    """Return how many rows of each source were taken, and how many dropped, by reason."""
    said = []
    for source in dict.fromkeys(row.source for row in rows):
        some = [row for row in rows if row.source == source]
        dropped = sum((Counter(row.dropped) for row in some), Counter[str]())
        without = f", without {', '.join(f'{number} {reason}' for reason, number in dropped.items())}" if dropped else ""
        said.append(f"{source}: {sum(row.taken for row in some)} in {len(some)} languages{without}")
    return "; ".join(said)
