"""What both analyses begin with: their settings, the model, and parallel sentences of files or of the world."""

import msgspec
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.devices import start_torch
from xledit.families.describe import load_folder
from xledit.interpret.parallel import Parallel, of_files, of_probes
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.training.catalog import NATURAL
from xledit.training.probes import FactProbe


class InterpretParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.interpret`` section of params.yaml.

    ``sentences``: null for the world's facts, or a text file for each language with parallel lines, as FLORES-200 has them; ``most`` of
    them at most, of the world's evenly by relation. ``max_tokens`` bounds a batch: memory and speed, not results. For neurons: the most
    important ones, a share of ``overlap_share``, are compared between languages; ``ablation_units`` of each kind of component are really
    switched off, over ``ablation_sentences`` of each language, and languages' own neurons over ``causal_sentences``. More units or
    sentences: more precise, and slower.
    """

    sentences: dict[str, str] | None
    most: int
    max_tokens: int
    overlap_share: float
    ablation_units: int
    ablation_sentences: int
    causal_sentences: int

    def __post_init__(self) -> None:
        if not 0 < self.overlap_share < 1:
            raise ValueError(f"overlap_share is {self.overlap_share}; it is a share, between 0 and 1")
        for name, least in (("most", 4), ("max_tokens", 4), ("ablation_units", 2), ("ablation_sentences", 1), ("causal_sentences", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


def begin(name: str, files: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, InterpretParams]:
    """Return the model that ``tranyu.reference`` or a checkpoint's folder names, its tokenizer and the settings."""
    runtime, params = start_torch(), section("tranyu.interpret", InterpretParams)
    folder, _source = resolve(ModelParams(name=name, files=files, revision=None, dtype="float32", family="known"))
    return *load_folder(folder, "float32", runtime.device), params


def natural_languages() -> list[str]:
    """Return the run's natural languages."""
    return [code for code in section("tranyu.run.languages", tuple[str, ...]) if code in NATURAL]


def parallel_sentences(params: InterpretParams, probes: list[FactProbe]) -> Parallel:
    """Return the sentences that the settings name: files, or the world's facts in the natural languages of the run."""
    if params.sentences is not None:
        return of_files(params.sentences, params.most)
    return of_probes(probes, natural_languages(), params.most)
