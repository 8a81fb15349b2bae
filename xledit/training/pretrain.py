"""The run: packed windows -> checkpoints along the way, by transformers' Trainer on accelerate, one process or many.

What the Trainer does not have is here: a batch that grows, updates that are skipped when the loss jumps, loss by language, and
checkpoints at token counts. A batch of its loader is a whole step of a process, cut into forward passes in ``training_step``. So a
step is an index, and the Trainer's own resuming is exact for batches of any size.

Pickle: the Trainer keeps optimizer, schedule and random state as torch files and reads them with ``weights_only=True``, which runs
nothing. accelerate's sharded FSDP checkpoints are read with plain pickle and refused here. Nothing of the kind is handed on.

Several processes: ``accelerate launch`` (FSDP2: runs/tranyu-launch/fsdp2.yaml) or ``torchrun``, both with FULL_STATE_DICT.
``work`` must be one folder for all of them. Random numbers (dropout) then depend on the number of processes, windows do not.
"""

import hashlib
import math
import os
import pickle
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.metadata import version
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from xledit.models import fuxitranyu
from xledit.storage import read_json, sha256, write_json
from xledit.training import packing, shards
from xledit.training.costs import flops_per_token
from xledit.training.packing import NO_LABEL, PackedWindows

# FuxiTranyu, arXiv 2408.06273, table 4
BETAS, EPSILON, FLOOR = (0.9, 0.95), 1e-8, 0.1
MARK = "checkpoint.json"
# what the Trainer needs to go on and nobody else wants: all of its pickles, and times
STATE = ("*.pt", "*.pth", "*.bin", TRAINER_STATE_NAME)


class PretrainParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``pretrain`` section of the settings.

    ``batch_tokens`` is what a step learns from until ``late_from_tokens`` are seen, ``late_batch_tokens`` from then on: large batches
    waste data early and make the gradient steadier late (the paper: 2M, then 4M). Whole windows, the same on every process.
    ``micro_batch`` is how many windows a process handles at a time: more is faster, up to the device's memory.
    ``peak_lr`` is reached after ``warmup_steps``; a cosine then falls to a tenth by the last step. Too high diverges, too low is slow.
    ``weight_decay`` pulls matrices to 0; ``max_grad_norm`` shortens longer gradients.
    ``spike_multiple``: a step whose loss or gradient norm is above that many times the median of the last ``spike_window`` updates, or
    is not finite, changes nothing. Low values skip sound steps. After ``spike_patience`` in a row the run ends with an error.
    ``checkpoints`` are kept, 58 in the paper. ``save_steps`` is after how many steps the run can go on from if it is killed.
    ``activation_checkpointing`` computes activations twice and keeps few.
    """

    batch_tokens: int
    late_batch_tokens: int
    late_from_tokens: int
    micro_batch: int
    peak_lr: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    spike_multiple: float
    spike_window: int
    spike_patience: int
    checkpoints: int
    save_steps: int
    activation_checkpointing: bool

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "late_batch_tokens", "micro_batch", "spike_window", "spike_patience", "checkpoints", "save_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name, least in (("peak_lr", 0), ("max_grad_norm", 0), ("spike_multiple", 1), ("late_from_tokens", -1)):
            if not getattr(self, name) > least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above {least}")
        if self.late_batch_tokens < self.batch_tokens:
            raise ValueError(f"late_batch_tokens is {self.late_batch_tokens}; it must be at least batch_tokens, {self.batch_tokens}")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: tokens seen with it, loss per predicted token (nats) in all and by language, gradient norm before it was shortened.

    ``predicted`` is how many tokens of each language that is. What is not finite is null in JSON and comes back as None.
    """

    step: int
    tokens: int
    loss: float | None
    grad_norm: float | None
    learning_rate: float
    skipped: bool
    languages: dict[str, float | None]
    predicted: dict[str, int]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """What ``checkpoint.json`` says of its folder: ``number`` counts from 1 (None: saved to go on from, not to keep)."""

    number: int | None
    step: int
    tokens: int
    loss: float | None


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second of this call, all devices together, and the share of their stated peak FLOP/s that this is, where it is stated."""

    tokens_per_second: float
    share_of_peak: float | None


def checkpoint_tokens(total: int, number: int = 58) -> list[int]:
    """Return after how many tokens checkpoints are kept, ascending to ``total``: a sixth of them double, the others are evenly spaced.

    Raises ValueError when there are fewer tokens than checkpoints.
    """
    doubling = number // 6
    even = total / (number - doubling)
    tokens = [even / 2**back for back in range(doubling, 0, -1)] + [even * (place + 1) for place in range(number - doubling)]
    return _ascending(np.ceil(np.array(tokens)).astype(np.int64), total).tolist()


def rows_per_step(windows: int, context: int, params: PretrainParams) -> np.ndarray:
    """Return how many windows each step learns from ``[steps]`` int64; the last windows that fill no batch are left out.

    Raises ValueError when a batch is not of whole windows, or there are not enough windows for one.
    """
    for name in ("batch_tokens", "late_batch_tokens"):
        if getattr(params, name) % context:
            raise ValueError(f"{name} is {getattr(params, name)}; it must be a multiple of the context, {context}")
    early, late = params.batch_tokens // context, params.late_batch_tokens // context
    num_early = min(-(-params.late_from_tokens // params.batch_tokens), windows // early)
    rows = np.repeat([early, late], [num_early, (windows - num_early * early) // late])
    if not len(rows):
        raise ValueError(f"{windows} windows of {context} tokens do not fill one batch of {params.batch_tokens} tokens; lower batch_tokens")
    return rows


def operations_per_token(model: PreTrainedModel, context: int) -> int:
    """Return the floating-point operations of one token's forward and backward pass (``flops_per_token``)."""
    config = model.config.get_text_config()
    num_multiplied = model.num_parameters()
    if not config.tie_word_embeddings:  # else the input embedding is the head, too
        num_multiplied -= sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
    return flops_per_token(num_multiplied, config.num_hidden_layers, config.hidden_size, context)


