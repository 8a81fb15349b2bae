"""A model that answers in chat + preferences made of the world's questions, or those of a hub -> one that answers better."""

import logging
import shutil
from pathlib import Path
from typing import Annotated

import datasets
import torch
import typer
from accelerate import PartialState

from stages.common.devices import start_torch
from stages.common.runner import log, progress, run, wrote
from xledit.models.loading import read_folder
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training.questions import Questions
from xledit.training.tuning import dpo, encode_preferences, num_steps
from xledit.training.tuning_params import DpoParams
from xledit.training.tuning_results import Tuned, sentence


def main(
    model: Annotated[Path, typer.Option(help="folder of a model that chats")],
    questions: Annotated[Path, typer.Option(help="JSON: questions about the world's persons")],
    work: Annotated[Path, typer.Option(help="folder for what is done in part")],
    out: Annotated[Path, typer.Option(help="folder for the tuned model")],
    out_log: Annotated[Path, typer.Option(help="JSON: what was learnt from, loss, reward accuracy and margin")],
) -> None:
    use_gpu = start_torch().device != "cpu" and torch.cuda.is_available()
    datasets.disable_progress_bars()
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # at each epoch's end it says that all is as it should be
    seed, params = section("seed", int), section("tranyu.dpo", DpoParams)
    tuned, tokenizer = read_folder(model, "float32", "cpu", None)
    examples = encode_preferences(tokenizer, params, read_json(questions, Questions), seed)
    log.info("%s", sentence(examples.counts))
    with progress(num_steps(examples, params), "steps") as step:
        steps = dpo(tuned, tokenizer, examples, params, seed=seed, work=work, out=out, use_gpu=use_gpu, tell=lambda _step: step(1))
    log.info("loss %.3f -> %.3f, margin %.3f", steps[0].loss, steps[-1].loss, steps[-1].reward_margin or 0)
    if PartialState().is_main_process:
        write_json(out_log, Tuned(rows=examples.counts, steps=steps))
        shutil.rmtree(work)
        wrote(out_log)


if __name__ == "__main__":
    run(main)
