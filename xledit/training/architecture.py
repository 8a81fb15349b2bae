"""The sizes of a model to train from scratch, and the model before its first step."""

import msgspec
import torch

from xledit.models.fuxitranyu import FuxiTranyuConfig, FuxiTranyuForCausalLM


class ArchitectureParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``architecture`` section of the settings, in transformers' names; what is not here is as in the paper.

    ``initializer_range`` is the standard deviation of the first weights: 0.01 at the paper's width of 4,096, which is 0.64 over its root.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    context: int
    attention_dropout: float
    initializer_range: float


def new_model(architecture: ArchitectureParams, vocabulary: int, seed: int) -> FuxiTranyuForCausalLM:
    """Return a model with random weights, drawn from the seed."""
    settings = msgspec.to_builtins(architecture)
    config = FuxiTranyuConfig(vocab_size=vocabulary, max_position_embeddings=settings.pop("context"), **settings)
    torch.manual_seed(seed)
    return FuxiTranyuForCausalLM(config)
