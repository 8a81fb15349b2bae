"""What a method of editing is, and what it is given. A method is a frozen struct of its own settings that says how it edits."""

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
    """One edit to make: its facts by language, the settings that all methods share, and what a method reads only if it needs it.

    ``layers`` are the edited ones, ``batch_size`` how many facts are stored at a time (None: all). ``vectors`` are those of the
    unedited model, by language; ``second_moments`` are of its text, by language and layer, of all languages of the run.
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


# the facts stored last, by their places -> whether to go on
AfterBatch = Callable[[slice], bool]
# the model before its first edit, its tokenizer, the layers that will change, the requests as they are stored -> what hears of each batch
Watching = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Sequence[int], Requests], AfterBatch]


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one method. A file of ``methods`` holds one subclass: its paper, its equation, its settings with defaults."""

    def edit(self, inputs: Inputs, watching: Watching) -> SavedEdit:
        """Return the edit: updates of weights, or text that stands before prompts. The model is left as it was."""
        raise TypeError(f"{type(self).__name__} does not say how it edits")

    def solve_unedited(self, old_keys: SecondMoment) -> Callable[[Facts], LayerUpdate] | None:
        """Return what solves any facts of a layer that was never edited; None where the method does not store v* at the subject."""
        return None
