"""Editing by training: FT-L, FT-M and LoRA, the baselines of locate-then-edit. One update per layer; the model stays as it was.

Both editors minimise, by Adam, the mean over facts of the mean negative log-probability (nats) of a fact's target
tokens. They train the memories of some layers and differ in what may change there: every weight, or two thin factors.

======  ==============================================  ==============
method  settings                                        published in
======  ==============================================  ==============
FT-L    FineTuning, loss last_token, a norm_constraint  arXiv 2012.00363, as run by arXiv 2202.05262
FT-M    FineTuning, loss target                         arXiv 2308.07269 (EasyEdit)
LoRA    Lora                                            arXiv 2106.09685, eq. 3
======  ==============================================  ==============
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Literal

import msgspec
import torch
from jaxtyping import Float
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from xledit.editing.solvers import LayerUpdate, check_positive
from xledit.models.families import head_logits, memory_of, weight_as_out_by_in
from xledit.models.prompts import AnswerRow, encode_request, pad, teacher_forced
from xledit.models.tracing import hooked, read
from xledit.records import EditRequest

ADAPTER = "edit"


def _last_token(prompt: tuple[int, ...], answer: tuple[int, ...]) -> AnswerRow:
    return AnswerRow(tokens=prompt, answer=answer, positions=(len(prompt) - 1,) * len(answer))


Loss = Literal["last_token", "target"]
LOSSES: dict[Loss, Callable[[tuple[int, ...], tuple[int, ...]], AnswerRow]] = {"last_token": _last_token, "target": teacher_forced}


class _Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of the training loop, and the loop."""

    batch_size: int
    layers: tuple[int, ...] | None
    lr: float
    steps: int
    stop_below: float

    def __post_init__(self) -> None:
        for name in ("batch_size", "lr", "steps"):
            check_positive(name, getattr(self, name))
        _check_not_negative("stop_below", self.stop_below)
        if self.layers is not None and (not self.layers or any(upper <= lower for lower, upper in pairwise(self.layers))):
            raise ValueError(
                f"layers is {list(self.layers)}; name at least one layer, in ascending order, or null for those of edit.layers"
            )

    def _batches(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], loss: Loss
    ) -> list["_Batch"]:
        if not requests:
            raise ValueError(f"{type(self).__name__}: there are no requests to train on; give at least one")
        return [
            _Batch(model, tokenizer, requests[start : start + self.batch_size], LOSSES[loss])
            for start in range(0, len(requests), self.batch_size)
        ]

    def _train(
        self,
        batches: Sequence["_Batch"],
        layers: Sequence[int],
        optimiser: torch.optim.Optimizer,
        on_progress: Callable[[int], None],
        constrain: Callable[[], None] = lambda: None,
    ) -> None:
        """Train the optimiser's parameters in place, until the mean loss of a pass is low enough; ``constrain`` ends each step."""
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        for _ in range(self.steps):
            seen: list[Tensor] = []
            for batch in batches:
                losses = batch.losses()
                self._check_finite([losses], batch.facts_where(~losses.isfinite()), layers)
                optimiser.zero_grad()
                losses.mean().backward(inputs=parameters)  # nothing else is given a gradient
                optimiser.step()
                constrain()
                seen.append(losses.detach())
                on_progress(len(losses))
            if torch.cat(seen).mean().item() < self.stop_below:
                break
        self._check_finite(parameters, "after the last step", layers)

    def _check_finite(self, tensors: Sequence[Tensor], where: str, layers: Sequence[int]) -> None:
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise ValueError(
                f"{where}: training became NaN or infinite in layers {list(layers)} (settings: {self}); "
                f"lower lr, or use model.dtype float32"
            )


