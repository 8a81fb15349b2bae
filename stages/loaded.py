"""The model of this run, as every stage that needs one loads it; torch's threads, precision and device."""

import os
import time
from pathlib import Path

import msgspec
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.runner import log
from xledit.models.loading import ModelParams, load
from xledit.params import section
from xledit.results import ModelManifest
from xledit.storage import read_json


class RuntimeParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``runtime`` section of params.yaml.

    ``threads`` is fixed because float32 results depend on it. ``device`` is ``auto`` (CUDA, MPS, CPU) or a torch device.
    ``matmul_precision`` is torch's float32 setting: ``highest``, ``high`` or ``medium``.
    """

    device: str
    matmul_precision: str
    threads: int


def start_torch() -> RuntimeParams:
    """Fix torch's threads and precision from params.yaml. Returns the section."""
    runtime = section("runtime", RuntimeParams)
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages: logits of a large vocabulary fault less
    torch.set_num_threads(runtime.threads)
    torch.set_float32_matmul_precision(runtime.matmul_precision)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return runtime


def load_model(manifest: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model that the manifest describes, on the device and with the threads of params.yaml, and its tokenizer."""
    runtime, started = start_torch(), time.perf_counter()
    model, tokenizer = load(read_json(manifest, ModelManifest), section("model", ModelParams), runtime.device)
    log.info("loaded %s on %s in %.1f s", manifest, model.device, time.perf_counter() - started)
    return model, tokenizer
