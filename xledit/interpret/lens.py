"""The language in which a model's intermediate states already predict an answer (logit lens; arXiv 2402.10588)."""

from collections.abc import Sequence
from statistics import fmean

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.interpret.representations import depth_states
from xledit.interpret.results import LensDepth
from xledit.models.family import final_norm_of, head_logits
from xledit.models.prompts import opening_tokens, padded_batches
from xledit.training.probes import FactProbe
from xledit.training.recall import answer_row


def lens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], languages: Sequence[str], max_tokens: int
) -> tuple[int, list[LensDepth]]:
    """Return the number of prompts, and for each depth the mean probabilities of the answers' first tokens.

    ``probes`` have one wording, at most one of a fact and language. Only facts that all ``languages`` have are asked, and only where
    another fact of the relation can serve as the null: its object begins with another token in the asked language.
    """
    by_fact: dict[str, dict[str, FactProbe]] = {}
    for probe in probes:
        by_fact.setdefault(probe.fact_id, {})[probe.language] = probe
    facts = [name for name, by_language in sorted(by_fact.items()) if set(languages) <= set(by_language)]
    rows = {(name, code): answer_row(tokenizer, by_fact[name][code]) for name in facts for code in languages}
    first = {place: row.answer[0] for place, row in rows.items()}
    asked = [(name, code, other) for name in facts for code in languages if (other := _stand_in(name, code, facts, first))]
    opening = opening_tokens(tokenizer)
    prompts = [opening + rows[name, code].tokens[: rows[name, code].positions[0] + 1] for name, code, _other in asked]
    vocabulary = sorted(set(first.values()))
    column = {token: place for place, token in enumerate(vocabulary)}
    first = {place: column[token] for place, token in first.items()}
    probabilities = _probabilities(model, prompts, torch.tensor(vocabulary), max_tokens)
    depths = []
    for depth in range(len(probabilities[0])):
        right: dict[str, list[float]] = {code: [] for code in ("", *languages)}
        wrong: dict[str, list[float]] = {code: [] for code in ("", *languages)}
        for (name, code, other), chances in zip(asked, probabilities, strict=True):
            right[""].append(chances[depth][first[name, code]].item())
            wrong[""].append(chances[depth][first[other, code]].item())
            taken = {first[name, code], first[other, code]}
            for language in languages:
                pair = first[name, language], first[other, language]
                if language != code and not taken & set(pair) and pair[0] != pair[1]:
                    right[language].append(chances[depth][pair[0]].item())
                    wrong[language].append(chances[depth][pair[1]].item())
        depths.append(
            LensDepth(
                depth=depth,
                asked=fmean(right[""]),
                asked_null=fmean(wrong[""]),
                others={code: fmean(right[code]) for code in languages if right[code]},
                others_null={code: fmean(wrong[code]) for code in languages if wrong[code]},
            )
        )
    return len(asked), depths


def _stand_in(name: str, code: str, facts: Sequence[str], first: dict[tuple[str, str], int]) -> str | None:
    """Return the next fact of the relation whose object begins with another token, or None."""
    relation, place = name.partition("/")[0], facts.index(name)
    for other in [*facts[place + 1 :], *facts[:place]]:
        if other.partition("/")[0] == relation and first[other, code] != first[name, code]:
            return other
    return None


@torch.no_grad()
def _probabilities(
    model: PreTrainedModel, prompts: Sequence[tuple[int, ...]], tokens: Int[Tensor, " tokens"], max_tokens: int
) -> list[Float[Tensor, "depths tokens"]]:
    """Return for each prompt and depth the probabilities of ``tokens`` as the next token.

    The head reads the states of the prompt's last token, after the final norm; those of the last depth have passed it already.
    """
    by_prompt: dict[int, Tensor] = {}
    norm = final_norm_of(model)
    for batch, ids, mask in padded_batches(prompts, max_tokens):
        last = depth_states(model, ids, mask)[:, torch.arange(len(batch)), mask.sum(1) - 1]
        normed = torch.cat([norm(last[:-1]), last[-1:]])
        for place, index in enumerate(batch):
            by_prompt[index] = head_logits(model, normed[:, place]).float().softmax(-1).cpu()[:, tokens]
    return [by_prompt[index] for index in range(len(prompts))]
