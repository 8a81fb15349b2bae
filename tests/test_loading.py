"""A name leads to exact bytes or to an error that says what is wrong with them: folders, GGUF files, packages, the hub's cache."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import huggingface_hub.constants
import msgspec
import pytest
import safetensors.torch
import torch
from transformers import StableLmConfig

from tests.tiny import CONFIGS, SIZES, VOCABULARY, random_model, save_tiny, tiny_model, tiny_tokenizer
from xledit.families.describe import describe, load_folder
from xledit.families.table import FAMILIES
from xledit.manifest import Family, ModelManifest
from xledit.models.family import family_of, memory_of
from xledit.models.loading import ModelParams, fingerprint, load, pick_device, resolve
from xledit.storage import read_json, sha256, write_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.arange(2, 40)[None]
GGUF_FAMILY = "qwen2"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XLEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("saved") / "model", "llama")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A folder of its own with a tiny Llama."""
    return shutil.copytree(saved, tmp_path / "model")


def write_gguf(path: Path, without: str = "") -> Path:
    """Write the tiny Qwen2 and its tokenizer as GGUF, as its converter does, with one tensor left out if need be."""
    model, bpe = tiny_model(GGUF_FAMILY), json.loads(tiny_tokenizer().backend_tokenizer.to_str())["model"]
    config, writer = model.config, gguf.GGUFWriter(path, GGUF_FAMILY)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(bpe["vocab"], key=bpe["vocab"].get))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name != without:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def whole_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def params(name: Path | str, files: Path | str | None = None, revision: str | None = None) -> ModelParams:
    return ModelParams(name=str(name), files=str(files or name), revision=revision, dtype="float32", family="known")


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def drop_a_tensor(file: Path) -> None:
    tensors = safetensors.torch.load_file(file)
    del tensors["model.layers.1.mlp.down_proj.weight"]
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


# --- folders ---


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_of_every_family_is_described_and_loaded_as_it_was(name: str, tmp_path: Path) -> None:
    chosen = params(save_tiny(tmp_path / "model", name))
    manifest = describe(chosen)
    assert (manifest.source, manifest.family, manifest.num_layers) == ("folder", CONFIGS[name].model_type, 4)
    d_key = 128 if name == "bloom" else 32  # four times d_model, whatever its config says
    assert (manifest.d_model, manifest.d_key, manifest.vocabulary) == (32, d_key, VOCABULARY)
    assert (manifest.row.norm_after_memory is not None) == (name in {"gemma2", "gemma3", "gemma3_text", "olmo2"})
    assert (manifest.row, manifest.probed) == (FAMILIES[manifest.family], False)
    model, tokenizer = load(manifest, chosen, "cpu")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model(IDS).logits, tiny_model(name)(IDS).logits, rtol=0, atol=0)
    assert tokenizer("法国的 capital").input_ids == tiny_tokenizer()("法国的 capital").input_ids


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_loaded_in_the_dtype_asked_for(folder: Path, dtype: str) -> None:
    assert {str(parameter.dtype) for parameter in load_folder(folder, dtype, "cpu")[0].parameters()} == {f"torch.{dtype}"}


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_the_fingerprint_changes_with_any_byte_of_the_model_and_load_refuses_it(folder: Path, file: str) -> None:
    manifest, before = describe(params(folder)), fingerprint(folder)
    assert before == manifest.weights == fingerprint(folder)
    flip_a_byte(folder / file)
    assert fingerprint(folder) != before
    with pytest.raises(ValueError, match=rf"{folder}: the model's files have changed .*{before[:12]}.*dvc repro --force"):
        load(manifest, params(folder), "cpu")


def test_the_fingerprint_sees_names_and_not_what_stands_beside_the_model(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("notes")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    assert fingerprint(folder) == before
    (folder / "generation_config.json").rename(folder / "generation_other.json")
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", halve),
        ("model.safetensors", empty),
        ("model.safetensors", drop_a_tensor),
        ("config.json", halve),
        ("config.json", Path.unlink),
        ("tokenizer.json", halve),
        ("tokenizer.json", Path.unlink),
    ],
    ids=lambda part: part if isinstance(part, str) else part.__name__,
)
def test_a_damaged_folder_is_refused_by_name(folder: Path, file: str, damage: Callable[[Path], None]) -> None:
    damage(folder / file)
    with pytest.raises(ValueError, match=str(folder)):
        load_folder(folder, "float32", "cpu")


