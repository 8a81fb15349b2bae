"""What one checkpoint knows, what an edit of it reaches, and how alike its languages are: plain structs, and an edit's reach from scores."""

from collections.abc import Sequence

import msgspec
import numpy as np

from xledit.evaluation.metrics import mean_logprob, new_ahead
from xledit.interpret.results import Pairs
from xledit.records import Score
from xledit.training.results import Recall


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """What editing facts in ``edited`` does to the answers asked for in ``asked``, as means over ``num_facts``.

    ``preferred`` and ``preferred_before``: how often the new answer is likelier than the true one, after the edit and before.
    ``shift``: how far the new answer's log-probability per token moved against the true one's (nats); ``control``: the same two answers'
    after the prompts of other subjects, which are not edited. What reaches another language is ``shift`` less ``control``.
    """

    method: str
    edited: str
    asked: str
    num_facts: int
    preferred: float
    preferred_before: float
    shift: float
    control: float


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint: what it recalls, how far edits reach, and how alike its languages are.

    ``retrieval`` (of last tokens, among sentences of one pattern, as a mean over the layers; guessing gives ``chance``) and
    ``cka`` are those of ``Depth``; ``overlap``, ``overlap_halves`` and ``overlap_chance`` those of ``Neurons``.
    """

    number: int
    tokens: int
    recall: list[Recall]
    reach: list[Reach]
    retrieval: float
    chance: float
    cka: float
    overlap: Pairs
    overlap_halves: Pairs
    overlap_chance: float


def reach(method: str, edited: str, asked: str, after: Sequence[Score], before: Sequence[Score]) -> Reach:
    """Return what an edit does in the language ``asked``, from all its scores and those of the unedited model, probe by probe.

    Raises ValueError when the two are not scores of the same probes, or the language has no probes of an edit or none of its control.
    """
    pairs = [(score, was) for score, was in zip(after, before, strict=True) if score.language == asked]
    if any((score.fact_id, score.kind, score.prompt) != (was.fact_id, was.kind, was.prompt) for score, was in pairs):
        raise ValueError("scores before and after are of different probes; run `dvc repro` again")
    own = [pair for pair in pairs if pair[0].kind == "efficacy"]
    others = [pair for pair in pairs if pair[0].kind == "locality"]
    if not own or not others:
        raise ValueError(f"no probes of kind {'locality' if own else 'efficacy'} in {asked}; the facts to edit need both")
    return Reach(
        method=method,
        edited=edited,
        asked=asked,
        num_facts=len(own),
        preferred=float(np.mean([new_ahead(score, was) for score, was in own])),
        preferred_before=float(np.mean([new_ahead(was, was) for _score, was in own])),
        shift=_shift(own),
        control=_shift(others),
    )


def _shift(pairs: Sequence[tuple[Score, Score]]) -> float:
    return float(np.mean([_ahead(score) - _ahead(was) for score, was in pairs]))


def _ahead(score: Score) -> float:
    return mean_logprob(score.new) - mean_logprob(score.true)
