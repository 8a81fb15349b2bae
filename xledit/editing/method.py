"""The interface of editing methods: a method is a frozen struct of its own settings with a function ``edit``, which takes ``Inputs``."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.artifacts import SavedEdit, SavedVectors
from xledit.editing.combine import Combination
from xledit.editing.practice import Practice
from xledit.editing.targets import TargetSettings
from xledit.editing.tensors import Facts, LayerUpdate, SecondMoment
from xledit.records import Demonstration, EditRequest

Requests = Mapping[str, Sequence[EditRequest]]


@dataclass(frozen=True)
class Inputs:
    """The inputs of one edit: facts by language, settings that all methods share, and functions that load what only some methods need.

    ``layers`` are the edited ones, ``batch_size`` how many facts are stored at a time (None: all). ``load_vectors`` returns the edit
    vectors of the unedited model by language; ``load_second_moments`` the second moments of its keys by language and layer, for all
    languages of the run.
    """

    combination: Combination
    requests: Requests
    layers: tuple[int, ...]
    batch_size: int | None
    practice: Practice
    target_settings: TargetSettings
    seed: int
    load_model: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    load_vectors: Callable[[], Mapping[str, SavedVectors]]
    load_second_moments: Callable[[], Mapping[str, Mapping[int, SecondMoment]]]
    load_demonstrations: Callable[[], Mapping[str, Sequence[Demonstration]]]


# the slice of the facts stored last -> whether to go on
AfterBatch = Callable[[slice], bool]
# (the unedited model, its tokenizer, the layers that will change, the requests as they are stored) -> the function called after each batch
Watching = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Sequence[int], Requests], AfterBatch]


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one method. A file of ``methods`` holds one subclass: its paper, its equation, its settings with defaults."""

    def edit(self, inputs: Inputs, watching: Watching) -> SavedEdit:
        """Return the edit: updates of weights, or text to put before prompts. The model's weights are unchanged afterwards."""
        raise TypeError(f"{type(self).__name__} does not say how it edits")

    def solve_unedited(self, old_keys: SecondMoment) -> Callable[[Facts], LayerUpdate] | None:
        """Return a function from facts to their update, for a layer that was never edited.

        None where the method does not store v* at the subject.
        """
        return None
