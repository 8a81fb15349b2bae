"""Two ways to compute v* and each layer's residual: ours, and that of published code, for comparison (docs/methods.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.memory import read_memories
from xledit.editing.targets import Search, TargetSettings, find_targets
from xledit.editing.tensors import Facts, LayerMemory
from xledit.languages import language
from xledit.models.family import layers_of, memory_of
from xledit.records import PUBLISHED_LANGUAGE, EditRequest, PracticeName, as_published

MAX_TOKENS = 4096
ModuleOf = Callable[[PreTrainedModel, int], nn.Module]
Targets = Mapping[int, Float[Tensor, "facts d_model"]]


@dataclass(frozen=True)
class EditBatch:
    """Facts that are stored together: the model as it is now, their requests, the edited layers, and how v* is searched for."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    requests: Sequence[EditRequest]
    layers: Sequence[int]
    settings: TargetSettings
    search: Search

    def targets(self, layers: Sequence[int], value_of: ModuleOf = memory_of) -> Targets:
        """Return v* by layer, the wanted output of the modules that ``value_of`` gives."""
        return find_targets(self.model, self.tokenizer, self.requests, layers, self.settings, search=self.search, value_of=value_of).targets

    def memory(self, layer: int, value_of: ModuleOf = memory_of) -> LayerMemory:
        """Return the facts' keys in one layer, and as their values the outputs of the module that ``value_of`` gives."""
        return read_memories(self.model, self.tokenizer, self.requests, (layer,), self.settings.num_prefixes, MAX_TOKENS, value_of)[layer]


class Practice:
    """Our way: one v* for each edited layer's memory, all layers optimised together, each request in its own language."""

    shares_vectors = True  # the stage `vectors` computes v* in the same way

    def worded(self, requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Return the requests as they are stored."""
        return list(requests)

    def settings(self, settings: TargetSettings) -> TargetSettings:
        """Return the settings that a batch of this practice has."""
        return settings

    def targets(self, batch: EditBatch) -> Targets:
        """Return v* by layer for the model as it is now."""
        return batch.targets(batch.layers)

    def facts(self, batch: EditBatch, layer: int, targets: Targets) -> Facts:
        """Return the batch's facts in one of its layers, keys and values read from the model as it is now."""
        return Facts(**vars(batch.memory(layer)), targets=targets[layer].double())


class Published(Practice):
    """The way of published code: one v* for the output of the last edited layer, with English openings before the prompts.

    The residual there, v* minus the output, is divided among the edited layers.
    """

    shares_vectors = False

    def worded(self, requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Return the requests as if all were English."""
        return as_published(requests)

    def settings(self, settings: TargetSettings) -> TargetSettings:
        """Return the settings with an average over all openings, whatever ``vectors.num_prefixes`` says."""
        return msgspec.structs.replace(settings, num_prefixes=len(language(PUBLISHED_LANGUAGE).prefixes))

    def targets(self, batch: EditBatch) -> Targets:
        """Return v* of the last edited layer's output, for the model as it is now."""
        return batch.targets(batch.layers[-1:], _layer_of)

    def facts(self, batch: EditBatch, layer: int, targets: Targets) -> Facts:
        """Return the batch's facts in one of its layers; their residual is this layer's share of the last layer's residual."""
        last, memory = batch.layers[-1], batch.memory(layer)
        num_layers_left = len(batch.layers) - list(batch.layers).index(layer)
        share = (targets[last].double() - batch.memory(last, _layer_of).values) / num_layers_left**batch.search.spread_power
        return Facts(**vars(memory), targets=memory.values + share)


PRACTICES: dict[PracticeName, Practice] = {"ours": Practice(), "published": Published()}


def _layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    return layers_of(model)[layer]
