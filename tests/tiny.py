"""Tiny random models, one per family, and a tiny tokenizer: built from config classes, nothing downloaded."""

import copy
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

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
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SIZES, tie_word_embeddings=True, mlp_bias=True),
    "mistral": MistralConfig(**SIZES, sliding_window=6),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma3_text": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"] * 2),
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
    """Return a random model of a family, frozen, with weights large enough that its layers matter."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]))  # the model keeps its config and may change it
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
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
