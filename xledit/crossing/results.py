"""What one cell of the grid measured, seed by seed and checkpoint by checkpoint: plain structs, no torch."""

import msgspec

from xledit.interpret.results import Depth, LanguageNeurons, Unification
from xledit.training.results import Recall


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The share of facts that a metric of ``xledit.evaluation.metrics`` counts, after the edit and before it (``floor``)."""

    value: float
    floor: float


class EditCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a method stored in ``edit_language``, asked in ``probe_language``: their shares by metric, over ``num_facts`` facts."""

    method: str
    edit_language: str
    probe_language: str
    names_alike: bool
    num_facts: int
    shares: dict[str, Share]


class CheckpointCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """One checkpoint: tokens seen, facts recalled, edits, how alike the languages' states are by depth, and languages' own neurons."""

    tokens: int
    recall: tuple[Recall, ...]
    edits: tuple[EditCrossing, ...]
    unification: tuple[Unification, ...]
    depths: tuple[Depth, ...]
    neurons: tuple[LanguageNeurons, ...]


class SeedCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """One model: the seed of its world, weights and order of data, and its checkpoints by tokens seen."""

    seed: int
    num_parameters: int
    checkpoints: tuple[CheckpointCrossing, ...]


class CellCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: the share of facts told in both languages, English's share of the tokens, and its seeds."""

    everywhere: float
    english: float
    seeds: tuple[SeedCrossing, ...]
