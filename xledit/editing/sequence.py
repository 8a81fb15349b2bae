"""Edit a batch of facts at a time, each on the model that the earlier ones have left, in one language or several."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.apply import editing, naming, solve_layers
from xledit.editing.artifacts import SavedVectors
from xledit.editing.combine import Combination, Group
from xledit.editing.gradients import answer_facts
from xledit.editing.memory import read_memories
from xledit.editing.second_moment import SecondMoment, pooled
from xledit.editing.solvers import Facts, LayerUpdate, Method, Past, Solver
from xledit.editing.targets import TargetSettings, find_targets
from xledit.editing.tuning import FineTuning, Lora
from xledit.languages import LANGUAGES
from xledit.models.families import layers_of, memory_of, weight_as_out_by_in
from xledit.records import PUBLISHED_LANGUAGE, EditRequest

MAX_TOKENS = 4096


@dataclass(frozen=True)
class Stored:
    """What storing a group's facts came to: an update per layer, and the facts as each layer was met (empty for training)."""

    updates: dict[int, LayerUpdate]
    met: dict[int, Facts]


@dataclass
class History:
    """The facts stored so far, by group and layer."""

    met: dict[Group, list[dict[int, Facts]]] = field(default_factory=dict)

    def past(self, layer: int, shape: torch.Size, group: Group, keeps_off: bool) -> Past:
        """Return what earlier solves have stored in a memory of ``shape`` (d_out, d_in), other groups' keys protected if so asked."""
        none = Past.none(shape[1], shape[0])
        stored = [(other, facts[layer]) for other, batches in self.met.items() for facts in batches if layer in facts]
        return Past(
            keys=torch.cat([none.keys, *(facts.keys for _group, facts in stored)]),
            residuals=torch.cat([none.residuals, *(facts.residuals for _group, facts in stored)]),
            protected=torch.cat([none.protected, *(facts.keys for other, facts in stored if keeps_off and other != group)]),
        )


# group of languages, which facts, what came before -> what storing them came to; the model is left as it was
Editor = Callable[[Group, slice, History], Stored]


@dataclass(frozen=True)
class Step:
    """After a batch: which facts it stored, and by layer the updates of all facts so far."""

    places: slice
    parts: dict[int, tuple[LayerUpdate, ...]]

    @property
    def updates(self) -> dict[int, LayerUpdate]:
        """One update per layer for all facts so far."""
        return {layer: LayerUpdate.joined(parts) for layer, parts in self.parts.items()}


def edit_in_batches(
    model: PreTrainedModel, combination: Combination, num_facts: int, batch_size: int | None, editor: Editor
) -> Iterator[Step]:
    """Yield after each batch of facts, with the model as edited so far. It is as it was at the end, bit for bit.

    ``batch_size`` None stores all facts at once. Updates of a batch's groups are solved from the same model and added; a
    combination's rounds follow one another.
    """
    history, parts = History(), dict[int, tuple[LayerUpdate, ...]]()
    with editing(model) as add:
        for start in range(0, num_facts, batch_size or num_facts):
            places = slice(start, min(start + (batch_size or num_facts), num_facts))
            for groups in combination.rounds:
                found = {group: editor(group, places, history) for group in groups}
                for group, stored in found.items():
                    history.met.setdefault(group, []).append(stored.met)
                    for layer, update in stored.updates.items():
                        add(layer, update)
                        parts[layer] = (*parts.get(layer, ()), update)
            yield Step(places, dict(parts))


