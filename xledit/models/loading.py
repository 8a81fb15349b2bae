"""From a model's name to its exact bytes: resolve, convert once, verify, load.

A name is ``embedded`` (Gemma 3 270M from installed packages), a local folder, a local ``.gguf`` file, or a hub id with a pinned commit.
Remote code is never run, pickled weights are never read.
"""

import hashlib
import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from platformdirs import user_cache_path
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from xledit.manifest import Dtype, Family, ModelManifest
from xledit.models import fuxitranyu  # noqa: F401 (makes it known to the Auto classes)
from xledit.models.family import set_family
from xledit.storage import read_json, sha256

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# what a tokenizer keeps of how it was loaded: with it, HF_HUB_OFFLINE would be part of a converted model's identity
HOW_LOADED = ("is_local", "local_files_only")
# to be raised when a conversion gives other bytes than before: converted models are found again by it
CONVERSION = 2


class ModelParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``model`` section of params.yaml.

    ``files`` is the local path whose bytes the ``model`` stage depends on: the pin file of the embedded model, or the folder or ``.gguf``
    file that ``name`` says. ``revision`` is the commit of a hub model (40 hexadecimal digits). ``family``: ``known`` takes only families
    that have a row in ``FAMILIES``; ``auto`` derives the row of any other family from the model's structure and writes it into the
    manifest.
    """

    name: str
    files: str
    revision: str | None
    dtype: Dtype
    family: Literal["known", "auto"]


class EmbeddedPin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which installed packages hold the embedded model's chunks, in order, and the hash of the whole."""

    file: str
    packages: tuple[str, ...]
    sha256: str
    licence: str


def load(manifest: ModelManifest, params: ModelParams, device: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model, frozen and in evaluation mode, and its tokenizer.

    Raises ValueError when the bytes behind the name are no longer those of the manifest.
    """
    folder, _ = resolve(params)
    weights_hash = fingerprint(folder)
    if weights_hash != manifest.weights:
        raise ValueError(
            f"{params.name}: the model's files have changed (hash {weights_hash[:12]}..., artifacts/model.json has "
            f"{manifest.weights[:12]}...); run `dvc repro --force --single-item model`, then `dvc repro`"
        )
    return read_folder(folder, params.dtype, device, manifest.row)


def read_config(folder: Path) -> PretrainedConfig:
    """Return the config of a model folder. Raises ValueError when it cannot be read or asks for code of the hub."""
    check_folder(folder)
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: its config.json cannot be read ({error})") from error
    _check_attention(folder, config)
    return config


def read_folder(folder: Path, dtype: Dtype, device: str, row: Family | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return model and tokenizer of a local folder; ``row`` is its family's, None where it is not known yet.

    Raises ValueError when the folder's files are damaged.
    """
    read_config(folder)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **LOCAL
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
    except Exception as error:  # transformers, tokenizers and safetensors raise many kinds for damaged files
        raise ValueError(f"{folder}: the model cannot be read ({type(error).__name__}: {error})") from error
    model, info = loaded
    _check_whole(folder, info)
    model.eval().requires_grad_(False)
    torch.nn.Module.to(model, pick_device(device))
    if row is not None:
        set_family(model, row)
    return model, tokenizer


def resolve(params: ModelParams) -> tuple[Path, Literal["embedded", "gguf", "folder", "hub"]]:
    """Return the local folder with the model's safetensors, and what kind of name it was.

    Raises:
        ValueError: nothing is there, the revision is not pinned, ``model.files`` differs from a local path in the name, the weights are
            pickled, or a file does not have the pinned hash.
    """
    path = Path(params.name).expanduser()
    if params.name == "embedded":
        return _embedded(Path(params.files)), "embedded"
    if path.exists():
        if Path(params.files) != Path(params.name):
            raise ValueError(
                f"model.files is {params.files!r}, but model.name is the local path {params.name!r}; set "
                f"model.files to the same path, so that a change of its bytes is seen"
            )
        if path.is_file() and path.suffix == ".gguf":
            return _converted(path, sha256(path)), "gguf"
        check_folder(path)
        return path, "folder"
    if path.is_absolute() or params.name.startswith((".", "~")) or path.suffix == ".gguf":
        raise ValueError(f"model.name: {params.name}: no such file or folder")
    if not re.fullmatch(r"[0-9a-f]{40}", params.revision or ""):
        raise ValueError(
            f"model.revision: {params.revision!r} is not a commit; pin {params.name} to 40 hexadecimal digits, because a branch moves"
        )
    return _from_hub(params.name, params.revision), "hub"


def check_folder(folder: Path) -> None:
    """Raise ValueError unless the folder has a config and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder}: no config.json; a model folder is what `save_pretrained` writes")
    if not list(folder.glob("*.safetensors")):
        pickled = [file.name for file in folder.glob("*.bin")] + [file.name for file in folder.glob("*.pt*")]
        hint = f"; {pickled[0]} is pickled and is never read: save it with safe_serialization" if pickled else ""
        raise ValueError(f"{folder}: no .safetensors weights{hint}")


def fingerprint(folder: Path) -> str:
    """Return one SHA-256 over names and bytes of all files that make the model: weights, configs and tokenizer."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in {".safetensors", ".json", ".model", ".txt", ".jinja"}:
            digest.update(f"{file.name}\0{sha256(file)}\n".encode())
    return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """Return the device that ``name`` says; ``auto`` is CUDA, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def cache_folder() -> Path:
    """Return the folder for converted models: ``$XLEDIT_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("XLEDIT_CACHE") or user_cache_path("xledit")) / "models"