class FineTuning(_Training, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="fine_tuning"):
    """Fine-tuning of whole memories. FT-L (arXiv 2202.05262, after arXiv 2012.00363) and FT-M (arXiv 2308.07269).

    ``loss`` says where a target is learnt: ``last_token`` makes all its tokens likelier right after the prompt (what the
    published FT-L does, though only the first of them can come there), ``target`` each after the ones before it (FT-M).
    Every fact counts the same, where EasyEdit's FT-M counts every token the same.

    ``norm_constraint`` is the largest change of any one weight (5e-4 in FT-L), null for none. Lower: better locality,
    fewer facts stored. ``weight_decay`` pulls the change towards 0, where the published code pulls the weight itself (0
    there). ``lr`` is Adam's step in units of a weight. Training takes ``steps`` passes over the facts, in batches of
    ``batch_size`` in the order given, or fewer, if a pass's mean loss is below ``stop_below`` (nats). ``layers`` are the
    ones to train (FT-L: one), null for the edited layers: ``updates`` is told which.
    """

    loss: Loss
    norm_constraint: float | None
    weight_decay: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_not_negative("weight_decay", self.weight_decay)
        if self.norm_constraint is not None:
            check_positive("norm_constraint", self.norm_constraint)

    def updates(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        seed: int,
        on_progress: Callable[[int], None] = lambda _num_facts: None,
    ) -> dict[int, LayerUpdate]:
        """Return each layer's change as its singular vectors. ``on_progress`` is told each number of facts a step has seen.

        The change is float32 and added to the weight before that is rounded to the model's dtype, in training as in
        ``edited``: what is trained is the model that the update gives, also in bfloat16. Nothing is drawn: ``seed`` has
        no effect.

        Raises ValueError that names facts, layers and settings when the loss is not finite.
        """
        memories = {layer: memory_of(model, layer) for layer in layers}
        changes = {
            layer: torch.zeros_like(weight_as_out_by_in(memory), dtype=torch.float32, requires_grad=True)
            for layer, memory in memories.items()
        }

        def constrain() -> None:
            if self.norm_constraint is not None:
                with torch.no_grad():
                    for change in changes.values():
                        change.clamp_(-self.norm_constraint, self.norm_constraint)

        with ExitStack() as stack:
            for layer, memory in memories.items():
                stack.enter_context(_changed(memory, changes[layer]))
            optimiser = torch.optim.Adam(changes.values(), lr=self.lr, weight_decay=self.weight_decay)
            self._train(self._batches(model, tokenizer, requests, self.loss), layers, optimiser, on_progress, constrain)
        return {layer: _thin(change.detach()) for layer, change in changes.items()}


class Lora(_Training, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="lora"):
    """LoRA, arXiv 2106.09685, eq. 3: the change of a memory is ``alpha / rank * B @ A``, trained by FT-M's loss.

    Through the library peft: A begins random, drawn from the seed, and B at 0. ``rank`` bounds the update's rank;
    higher ``alpha``: larger changes at the same ``lr``. The other settings are those of ``FineTuning``.
    """

    alpha: int
    rank: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_positive("rank", self.rank)

    def updates(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        seed: int,
        on_progress: Callable[[int], None] = lambda _num_facts: None,
    ) -> dict[int, LayerUpdate]:
        """Return each layer's scaled B and A. ``on_progress`` is told each number of facts a step has seen.

        A and B are float32. They run beside the memory: in bfloat16 the trained model differs from the edited one by
        the rounding of the weights that carry the update.

        Raises ValueError that names facts, layers and settings when the loss is not finite.
        """
        with _adapted(model, layers, self.rank, self.alpha, seed) as adapters:
            optimiser = torch.optim.Adam([factor for pair in adapters.values() for factor in pair], lr=self.lr)
            self._train(self._batches(model, tokenizer, requests, "target"), layers, optimiser, on_progress)
        return {
            layer: LayerUpdate(left=self.alpha / self.rank * _float64(left), right=_float64(right))
            for layer, (left, right) in adapters.items()
        }


