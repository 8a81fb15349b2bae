"""Locate-then-edit: settings and fits that closed forms share, and the editor that stores a batch of facts with one of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.apply import editing
from xledit.editing.artifacts import SavedEdit, SavedVectors
from xledit.editing.batches import History, Stored, edit_weights
from xledit.editing.combine import Combination, Group
from xledit.editing.least_change import Solver, inverse_of, keeping, least_change, solve_in_turn
from xledit.editing.method import Inputs, Method, Requests, Watching
from xledit.editing.practice import EditBatch, Practice
from xledit.editing.targets import Search, TargetSettings
from xledit.editing.tensors import Facts, LayerUpdate, Past, SecondMoment
from xledit.models.family import memory_of, weight_as_out_by_in
from xledit.params import check_positive
from xledit.records import EditRequest


class ClosedForm(Method, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the closed-form methods. All their settings must be above 0.

    ``solver`` takes the second moment of a layer's old keys and does the expensive part (a factorisation) once for any number of solves.
    ``stores_targets``: the method stores v* at the subject's last token. ``reads_old_keys``: the solver needs the second moment.
    ``most_facts``: how many facts are solved for at a time, None for all. ``search``: how v* is searched for.
    """

    stores_targets: ClassVar[bool] = True
    reads_old_keys: ClassVar[bool] = True
    most_facts: ClassVar[int | None] = None
    search: ClassVar[Search] = Search()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_positive(name, getattr(self, name))

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        raise TypeError(f"{type(self).__name__} does not say how it solves")

    def facts_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], layers: Sequence[int]
    ) -> Callable[[int], Facts] | None:
        """Return a function from layer to facts, all read before any layer changes.

        None where the method stores v* at the subject's last token.
        """
        return None

    def solve_unedited(self, old_keys: SecondMoment) -> Callable[[Facts], LayerUpdate] | None:
        """Return a function from facts to their update, for a layer that was never edited.

        None where the method does not store v* at the subject.
        """
        if not self.stores_targets:
            return None
        solver = self.solver(old_keys)
        return lambda facts: solve_in_turn(solver, facts, Past.none(facts.keys.shape[1], facts.values.shape[1]), self.most_facts)

    def edit(self, inputs: Inputs, watching: Watching) -> SavedEdit:
        """Return the updates that store all facts."""
        model, tokenizer = inputs.load_model()
        requests = {code: inputs.practice.worded(asked) for code, asked in inputs.requests.items()}
        editor = LocateThenEdit(
            model,
            tokenizer,
            self,
            inputs.combination,
            requests,
            vectors=inputs.load_vectors() if self.stores_targets else {},
            second_moments=inputs.load_second_moments() if self.reads_old_keys else {},
            layers=inputs.layers,
            settings=inputs.target_settings,
            practice=inputs.practice,
        )
        return edit_weights(model, tokenizer, editor, requests, inputs, watching)


