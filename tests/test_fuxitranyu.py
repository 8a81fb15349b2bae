"""FuxiTranyu has the published sizes, computes what its paper says, keeps packed documents apart and loads whole checkpoints only."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, LlamaConfig
from transformers.core_model_loading import WeightRenaming

from tests.tiny import random_model
from xledit.models import fuxitranyu
from xledit.models.fuxitranyu import FuxiTranyuConfig, FuxiTranyuForCausalLM, FuxiTranyuModel, load_published

TINY = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
EXACT = {"rtol": 1e-5, "atol": 1e-5}
LENGTHS = (5, 1, 7, 3)  # of the documents in a packed row
# what FuxiTranyu-8B-SFT's config.json says besides the sizes (facts [H2] of the fact sheet)
PUBLISHED = {
    "_name_or_path": "TJUNLP/FuxiTranyu-8B",
    "architectures": ["FuxiTranyuForCausalLM"],
    "attention_bias": True,
    "attention_dropout": 0.15,
    "auto_map": {
        "AutoConfig": "configuration_fuxitranyu.FuxiTranyuConfig",
        "AutoModelForCausalLM": "modeling_fuxitranyu.FuxiTranyuForCausalLM",
    },
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu_fast",
    "initializer_range": 0.01,
    "max_position_embeddings": 4096,
    "model_type": "fuxitranyu",
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.2",
    "use_cache": False,
}


def tiny(**settings: Any) -> FuxiTranyuForCausalLM:
    """Return a random model whose biases and norms are random, too."""
    model = random_model(FuxiTranyuConfig(**TINY | settings))
    assert isinstance(model, FuxiTranyuForCausalLM)
    return model


def ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(1, TINY["vocab_size"], shape, generator=torch.Generator().manual_seed(seed))


def naive_logits(model: FuxiTranyuForCausalLM, row: Tensor) -> Tensor:
    """Return the logits of one row of tokens from the paper's words: RoPE, RMSNorm before, biases, two matrices and a GELU."""
    config, weights = model.config, dict(model.named_parameters())
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    angles = torch.arange(len(row))[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    cos, sin = angles.cos(), angles.sin()

    def norm(states: Tensor, name: str) -> Tensor:
        return states / (states.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weights[f"{name}.weight"]

    def linear(states: Tensor, name: str) -> Tensor:
        return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def rotated(states: Tensor) -> Tensor:
        left, right = states[:, : width // 2], states[:, width // 2 :]
        return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)

    stream = weights["model.embed_tokens.weight"][row]
    for layer in range(config.num_hidden_layers):
        at = f"model.layers.{layer}"
        normed = norm(stream, f"{at}.input_layernorm")
        queries, keys, values = (linear(normed, f"{at}.self_attn.{part}_proj").split(width, -1) for part in "qkv")
        mixed = []
        for head in range(heads):
            scores = rotated(queries[head]) @ rotated(keys[head]).T / width**0.5
            mixed.append(scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf).softmax(-1) @ values[head])
        stream = stream + linear(torch.cat(mixed, -1), f"{at}.self_attn.o_proj")
        inner = linear(norm(stream, f"{at}.post_attention_layernorm"), f"{at}.mlp.up_proj")
        stream = stream + linear(nn.functional.gelu(inner, approximate="tanh"), f"{at}.mlp.down_proj")
    return norm(stream, "model.norm") @ weights["lm_head.weight"].T


@pytest.fixture(scope="module")
def whole() -> FuxiTranyuForCausalLM:
    """The 8B model without its numbers."""
    with torch.device("meta"):
        return FuxiTranyuForCausalLM(FuxiTranyuConfig())


def test_the_default_is_the_paper_s_8b_model_with_8_094_724_096_parameters_in_423_tensors(whole: FuxiTranyuForCausalLM) -> None:
    layer = 4 * (4096 * 4096 + 4096) + (4096 * 16384 + 16384) + (16384 * 4096 + 4096) + 2 * 4096
    assert whole.num_parameters() == 2 * 250_680 * 4096 + 30 * layer + 4096 == 8_094_724_096
    assert len(whole.state_dict()) == 423
    config = whole.config
    assert (config.num_key_value_heads, config.max_position_embeddings, config.rms_norm_eps) == (32, 4096, 1e-5)
    assert (config.hidden_act, config.initializer_range, config.tie_word_embeddings) == ("gelu_fast", 0.01, False)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10_000}