class _Batch:
    """Facts that make one step: their padded rows, and which token is wanted where."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        row_of: Callable[[tuple[int, ...], tuple[int, ...]], AnswerRow],
    ) -> None:
        self._model, self._requests = model, requests
        rows = [row_of(*encode_request(tokenizer, request)) for request in requests]
        self._ids, self._mask = (tensor.to(model.device) for tensor in pad([row.tokens for row in rows]))
        # logits are large: one vector of them for all tokens that are wanted at a place
        places = sorted({(fact, position) for fact, row in enumerate(rows) for position in row.positions})
        wanted = [
            (places.index((fact, position)), token, fact, 1 / len(row.answer))
            for fact, row in enumerate(rows)
            for position, token in zip(row.positions, row.answer, strict=True)
        ]
        self._rows, self._positions = torch.tensor(places, device=model.device).unbind(1)
        self._places, self._tokens, self._facts, self._weights = (
            torch.tensor(column, device=model.device) for column in zip(*wanted, strict=True)
        )

    def losses(self) -> Float[Tensor, "facts"]:  # noqa: F821
        """Return the mean negative log-probability of each fact's target tokens (nats)."""
        hidden = read(self._model, self._ids, self._mask, use_cache=False)
        logprobs = head_logits(self._model, hidden[self._rows, self._positions]).float().log_softmax(-1)
        losses = -logprobs[self._places, self._tokens] * self._weights
        return losses.new_zeros(len(self._requests)).index_add(0, self._facts, losses)

    def facts_where(self, chosen: Tensor) -> str:
        """Return the names of some of the facts."""
        facts = [request for request, is_chosen in zip(self._requests, chosen.tolist(), strict=True) if is_chosen]
        return ", ".join(f"fact {fact.fact_id} ({fact.language})" for fact in facts)


@contextmanager
def _changed(memory: nn.Module, change: Float[Tensor, "d_out d_in"]) -> Iterator[None]:
    """Let the memory compute with ``weight + change`` inside the context; the weight itself is not touched."""

    def value(module: nn.Module, keys: tuple[Tensor, ...], _value: Tensor) -> Tensor:
        weight = weight_as_out_by_in(module)
        return functional.linear(keys[0], (weight + change).to(weight.dtype), module.bias)  # pyright: ignore[reportArgumentType]

    with hooked(memory.register_forward_hook(value)):
        yield


@contextmanager
def _adapted(model: PreTrainedModel, layers: Sequence[int], rank: int, alpha: int, seed: int) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Put peft's adapters around the memories inside the context; gives each layer's B and A, float32.

    Modules and flags come back from what was kept, because peft's own ``unload`` is not at hand when its injection
    fails half-way, and leaves every parameter frozen.
    """
    memories = {layer: memory_of(model, layer) for layer in layers}
    names = {layer: name for name, module in model.named_modules() for layer, memory in memories.items() if module is memory}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=list(names.values()),
        fan_in_fan_out=any(isinstance(memory, Conv1D) for memory in memories.values()),
    )
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed accelerators, too
            LoraModel(model, config, ADAPTER)
        cast_adapter_dtype(model, ADAPTER)  # peft gives adapters the memory's dtype
        left, right = (
            {layer: model.get_parameter(f"{name}.lora_{factor}.{ADAPTER}.weight") for layer, name in names.items()} for factor in "BA"
        )
        yield {layer: (left[layer], right[layer]) for layer in names}
    finally:
        for layer, name in names.items():
            model.set_submodule(name, memories[layer])
        if hasattr(model, "peft_config"):
            del model.peft_config
        for parameter, was_trainable in trainable:
            parameter.requires_grad_(was_trainable)


def _thin(change: Float[Tensor, "d_out d_in"]) -> LayerUpdate:
    """Return a change as its singular vectors, left ones scaled, without those that are rounding errors."""
    left, sizes, right = torch.linalg.svd(_float64(change), full_matrices=False)
    kept = sizes > sizes.max() * max(change.shape) * torch.finfo(sizes.dtype).eps
    return LayerUpdate(left=left[:, kept] * sizes[kept], right=right[kept])


def _float64(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()


def _check_not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} is {value}; it must not be negative")
