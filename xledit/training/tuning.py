"""Supervised fine-tuning and DPO, by trl: a model learns to answer in chat, then which of two answers is better.

What trl does without a word is settled here before it runs: conversations that do not fit, answers that are empty or equal, a tokenizer of
another model, what ends and pads a text. A run that is killed goes on from ``work`` and ends as if it had not been.
"""

import copy
import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from xledit.models import fuxitranyu
from xledit.storage import sha256
from xledit.training import resuming
from xledit.training.chat import special_spellings
from xledit.training.conversations import Conversation, Preference, Source, Tally, Turn
from xledit.training.questions import Questions
from xledit.training.resuming import fingerprint, hand_on, train
from xledit.training.tuning_params import DpoParams, SftParams, TuningParams
from xledit.training.tuning_results import RowCounts, TunedStep

NO_LABEL = -100
# conversations that are encoded at a time
ENCODED_AT_ONCE = 1000
T = TypeVar("T")


@dataclass(frozen=True)
class Examples:
    """What a run learns from, as trl takes it; ``digest`` names it, ``counts`` says what it is made of."""

    rows: Dataset
    digest: str
    counts: list[RowCounts]


def encode_conversations(tokenizer: PreTrainedTokenizerBase, params: SftParams, questions: Questions, seed: int) -> Examples:
    """Return the tokens of all conversations, labelled where the assistant speaks or ends its turn.

    Those that are too long or spell a special token are left out and counted.

    Raises:
        ValueError: a row is no conversation, or nothing is left.
    """
    tally, digest = Tally(), hashlib.sha256()
    input_ids, labels = list[np.ndarray](), list[np.ndarray]()
    for batch in _batches(_examples(params.rows, questions, seed, tally, tokenizer)):
        encoded = _encode(tokenizer, [conversation.turns for _source, conversation in batch])
        for (source, conversation), tokens, mask in zip(batch, encoded["input_ids"], encoded["assistant_masks"], strict=True):
            if len(tokens) > params.max_length:
                tally.drop(source, conversation.language, "too long")
                continue
            tally.take(source, conversation.language)
            input_ids.append(np.array(tokens, dtype=np.int32))
            labels.append(np.where(mask, input_ids[-1], NO_LABEL).astype(np.int32))
            for array in (input_ids[-1], labels[-1]):
                digest.update(len(array).to_bytes(8))
                digest.update(array.tobytes())
    return _whole(Dataset.from_dict({"input_ids": input_ids, "labels": labels}), digest.hexdigest(), tally)


def encode_preferences(tokenizer: PreTrainedTokenizerBase, params: DpoParams, questions: Questions, seed: int) -> Examples:
    """Return all preferences as messages, which trl encodes itself.

    Those of which a side is too long or spells a special token are left out and counted.

    Raises:
        ValueError: the tokenizer has no chat template, a row is no preference, or nothing is left.
    """
    if not tokenizer.chat_template:
        raise ValueError("the tokenizer has no chat template; DPO starts from a model that chats: tune it with `sft` first")
    tally, digest = Tally(), hashlib.sha256()
    rows = list[dict[str, Any]]()
    for batch in _batches(_examples(params.rows, questions, seed, tally, tokenizer)):
        sides = [
            [len(tokens) for tokens in _encode(tokenizer, [(*pair.prompt, side(pair)) for _source, pair in batch])["input_ids"]]
            for side in (lambda pair: pair.chosen, lambda pair: pair.rejected)
        ]
        for (source, pair), *lengths in zip(batch, *sides, strict=True):
            if max(lengths) > params.max_length:
                tally.drop(source, pair.language, "too long")
                continue
            tally.take(source, pair.language)
            row = {"prompt": _messages(pair.prompt), "chosen": _messages([pair.chosen]), "rejected": _messages([pair.rejected])}
            rows.append(row)
            digest.update(msgspec.json.encode(row))
    return _whole(Dataset.from_list(rows), digest.hexdigest(), tally)


