"""Where v* is sought and how a layer's residual comes of it: our way, and the way of published code, for comparison (docs/methods.md)."""

from collections.abc import Mapping, Sequence

import msgspec
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.memory import read_memories
from xledit.editing.targets import Search, TargetSettings, find_targets
from xledit.editing.tensors import Facts
from xledit.languages import language
from xledit.models.family import layers_of
from xledit.records import PUBLISHED_LANGUAGE, EditRequest, PracticeName, as_published

MAX_TOKENS = 4096
Targets = Mapping[int, Tensor]


class Practice:
    """Ours: a v* for each edited layer's memory, found jointly, each request in its own language."""

    shares_vectors = True  # the stage `vectors` seeks v* in this way

    def worded(self, requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Return the requests as they are stored."""
        return list(requests)

    def settings(self, settings: TargetSettings) -> TargetSettings:
        """Return the settings of the search."""
        return settings

    def targets(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        settings: TargetSettings,
        search: Search,
    ) -> Targets:
        """Return v* by layer, sought on the model as it is now."""
        return find_targets(model, tokenizer, requests, layers, self.settings(settings), search=search).targets

    def facts(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        layer: int,
        targets: Targets,
        settings: TargetSettings,
        search: Search,
    ) -> Facts:
        """Return the facts of one of ``layers`` as the model has them now."""
        memory = read_memories(model, tokenizer, requests, (layer,), self.settings(settings).num_prefixes, MAX_TOKENS)[layer]
        return Facts(**vars(memory), targets=targets[layer].double())


class Published(Practice):
    """Published code's: one v* at the last edited layer's output, behind English openings; what lacks there is spread over the layers."""

    shares_vectors = False

    def worded(self, requests: Sequence[EditRequest]) -> list[EditRequest]:
        """Return the requests as if all were English."""
        return as_published(requests)

    def settings(self, settings: TargetSettings) -> TargetSettings:
        """Return the settings with an average over all openings, whatever ``vectors.num_prefixes`` says."""
        return msgspec.structs.replace(settings, num_prefixes=len(language(PUBLISHED_LANGUAGE).prefixes))

    def targets(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        settings: TargetSettings,
        search: Search,
    ) -> Targets:
        """Return v* of the last layer's output."""
        return find_targets(model, tokenizer, requests, layers[-1:], self.settings(settings), search=search, value_of=_layer_of).targets

    def facts(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        layers: Sequence[int],
        layer: int,
        targets: Targets,
        settings: TargetSettings,
        search: Search,
    ) -> Facts:
        """Return the facts with a layer's share of what the last layer's output lacks as their residual."""
        last, prefixes = layers[-1], self.settings(settings).num_prefixes
        memory = read_memories(model, tokenizer, requests, (layer,), prefixes, MAX_TOKENS)[layer]
        output = read_memories(model, tokenizer, requests, (last,), prefixes, MAX_TOKENS, _layer_of)[last]
        left = len(layers) - list(layers).index(layer)
        share = (targets[last].double() - output.values) / left**search.spread_power
        return Facts(**vars(memory), targets=memory.values + share)


PRACTICES: dict[PracticeName, Practice] = {"ours": Practice(), "published": Published()}


def _layer_of(model: PreTrainedModel, layer: int) -> nn.Module:
    return layers_of(model)[layer]
