"""One row per model family: where its layers are, which linear map is a layer's memory, what follows the memory.

To add a family, add a row to ``FAMILIES`` and its tiny config to ``tests/tiny.py``; the family tests then cover it.
"""

import msgspec
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Module paths of one model family.

    ``memory`` is the last linear map of a layer's MLP, relative to the layer: ``value = W key``. ``norm_after_memory``
    names a norm between the memory's value and the residual stream, if there is one. Edits are posed on the memory's
    own output, before that norm, so they are exact either way; with a norm only the direction of a value matters, and
    adding ``v* - v`` to the residual stream instead would mean another edit altogether.
    """

    layers: str = "model.layers"
    memory: str = "mlp.down_proj"
    final_norm: str = "model.norm"
    norm_after_memory: str | None = None


# keyed by `config.model_type`
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(),  # Qwen2 and Qwen2.5
    "qwen3": Family(),
    "gemma3_text": Family(norm_after_memory="post_feedforward_layernorm"),
}


def family_of(model_type: str) -> Family:
    """Return the row of a ``config.model_type``. Raises ValueError that says which row to add."""
    if model_type not in FAMILIES:
        raise ValueError(
            f"model family {model_type!r} has no row; known: {', '.join(FAMILIES)}. "
            f'Add "{model_type}": Family(layers=..., memory=..., final_norm=...) to FAMILIES in xledit/models/families.py'
        )
    return FAMILIES[model_type]


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers, first to last."""
    layers = model.get_submodule(family_of(model.config.model_type).layers)
    assert isinstance(layers, nn.ModuleList)
    return layers


def check_layers(layers: tuple[int, ...], num_layers: int) -> None:
    """Raise ValueError unless ``layers`` are distinct layers of the model, in ascending order."""
    if not layers:
        raise ValueError("edit.layers is empty; name at least one layer")
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise ValueError(f"edit.layers: the model has no layer {layer}; it has layers 0 to {num_layers - 1}")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"edit.layers: {list(layers)} must ascend and name no layer twice")


def memory_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """Return the memory of a layer: the module whose input is the key and whose output is the value."""
    check_layers((layer,), len(layers_of(model)))
    return layers_of(model)[layer].get_submodule(family_of(model.config.model_type).memory)


def weight_as_out_by_in(memory: nn.Module) -> Tensor:
    """Return the memory's weight as a ``[d_out d_in]`` view, however its class stores it."""
    weight = memory.get_parameter("weight")
    return weight.T if isinstance(memory, Conv1D) else weight


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return logits ``[... vocab]`` for normed hidden states ``[... d_model]``, as the model's own forward gives them."""
    head = model.get_output_embeddings()
    assert head is not None
    logits = head(hidden)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def final_norm_of(model: PreTrainedModel) -> nn.Module:
    """Return the norm between the last layer and the head."""
    return model.get_submodule(family_of(model.config.model_type).final_norm)