def num_steps(examples: Examples, params: TuningParams) -> int:
    """Return how many steps a run takes; the last of an epoch may be of fewer conversations."""
    return params.epochs * -(-len(examples.rows) // params.batch)


def sft(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    params: SftParams,
    *,
    seed: int,
    work: Path,
    out: Path,
    use_gpu: bool = False,
    tell: Callable[[TunedStep], None] = lambda step: None,
) -> list[TunedStep]:
    """Tune a model on conversations and write it to ``out``, a model folder; return the steps. The model is trl's from then on.

    While it runs, everything is in a folder of ``work`` named after weights, tokenizer, settings, data, code, libraries and the number of
    processes: a run that is killed goes on from there, another one starts anew. ``out`` is linked from it at the end, so the caller
    removes ``work`` last of all. ``tell`` hears of every step on the first process. ``use_gpu``: each process trains on its rank's GPU.

    Raises ValueError when model, tokenizer and settings do not fit each other, the loss is not finite, or ``work`` is damaged.
    """
    arguments = _arguments(model, tokenizer, examples, params, seed=seed, work=work, use_gpu=use_gpu)
    config = SFTConfig(**arguments, max_length=None, neftune_noise_alpha=params.neftune_noise_alpha or None)
    model.requires_grad_(True)
    trainer = _SftTrainer(model, config, train_dataset=examples.rows, processing_class=tokenizer)
    return _run(trainer, examples, params, out, tell)


def dpo(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    params: DpoParams,
    *,
    seed: int,
    work: Path,
    out: Path,
    use_gpu: bool = False,
    tell: Callable[[TunedStep], None] = lambda step: None,
) -> list[TunedStep]:
    """Tune a model on preferences, against a copy of itself; all else is as in ``sft``."""
    arguments = _arguments(model, tokenizer, examples, params, seed=seed, work=work, use_gpu=use_gpu)
    reference = copy.deepcopy(model)  # trl would look for one by the model's name, on the hub
    part: Any
    for part in model.modules():  # trl turns off modules that drop out, not attention, where it is a number
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    model.requires_grad_(True)
    config = DPOConfig(**arguments, max_length=None, beta=params.beta)
    trainer = _DpoTrainer(model, reference, config, train_dataset=examples.rows, processing_class=tokenizer)
    return _run(trainer, examples, params, out, tell)


class _Quiet(Trainer):
    """Tells trl's makers nothing, and writes no page about the model."""

    def _send_telemetry(self) -> None:
        pass

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        pass


class _SftTrainer(_Quiet, SFTTrainer):
    pass


class _DpoTrainer(_Quiet, DPOTrainer):
    pass


class _Tells(TrainerCallback):
    """Hands each step on. Raises ValueError when the loss is not finite: the Trainer would go on."""

    def __init__(self, tell: Callable[[TunedStep], None]) -> None:
        self.tell = tell

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        if "loss" not in (logs or {}):
            return
        step = _step(state.log_history[-1])
        if not math.isfinite(step.loss) or not math.isfinite(step.grad_norm):
            raise ValueError(f"step {step.step}: the loss is {step.loss}, its gradient's norm {step.grad_norm}; lower peak_lr")
        if state.is_world_process_zero:
            self.tell(step)


def _run(trainer: Trainer, examples: Examples, params: TuningParams, out: Path, tell: Callable[[TunedStep], None]) -> list[TunedStep]:
    trainer.add_callback(_Tells(tell))
    with warnings.catch_warnings():
        # trl 1.16 asks transformers for it
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.* is deprecated", FutureWarning)
        saved = train(trainer, params.save_steps)
    assert trainer.state.max_steps == num_steps(examples, params)
    if trainer.is_world_process_zero():
        hand_on(saved, out)
    trainer.accelerator.wait_for_everyone()
    return [_step(entry) for entry in trainer.state.log_history if "loss" in entry]


def _step(entry: dict[str, Any]) -> TunedStep:
    """Return an entry of the Trainer's log, which it keeps and gives back when a run goes on."""
    return TunedStep(
        step=entry["step"],
        loss=entry["loss"],
        grad_norm=float(entry["grad_norm"]),
        learning_rate=entry["learning_rate"],
        token_accuracy=None if "rewards/margins" in entry else entry["mean_token_accuracy"],
        reward_accuracy=entry.get("rewards/accuracies"),
        reward_margin=entry.get("rewards/margins"),
    )


def _arguments(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Examples,
    params: TuningParams,
    *,
    seed: int,
    work: Path,
    use_gpu: bool,
) -> dict[str, Any]:
    """Return what trl is told of a run of either kind."""
    config, processes = model.config.get_text_config(), PartialState(cpu=not use_gpu).num_processes
    if len(tokenizer) != config.vocab_size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}; take those of one folder")
    if params.max_length > getattr(config, "max_position_embeddings", params.max_length):
        raise ValueError(f"max_length is {params.max_length} and the model has {config.max_position_embeddings} positions; lower it")
    if params.batch % (params.micro_batch * processes):
        raise ValueError(f"batch is {params.batch}; it must be a multiple of micro_batch by processes, {params.micro_batch} x {processes}")
    code = [sha256(Path(path)) for path in (__file__, resuming.__file__, fuxitranyu.__file__)]
    versions = [version(name) for name in ("torch", "transformers", "accelerate", "trl")]
    settings = msgspec.structs.replace(params, files="", save_steps=1)
    made_of = [type(params).__name__, settings, seed, examples.digest, code, versions, use_gpu, processes]
    return {
        "output_dir": str(work / fingerprint(model, tokenizer, made_of)),
        "num_train_epochs": params.epochs,
        "per_device_train_batch_size": params.micro_batch,
        "gradient_accumulation_steps": params.batch // (params.micro_batch * processes),
        "learning_rate": params.peak_lr,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(params.warmup * num_steps(examples, params)),
        "use_cpu": not use_gpu,
        "bf16": use_gpu and torch.cuda.is_bf16_supported(),
        "activation_checkpointing": params.activation_checkpointing,
        "seed": seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # Saves decides
        "use_cache": model.config.use_cache,  # what the folder says of it
        "ddp_find_unused_parameters": False,
        "dataloader_pin_memory": use_gpu,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _examples(
    sources: Sequence[Source[Conversation]] | Sequence[Source[Preference]],
    questions: Questions,
    seed: int,
    tally: Tally,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[tuple[Any, Any]]:
    """Yield each example with its source, but for those that spell a special token."""
    special = special_spellings(tokenizer)
    for source in sources:
        for example in source.examples(questions, seed, tally):
            turns = example.turns if isinstance(example, Conversation) else (*example.prompt, example.chosen, example.rejected)
            if any(token in turn.content for turn in turns for token in special):
                tally.drop(source, example.language, "special token")
            else:
                yield source, example


def _batches(examples: Iterable[T]) -> Iterator[list[T]]:
    left = iter(examples)
    while batch := list(islice(left, ENCODED_AT_ONCE)):
        yield batch


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _encode(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Turn]]) -> Any:
    """Return tokens, and which of them are the assistant's, of each conversation."""
    return tokenizer.apply_chat_template(
        [_messages(turns) for turns in conversations], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )


def _whole(rows: Dataset, digest: str, tally: Tally) -> Examples:
    counts = tally.counts()
    if not len(rows):
        dropped = "; ".join(f"{row.source} ({row.language}): {row.dropped}" for row in counts) or "no rows"
        raise ValueError(f"nothing to learn from: {dropped}; raise max_length, or name other rows")
    return Examples(rows, digest, counts)
