"""What a run costs, worked out before it is begun: parameters, operations, memory per GPU, days. Plain arithmetic; docs/scale.md."""

import msgspec


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a FuxiTranyu model: ``L`` layers of width ``d``, a feed-forward of width ``f``, ``V`` tokens, context ``T``."""

    vocabulary: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    context: int

    @property
    def num_parameters(self) -> int:
        """All parameters: two embeddings; per layer four attention maps and two feed-forward ones, biases and two norms; a norm."""
        d, f = self.hidden_size, self.intermediate_size
        return 2 * self.vocabulary * d + self.num_hidden_layers * (4 * (d * d + d) + 2 * d * f + f + d + 2 * d) + d

    @property
    def flops_per_token(self) -> int:
        """Operations of one token, forward and backward; the input embedding is only looked up."""
        multiplied = self.num_parameters - self.vocabulary * self.hidden_size
        return flops_per_token(multiplied, self.num_hidden_layers, self.hidden_size, self.context)


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """Stated peak (dense bfloat16, FLOP/s) and the share of it that is assumed, memory (bytes), and how many there are."""

    name: str
    peak_flops: float
    share_of_peak: float
    memory: float
    number: int


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Operations in all, bytes per device for states, activations and logits, tokens per second of all devices, days."""

    total_flops: float
    state_bytes: float
    activation_bytes: float
    logit_bytes: float
    tokens_per_second: float
    days: float


def flops_per_token(num_multiplied: int, num_layers: int, hidden_size: int, context: int) -> int:
    """Return ``6 N + 12 L d T``, forward and backward (arXiv 2204.02311, appendix B). ``N`` counts the parameters that are multiplied.

    Attention counts as if every token saw the whole window, and activations that are computed twice count once.
    """
    return 6 * num_multiplied + 12 * num_layers * hidden_size * context


# float32 weights, gradients and two moments, cut into one shard per device (FSDP2); AdamW
STATE_BYTES = 16


def costs(architecture: Architecture, device: Device, tokens: int, micro_batch: int) -> Costs:
    """Return what training on ``tokens`` costs with fully sharded data parallelism in bfloat16 and activation checkpointing.

    Per device: ``16 N / G`` bytes of states and, gathered while in use, ``2`` bytes a parameter of the largest part (a layer
    or an embedding); ``2 b T d (L + 1)`` bytes of kept activations and ``2 b T (14 d + 2 f)`` of the layer that is computed
    again (queries, keys, values, norms, residuals; attention that keeps no scores); ``12 b T V`` of logits in float32, of their
    logarithms of shares, and of the gradient, which the loss has at once.
    """
    a, windows = architecture, micro_batch * architecture.context
    d, f = a.hidden_size, a.intermediate_size
    largest = max(a.vocabulary * d, 4 * d * d + 2 * d * f)
    speed = device.number * device.peak_flops * device.share_of_peak / a.flops_per_token
    return Costs(
        total_flops=float(a.flops_per_token) * tokens,
        state_bytes=STATE_BYTES * a.num_parameters / device.number + 2 * largest,
        activation_bytes=2 * windows * d * (a.num_hidden_layers + 1) + 2 * windows * (14 * d + 2 * f),
        logit_bytes=12 * windows * a.vocabulary,
        tokens_per_second=speed,
        days=tokens / speed / 86_400,
    )
