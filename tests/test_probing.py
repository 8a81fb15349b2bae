"""What is probed is what is known: every row of ``FAMILIES``, and families without one, right or refused."""

import pytest
import torch
import transformers
from transformers import PretrainedConfig

from tests.tiny import CONFIGS, OLDER, SIZES, VOCABULARY, random_model, tiny_model
from xledit.families.describe import identify
from xledit.families.probing import probe
from xledit.families.table import FAMILIES
from xledit.manifest import Family
from xledit.models.family import attention_of, family_of, final_norm_of, head_logits, layers_of, memory_of, set_family
from xledit.models.tracing import UpperLayers, added, record

MPT = {"d_model": 32, "n_heads": 4, "n_layers": 4, "expansion_ratio": 1, "vocab_size": VOCABULARY, "max_seq_len": 256}
XGLM = {"d_model": 32, "ffn_dim": 32, "num_layers": 4, "attention_heads": 4, "vocab_size": VOCABULARY}
UNKNOWN: dict[str, tuple[PretrainedConfig, Family]] = {
    "stablelm": (transformers.StableLmConfig(**SIZES), Family()),
    "stablelm-parallel": (transformers.StableLmConfig(**SIZES, use_parallel_residual=True), Family()),
    "cohere": (transformers.CohereConfig(**SIZES, logit_scale=0.25), Family()),
    "glm4": (transformers.Glm4Config(**SIZES, head_dim=8), Family(norm_after_memory="post_mlp_layernorm")),
    "phi": (transformers.PhiConfig(**SIZES), Family(memory="mlp.fc2", attention="self_attn.dense", final_norm="model.final_layernorm")),
    "xglm": (
        transformers.XGLMConfig(**XGLM),
        Family(memory="fc2", attention="self_attn.out_proj", final_norm="model.layer_norm"),
    ),
    "mpt": (
        transformers.MptConfig(**MPT),
        Family(layers="transformer.blocks", memory="ffn.down_proj", attention="attn.out_proj", final_norm="transformer.norm_f"),
    ),
    "gpt_bigcode": (
        transformers.GPTBigCodeConfig(**OLDER),
        Family(layers="transformer.h", memory="mlp.c_proj", attention="attn.c_proj", final_norm="transformer.ln_f"),
    ),
}
REFUSED = {
    "opt": (  # its memory is given all tokens of a batch as one list
        transformers.OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=32),
        r"in OPTDecoderLayer, 0 linear maps outside attention write \[batch tokens d_model\] .*wanted is one .*self_attn\.out_proj",
    ),
    "granite": (  # halves a value on its way
        transformers.GraniteConfig(**SIZES, residual_multiplier=0.5),
        "in GraniteDecoderLayer, 0 linear maps .*straight or through one norm; wanted is one",
    ),
    "mixtral": (transformers.MixtralConfig(**SIZES, num_local_experts=4), "in MixtralDecoderLayer, 0 linear maps"),
    "recurrent_gemma": (transformers.RecurrentGemmaConfig(**SIZES), "layer 0 of recurrent_gemma leaves no keys and values of attention"),
    "bidirectional": (
        transformers.Gemma3TextConfig(**SIZES, head_dim=8, use_bidirectional_attention=True),
        "upper layers run by themselves, behind a cache, do not give the model's own hidden states",
    ),
}
IDS = torch.randint(VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_probing_a_known_family_finds_its_row(name: str, dtype: torch.dtype) -> None:
    assert probe(tiny_model(name).to(dtype)) == FAMILIES[CONFIGS[name].model_type]


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_family_without_a_row_is_found_and_serves_the_model_from_then_on(name: str) -> None:
    config, wanted = UNKNOWN[name]
    assert config.model_type not in FAMILIES
    model = random_model(config)
    assert probe(model) == wanted == family_of(model)
    block, memory, norm = layers_of(model)[2], memory_of(model, 2), wanted.norm_after_memory
    (_key, value), (_before, residual), (_last, normed) = record(model, [memory, block, final_norm_of(model)], IDS, MASK)
    delta = torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    with added(memory, lambda output: output + delta):
        ((_before, changed),) = record(model, [block], IDS, MASK)
    expected = delta if norm is None else block.get_submodule(norm)(value + delta) - block.get_submodule(norm)(value)
    torch.testing.assert_close(changed - residual, expected)
    torch.testing.assert_close(head_logits(model, normed), model(IDS).logits)
    tails = UpperLayers(model, [tuple(row) for row in IDS.tolist()], [4, 2], 1).run(torch.arange(2))
    torch.testing.assert_close(tails[1, :7], normed[1, 2:])


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_breaks_a_rule_is_refused_by_that_rule(name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        probe(random_model(config))


def test_a_layer_unlike_the_first_is_refused_by_its_number() -> None:
    model = random_model(UNKNOWN["stablelm"][0])
    model.model.layers[2].mlp.register_forward_hook(lambda _module, _inputs, output: output / 2)
    with pytest.raises(ValueError, match=r"model\.family auto: stablelm: layer 2 does not write .* through 'mlp\.down_proj' as layer 0"):
        probe(model)


def test_a_model_without_a_norm_before_its_head_is_refused() -> None:
    model = random_model(UNKNOWN["stablelm"][0])
    model.model.norm = torch.nn.Identity()
    with pytest.raises(ValueError, match="stablelm: 0 norms read what the last layer gives"):
        probe(model)


def test_a_model_that_is_not_a_row_of_like_layers_is_refused() -> None:
    model = random_model(UNKNOWN["stablelm"][0])
    model.model.layers[1].register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 2, *inputs[1:]))
    with pytest.raises(ValueError, match="stablelm: 0 longest lists of modules of one class"):
        probe(model)


def test_a_row_of_the_table_goes_before_what_probing_would_find() -> None:
    model = tiny_model("llama")
    set_family(model, Family(memory="mlp.up_proj"))
    assert identify(model, "auto") is FAMILIES["llama"]
    assert memory_of(model, 0) is model.get_submodule("model.layers.0.mlp.down_proj")


def test_a_model_that_was_told_no_row_says_how_it_gets_one() -> None:
    with pytest.raises(ValueError, match=r"this model \(stablelm\) was not told .* call xledit\.families\.describe\.identify\(model\)"):
        layers_of(random_model(UNKNOWN["stablelm"][0]))


def test_an_attention_that_was_not_found_is_asked_for_in_words() -> None:
    model = random_model(UNKNOWN["stablelm"][0])
    set_family(model, Family(attention=None))
    with pytest.raises(ValueError, match=r"where the attention of 'stablelm' ends is not known"):
        attention_of(model, 0)
