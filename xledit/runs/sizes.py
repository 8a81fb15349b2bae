"""The costs of a size of the training pipeline, as a table."""

from typing import Any

import msgspec

from xledit.training.costs import Architecture, Costs, Device, costs


def architecture_of(params: dict[str, Any]) -> Architecture:
    """Return the sizes of the model that the tree of params.yaml describes."""
    section = params["tranyu"]
    return msgspec.convert(section["architecture"] | {"vocabulary": section["tokenizer"]["vocabulary"]}, Architecture)


def costs_of(device: Device, params: dict[str, Any]) -> Costs:
    """Return the costs on a device of the training run that the tree of params.yaml describes."""
    section = params["tranyu"]
    return costs(architecture_of(params), device, section["run"]["tokens"], section["pretrain"]["micro_batch"])


def rows(device: Device, params: dict[str, Any]) -> list[list[str]]:
    """Return the costs as a table of two columns."""
    cost, sizes = costs_of(device, params), architecture_of(params)
    return [
        ["devices", f"{device.number} x {device.name}"],
        ["parameters", f"{sizes.num_parameters:,}"],
        ["tokens", f"{params['tranyu']['run']['tokens']:.3g}"],
        ["FLOP per token", f"{sizes.flops_per_token:.3g}"],
        ["FLOP in all", f"{cost.total_flops:.3g}"],
        ["GB of states per device", f"{cost.state_bytes / 1e9:.1f}"],
        ["GB of activations per device", f"{cost.activation_bytes / 1e9:.1f}"],
        ["GB of logits per device", f"{cost.logit_bytes / 1e9:.1f}"],
        ["GB of memory per device", f"{device.memory / 1e9:.0f}"],
        ["tokens per second, all devices", f"{cost.tokens_per_second:,.0f}, assumed: {device.share_of_peak:.0%} of peak"],
        ["days", f"{cost.days:.1f}"],
    ]
