"""A run of transformers' Trainer that goes on exactly where it was killed, and hands on one model folder without a pickle.

The Trainer keeps optimizer, schedule and random state as torch files and reads them with ``weights_only=True``, which runs nothing.
accelerate's sharded FSDP checkpoints are read with plain pickle and refused here.
"""

import hashlib
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from xledit.storage import write_json

# says that all the rest of its folder is on disk
MARK = "whole.json"
# what the Trainer needs to go on and nobody else wants: all of its pickles, and times
STATE = ("*.pt", "*.pth", "*.bin", TRAINER_STATE_NAME, MARK)


class Whole(msgspec.Struct, frozen=True):
    """After which step a folder was saved."""

    step: int


class _Saves(TrainerCallback):
    """Has the Trainer save every ``save_steps`` and at the end, and removes what was saved before."""

    def __init__(self, trainer: Trainer, save_steps: int) -> None:
        self.trainer, self.save_steps = trainer, save_steps

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_save = state.global_step % self.save_steps == 0 or state.global_step == state.max_steps

    def on_save(self, args, state, control, **kwargs) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        output = Path(str(args.output_dir))
        folder = output / f"checkpoint-{state.global_step}"
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        write_json(folder / MARK, Whole(state.global_step))
        for older in output.glob("checkpoint-*"):
            if older != folder:
                shutil.rmtree(older)


def train(trainer: Trainer, save_steps: int) -> Path:
    """Train to the end, from where an earlier call was killed, and return the folder of what was saved last.

    Raises ValueError when there are several GPUs for one process, FSDP keeps pickles, or what a run goes on from is damaged.
    """
    if trainer.args.n_gpu > 1:
        raise ValueError(f"{trainer.args.n_gpu} GPUs for one process; start the run with `accelerate launch` or `torchrun`")
    fsdp = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if fsdp is not None and "FULL" not in str(fsdp.state_dict_type):
        raise ValueError("FSDP keeps sharded checkpoints, which are read with pickle; set fsdp_state_dict_type to FULL_STATE_DICT")
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Saves(trainer, save_steps))
    folder = Path(str(trainer.args.output_dir))
    newest = _newest(folder)
    try:
        trainer.train(str(newest) if newest else None)
    except pickle.UnpicklingError as error:  # torch's own message says how to run what it holds
        raise ValueError(
            f"{newest}: what the run goes on from is not tensors and numbers alone; delete the folder and run again"
        ) from error
    trainer.accelerator.wait_for_everyone()
    saved = _newest(folder)
    assert saved is not None
    return saved


def hand_on(saved: Path, out: Path) -> None:
    """Put a saved model where it is wanted, whole or not at all, without what a run goes on from."""
    scratch = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(saved, scratch, ignore=shutil.ignore_patterns(*STATE), copy_function=_link)
    shutil.rmtree(out, ignore_errors=True)
    scratch.rename(out)


def fingerprint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, made_of: Any) -> str:
    """Return a name for a model, its tokenizer and what else a run's result depends on (as JSON)."""
    backend: Any = tokenizer.backend_tokenizer
    digest = hashlib.sha256(msgspec.json.encode(made_of, order="sorted"))
    for text in (model.config.to_json_string(), model.generation_config.to_json_string(), backend.to_str()):
        digest.update(text.encode())
    ends = (tokenizer.chat_template, tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token)
    digest.update(msgspec.json.encode(ends))
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _newest(folder: Path) -> Path | None:
    """Return what was saved last of all that was saved whole."""
    whole = [mark.parent for mark in folder.glob(f"checkpoint-*/{MARK}")]
    return max(whole, key=lambda path: int(path.name.partition("-")[2]), default=None)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)