def test_a_folder_with_a_shard_missing_is_refused_by_name(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "model", max_shard_size="50KB")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    shards = sorted((tmp_path / "model").glob("*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(ValueError, match=shards[1].name):
        load_folder(tmp_path / "model", "float32", "cpu")


def test_pickled_weights_are_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=rf"{folder}: no .safetensors weights$"):
        resolve(params(folder))
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    for read in (lambda: resolve(params(folder)), lambda: load_folder(folder, "float32", "cpu")):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin is pickled and is never read"):
            read()


def test_pickled_weights_are_not_read_beside_an_adapters_safetensors_either(folder: Path) -> None:
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    with pytest.raises(ValueError, match=f"{folder}: the model cannot be read"):
        load_folder(folder, "float32", "cpu")


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_attention_that_is_code_of_the_hub_is_refused(name: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", name)
    config = json.loads((folder / "config.json").read_bytes())
    config["attn_implementation"] = "someone/kernel"  # transformers takes no notice of a part's own
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{folder}: config\.json asks for the attention 'someone/kernel', code from the hub"):
        load_folder(folder, "float32", "cpu")


def test_a_family_without_a_row_is_refused_before_its_weights_are_read(folder: Path) -> None:
    StableLmConfig().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"model family 'stablelm' has no row.*set model\.family: auto"):
        describe(params(folder))


@pytest.fixture
def without_row(tmp_path: Path) -> Path:
    """A folder with a tiny model of a family that has no row."""
    random_model(StableLmConfig(**SIZES, use_parallel_residual=True)).save_pretrained(tmp_path / "stablelm")
    tiny_tokenizer().save_pretrained(tmp_path / "stablelm")
    return tmp_path / "stablelm"


def test_auto_probes_a_family_without_a_row_and_the_manifest_says_and_keeps_what_it_took(without_row: Path, tmp_path: Path) -> None:
    chosen = msgspec.structs.replace(params(without_row), family="auto")
    write_json(tmp_path / "model.json", describe(chosen))
    manifest = read_json(tmp_path / "model.json", ModelManifest)
    assert (manifest.family, manifest.num_layers, manifest.d_key, manifest.probed) == ("stablelm", 4, 32, True)
    assert manifest.row == Family()  # built like Llama
    taken = Family(memory="mlp.up_proj")
    model, _ = load(msgspec.structs.replace(manifest, row=taken), chosen, "cpu")
    assert memory_of(model, 0) is model.get_submodule("model.layers.0.mlp.up_proj")


def test_auto_takes_the_row_of_a_family_that_has_one(folder: Path) -> None:
    chosen = msgspec.structs.replace(params(folder), family="auto")
    manifest = describe(chosen)
    assert not manifest.probed
    assert family_of(load(manifest, chosen, "cpu")[0]) == FAMILIES["llama"]


# --- names ---


@pytest.mark.parametrize("name", ["/nowhere/model", "./model", "~/no-such-model", "model.gguf"])
def test_a_path_that_leads_nowhere_is_not_taken_for_a_name_of_the_hub(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"model\.name: {name}: no such file or folder"):
        resolve(params(name, revision=COMMIT))


def test_a_local_model_whose_bytes_dvc_would_not_see_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"model\.files is 'data/other', but model\.name is the local path '{folder}'"):
        resolve(params(folder, files="data/other"))


@pytest.mark.parametrize("revision", [None, "", "main", COMMIT[:39], COMMIT + "0", COMMIT.upper()])
def test_a_model_of_the_hub_without_a_pinned_commit_is_refused(revision: str | None) -> None:
    with pytest.raises(ValueError, match=rf"model\.revision: {revision!r} is not a commit; pin org/name to 40 hexadecimal digits"):
        resolve(params("org/name", files="x", revision=revision))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, offline; returns where it keeps ``org/name``."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub" / "models--org--name"


def test_a_pinned_model_in_the_hubs_cache_loads_offline(hub: Path, saved: Path) -> None:
    snapshot = hub / "snapshots" / COMMIT
    shutil.copytree(saved, snapshot)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text(COMMIT)
    chosen = params("org/name", files="data/models/embedded.json", revision=COMMIT)
    assert resolve(chosen) == (snapshot, "hub")
    manifest = describe(chosen)
    assert (manifest.name, manifest.revision, manifest.source) == ("org/name", COMMIT, "hub")
    torch.testing.assert_close(load(manifest, chosen, "cpu")[0](IDS).logits, tiny_model("llama")(IDS).logits, rtol=0, atol=0)


def test_a_commit_that_the_hubs_cache_lacks_is_named_when_offline(hub: Path, saved: Path) -> None:
    shutil.copytree(saved, hub / "snapshots" / COMMIT)
    other = COMMIT[::-1]
    with pytest.raises(ValueError, match=f"org/name at {other}: not in the local hub cache and could not be fetched"):
        resolve(params("org/name", files="x", revision=other))


def test_a_snapshot_whose_weights_were_never_fetched_is_refused_by_name(hub: Path, saved: Path) -> None:
    snapshot = hub / "snapshots" / COMMIT
    shutil.copytree(saved, snapshot, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ValueError, match=rf"{snapshot}: no .safetensors weights"):
        describe(params("org/name", files="x", revision=COMMIT))


@pytest.mark.parametrize("name", ["cpu", "meta"])
def test_a_named_device_is_taken_and_auto_finds_one(name: str) -> None:
    assert pick_device(name) == torch.device(name)
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}


# --- GGUF ---


