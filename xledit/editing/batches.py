"""Store facts batch by batch, in one language or several: each batch is solved on the model with all earlier edits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.apply import editing
from xledit.editing.artifacts import SavedEdit
from xledit.editing.combine import Combination, Group
from xledit.editing.method import Inputs, Requests, Watching
from xledit.editing.tensors import Facts, LayerUpdate, Past


@dataclass(frozen=True)
class Stored:
    """By layer: the updates that store a group's facts, and the facts as they were read before the layer changed (``met``).

    ``met`` is empty for methods that train.
    """

    updates: dict[int, LayerUpdate]
    met: dict[int, Facts]


@dataclass
class History:
    """The facts stored so far: for each group a list of its batches, and for each batch its facts by layer."""

    met: dict[Group, list[dict[int, Facts]]] = field(default_factory=dict)

    def past(self, layer: int, shape: torch.Size, group: Group, keeps_off: bool) -> Past:
        """Return keys and residuals of all facts that earlier solves stored in a layer's memory of ``shape`` (d_out, d_in).

        With ``keeps_off`` the keys that other groups have stored are protected.
        """
        none = Past.none(shape[1], shape[0])
        stored = [(other, facts[layer]) for other, batches in self.met.items() for facts in batches if layer in facts]
        return Past(
            keys=torch.cat([none.keys, *(facts.keys for _group, facts in stored)]),
            residuals=torch.cat([none.residuals, *(facts.residuals for _group, facts in stored)]),
            protected=torch.cat([none.protected, *(facts.keys for other, facts in stored if keeps_off and other != group)]),
        )


# (group, the slice of its facts to store, all facts stored before) -> the updates; the model's weights are unchanged afterwards
Store = Callable[[Group, slice, History], Stored]


@runtime_checkable
class Editor(Protocol):
    """A ``Store`` that uses one method, and the layers that it changes."""

    @property
    def layers(self) -> Sequence[int]:
        """The layers that change."""
        ...

    def __call__(self, group: Group, places: slice, history: History) -> Stored:
        """Return the updates that store these facts."""
        ...


@dataclass(frozen=True)
class Step:
    """The state after a batch: which facts the batch stored, and by layer the updates of all facts so far."""

    places: slice
    parts: dict[int, tuple[LayerUpdate, ...]]

    @property
    def updates(self) -> dict[int, LayerUpdate]:
        """One update per layer for all facts so far."""
        return {layer: LayerUpdate.joined(parts) for layer, parts in self.parts.items()}


def edit_in_batches(
    model: PreTrainedModel, combination: Combination, num_facts: int, batch_size: int | None, store: Store
) -> Iterator[Step]:
    """Yield a ``Step`` after each batch of facts, while the model has all updates so far.

    At the end the weights are restored bit for bit. ``batch_size`` None stores all facts at once. The groups of a round are solved on the
    same model and then their updates are added; the next round is solved on the changed model.
    """
    history, parts = History(), dict[int, tuple[LayerUpdate, ...]]()
    with editing(model) as add:
        for start in range(0, num_facts, batch_size or num_facts):
            places = slice(start, min(start + (batch_size or num_facts), num_facts))
            for groups in combination.rounds:
                stored_by = {group: store(group, places, history) for group in groups}
                for group, stored in stored_by.items():
                    history.met.setdefault(group, []).append(stored.met)
                    for layer, update in stored.updates.items():
                        add(layer, update)
                        parts[layer] = (*parts.get(layer, ()), update)
            yield Step(places, dict(parts))


def edit_weights(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    editor: Editor,
    requests: Requests,
    inputs: Inputs,
    watching: Watching,
) -> SavedEdit:
    """Return the updates of all facts, or of the facts stored until the function that ``watching`` gives returned False."""
    after_batch = watching(model, tokenizer, editor.layers, requests)
    updates: dict[int, LayerUpdate] = {}
    for step in edit_in_batches(model, inputs.combination, len(next(iter(requests.values()))), inputs.batch_size, editor):
        updates = step.updates
        if not after_batch(step.places):
            break
    return SavedEdit(updates, {})
