"""What is known of a model without loading it: its manifest, and its family's row. No torch."""

from typing import Literal

import msgspec

Dtype = Literal["float32", "bfloat16", "float16"]


class Family(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ``model`` stage writes: the exact bytes behind a name, and where the parts are that editing needs.

    ``weights`` hashes all files that make the model. ``row`` is its family's: of the table ``FAMILIES``, or with ``probed`` as
    ``model.family: auto`` found it. Every later stage takes the row from here.
    """

    name: str
    revision: str | None
    source: Literal["embedded", "gguf", "folder", "hub"]
    family: str
    dtype: Dtype
    num_layers: int
    d_model: int
    d_key: int
    vocabulary: int
    num_parameters: int
    row: Family
    probed: bool
    weights: str
