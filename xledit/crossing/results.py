"""The grid, and what one of its cells measured, seed by seed and checkpoint by checkpoint: plain structs, no torch."""

from typing import Annotated, Literal

import msgspec

from xledit.interpret.results import Depth, LanguageNeurons, Unification
from xledit.training.results import Recall

Names = Literal["whole", "pieces", "own"]


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.crossing_grid`` section of params.yaml: a cell per combination.

    ``everywhere`` are shares of the facts that both languages tell, the others are told in one of them or nowhere; ``english`` are shares
    of the tokens that are English; ``names`` says how persons are named: ``whole`` and ``pieces`` alike in both languages, by one token,
    or by several because the tokenizer was trained on text about other persons; ``own`` in each language's letters.
    """

    everywhere: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]
    english: tuple[Annotated[float, msgspec.Meta(ge=0, le=1)], ...]
    names: tuple[Names, ...]

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: {list(values)}; name at least one, each once")


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """The share of facts that a metric of ``xledit.evaluation.metrics`` counts, after the edit and before it (``floor``)."""

    value: float
    floor: float


class EditCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that a method stored in ``edit_language``, asked in ``probe_language``: their shares by metric, over ``num_facts`` facts."""

    method: str
    edit_language: str
    probe_language: str
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
    """One model: the seed of its world, weights and order of data, the tokens of a name by language, and its checkpoints by tokens seen."""

    seed: int
    num_parameters: int
    tokens_per_name: dict[str, float]
    checkpoints: tuple[CheckpointCrossing, ...]


class CellCrossing(msgspec.Struct, frozen=True, kw_only=True):
    """One cell: the share of facts told in both languages, English's share of the tokens, how persons are named, and its seeds."""

    everywhere: float
    english: float
    names: Names
    seeds: tuple[SeedCrossing, ...]

    def of(self, grid: Grid) -> bool:
        """Return whether a grid has this cell."""
        return self.everywhere in grid.everywhere and self.english in grid.english and self.names in grid.names