@dataclass(frozen=True)
class LocateThenEdit:
    """The editor of the closed forms.

    ``vectors`` are those of the unedited model; a batch that meets an edited model, or a method with a ``Search`` of its own,
    has its v* sought anew. ``moments`` are of the unedited model's text, by language and layer. With ``published_code`` v* is
    sought at the last layer's output and what is missing there is spread over the layers left, as published code has it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: Method
    combination: Combination
    requests: Mapping[str, Sequence[EditRequest]]
    vectors: Mapping[str, SavedVectors]
    moments: Mapping[str, Mapping[int, SecondMoment]]
    settings: TargetSettings
    published_code: bool
    _solvers: dict[Group, dict[int, Solver]] = field(default_factory=dict)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The edited layers."""
        return tuple(next(iter(self.moments.values())))

    def __call__(self, group: Group, places: slice, history: History) -> Stored:
        """Store the facts at ``places`` in the group's languages."""
        requests = [request for code in group for request in self.requests[code][places]]
        past = {
            layer: history.past(layer, weight_as_out_by_in(memory_of(self.model, layer)).shape, group, self.combination.keeps_off)
            for layer in self.layers
        }
        facts_of = self._facts_of(group, places, requests, fresh=not history.met)
        return Stored(*solve_layers(self.model, self.method, self._solver(group), past, facts_of))

    def _facts_of(self, group: Group, places: slice, requests: Sequence[EditRequest], fresh: bool) -> Callable[[int], Facts]:
        """Return what reads a layer's facts once the layers below have changed."""
        if self.method.search.answer:
            return answer_facts(self.model, self.tokenizer, requests, self.layers, MAX_TOKENS).__getitem__
        if fresh and not self.published_code and not self._wants_own_search(requests):
            found = [self.vectors[code] for code in group]
            fewest = min(len(vectors.fact_ids) for vectors in found)
            if fewest < places.stop:
                raise ValueError(
                    f"the first batch has {places.stop} facts, only {fewest} have vectors; raise grid.vectors, or null for all"
                )
            targets = {layer: torch.cat([vectors.targets[layer][places] for vectors in found]) for layer in self.layers}
        else:
            targets = find_targets(
                self.model,
                self.tokenizer,
                requests,
                self.layers[-1:] if self.published_code else self.layers,
                self._settings,
                search=self.method.search,
                value_of=_layer_of if self.published_code else memory_of,
            ).targets
        read = self._spread if self.published_code else self._facts
        return lambda layer: read(requests, layer, targets)

    def _wants_own_search(self, requests: Sequence[EditRequest]) -> bool:
        keys = {(request.language, request.up_to_subject) for request in requests}
        return self.method.search.attention or (self.method.search.merge and len(keys) < len(requests))

    @property
    def _settings(self) -> TargetSettings:
        """The target settings; published code averages over openings, whatever ``vectors.num_prefixes`` says."""
        prefixes = len(LANGUAGES[PUBLISHED_LANGUAGE].prefixes) if self.published_code else self.settings.num_prefixes
        return msgspec.structs.replace(self.settings, num_prefixes=prefixes)

    def _facts(self, requests: Sequence[EditRequest], layer: int, targets: Mapping[int, Tensor]) -> Facts:
        memory = read_memories(self.model, self.tokenizer, requests, (layer,), self._settings.num_prefixes, MAX_TOKENS)[layer]
        return Facts(**vars(memory), targets=targets[layer].double())

    def _spread(self, requests: Sequence[EditRequest], layer: int, targets: Mapping[int, Tensor]) -> Facts:
        """Return the facts with a layer's share of what the last layer's output lacks as their residual."""
        last, prefixes = self.layers[-1], self._settings.num_prefixes
        memory = read_memories(self.model, self.tokenizer, requests, (layer,), prefixes, MAX_TOKENS)[layer]
        output = read_memories(self.model, self.tokenizer, requests, (last,), prefixes, MAX_TOKENS, _layer_of)[last]
        left = len(self.layers) - self.layers.index(layer)
        share = (targets[last].double() - output.values) / left**self.method.search.spread_power
        return Facts(**vars(memory), targets=memory.values + share)

    def _solver(self, group: Group) -> dict[int, Solver]:
        """Return the solvers of the layers, whose dear parts are done once for all batches."""
        text = group if self.combination.own_statistics else tuple(self.moments)
        if text not in self._solvers:
            self._solvers[text] = {}
            for layer in self.layers:
                with naming(self.method, layer):
                    self._solvers[text][layer] = self.method.solver(pooled([self.moments[code][layer] for code in text]))
        return self._solvers[text]


@dataclass(frozen=True)
class Training:
    """The editor of the methods that train: the method's own layers, or where it has none ``edit_layers``."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: FineTuning | Lora
    combination: Combination
    requests: Mapping[str, Sequence[EditRequest]]
    edit_layers: tuple[int, ...]
    seed: int

    def __post_init__(self) -> None:
        if self.combination.keeps_off:
            raise ValueError(
                f"{type(self.method).__name__} trains and cannot keep off earlier keys; use a closed-form method for this edit"
            )

    @property
    def layers(self) -> tuple[int, ...]:
        """The edited layers."""
        return self.method.layers or self.edit_layers

    def __call__(self, group: Group, places: slice, history: History) -> Stored:
        """Store the facts at ``places`` in the group's languages."""
        requests = [request for code in group for request in self.requests[code][places]]
        return Stored(self.method.updates(self.model, self.tokenizer, requests, self.layers, self.seed), {})


def _layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    return layers_of(model)[layer]