def pretrain(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: PackedWindows,
    params: PretrainParams,
    *,
    seed: int,
    work: Path,
    out: Path,
    use_gpu: bool = False,
    peak_flops: float | None = None,
    tell: Callable[[Step], None] = lambda step: None,
) -> Speed:
    """Train ``model`` on ``data`` once through; write ``out/checkpoint-<1 to number>`` and ``out/log.json``, a list of ``Step``.

    While it runs, everything is in a folder of ``work`` named after weights, settings, data, code, libraries and the number of processes:
    a run that is killed goes on from there and ends as if it had not been, another run starts anew. ``out`` is linked from it at the
    end, so the caller removes ``work`` last of all. ``tell`` hears of every step on the first process.
    ``use_gpu``: each process trains on the GPU of its rank. ``peak_flops`` is the stated FLOP/s of one device.

    Raises ValueError when tokenizer, model and data do not fit each other, a batch cannot be shared out, there are fewer steps than
    checkpoints, what is in ``work`` is damaged, or the run has diverged.
    """
    _check(model, tokenizer, data, params)
    rows = rows_per_step(len(data), data.context, params)
    tokens = np.cumsum(rows) * data.context
    # a checkpoint is kept after the first step that has seen its tokens, no two after the same
    wanted = np.searchsorted(tokens, checkpoint_tokens(int(tokens[-1]), params.checkpoints)) + 1
    kept = {int(step): number for number, step in enumerate(_ascending(wanted, len(rows)), start=1)}
    folder = work / _fingerprint(model, data, params, seed, use_gpu=use_gpu)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=params.micro_batch,
        learning_rate=params.peak_lr,
        lr_scheduler_type="cosine_warmup_with_min_lr",  # as cosine_with_min_lr, but no step has a rate of 0, and the last has the floor
        lr_scheduler_kwargs={"min_lr_rate": FLOOR},
        warmup_steps=params.warmup_steps,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        weight_decay=params.weight_decay,
        max_grad_norm=params.max_grad_norm,
        use_cpu=not use_gpu,  # or the Trainer does not see that there are several processes
        bf16=use_gpu and torch.cuda.is_bf16_supported(),
        activation_checkpointing=params.activation_checkpointing,
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",  # _Saves decides
        use_cache=model.config.use_cache,  # what checkpoints say of it
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=use_gpu,
        report_to="none",
        disable_tqdm=True,
    )
    flops = operations_per_token(model, data.context)  # before parameters are cut into shards
    trainer = _Pretrainer(model, arguments, data, tokenizer, params, rows, tokens, kept, tell)
    done, newest = max((saved for saved in _saved(folder) if (saved[1] / TRAINER_STATE_NAME).exists()), default=(0, None))
    started = time.perf_counter()
    try:
        trainer.train(str(newest) if newest else None)
    except pickle.UnpicklingError as error:  # torch's own message says how to run what it holds
        raise ValueError(
            f"{newest}: what the run goes on from is not tensors and numbers alone; delete the folder and run again"
        ) from error
    seconds = time.perf_counter() - started
    log = [msgspec.convert(entry, Step) for entry in trainer.state.log_history if "languages" in entry]
    if trainer.is_world_process_zero():
        _publish(folder, out, kept, log)
    trainer.accelerator.wait_for_everyone()
    per_second = float(rows[done:].sum()) * data.context / seconds
    share = per_second * flops / (peak_flops * arguments.world_size) if peak_flops else None
    return Speed(tokens_per_second=per_second, share_of_peak=share)


