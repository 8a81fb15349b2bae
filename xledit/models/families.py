"""One row per model family: where its layers are, which linear map is a layer's memory, what follows the memory.

To add a family, add a row to ``FAMILIES`` and its tiny config to ``tests/tiny.py``; the family tests then cover it.
"""

import copy
from typing import Any, TypeVar

import msgspec
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.pytorch_utils import Conv1D

Whole = TypeVar("Whole", bound=nn.Module)


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Module paths of one model family.

    ``memory`` is the last linear map of a layer's MLP, relative to the layer: ``value = W key``. ``norm_after_memory``
    names a norm between the memory's value and the residual stream, if there is one. Edits are posed on the memory's
    own output, before that norm, so they are exact either way; with a norm only the direction of a value matters, and
    adding ``v* - v`` to the residual stream instead would mean another edit altogether. ``attention`` is the last linear
    map of a layer's attention.
    """

    layers: str = "model.layers"
    memory: str = "mlp.down_proj"
    attention: str | None = "self_attn.o_proj"
    final_norm: str = "model.norm"
    norm_after_memory: str | None = None


_PROBED = "xledit_family"  # the attribute of a model that holds its probed row
# keyed by `config.model_type`
FAMILIES = {
    "llama": Family(),  # Llama 2 and 3
    "mistral": Family(),
    "qwen2": Family(),  # Qwen2 and Qwen2.5
    "qwen3": Family(),
    "fuxitranyu": Family(),
    "phi3": Family(),
    "starcoder2": Family(memory="mlp.c_proj"),
    "gemma2": Family(norm_after_memory="post_feedforward_layernorm"),
    "gemma3_text": Family(norm_after_memory="post_feedforward_layernorm"),
    "gemma3": Family(  # with a vision tower, which text does not touch
        layers="model.language_model.layers",
        final_norm="model.language_model.norm",
        norm_after_memory="post_feedforward_layernorm",
    ),
    "olmo2": Family(norm_after_memory="post_feedforward_layernorm"),
    "gpt2": Family(layers="transformer.h", memory="mlp.c_proj", attention="attn.c_proj", final_norm="transformer.ln_f"),
    "gptj": Family(layers="transformer.h", memory="mlp.fc_out", attention="attn.out_proj", final_norm="transformer.ln_f"),
    "gpt_neox": Family(
        layers="gpt_neox.layers", memory="mlp.dense_4h_to_h", attention="attention.dense", final_norm="gpt_neox.final_layer_norm"
    ),  # and Pythia
    "bloom": Family(layers="transformer.h", memory="mlp.dense_4h_to_h", attention="self_attention.dense", final_norm="transformer.ln_f"),
    "falcon": Family(layers="transformer.h", memory="mlp.dense_4h_to_h", attention="self_attention.dense", final_norm="transformer.ln_f"),
}


def family_of(model: PreTrainedModel) -> Family:
    """Return the row of the model's family: of ``FAMILIES``, or the one that ``probed_as`` gave the model.

    Raises ValueError that says what to do when there is neither.
    """
    model_type = model.config.model_type
    return FAMILIES[model_type] if model_type in FAMILIES else getattr(model, _PROBED, None) or known_family(model_type)


def known_family(model_type: str) -> Family:
    """Return the row of a ``config.model_type``. Raises ValueError that says which row to add, or how to do without."""
    if model_type not in FAMILIES:
        raise ValueError(
            f"model family {model_type!r} has no row; known: {', '.join(FAMILIES)}. "
            f'Add "{model_type}": Family(layers=..., memory=..., final_norm=...) to FAMILIES in xledit/models/families.py, '
            f"or set model.family: auto to have its structure probed"
        )
    return FAMILIES[model_type]


def probed_as(model: PreTrainedModel, family: Family) -> None:
    """Let ``family`` be the row of this one model, whose ``config.model_type`` has none in ``FAMILIES``."""
    setattr(model, _PROBED, family)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers, first to last."""
    layers = model.get_submodule(family_of(model).layers)
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
    return layers_of(model)[layer].get_submodule(family_of(model).memory)


def attention_of(model: PreTrainedModel, layer: int) -> nn.Module:
    """Return the last linear map of a layer's attention. Raises ValueError when the family's row does not name it."""
    path = family_of(model).attention
    if path is None:
        raise ValueError(
            f"where the attention of {model.config.model_type!r} ends is not known; add a row to FAMILIES in xledit/models/families.py"
        )
    return layers_of(model)[layer].get_submodule(path)


def weight_as_out_by_in(memory: nn.Module) -> Tensor:
    """Return the memory's weight as a ``[d_out d_in]`` view, however its class stores it."""
    weight = memory.get_parameter("weight")
    return weight.T if isinstance(memory, Conv1D) else weight


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return logits ``[... vocab]`` for normed hidden states ``[... d_model]``: the model's own forward, its layers left out.

    So a bias of the head, a soft cap or a scale of the logits is what the family's code makes of it.
    """
    headed = with_module(model, model.base_model_prefix, _Given(hidden.reshape(1, -1, hidden.shape[-1])))
    logits = headed(input_ids=hidden.new_zeros(1, 1).long(), use_cache=False).logits
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def final_norm_of(model: PreTrainedModel) -> nn.Module:
    """Return the norm between the last layer and the head."""
    return model.get_submodule(family_of(model).final_norm)


def with_module(whole: Whole, path: str, part: nn.Module) -> Whole:
    """Return a view of a module that has ``part`` at a dotted path and shares all else: weights, hooks, other modules."""
    name, _, rest = path.partition(".")
    view = copy.copy(whole)
    view._modules = whole._modules | {name: with_module(whole.get_submodule(name), rest, part) if rest else part}
    return view


class _Given(nn.Module):
    """Stands for all of a model but its head: gives the states it was made with."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_args: Any, **_kwargs: Any) -> "_States":
        return _States(last_hidden_state=self._hidden)  # pyright: ignore[reportArgumentType]


class _States(BaseModelOutputWithPast):
    """The output of a model without its head. Whatever else a family's head passes on (states of images, of routers) is None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
