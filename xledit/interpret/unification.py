"""Whether a model holds one representation of a fact or one for each language, where it is about to say the object.

Unification is what arXiv 2508.11017 shows crossing to need. Only its abstract was at hand, so the score is ours: the likeness of one
fact in two languages, on a scale that is 0 for other facts of the relation and 1 for the same fact in another wording of one language.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.geometry.vectors import cosines
from xledit.interpret.representations import depth_states, over
from xledit.interpret.results import Unification
from xledit.models.prompts import opening_tokens, padded_batches
from xledit.training.catalog import NATURAL
from xledit.training.probes import FactProbe
from xledit.training.recall import answer_row
from xledit.training.results import Wording

States = Float[Tensor, "depths facts d_model"]
# what a language's states of a fact are compared with in the same language
WORDINGS: tuple[Wording, Wording] = ("told", "known")
# least distance of cosines between other facts and rewordings of one; with less, a model has nothing of a fact that could be unified
LEAST_SCALE = 0.1


def unification(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], languages: Sequence[str], max_tokens: int
) -> list[Unification]:
    """Return the measures at every depth, for names spelt alike and for others; for neither where there are fewer than two facts.

    Of facts told everywhere that all ``languages`` have in both wordings of ``WORDINGS``. ``max_tokens`` bounds a batch (memory and speed).
    """
    asked = {(probe.fact_id, probe.language, probe.wording): probe for probe in probes if probe.told == "everywhere"}
    places: list[tuple[str, Wording]] = [(code, wording) for code in languages for wording in WORDINGS]
    facts = [name for name in sorted({name for name, _code, _wording in asked}) if all((name, *place) in asked for place in places)]
    # what all languages spell alike is one object by its letters
    facts = [name for name in facts if not all(asked[name, code, "told"].object_alike for code in languages)]
    found = []
    for names_alike in (True, False):
        kind = [name for name in facts if all(asked[name, code, "told"].names_alike == names_alike for code in languages)]
        if len(kind) < 2:
            continue
        rows = {place: [asked[name, *place] for name in kind] for place in places}
        states = {place: object_states(model, tokenizer, some, max_tokens) for place, some in rows.items()}
        relations = [asked[name, languages[0], "told"].relation for name in kind]
        values = [probe.text[probe.start : probe.end] for probe in rows[languages[0], "told"]]
        found += unified(states, relations, values, names_alike=names_alike)
    return found


@torch.no_grad()
def object_states(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], max_tokens: int) -> States:
    """Return the states from which each sentence's object is predicted, at every depth, float64 on the CPU."""
    opening, prompts = opening_tokens(tokenizer), []
    for probe in probes:
        row = answer_row(tokenizer, probe)
        prompts.append(opening + row.tokens[: row.positions[0] + 1])
    by_prompt: dict[int, Tensor] = {}
    for batch, ids, mask in padded_batches(prompts, max_tokens):
        last = depth_states(model, ids, mask)[:, torch.arange(len(batch)), mask.sum(1) - 1].double().cpu()
        by_prompt |= dict(zip(batch, last.unbind(1), strict=True))
    return torch.stack([by_prompt[index] for index in range(len(prompts))], dim=1)


def unified(
    states: Mapping[tuple[str, Wording], States], relations: Sequence[str], values: Sequence[str], *, names_alike: bool
) -> list[Unification]:
    """Return the measures at every depth; ``relations`` and ``values`` name those of each fact.

    Each language's mean over a relation's facts is subtracted first, because what a sentence has of its wording is not of its fact. Names
    in own letters are compared between languages of different scripts only: others spell them alike.
    """
    same_relation, same_value = _equal(relations), _equal(relations) & _equal(values)
    own = torch.eye(len(relations), dtype=torch.bool)
    masks = {"same": own, "same_value": same_value & ~own, "different": same_relation & ~same_value}
    rows, languages = [], list(dict.fromkeys(code for code, _wording in states))
    for depth in range(len(next(iter(states.values())))):
        centred = {place: _centred(some[depth], relations) for place, some in states.items()}
        reworded = {code: _mean(cosines(centred[code, "told"], centred[code, "known"]), own) for code in languages}
        pairs = []
        for one, other in combinations(languages, 2):
            if not names_alike and NATURAL[one].script == NATURAL[other].script:
                continue
            alike = cosines(centred[one, "told"], centred[other, "told"])
            measured = {name: _mean(alike, mask) for name, mask in masks.items()}
            measured["score"] = _score(measured["same"], measured["different"], (reworded[one] + reworded[other]) / 2)
            pairs.append(measured)
        rows.append(
            Unification(
                depth=depth,
                names_alike=names_alike,
                num_facts=len(relations),
                **{name: over([pair[name] for pair in pairs]) for name in (*masks, "score")},
                reworded=over(list(reworded.values())),
            )
        )
    return rows


def _score(same: float, different: float, reworded: float) -> float:
    """Return where ``same`` lies between 0 at ``different`` and 1 at ``reworded``; NaN where these are less than LEAST_SCALE apart."""
    return (same - different) / (reworded - different) if reworded - different >= LEAST_SCALE else math.nan


def _centred(states: Float[Tensor, "facts d_model"], relations: Sequence[str]) -> Float[Tensor, "facts d_model"]:
    centred = states.clone()
    for relation in set(relations):
        places = torch.tensor([name == relation for name in relations])
        centred[places] -= states[places].mean(0)
    return centred


def _equal(names: Sequence[str]) -> Bool[Tensor, "facts facts"]:
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = torch.tensor([number[name] for name in names])
    return places[:, None] == places[None, :]


def _mean(matrix: Float[Tensor, "facts facts"], mask: Bool[Tensor, "facts facts"]) -> float:
    return matrix[mask].mean().item()  # NaN where there is none