def test_a_gguf_is_converted_once_and_gives_the_same_logits(whole_gguf: Path, cache_folder: Path) -> None:
    manifest = describe(params(whole_gguf))
    (converted,) = cache_folder.iterdir()
    assert (manifest.source, manifest.family, converted.name) == ("gguf", GGUF_FAMILY, f"gguf-2-{sha256(whole_gguf)}")
    model, tokenizer = load(manifest, params(whole_gguf), "cpu")
    torch.testing.assert_close(model(IDS).logits, tiny_model(GGUF_FAMILY)(IDS).logits, rtol=0, atol=0)
    assert tokenizer("法国的 capital", add_special_tokens=False).input_ids == tiny_tokenizer()("法国的 capital").input_ids[1:]
    assert [file.stat().st_ino for file in cache_folder.iterdir()] == [converted.stat().st_ino]


def test_a_converted_model_is_the_same_offline_and_online(whole_gguf: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for offline in (True, False):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        found.add(describe(params(whole_gguf)).weights)
        shutil.rmtree(cache_folder)
    assert len(found) == 1


def test_another_gguf_under_the_same_name_is_another_model(whole_gguf: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    shutil.copy(whole_gguf, file)
    manifest = describe(params(file))
    flip_a_byte(file)
    with pytest.raises(ValueError, match="the model's files have changed"):
        load(manifest, params(file), "cpu")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999], ids=lambda share: f"first {share:.1%}")
def test_a_truncated_gguf_is_refused_by_name_and_leaves_nothing_in_the_cache(
    whole_gguf: Path, cache_folder: Path, tmp_path: Path, share: float
) -> None:
    content, file = whole_gguf.read_bytes(), tmp_path / "cut.gguf"
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=rf"{file}: not a whole GGUF of a known model"):
        resolve(params(file))
    assert not cache_folder.exists() or not list(cache_folder.iterdir())


def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "garbage.gguf"
    file.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ValueError, match=rf"{file}: not a whole GGUF of a known model"):
        resolve(params(file))


def test_a_gguf_without_one_of_its_tensors_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "partial.gguf", without="model.layers.1.mlp.down_proj.weight")
    with pytest.raises(ValueError, match=r"partial\.gguf"):
        resolve(params(file))


# --- the embedded model ---


@pytest.fixture
def pin(whole_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pin file, and the two importable packages that hold the halves of its GGUF."""
    content = whole_gguf.read_bytes()
    packages = ("zz_tiny_first_half", "aa_tiny_second_half")
    for package, chunk in zip(packages, (content[:1000], content[1000:]), strict=True):
        (tmp_path / package / "data").mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "data" / "tiny.gguf.part0").write_bytes(chunk)
        monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    write_json(tmp_path / "pin.json", {"file": "tiny.gguf", "packages": packages, "sha256": sha256(whole_gguf), "licence": "none"})
    return tmp_path / "pin.json"


def test_the_embedded_model_is_put_together_from_its_packages_in_the_pins_order(pin: Path, cache_folder: Path) -> None:
    manifest = describe(params("embedded", files=pin))
    assert (manifest.source, manifest.family) == ("embedded", GGUF_FAMILY)
    torch.testing.assert_close(
        load(manifest, params("embedded", files=pin), "cpu")[0](IDS).logits, tiny_model(GGUF_FAMILY)(IDS).logits, rtol=0, atol=0
    )
    assert len(list(cache_folder.iterdir())) == 1


def test_the_embedded_model_needs_its_packages_only_once(pin: Path, tmp_path: Path) -> None:
    first = resolve(params("embedded", files=pin))
    shutil.rmtree(tmp_path / "zz_tiny_first_half")
    assert resolve(params("embedded", files=pin)) == first


def test_chunks_that_are_not_the_pinned_bytes_are_refused_and_leave_nothing_in_the_cache(
    pin: Path, tmp_path: Path, cache_folder: Path
) -> None:
    flip_a_byte(tmp_path / "aa_tiny_second_half" / "data" / "tiny.gguf.part0")
    with pytest.raises(ValueError, match=rf"tiny\.gguf: the installed chunks have SHA-256 [0-9a-f]{{64}}, {pin} wants .*reinstall"):
        resolve(params("embedded", files=pin))
    assert not list(cache_folder.iterdir())


def test_a_package_that_is_not_installed_is_named_with_the_command_to_install_it(pin: Path) -> None:
    content = msgspec.json.decode(pin.read_bytes())
    write_json(pin, content | {"packages": ["no_such_package_of_chunks"]})
    with pytest.raises(ValueError, match=r"no_such_package_of_chunks is missing\); run `pip install -e \.\[embedded\]`"):
        resolve(params("embedded", files=pin))


@pytest.mark.parametrize("content", [None, b"{", b'{"file": "tiny.gguf"}'])
def test_a_pin_file_that_is_missing_or_damaged_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "pin.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{tmp_path / 'pin.json'}: "):
        resolve(params("embedded", files=tmp_path / "pin.json"))
