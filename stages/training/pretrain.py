"""Token shards -> a model trained from scratch, its checkpoints along the way, and the loss by language."""

import math
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import torch
import typer
from accelerate import PartialState
from transformers import AutoTokenizer

from stages.common.devices import start_torch
from stages.common.runner import log, progress, run, wrote
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training import catalog
from xledit.training.architecture import ArchitectureParams, new_model
from xledit.training.mixture import Mixture, shares
from xledit.training.packing import PackedWindows
from xledit.training.pretrain import PretrainParams, Step, marks, pretrain, rows_per_step
from xledit.training.results import Pretrained, Stretch
from xledit.training.shards import TokenShard


class RunParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.run`` section of params.yaml: which languages are read, and how many tokens in all.

    ``name`` is that of the folder for checkpoints, in artifacts/tranyu.
    ``peak_flops`` is what one device can do at most, as its maker states it (FLOP/s); null: what a matrix product reaches before the run.
    """

    name: str
    languages: tuple[str, ...]
    tokens: int
    peak_flops: float | None

    def __post_init__(self) -> None:
        for code in self.languages:
            catalog.row(code)


def main(
    tokens: Annotated[Path, typer.Option(help="folder with token shards")],
    tokenizer_folder: Annotated[Path, typer.Option()],
    work: Annotated[Path, typer.Option(help="folder for what is done in part")],
    out: Annotated[Path, typer.Option(help="folder for checkpoints")],
    out_log: Annotated[Path, typer.Option(help="JSON: mixture and loss")],
) -> None:
    use_gpu = start_torch().device != "cpu" and torch.cuda.is_available()
    seed, params, chosen = section("seed", int), section("tranyu.pretrain", PretrainParams), section("tranyu.run", RunParams)
    architecture = section("tranyu.architecture", ArchitectureParams)
    mixture: Mixture = section("tranyu.mixture", Mixture)  # pyright: ignore[reportArgumentType]
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, trust_remote_code=False)
    shards = {code: TokenShard.open(tokens / code, len(tokenizer)) for code in chosen.languages}
    available = {code: int(shard.ends[-1]) for code, shard in shards.items()}
    wanted = mixture.tokens_per_language(available, chosen.tokens)
    data = PackedWindows(shards, wanted, architecture.context, seed)
    taken = data.taken(int(rows_per_step(len(data), data.context, params).sum()))
    total = sum(taken.values())
    log.info("%d tokens: %s", total, ", ".join(f"{code} {share:.1%}" for code, share in shares(taken).items()))
    model = new_model(architecture, len(tokenizer), seed)
    with progress(total, "tokens") as step:
        seen = 0

        def tell(done: Step) -> None:
            nonlocal seen
            step(done.tokens - seen)
            seen = done.tokens
            if done.step % 50 == 0:
                log.info("step %d, %d tokens: loss %s", done.step, done.tokens, done.loss)

        peak = chosen.peak_flops or product_flops("cuda" if use_gpu else "cpu")
        speed = pretrain(model, tokenizer, data, params, seed=seed, work=work, out=out, use_gpu=use_gpu, peak_flops=peak, tell=tell)
    stated = "the stated peak" if chosen.peak_flops else "a matrix product's speed"
    share = "" if speed.share_of_peak is None else f", {speed.share_of_peak:.1%} of {stated} ({peak:.3g} FLOP/s)"
    log.info("%.0f tokens per second%s", speed.tokens_per_second, share)
    if not PartialState().is_main_process:
        return
    write_json(
        out_log,
        Pretrained(
            num_parameters=model.num_parameters(),
            available=available,
            wanted=wanted,
            taken=taken,
            losses=stretches(read_json(out / "log.json", list[Step]), [mark.tokens for mark in marks(out)]),
        ),
    )
    shutil.rmtree(work)
    wrote(out_log)


def product_flops(device: str, size: int = 2048, times: int = 7) -> float:
    """Return the FLOP/s of a product of two square float32 matrices on this device: the median of some."""
    matrix, seconds = torch.ones(size, size, device=device), []
    for _ in range(times + 1):  # the first warms up
        started = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    # not the best: where the clock jumps (a virtual machine's), a product may seem to take no time, and the run to reach nothing
    return 2 * size**3 / statistics.median(seconds[1:])


def stretches(steps: Sequence[Step], ends: Sequence[int]) -> list[Stretch]:
    """Return the mean over tokens up to each of ``ends``, tokens seen in ascending order. A step whose loss is not finite has none."""
    found = []
    for start, end in zip((0, *ends), ends, strict=False):
        some = [step for step in steps if start < step.tokens <= end]
        codes = sorted({code for step in some for code in step.languages})
        by_language = {
            code: _mean([(step.languages[code], step.predicted[code]) for step in some if code in step.languages]) for code in codes
        }
        loss = _mean([(step.loss, sum(step.predicted.values())) for step in some])
        found.append(Stretch(tokens=end, loss=loss, languages=by_language, skipped=sum(step.skipped for step in some)))
    return found


def _mean(values: Sequence[tuple[float | None, int]]) -> float:
    """Return the mean of those that are finite, weighted by the numbers beside them."""
    finite = [(value, number) for value, number in values if value is not None]
    return sum(value * number for value, number in finite) / sum(number for _value, number in finite) if finite else math.nan


if __name__ == "__main__":
    run(main)
