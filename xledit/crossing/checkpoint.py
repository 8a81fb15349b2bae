"""A checkpoint is asked which facts it recalls, edited, and asked again; and its states and neurons are compared between languages."""

import functools
from collections.abc import Sequence

import msgspec
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.crossing.results import CheckpointCrossing, EditCrossing, Share
from xledit.crossing.settings import CrossingParams
from xledit.editing.apply import edited
from xledit.editing.artifacts import SavedVectors
from xledit.editing.combine import combination
from xledit.editing.method import Inputs
from xledit.editing.methods import method_class
from xledit.editing.practice import PRACTICES
from xledit.editing.second_moment import second_moments
from xledit.editing.targets import find_targets
from xledit.evaluation.metrics import per_fact
from xledit.evaluation.scoring import score_probes
from xledit.evaluation.watch import said_whole
from xledit.interpret.language_neurons import activation_shares, causal, specific
from xledit.interpret.parallel import of_probes
from xledit.interpret.representations import compare, sentence_states
from xledit.interpret.results import LanguageNeurons
from xledit.interpret.unification import unification
from xledit.records import Score
from xledit.training.people import People
from xledit.training.probes import FactProbe
from xledit.training.recall import recall

# what is kept of an edit: preference, the free answer, another wording, and the control, whether the new answer rose for other persons, too
KEPT = ("efficacy", "exact", "paraphrase", "control", "locality_tokens")


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: People, params: CrossingParams, tokens: int, seed: int
) -> CheckpointCrossing:
    """Return all that is measured of a checkpoint that has seen so many tokens. The model is unchanged afterwards."""
    languages = params.people.languages
    probes = [probe for code in languages for probe in world.probes(code, params.probes_per_group)]
    ask = functools.partial(said_whole, model, max_tokens=params.max_tokens)
    parallel = of_probes(probes, languages, params.sentences)
    states = {code: sentence_states(model, tokenizer, lines, params.max_tokens)["last"] for code, lines in parallel.sentences.items()}
    return CheckpointCrossing(
        tokens=tokens,
        recall=tuple(recall(tokenizer, probes, ask)),
        edits=tuple(edits(model, tokenizer, world, params, seed)),
        unification=tuple(unification(model, tokenizer, probes, languages, params.max_tokens)),
        depths=tuple(compare(states, parallel, "last", seed)),
        neurons=tuple(own_neurons(model, tokenizer, probes, params, seed)),
    )


def own_neurons(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], params: CrossingParams, seed: int
) -> list[LanguageNeurons]:
    """Return what switching off the languages' own neurons does to the loss, on sentences that did not choose them."""
    parallel = of_probes(probes, params.people.languages)
    choosing, asked = ({code: lines[half::2][: params.neuron_sentences] for code, lines in parallel.sentences.items()} for half in (0, 1))
    active = torch.stack([activation_shares(model, tokenizer, lines, params.max_tokens) for lines in choosing.values()])
    own = dict(zip(parallel.languages, specific(active), strict=True))
    return causal(model, tokenizer, own, asked, params.max_tokens, seed)


def edits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: People, params: CrossingParams, seed: int
) -> list[EditCrossing]:
    """Return the shares of each method and edited language, asked in all languages."""
    languages, settings = params.people.languages, params.edit
    facts = world.edits(languages, settings.facts, names_alike=bool(world.params.names_alike))
    probes = [probe for code in languages for fact in facts for probe in fact.probes[code]]
    before = score_probes(model, tokenizer, probes, params.max_tokens)
    text = {code: [document["text"] for document in world.documents(code, range(2))] for code in languages}
    moments = {
        code: second_moments(model, tokenizer, lines, settings.layers, settings.old_keys, params.architecture.context)
        for code, lines in text.items()
    }
    rows = []
    for edited_language in languages:
        requests = [fact.requests[edited_language] for fact in facts]
        found = find_targets(model, tokenizer, requests, settings.layers, settings.vectors)
        vectors = {edited_language: SavedVectors(tuple(request.fact_id for request in requests), found.memories, found.targets)}
        inputs = Inputs(
            combination=combination(edited_language, languages),
            requests={edited_language: requests},
            layers=settings.layers,
            batch_size=None,
            practice=PRACTICES["ours"],
            target_settings=settings.vectors,
            seed=seed,
            load_model=lambda: (model, tokenizer),
            load_vectors=lambda vectors=vectors: vectors,
            load_second_moments=lambda: moments,
            load_demonstrations=dict,
        )
        for name, own in settings.methods.items():
            saved = msgspec.convert(own, method_class(name)).edit(inputs, lambda *_model: lambda _places: True)
            with edited(model, saved.updates):
                after = score_probes(model, tokenizer, probes, params.max_tokens, contexts=saved.contexts)
            rows += [
                EditCrossing(
                    method=name,
                    edit_language=edited_language,
                    probe_language=code,
                    num_facts=len(facts),
                    shares=shares(after, before, code, [fact.fact_id for fact in facts]),
                )
                for code in languages
            ]
    return rows


def shares(after: Sequence[Score], before: Sequence[Score], code: str, fact_ids: Sequence[str]) -> dict[str, Share]:
    """Return each metric's mean over the facts, asked in a language, and its floor."""
    now, floor = ([score for score in scores if score.language == code] for scores in (after, before))

    def mean(name: str, scores: Sequence[Score]) -> float:
        return float(per_fact(name, scores, floor, fact_ids).mean())

    return {name: Share(value=mean(name, now), floor=mean(name, floor)) for name in KEPT}
