"""The parts of a model that its family's row names: layers, memories, attention, the final norm, the head.

The row itself comes with the model: from its manifest, or from ``xledit.families``, which no stage but ``model`` reads. So a new
family's row makes no result of other models stale.
"""

import copy
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.pytorch_utils import Conv1D

from xledit.manifest import Family

Whole = TypeVar("Whole", bound=nn.Module)


_ROW = "xledit_family"  # the attribute of a model that holds its family's row


def set_family(model: PreTrainedModel, family: Family) -> None:
    """Store ``family`` as the row of this model's family."""
    setattr(model, _ROW, family)


def family_of(model: PreTrainedModel) -> Family:
    """Return the row of the model's family. Raises ValueError when the model was given none, and says how it gets one."""
    family = getattr(model, _ROW, None)
    if family is None:
        raise ValueError(
            f"this model ({model.config.model_type}) was not told its family's row; call xledit.families.describe.identify(model), "
            f"or load it through xledit.models.loading.load or xledit.families.describe.load_folder"
        )
    return family


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
            f"where the attention of {model.config.model_type!r} ends is not known; add a row to FAMILIES in xledit/families/table.py"
        )
    return layers_of(model)[layer].get_submodule(path)


def weight_as_out_by_in(memory: nn.Module) -> Tensor:
    """Return the memory's weight as a ``[d_out d_in]`` view, however its class stores it."""
    weight = memory.get_parameter("weight")
    return weight.T if isinstance(memory, Conv1D) else weight


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return logits ``[... vocab]`` for normed hidden states ``[... d_model]``, by the model's own forward without its layers.

    So the family's own code applies a bias of the head, a soft cap or a scale of the logits.
    """
    headed = with_module(model, model.base_model_prefix, _Given(hidden.reshape(1, -1, hidden.shape[-1])))
    logits = headed(input_ids=hidden.new_zeros(1, 1).long(), use_cache=False).logits
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


def final_norm_of(model: PreTrainedModel) -> nn.Module:
    """Return the norm between the last layer and the head."""
    return model.get_submodule(family_of(model).final_norm)


def with_module(whole: Whole, path: str, part: nn.Module) -> Whole:
    """Return a copy of a module that has ``part`` at a dotted path and shares all else: weights, hooks, other modules."""
    name, _, rest = path.partition(".")
    view = copy.copy(whole)
    view._modules = whole._modules | {name: with_module(whole.get_submodule(name), rest, part) if rest else part}
    return view


class _Given(nn.Module):
    """Takes the place of all of a model but its head: returns the states it was made with."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_args: Any, **_kwargs: Any) -> "_States":
        return _States(last_hidden_state=self._hidden)  # pyright: ignore[reportArgumentType]


class _States(BaseModelOutputWithPast):
    """The output of a model without its head. All other fields that a family's head may read (image states, router states) are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