class ExactFit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """M = C^-1, ridge 0: the facts are fitted exactly, and old values change as little as possible.

    ``regularisation`` is added to C's diagonal as a share of its mean, so that C can be inverted when it has seen fewer keys than it has
    dimensions. Higher: C is closer to a multiple of the identity, and the update avoids the directions of old keys less.
    """

    regularisation: float = 0.03

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer. It raises ValueError when facts share a key, because they have no exact fit."""
        metric = inverse_of(old_keys, self.regularisation)
        return lambda facts, past: least_change(facts.keys, keeping(metric, past.protected)(facts.keys), facts.residuals, ridge=0.0)


class WeightedFit(ClosedForm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """M = C^-1, the ridge is ``old_key_weight``: old values and facts are fitted together, by least squares.

    Higher ``old_key_weight``: smaller update, better locality, fewer facts stored. The papers' C is a sum over keys and their lambda
    15,000; ours is a mean, so the weight is the lambda. ``regularisation`` as in ``ExactFit``.
    """

    old_key_weight: float = 300.0
    regularisation: float = 0.03

    def solver(self, old_keys: SecondMoment) -> Solver:
        """Return the solver of one layer."""
        metric = inverse_of(old_keys, self.regularisation)
        return lambda facts, past: least_change(
            facts.keys, keeping(metric, past.protected)(facts.keys), facts.residuals, self.old_key_weight
        )


@dataclass(frozen=True)
class LocateThenEdit:
    """The editor of the closed forms.

    ``vectors`` by language belong to the unedited model. Once the model has been edited, or when the method has a ``Search`` of its own, v*
    is computed again. ``second_moments`` by language and layer are those of the unedited model's keys.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    method: ClosedForm
    combination: Combination
    requests: Requests
    vectors: Mapping[str, SavedVectors]
    second_moments: Mapping[str, Mapping[int, SecondMoment]]
    layers: tuple[int, ...]
    settings: TargetSettings
    practice: Practice
    _solvers: dict[Group, dict[int, Solver]] = field(default_factory=dict)

    def __call__(self, group: Group, places: slice, history: History) -> Stored:
        """Return the updates that store the facts at ``places`` in the group's languages."""
        requests = [request for code in group for request in self.requests[code][places]]
        past = {layer: history.past(layer, self._shape(layer), group, self.combination.keeps_off) for layer in self.layers}
        facts_of = self._facts_of(group, places, requests, fresh=not history.met)
        return Stored(*solve_layers(self.model, self.method, self._solver(group), past, facts_of))

    def _facts_of(self, group: Group, places: slice, requests: Sequence[EditRequest], fresh: bool) -> Callable[[int], Facts]:
        """Return a function that reads a layer's facts, to be called once the layers below have changed."""
        own = self.method.facts_of(self.model, self.tokenizer, requests, self.layers)
        if own is not None:
            return own
        settings = self.practice.settings(self.settings)
        batch = EditBatch(self.model, self.tokenizer, requests, self.layers, settings, self.method.search)
        if fresh and self.practice.shares_vectors and not self._wants_own_search(requests):
            saved = [
                self.vectors[code].of([request.fact_id for request in self.requests[code][places]], "the first batch") for code in group
            ]
            targets = {layer: torch.cat([vectors.targets[layer] for vectors in saved]) for layer in self.layers}
        else:
            targets = self.practice.targets(batch)
        return lambda layer: self.practice.facts(batch, layer, targets)

    def _wants_own_search(self, requests: Sequence[EditRequest]) -> bool:
        keys = {(request.language, request.up_to_subject) for request in requests}
        return self.method.search.attention or (self.method.search.merge and len(keys) < len(requests))

    def _shape(self, layer: int) -> torch.Size:
        return weight_as_out_by_in(memory_of(self.model, layer)).shape

    def _solver(self, group: Group) -> dict[int, Solver]:
        """Return the solvers by layer; each is made once for all batches, because it factorises a matrix."""
        text = group if self.combination.own_statistics else tuple(self.second_moments)
        if text not in self._solvers:
            self._solvers[text] = {}
            for layer in self.layers:
                with naming(self.method, layer):
                    self._solvers[text][layer] = self.method.solver(self._old_keys(text, layer))
        return self._solvers[text]

    def _old_keys(self, text: Group, layer: int) -> SecondMoment:
        if not self.method.reads_old_keys:
            return SecondMoment.none(self._shape(layer)[1])
        return SecondMoment.pooled([self.second_moments[code][layer] for code in text])


def solve_layers(
    model: PreTrainedModel,
    method: ClosedForm,
    solvers: Mapping[int, Solver],
    past: Mapping[int, Past],
    facts_of: Callable[[int], Facts],
) -> tuple[dict[int, LayerUpdate], dict[int, Facts]]:
    """Return by layer the update that gives each fact its target value, and the facts as they were read before the layer changed.

    ``facts_of`` reads keys and values of a layer; it is called after the layers below have changed. The model's weights are unchanged
    afterwards.

    Raises ValueError when a solve has no finite solution, with the method and the layer.
    """
    updates: dict[int, LayerUpdate] = {}
    met: dict[int, Facts] = {}
    with editing(model) as add:
        for layer in sorted(solvers):
            met[layer] = facts_of(layer)
            with naming(method, layer):
                updates[layer] = solve_in_turn(solvers[layer], met[layer], past[layer], method.most_facts)
                if not updates[layer].dense().isfinite().all():
                    raise ValueError("the update is not finite")
            add(layer, updates[layer])
    return updates, met


@contextmanager
def naming(method: Method, layer: int) -> Iterator[None]:
    """Add the method's name, the layer and the settings to the message of an error that is raised inside the context."""
    try:
        yield
    except (ValueError, torch.linalg.LinAlgError) as error:  # pyright: ignore[reportPrivateImportUsage]
        raise ValueError(f"{type(method).__name__}, layer {layer}: {error} (settings: {method})") from error
