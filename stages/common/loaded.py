"""Load the model of this run, for every stage that edits or asks it."""

import time
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.common.devices import start_torch
from stages.common.runner import log
from xledit.manifest import ModelManifest
from xledit.models.loading import ModelParams, load
from xledit.params import section
from xledit.storage import read_json


def load_model(manifest: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model that the manifest describes, on the device and with the threads of params.yaml, and its tokenizer."""
    runtime, started = start_torch(), time.perf_counter()
    model, tokenizer = load(read_json(manifest, ModelManifest), section("model", ModelParams), runtime.device)
    log.info("loaded %s on %s in %.1f s", manifest, model.device, time.perf_counter() - started)
    return model, tokenizer
