"""Tiny random models, one per family, and a tiny tokenizer: built from config classes, nothing downloaded."""

import copy
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Starcoder2Config,
)

from xledit.families.table import FAMILIES
from xledit.models.family import set_family
from xledit.models.fuxitranyu import FuxiTranyuConfig
from xledit.records import EditRequest

torch.set_num_threads(1)  # threads on tiny matrices only wait for each other: a hundred times slower on a busy machine

CORPUS = Path(__file__).parents[1] / "data" / "corpus"
VOCABULARY = 500
# memories are square, so that a wrong transpose cannot pass by its shape
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
# what configs of older families call these sizes
OLDER = {
    "n_embd": 32,
    "n_inner": 32,
    "n_layer": 4,
    "n_head": 4,
    "vocab_size": VOCABULARY,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WINDOWS = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2}
CAPS = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 8.0}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=6),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "fuxitranyu": FuxiTranyuConfig(**SIZES),
    "phi3": Phi3Config(**SIZES, sliding_window=6),
    "starcoder2": Starcoder2Config(**SIZES, sliding_window=6, use_bias=True),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, **WINDOWS, **CAPS),
    "gemma3_text": Gemma3TextConfig(**SIZES, head_dim=8, **WINDOWS),
    "gemma3": Gemma3Config(text_config=SIZES | {"head_dim": 8} | WINDOWS, vision_config=VISION),
    # without a norm before its MLP, keys would soon be too large for float32 to be exact to five decimals
    "olmo2": Olmo2Config(**SIZES, rms_norm_eps=2.0),
    "gpt2": GPT2Config(**OLDER),
    "gpt2-untied": GPT2Config(**OLDER, tie_word_embeddings=False, scale_attn_by_inverse_layer_idx=True),
    "gptj": GPTJConfig(**OLDER, rotary_dim=4),
    "gpt_neox": GPTNeoXConfig(**SIZES, use_parallel_residual=True),
    "gpt_neox-sequential": GPTNeoXConfig(**SIZES, use_parallel_residual=False, tie_word_embeddings=True),
    "bloom": BloomConfig(**SIZES),
    "falcon": FalconConfig(**SIZES, ffn_hidden_size=32, parallel_attn=True, multi_query=True),
    "falcon-sequential": FalconConfig(**SIZES, ffn_hidden_size=32, parallel_attn=False, alibi=True, bias=True),
    "falcon-new": FalconConfig(**SIZES, ffn_hidden_size=32, new_decoder_architecture=True, num_kv_heads=2),
}

# the subject stands first, in the middle and last, in both scripts
REQUESTS = tuple(
    EditRequest(
        fact_id=f"fact-{index}",
        language=code,
        prompt=prompt,
        subject_span=(prompt.index(subject), prompt.index(subject) + len(subject)),
        target_new=new,
        target_true=true,
    )
    for index, (code, prompt, subject, new, true) in enumerate(
        (
            ("zh", "法国的首都是", "法国", "东京", "巴黎"),
            ("en", "The capital of France is", "France", "Tokyo", "Paris"),
            ("zh", "写了《红楼梦》的人", "红楼梦", "鲁迅", "曹雪芹"),
            ("en", "Born in Ulm: Einstein", "Einstein", "Bohr", "Albert"),
        )
    )
)


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a family in ``CONFIGS``, frozen, with weights large enough that its layers matter."""
    return random_model(CONFIGS[name], seed)


def random_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """Return the same of any config."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config))  # the model keeps its config and may change it
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    if config.model_type in FAMILIES:
        set_family(model, FAMILIES[config.model_type])
    return model.eval().requires_grad_(False)


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 500 tokens that puts a BOS before every text; Chinese characters take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<bos>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    texts = [line for code in ("zh", "en") for line in (CORPUS / f"{code}.txt").read_text(encoding="utf-8").splitlines()[:40]]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")


def save_tiny(folder: Path, name: str = "gemma3_text", seed: int = 0) -> Path:
    """Write a tiny model and its tokenizer as a model folder."""
    tiny_model(name, seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
