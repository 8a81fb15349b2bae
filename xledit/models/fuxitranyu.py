"""FuxiTranyu (arXiv 2408.06273): a Llama-like decoder with biases and a plain feed-forward of two matrices and one GELU.

transformers has this very architecture under another name, Arcee; FuxiTranyu differs in sizes, activation and biases only.
Importing this module makes ``AutoConfig``, ``AutoModel`` and ``AutoModelForCausalLM`` know ``model_type: fuxitranyu``.

Packed windows: transformers masks the documents of a row from each other where ``position_ids`` restart, but only if
neither an ``attention_mask`` nor a cache comes with them (``transformers.masking_utils``). So ``use_cache`` is false by
default, as published: call ``generate`` with ``use_cache=True``. Flash attention does so only in batches of one row.
"""

from pathlib import Path
from typing import Any, no_type_check

import torch
from huggingface_hub.dataclasses import strict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import ArceeConfig, ArceeForCausalLM, ArceeModel, AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming, apply_renamings

from xledit.manifest import Dtype, Family

# Regular expressions over the published checkpoints' tensor names and what they are called here, applied in order whenever
# a checkpoint is read and undone when one is written: WeightRenaming(r"\.mlp\.fc1\.", ".mlp.up_proj."). No rule is needed
# if the published names are Llama's with `mlp.up_proj` and `mlp.down_proj`, which nobody here has been able to see.
NAMES: list[WeightRenaming] = []


FAMILY = Family()


@no_type_check  # takes more keywords than its fields, which the tests' type checker would refuse
@strict
class FuxiTranyuConfig(ArceeConfig):
    """The architecture; the defaults are FuxiTranyu-8B (section 3.3 and table 4 of the paper, config.json of the SFT model).

    ``attention_dropout`` is the share of attention weights dropped in training: 0 in the first release, 0.15 in the second.
    Raises ValueError for another ``model_type`` and for an activation that transformers does not have.
    """

    model_type = "fuxitranyu"

    vocab_size: int = 250_680
    hidden_size: int = 4096
    intermediate_size: int = 16_384
    num_hidden_layers: int = 30
    num_attention_heads: int = 32
    hidden_act: str = "gelu_fast"
    max_position_embeddings: int = 4096
    initializer_range: float = 0.01
    rms_norm_eps: float = 1e-5
    use_cache: bool = False
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 0
    attention_bias: bool = True
    mlp_bias: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if (asked_type := kwargs.get("model_type", self.model_type)) != self.model_type:  # a config.json that is not ours
            raise ValueError(f"model_type is {asked_type!r}, not {self.model_type!r}; read it with AutoConfig or AutoModelForCausalLM")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act: {self.hidden_act!r} is not an activation of transformers; known: {', '.join(ACT2FN)}")
        kwargs.pop("auto_map", None)  # the published code is never run, and what is saved from here does not point to it
        super().__post_init__(**kwargs)


class FuxiTranyuModel(ArceeModel):
    """Embedding, layers and final norm, without the head."""

    config_class = FuxiTranyuConfig


class FuxiTranyuForCausalLM(ArceeForCausalLM):
    """The language model."""

    config_class = FuxiTranyuConfig


def load_published(folder: Path, dtype: Dtype) -> FuxiTranyuForCausalLM:
    """Return the model of a folder in the layout of FuxiTranyu-8B, -SFT or -DPO, in evaluation mode.

    Reads config.json and every ``*.safetensors`` of the folder, and runs no code that they name. ``from_pretrained`` reads the same
    folders, but only warns of weights that are missing or not used.

    Raises:
        ValueError: the folder is not complete, or tensors are missing, not expected or of another shape: names each of them.
    """
    attention: Any = {"attn_implementation": "sdpa"}  # not the config's: it may name code on the hub
    try:
        config = FuxiTranyuConfig.from_json_file(folder / "config.json")
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config, **attention)
    except Exception as error:  # transformers raises many kinds for settings that do not fit
        raise ValueError(f"{folder}: its config.json cannot be used ({error})") from error
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            file_tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file}: not a whole safetensors file ({error}); get it again") from error
        if twice := sorted(file_tensors.keys() & tensors.keys()):
            raise ValueError(f"{file}: an earlier file has {', '.join(twice)}, too; remove the files of another checkpoint")
        tensors |= file_tensors
    if not tensors:
        raise ValueError(f"{folder}: no .safetensors weights, and no others are ever read")
    try:
        skeleton.load_state_dict({apply_renamings(name, NAMES): tensor for name, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(
            f"{folder}: its .safetensors files are not this model. {error}\nGet the checkpoint again; if its tensors only have "
            f"other names, add a rule to NAMES in xledit/models/fuxitranyu.py"
        ) from error
    return FuxiTranyuForCausalLM.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype, **attention)


AutoConfig.register(FuxiTranyuConfig.model_type, FuxiTranyuConfig)
AutoModel.register(FuxiTranyuConfig, FuxiTranyuModel)
AutoModelForCausalLM.register(FuxiTranyuConfig, FuxiTranyuForCausalLM)
register_checkpoint_conversion_mapping(FuxiTranyuConfig.model_type, NAMES)  # pyright: ignore[reportArgumentType]