class _Steps(Sampler[range]):
    """The windows of each step in turn, for each process in turn: how accelerate deals batches out."""

    def __init__(self, rows: np.ndarray, processes: int) -> None:
        odd = [int(number) for number in set(rows.tolist()) if number % processes]
        if odd:
            raise ValueError(f"a batch of {odd[0]} windows cannot be shared out among {processes} processes; change batch_tokens")
        self.rows, self.processes = rows, processes

    def __iter__(self) -> Iterator[range]:
        start = 0
        for share in (self.rows // self.processes).tolist():
            for _ in range(self.processes):
                yield range(start, start + share)
                start += share

    def __len__(self) -> int:
        return len(self.rows) * self.processes


class _Pretrainer(Trainer):
    """The Trainer, whose step is a batch of any size, which keeps away from spikes and knows each language's loss."""

    # compute_loss divides by the step's tokens
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel,
        arguments: TrainingArguments,
        data: PackedWindows,
        tokenizer: PreTrainedTokenizerBase,
        params: PretrainParams,
        rows: np.ndarray,
        tokens: np.ndarray,
        kept: dict[int, int],
        tell: Callable[[Step], None],
    ) -> None:
        super().__init__(model, arguments, train_dataset=data, processing_class=tokenizer)
        if arguments.n_gpu > 1:
            raise ValueError(f"{arguments.n_gpu} GPUs for one process; start the run with `accelerate launch` or `torchrun`")
        fsdp = getattr(self.accelerator.state, "fsdp_plugin", None)
        if fsdp is not None and "FULL" not in str(fsdp.state_dict_type):
            raise ValueError("FSDP keeps sharded checkpoints, which are read with pickle; set fsdp_state_dict_type to FULL_STATE_DICT")
        self.remove_callback(PrinterCallback)
        self.add_callback(_Saves(self, kept, params.save_steps))
        self.data, self.languages, self.params, self.tokens, self.tell = data, data.languages, params, tokens, tell
        self.sampler = _Steps(rows, arguments.world_size)
        self.sums = torch.zeros(2, len(self.languages))  # the step's loss and number of predicted tokens, by language
        self.step: dict[str, Any] = {}  # what the Trainer's own log does not have

    def get_train_dataloader(self) -> DataLoader:
        sampler: Any = self.sampler  # torch asks for lists
        return self.accelerator.prepare(DataLoader(self.data, batch_sampler=sampler, pin_memory=self.args.dataloader_pin_memory))

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Return the loss of a whole step; where it is a spike, no gradient is left behind and the optimizer does nothing."""
        self.sums = torch.zeros(2, len(self.languages), dtype=torch.float64, device=self.args.device)
        parts = [
            dict(zip(inputs, part, strict=True))
            for part in zip(*(tensor.split(self.args.per_device_train_batch_size) for tensor in inputs.values()), strict=True)
        ]
        # FSDP adds gradients up in shards: whole ones would take as much memory as the model
        apart = nullcontext if self.is_fsdp_enabled else lambda: self.accelerator.no_sync(model)
        losses = []
        for part in parts:
            with nullcontext() if part is parts[-1] else apart():
                losses.append(super().training_step(model, part, num_items_in_batch))
        sums, counts = self.accelerator.reduce(self.sums)
        size = self.accelerator.clip_grad_norm_(model.parameters(), math.inf)
        assert size is not None
        loss, norm = (sums.sum() / counts.sum()).item(), float(size)
        skipped = self._is_spike(loss, norm)
        if skipped:
            model.zero_grad()
        by_language = [row for row in zip(self.languages, sums.tolist(), counts.tolist(), strict=True) if row[2]]
        self.step = {
            "loss": loss,
            "grad_norm": norm,
            "skipped": skipped,
            "languages": {code: total / number for code, total, number in by_language},
            "predicted": {code: int(number) for code, _total, number in by_language},
        }
        total = torch.stack(losses).sum()
        return torch.zeros_like(total) if skipped else total  # the Trainer's running loss would stay NaN

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Any:
        """Return this part's share of the step's mean loss per token, and add up the loss of each language."""
        assert num_items_in_batch is not None
        # a cache would keep transformers from seeing where documents begin
        outputs = model(input_ids=inputs["input_ids"], position_ids=inputs["position_ids"], use_cache=False)
        # the next token, of the same document and so of the same language
        labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=NO_LABEL).flatten()
        languages = inputs["languages"].flatten()
        losses = torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1).float(), labels, reduction="none")
        self.sums[0].index_add_(0, languages, losses.detach().double())
        self.sums[1].index_add_(0, languages, (labels != NO_LABEL).double())
        loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch  # processes' gradients are averaged
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        """Add what only we know to each step's entry of the Trainer's log, which it keeps and gives back when it resumes."""
        if "loss" not in logs:
            return super().log(logs, start_time)
        logs |= {"tokens": int(self.tokens[self.state.global_step - 1])} | self.step
        super().log(logs, start_time)
        if self.is_world_process_zero():
            self.tell(msgspec.convert(self.state.log_history[-1], Step))
        return None

    def _is_spike(self, loss: float, norm: float) -> bool:
        past = list(islice((entry for entry in reversed(self.state.log_history) if not entry["skipped"]), self.params.spike_window))
        jumps = len(past) == self.params.spike_window and any(
            value > self.params.spike_multiple * statistics.median(entry[name] for entry in past)
            for name, value in (("loss", loss), ("grad_norm", norm))
        )
        if not jumps and math.isfinite(loss) and math.isfinite(norm):
            return False
        in_a_row = 1 + sum(1 for _ in takewhile(lambda entry: entry["skipped"], reversed(self.state.log_history)))
        if in_a_row >= self.params.spike_patience:
            raise ValueError(
                f"step {self.state.global_step + 1}: {in_a_row} updates in a row were spikes, the last with loss {loss:.4g} and gradient "
                f"norm {norm:.4g}; the run has diverged: lower peak_lr (the paper went from 3e-4 to 1e-4), or raise spike_multiple; with "
                "other settings it starts anew"
            )
        return True


class _Saves(TrainerCallback):
    """Has the Trainer save where a checkpoint is kept and every ``save_steps``; only the newest keeps what a run goes on from."""

    def __init__(self, trainer: Trainer, kept: dict[int, int], save_steps: int) -> None:
        self.trainer, self.kept, self.save_steps = trainer, kept, save_steps

    def on_step_end(self, args, state, control, **kwargs) -> None:
        control.should_save = state.global_step in self.kept or state.global_step % self.save_steps == 0

    def on_save(self, args, state, control, **kwargs) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if not state.is_world_process_zero:
            return
        output, step = Path(str(args.output_dir)), state.global_step
        folder = output / f"checkpoint-{step}"
        for path in folder.iterdir():  # the mark says that all the rest is on disk
            with path.open("rb") as file:
                os.fsync(file.fileno())
        last = msgspec.convert(state.log_history[-1], Step)
        write_json(folder / MARK, Checkpoint(number=self.kept.get(step), step=step, tokens=last.tokens, loss=last.loss))
        for older, folder in _saved(output):
            if older < step and older in self.kept:
                for pattern in STATE:
                    for path in folder.glob(pattern):
                        path.unlink()
            elif older < step:
                shutil.rmtree(folder)


def marks(folder: Path) -> list[Checkpoint]:
    """Return what the checkpoints of a folder say of themselves, in their order."""
    return sorted((read_json(mark, Checkpoint) for mark in folder.glob(f"checkpoint-*/{MARK}")), key=lambda mark: mark.step)


def _saved(folder: Path) -> list[tuple[int, Path]]:
    """Return the step and the folder of all that was saved whole."""
    return [(read_json(mark, Checkpoint).step, mark.parent) for mark in folder.glob(f"checkpoint-*/{MARK}")]


def _publish(folder: Path, out: Path, kept: dict[int, int], log: list[Step]) -> None:
    """Link the kept checkpoints and write the log; from the beginning when done again."""
    saved = dict(_saved(folder))
    lost = sorted(kept.keys() - saved.keys())
    if lost:
        raise ValueError(f"{folder}: the checkpoints of steps {', '.join(map(str, lost))} are gone; delete the folder and run again")
    shutil.rmtree(out, ignore_errors=True)
    for step, number in kept.items():
        shutil.copytree(saved[step], out / f"checkpoint-{number}", ignore=shutil.ignore_patterns(*STATE), copy_function=_link)
    write_json(out / "log.json", log)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


def _ascending(numbers: np.ndarray, last: int) -> np.ndarray:
    """Return ``numbers`` moved as little as makes them different, from 1 to ``last``. Raises ValueError when there are too many."""
    if len(numbers) > last:
        raise ValueError(f"{len(numbers)} checkpoints of {last} steps or tokens; lower checkpoints or raise the budget")
    places = np.arange(len(numbers))
    numbers = np.maximum.accumulate(np.maximum(numbers, 1) - places) + places
    return np.minimum(numbers, last - places[::-1])


def _check(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: PackedWindows, params: PretrainParams) -> None:
    config = model.config.get_text_config()
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}; make the model of the tokenizer's size"
        )
    if data.context > getattr(config, "max_position_embeddings", data.context):
        raise ValueError(f"windows have {data.context} tokens and the model {config.max_position_embeddings} positions; make them the same")
    if "flash" in str(config._attn_implementation) and params.micro_batch > 1:
        raise ValueError("flash attention keeps packed documents apart in batches of one window only; set micro_batch to 1, or use sdpa")


def _fingerprint(model: PreTrainedModel, data: PackedWindows, params: PretrainParams, seed: int, *, use_gpu: bool) -> str:
    """Return a name for all that a run's weights depend on; when it saves is not among it."""
    code = [sha256(Path(path)) for path in (__file__, packing.__file__, shards.__file__, fuxitranyu.__file__)]
    versions = [version(name) for name in ("torch", "transformers", "accelerate")]
    settings = msgspec.structs.replace(params, save_steps=1)
    made_of = [settings, seed, data.digest, code, versions, use_gpu, PartialState().num_processes]
    digest = hashlib.sha256(msgspec.json.encode(made_of))
    digest.update(model.config.to_json_string().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
