"""A model folder to a model whose family is known, and a model's name to its manifest."""

from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.families.probing import probe
from xledit.families.table import FAMILIES, known_family
from xledit.manifest import Dtype, Family, ModelManifest
from xledit.models.family import family_of, layers_of, memory_of, set_family, weight_as_out_by_in
from xledit.models.loading import ModelParams, fingerprint, read_config, read_folder, resolve


def identify(model: PreTrainedModel, family: Literal["known", "auto"] = "known") -> Family:
    """Give a model its family's row, and return that row: of the table, or with ``auto`` what probing its structure shows.

    Raises ValueError when the table has no row and the structure was not to be probed, or breaks a rule of ``probe``.
    """
    model_type = model.config.model_type
    row = FAMILIES[model_type] if model_type in FAMILIES else probe(model) if family == "auto" else known_family(model_type)
    set_family(model, row)
    return row


def load_folder(
    folder: Path, dtype: Dtype, device: str, family: Literal["known", "auto"] = "known"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer of a local folder. Raises ValueError when its files are damaged, or its family is not known."""
    if family == "known":
        known_family(read_config(folder).model_type)  # before any weight is read
    model, tokenizer = read_folder(folder, dtype, device, row=None)
    identify(model, family)
    return model, tokenizer


def describe(params: ModelParams) -> ModelManifest:
    """Return the manifest of the model behind a name, converting it first if need be."""
    folder, source = resolve(params)
    model, _ = load_folder(folder, params.dtype, "cpu", params.family)
    config = model.config.get_text_config()
    return ModelManifest(
        name=params.name,
        revision=params.revision,
        source=source,
        family=model.config.model_type,
        dtype=params.dtype,
        num_layers=len(layers_of(model)),
        d_model=config.hidden_size,
        d_key=weight_as_out_by_in(memory_of(model, 0)).shape[1],
        vocabulary=config.vocab_size,
        num_parameters=model.num_parameters(),
        row=family_of(model),
        probed=model.config.model_type not in FAMILIES,
        weights=fingerprint(folder),
    )
