"""LoRA: two low-rank factors beside each memory are trained."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import cast_adapter_dtype
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from xledit.editing.tensors import LayerUpdate
from xledit.editing.trained import Trained
from xledit.models.family import memory_of
from xledit.params import check_positive
from xledit.records import EditRequest

ADAPTER = "edit"


class Lora(Trained, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LoRA, arXiv 2106.09685, eq. 3: the change of a memory is ``alpha / rank * B @ A``, trained by FT-M's loss.

    It uses the library peft: A starts random (from the seed), B at 0. ``rank`` bounds the update's rank; higher ``alpha``: larger changes
    at the same ``lr``. The other settings are those of ``Trained``.
    """

    alpha: int = 16
    lr: float = 1.0e-3
    rank: int = 8

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
        """Return each layer's scaled B and A. ``on_progress`` is called after each step with the number of its facts.

        A and B are float32 and are applied beside the memory. In bfloat16 the trained model differs from the edited one, because the edited
        one adds the update to the weights and rounds them.

        Raises ValueError that names facts, layers and settings when the loss is not finite.
        """
        with _adapted(model, layers, self.rank, self.alpha, seed) as adapters:
            optimiser = torch.optim.Adam([factor for pair in adapters.values() for factor in pair], lr=self.lr)
            self._train(self._batches(model, tokenizer, requests, "target"), layers, optimiser, on_progress)
        return {
            layer: LayerUpdate(left=self.alpha / self.rank * _float64(left), right=_float64(right))
            for layer, (left, right) in adapters.items()
        }


@contextmanager
def _adapted(model: PreTrainedModel, layers: Sequence[int], rank: int, alpha: int, seed: int) -> Iterator[dict[int, tuple[Tensor, Tensor]]]:
    """Wrap the memories in peft's adapters inside the context; yields each layer's B ``[d_out rank]`` and A ``[rank d_in]``, float32.

    Modules and ``requires_grad`` are restored from copies, because peft's ``unload`` cannot be called when adding the adapters fails
    half-way, and leaves every parameter frozen.
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


def _float64(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