def test_cut_into_files_of_5_gb_it_has_the_published_files_sizes(whole: FuxiTranyuForCausalLM) -> None:
    # the sizes of FuxiTranyu-8B-DPO's four files; they depend on the size and order of the tensors near the cuts
    tensors = {name: tensor.bfloat16() for name, tensor in whole.state_dict().items()}
    shards = split_torch_state_dict_into_shards(tensors, max_shard_size="5GB").filename_to_tensors.values()
    assert [round(sum(tensors[name].nbytes for name in shard) / 1e9, 2) for shard in shards] == [4.97, 4.87, 4.30, 2.05]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_those_of_the_paper_s_formulas(attention: str) -> None:
    model, row = tiny(attn_implementation=attention), ids(11)
    torch.testing.assert_close(model(row[None]).logits[0], naive_logits(model, row), **EXACT)


def test_a_new_model_has_weights_of_the_configured_spread_biases_of_zero_and_norms_of_one() -> None:
    torch.manual_seed(0)
    model = FuxiTranyuForCausalLM(FuxiTranyuConfig(**TINY | {"hidden_size": 128}))
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.any()
        elif "norm" in name:
            assert (parameter == 1).all()
        else:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.05)
    assert "model.layers.1.self_attn.o_proj.bias" in model.state_dict()
    assert model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mode", ["evaluation", "training", "checkpointing"])
def test_documents_packed_into_a_row_do_not_see_each_other(attention: str, mode: str) -> None:
    model = tiny(attn_implementation=attention).train(mode != "evaluation")
    if mode == "checkpointing":
        model.activation_checkpointing_enable()
    rows, positions = ids(2, sum(LENGTHS)), torch.cat([torch.arange(length) for length in LENGTHS])
    # the second row holds one document, so that the mask must be each row's own; with a cache there would be none at all
    packed = model(rows, position_ids=torch.stack([positions, torch.arange(sum(LENGTHS))])).logits
    alone = torch.cat([model(document[None]).logits[0] for document in rows[0].split(LENGTHS)])
    torch.testing.assert_close(packed, torch.stack([alone, model(rows[1:]).logits[0]]), **EXACT)
    assert (packed[0] - model(rows[:1]).logits[0])[LENGTHS[0] :].abs().amax(-1).min() > 1e-3


def test_gradient_checkpointing_gives_the_same_gradients_of_packed_documents() -> None:
    rows, positions = ids(1, sum(LENGTHS)), torch.cat([torch.arange(length) for length in LENGTHS])[None]
    gradients = []
    for checkpointing in (False, True):
        model = tiny().train().requires_grad_(True)
        if checkpointing:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing
        model(rows, position_ids=positions, labels=rows).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_attention_dropout_drops_in_training_only() -> None:
    model, row = tiny(attention_dropout=0.5), ids(1, 9)
    assert torch.equal(model(row).logits, model(row).logits)
    model.train()
    assert not torch.equal(model(row).logits, model(row).logits)


def test_the_loss_of_one_batch_falls_when_it_is_trained_on() -> None:
    torch.manual_seed(0)
    model, rows = FuxiTranyuForCausalLM(FuxiTranyuConfig(**TINY)), ids(4, 12)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-2), []
    for _ in range(15):
        loss = model(rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(TINY["vocab_size"]).log().item(), rel=0.02)
    assert losses[-1] < losses[0] / 4


@pytest.mark.parametrize("use_cache", [False, True])
def test_greedy_generation_is_the_repeated_arg_max_and_left_padding_changes_nothing(use_cache: bool) -> None:
    model = tiny(pad_token_id=0, eos_token_id=None)
    prompts = [ids(4, seed=1), ids(7, seed=2)]
    width = max(map(len, prompts))
    padded = torch.stack([nn.functional.pad(prompt, (width - len(prompt), 0)) for prompt in prompts])
    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": use_cache}
    together = model.generate(padded, attention_mask=(padded != 0).long(), **options)[:, width:]
    for prompt, continued in zip(prompts, together, strict=True):
        row = prompt
        for _ in range(6):
            row = torch.cat([row, naive_logits(model, row)[-1].argmax(keepdim=True)])
        assert torch.equal(row[len(prompt) :], continued)
        assert torch.equal(model.generate(prompt[None], attention_mask=torch.ones_like(prompt)[None], **options)[0], row)


