"""The settings of the tuned variants; apart from what they tune with, because importing trl takes ten seconds."""

from typing import Annotated

from msgspec import Meta, Struct

from xledit.training.conversations import Dataset, Fields, Jsonl, Positive, QuestionPairs, QuestionRows, Share, Sides, Turns


class TuningParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both have in common.

    ``files`` is a file or folder that DVC watches: keep your own sources there, or a change to them is not noticed.
    ``epochs`` is how often all of the data is learnt from. ``batch`` conversations make a step, on all devices together, of which a
    process handles ``micro_batch`` at a time: more is faster, up to the device's memory. ``peak_lr`` is reached after the share ``warmup``
    of the steps, a cosine then falls to 0: too high and what the model knew is lost, too low and nothing happens.
    A conversation of more than ``max_length`` tokens is left out. ``save_steps`` is after how many steps the run can go on from if it is
    killed. ``activation_checkpointing`` computes activations twice and keeps few.
    """

    files: str
    epochs: Annotated[int, Meta(ge=1, le=100)]
    batch: Positive
    micro_batch: Positive
    peak_lr: Annotated[float, Meta(gt=0, le=1)]
    warmup: Share
    max_length: Annotated[int, Meta(ge=2)]
    save_steps: Positive
    activation_checkpointing: bool

    def __post_init__(self) -> None:
        if self.batch % self.micro_batch:
            raise ValueError(f"batch is {self.batch}; it must be a multiple of micro_batch, {self.micro_batch}")


class SftParams(TuningParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.sft`` section of params.yaml: learning to answer.

    ``neftune_noise_alpha`` is how much noise is added to embeddings in training (arXiv 2310.05914, equation 1): evenly drawn, at most
    alpha over the root of a conversation's numbers. More keeps a model from learning answers by heart; 0 for none.
    """

    rows: tuple[QuestionRows | Jsonl[Turns | Fields] | Dataset[Turns | Fields], ...]
    neftune_noise_alpha: Annotated[float, Meta(ge=0, le=1000)]


class DpoParams(TuningParams, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.dpo`` section of params.yaml: learning which of two answers is better (arXiv 2305.18290).

    ``beta`` is how dear it is to differ from the model before: low values let it go far.
    """

    rows: tuple[QuestionPairs | Jsonl[Sides] | Dataset[Sides], ...]
    beta: Annotated[float, Meta(gt=0, le=10)]
