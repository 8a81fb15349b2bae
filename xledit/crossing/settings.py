"""The settings of the joint experiment."""

from typing import Annotated

import msgspec

from xledit.crossing.results import Names
from xledit.editing.methods import method_class
from xledit.editing.targets import TargetSettings
from xledit.training.architecture import ArchitectureParams
from xledit.training.bpe import TokenizerParams
from xledit.training.people import PeopleParams, Share
from xledit.training.pretrain import PretrainParams

Positive = Annotated[int, msgspec.Meta(ge=1)]


class EditSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How facts are edited in a checkpoint.

    ``facts`` are stored at once, in each language; ``methods`` are files of xledit/editing/methods with their
    settings. ``layers`` and ``vectors`` are as in ``edit.layers`` and ``vectors``; ``old_keys`` tokens of each language give the second
    moment.
    """

    facts: Positive
    layers: tuple[int, ...]
    methods: dict[str, dict]
    vectors: TargetSettings
    old_keys: Positive

    def __post_init__(self) -> None:
        for name, settings in self.methods.items():
            try:
                msgspec.convert(settings, method_class(name))
            except msgspec.ValidationError as error:
                raise ValueError(f"methods.{name}: {error}") from error


class CrossingParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.crossing`` section of params.yaml.

    Each cell is trained with every one of ``seeds``. ``people`` is the world, whose own ``everywhere``, ``one_language`` and
    ``names_alike`` the cell replaces; of all facts a share ``told`` is told at all. ``tokens`` are read in all, ``architecture``,
    ``tokenizer`` and ``pretrain`` are as in those sections. ``probes_per_group``, ``sentences`` and ``neuron_sentences`` bound what a
    checkpoint is asked; ``max_tokens`` bounds a batch: memory and speed, not results.
    """

    seeds: tuple[int, ...]
    told: Share
    people: PeopleParams
    tokenizer: TokenizerParams
    architecture: ArchitectureParams
    tokens: Positive
    pretrain: PretrainParams
    edit: EditSettings
    probes_per_group: Positive
    sentences: Annotated[int, msgspec.Meta(ge=4)]
    neuron_sentences: Positive
    max_tokens: Positive

    def __post_init__(self) -> None:
        if len(self.people.languages) != 2 or "en" not in self.people.languages:
            raise ValueError(f"people.languages: {list(self.people.languages)}; the balance is of English and one other language")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)}; name at least one, each once")

    def world(self, everywhere: float, names: Names) -> PeopleParams:
        """Return the world of a cell. Raises ValueError where more is told everywhere than at all."""
        if everywhere > self.told:
            raise ValueError(f"tranyu.crossing_grid.everywhere: {everywhere} is more than tranyu.crossing.told, {self.told}")
        alike = float(names != "own")
        return msgspec.structs.replace(self.people, everywhere=everywhere, one_language=self.told - everywhere, names_alike=alike)
