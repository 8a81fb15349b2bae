"""One row per model family, keyed by ``config.model_type``.

To add a family, add a row here and its tiny config to ``tests/tiny.py``; the family tests then cover it.
"""

from xledit.manifest import Family

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


def known_family(model_type: str) -> Family:
    """Return the row of a ``config.model_type``. Raises ValueError that says which row to add, or how to do without."""
    if model_type not in FAMILIES:
        raise ValueError(
            f"model family {model_type!r} has no row; known: {', '.join(FAMILIES)}. "
            f'Add "{model_type}": Family(layers=..., memory=..., final_norm=...) to FAMILIES in xledit/families/table.py, '
            f"or set model.family: auto to have its structure probed"
        )
    return FAMILIES[model_type]