def converted_folder(digest: str) -> Path:
    """Return the folder of a converted GGUF, whose SHA-256 is ``digest``."""
    return cache_folder() / f"gguf-{CONVERSION}-{digest}"


def _embedded(pin_file: Path) -> Path:
    """Return the folder of the embedded model, assembled from its packages and converted on first use."""
    pin = read_json(pin_file, EmbeddedPin)
    folder = converted_folder(pin.sha256)
    if folder.exists():
        return folder
    chunks = []
    for package in pin.packages:
        try:
            module = importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise ValueError(f"the embedded model is not installed ({package} is missing); run `pip install -e .[embedded]`") from error
        chunks += sorted((Path(module.__path__[0]) / "data").glob(f"{pin.file}.part*"))
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".gguf-") as scratch:
        whole = Path(scratch) / pin.file
        with whole.open("wb") as file:
            for chunk in chunks:
                with chunk.open("rb") as part:
                    shutil.copyfileobj(part, file)
        whole_hash = sha256(whole)
        if whole_hash != pin.sha256:
            raise ValueError(
                f"{pin.file}: the installed chunks have SHA-256 {whole_hash}, {pin_file} wants {pin.sha256}; "
                f"reinstall with `pip install --force-reinstall --no-cache-dir -e .[embedded]`"
            )
        return _converted(whole, pin.sha256)


def _converted(gguf: Path, digest: str) -> Path:
    """Return a folder with the GGUF's weights as safetensors, written on first use and cached under the GGUF's hash."""
    folder = converted_folder(digest)
    if folder.exists():
        return folder
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    except Exception as error:  # the gguf reader raises whatever a damaged byte leads to
        raise ValueError(f"{gguf}: not a whole GGUF of a known model ({type(error).__name__}: {error})") from error
    model, info = loaded
    _check_whole(gguf, info)
    # transformers takes a dequantised model for a quantised one and refuses to save it
    delattr(model.config, "quantization_config")
    for name, value in (("is_quantized", False), ("hf_quantizer", None), ("quantization_method", None)):
        setattr(model, name, value)
    for option in HOW_LOADED:
        tokenizer.init_kwargs.pop(option, None)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".convert-"))
    try:
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        scratch.rename(folder)
    except OSError:
        if not folder.exists():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _check_attention(folder: Path, config: PretrainedConfig) -> None:
    """Raise ValueError when the config asks for a kernel of the hub, which is code."""
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        named = str(part._attn_implementation)
        if "/" in named:
            raise ValueError(
                f"{folder}: config.json asks for the attention {named!r}, code from the hub, which is never run; remove it there"
            )


def _check_whole(path: Path, info: dict) -> None:
    """Raise ValueError when the files lack weights, which transformers would draw at random."""
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(f"{path}: {len(missing)} weights are missing, {missing[0]} among them; get the model again")


def _from_hub(name: str, revision: str | None) -> Path:
    """Return the local snapshot of a hub model at a commit, fetching it unless the cache has it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(f"{name} at {revision}: not in the local hub cache and could not be fetched ({error})") from error