def test_the_auto_classes_read_what_save_pretrained_wrote(tmp_path: Path) -> None:
    model, row = tiny(attention_dropout=0.15, rope_parameters={"rope_type": "default", "rope_theta": 500.0}), ids(1, 9)
    model.save_pretrained(tmp_path)
    where = {"_name_or_path": str(tmp_path)}
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == model.config.to_dict() | where
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    base = AutoModel.from_config(model.config)
    assert type(again) is FuxiTranyuForCausalLM
    assert type(base) is FuxiTranyuModel
    assert again.state_dict().keys() == model.state_dict().keys()
    assert torch.equal(again(row).logits, model(row).logits)
    base.load_state_dict(model.model.state_dict())
    assert torch.equal(again.lm_head(base.eval()(row).last_hidden_state), model(row).logits)


def write_checkpoint(folder: Path, weights: dict[str, Tensor], **settings: Any) -> Path:
    """Write a folder as published: four files and their index, and a config whose code leaves a mark when it is run."""
    folder.mkdir()
    names = list(weights)
    where = {name: f"model-{min(index * 4 // len(names), 3) + 1:05}-of-00004.safetensors" for index, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: weights[name] for name in names if where[name] == file}, folder / file, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in weights.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps(PUBLISHED | TINY | settings))
    for name in ("configuration_fuxitranyu.py", "modeling_fuxitranyu.py"):
        (folder / name).write_text(f"open({str(folder / 'ran')!r}, 'w')\nraise SystemError('remote code was run')\n")
    return folder


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """All tensors under the names that the published checkpoints are taken to have, in their shapes' proportions."""
    square, wide = (32, 32), (128, 32)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (60, 32)}
    for layer in (f"model.layers.{index}" for index in range(2)):
        for part in "qkvo":
            shapes |= {f"{layer}.self_attn.{part}_proj.weight": square, f"{layer}.self_attn.{part}_proj.bias": square[:1]}
        shapes |= {f"{layer}.mlp.up_proj.weight": wide, f"{layer}.mlp.up_proj.bias": wide[:1]}
        shapes |= {f"{layer}.mlp.down_proj.weight": wide[::-1], f"{layer}.mlp.down_proj.bias": square[:1]}
        shapes |= {f"{layer}.{norm}_layernorm.weight": square[:1] for norm in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (32,), "lm_head.weight": (60, 32)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def test_a_published_checkpoint_is_loaded_to_the_last_bit_and_its_code_is_not_run(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    # the config also names an attention on the hub, which transformers would fetch and run
    folder = write_checkpoint(tmp_path / "published", weights, rope_theta=500.0, attn_implementation="kernels-community/any")
    model = load_published(folder, "float32")
    assert not model.training
    assert dict.fromkeys(weights, True) == {name: torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items()}
    assert model.config.rope_parameters["rope_theta"] == 500.0
    assert model.config.attention_dropout == 0.15
    assert {parameter.dtype for parameter in load_published(folder, "bfloat16").parameters()} == {torch.bfloat16}
    assert not (folder / "ran").exists()
    model.save_pretrained(tmp_path / "again")
    assert "auto_map" not in json.loads((tmp_path / "again" / "config.json").read_text())


def test_changing_a_loaded_model_does_not_change_its_files(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    folder = write_checkpoint(tmp_path / "published", weights)
    before = {file: file.read_bytes() for file in folder.glob("*.safetensors")}
    with torch.no_grad():
        for parameter in load_published(folder, "float32").parameters():
            parameter.zero_()
    assert before == {file: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_one_file_without_an_index_will_do(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(PUBLISHED | TINY))
    torch.testing.assert_close(dict(load_published(folder, "float32").state_dict()), weights, rtol=0, atol=0)


def test_every_tensor_that_is_missing_unexpected_or_of_another_shape_is_named_at_once(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    missing = ["model.embed_tokens.weight", "model.layers.0.self_attn.o_proj.bias", "model.layers.1.mlp.up_proj.weight"]
    # the second is a buffer of old Llama files, of which transformers says nothing
    unexpected = ["model.layers.0.mlp.gate_proj.weight", "model.layers.1.self_attn.rotary_emb.inv_freq", "embed_tokens.weight"]
    reshaped = {"lm_head.weight": (61, 32), "model.layers.1.self_attn.k_proj.weight": (8, 32), "model.norm.weight": (1, 32)}
    for name in missing:
        del weights[name]
    for name, shape in (dict.fromkeys(unexpected, (3,)) | reshaped).items():
        weights[name] = torch.zeros(shape)
    folder = write_checkpoint(tmp_path / "published", weights)
    with pytest.raises(ValueError, match="add a rule to NAMES") as caught:
        load_published(folder, "float32")
    text = str(caught.value)
    said_missing, rest = text.split("Unexpected key(s)")
    said_unexpected, said_reshaped = rest.split("size mismatch", 1)
    assert all(f'"{name}"' in said_missing for name in missing)
    assert all(f'"{name}"' in said_unexpected for name in unexpected)
    assert all(f"{name}: copying a param with shape torch.Size({list(shape)})" in said_reshaped for name, shape in reshaped.items())


def test_a_rule_in_names_renames_on_reading_and_back_on_writing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    renamed = {name.replace(".mlp.up_proj.", ".mlp.fc1."): tensor for name, tensor in weights.items()}
    folder = write_checkpoint(tmp_path / "published", renamed)
    with pytest.raises(ValueError, match=r"(?s)Missing.*layers\.1\.mlp\.up_proj\.bias.*Unexpected.*layers\.1\.mlp\.fc1\.bias"):
        load_published(folder, "float32")
    fuxitranyu.NAMES.append(WeightRenaming(r"\.mlp\.fc1\.", ".mlp.up_proj."))
    try:
        model = load_published(folder, "float32")
        torch.testing.assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)
        tiny().save_pretrained(tmp_path / "new")
        model.save_pretrained(tmp_path / "again")
        for written in ("new", "again"):
            assert load_file(tmp_path / written / "model.safetensors").keys() == renamed.keys()
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again")
        torch.testing.assert_close(dict(again.state_dict()), weights, rtol=0, atol=0)
    finally:
        fuxitranyu.NAMES.clear()


def test_a_damaged_folder_is_named_with_what_to_do(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    folder = write_checkpoint(tmp_path / "published", weights)
    first, second = sorted(folder.glob("*.safetensors"))[:2]
    content = first.read_bytes()
    first.write_bytes(content[:-5])
    with pytest.raises(ValueError, match=r"00001-of-00004\.safetensors: not a whole safetensors file .* get it again"):
        load_published(folder, "float32")
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match=r"00002-of-00004\.safetensors: an earlier file has model\.layers\.0.*, too; remove"):
        load_published(folder, "float32")
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        load_published(folder, "float32")
    (folder / "config.json").unlink()
    for nowhere in (folder, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"its config\.json cannot be used"):
            load_published(nowhere, "float32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_act": "gelu_quick"}, "hidden_act: 'gelu_quick' is not an activation of transformers; known: .*gelu_fast"),
        ({"model_type": "llama"}, "model_type is 'llama', not 'fuxitranyu'"),
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"hidden_size": "wide"}, "'hidden_size' expected int"),
    ],
)
def test_a_config_that_does_not_fit_is_a_value_error_that_says_why(
    tmp_path: Path, weights: dict[str, Tensor], settings: dict[str, Any], message: str
) -> None:
    folder = write_checkpoint(tmp_path / "published", weights, **settings)
    with pytest.raises(ValueError, match=rf"(?s)published: its config\.json cannot be used .*{message}"):
        load_published(folder, "float32")


def test_a_config_of_another_model_or_activation_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model_type is 'llama'"):
        FuxiTranyuForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="hidden_act: 'swoosh'"):
        FuxiTranyuConfig(hidden_act="swoosh")
