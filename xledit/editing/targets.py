"""Find v*, the value that makes each fact true, by gradient descent: many facts at once, each with its own early stop.

v* is an output of the memory itself at the subject's last token, optimised for all edited layers together. It does not depend on the closed
form that will store it, so methods share it, except the few that need another search (``Search``).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.editing.memory import contexts, read_memories
from xledit.editing.tensors import EditVectors
from xledit.languages import language
from xledit.models.family import attention_of, head_logits, memory_of
from xledit.models.prompts import encode_answer, encode_prompt
from xledit.models.tracing import UpperLayers, added, states_of
from xledit.params import check_positive
from xledit.records import EditRequest


class TargetSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``vectors`` section of params.yaml.

    ``lr`` is Adam's step in units of the value's root mean square, so that it means the same in every layer and model. ``clamp`` is the
    largest length of the change in units of the value's length: higher stores facts more reliably and harms locality. ``kl_weight`` (0.0625
    in the papers) keeps the model's prediction after the essence prompt, ``weight_decay`` keeps the change short. A fact stops once its
    mean negative log-probability per target token plus penalties is below ``stop_below`` (nats). v* is optimised for the prompt alone and
    for the prompt after each of ``num_prefixes`` openings: more makes v* hold in more contexts and costs as many forward passes.
    """

    batch_size: int
    clamp: float
    kl_weight: float
    lr: float
    num_prefixes: int
    steps: int
    stop_below: float
    weight_decay: float

    def __post_init__(self) -> None:
        for name in ("batch_size", "clamp", "lr", "steps"):
            check_positive(f"vectors.{name}", getattr(self, name))


@dataclass(frozen=True)
class Search:
    """How a method's target values are optimised.

    ``attention``: the attention's output may change together with the memory's while v* is optimised; its change is then dropped.
    ``merge``: facts that share a key share one v*. ``spread_power``: with the practice ``published``, a layer's residual is the last
    layer's, divided by the number of layers left (this one included) to this power.
    """

    attention: bool = False
    merge: bool = False
    spread_power: float = 1.0


def find_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    layers: Sequence[int],
    settings: TargetSettings,
    on_progress: Callable[[int], None] = lambda _num_facts: None,
    search: Search | None = None,
    value_of: Callable[[PreTrainedModel, int], nn.Module] = memory_of,
) -> EditVectors:
    """Return the edit vectors of all requests, in their order. ``on_progress`` is called with each number of facts that are done.

    Minimises, per fact, mean NLL of the target over its contexts + ``kl_weight`` KL(edited || unedited) at the end of the essence prompt +
    ``weight_decay`` |delta|^2 / |value|^2 (arXiv 2202.05262, eq. 4). Where we differ: the change is made to the memory's output instead of
    the layer's, and in all edited layers together instead of in the last one, whose residual is then divided among the layers, because
    after a norm (Gemma 3) such a division has no exact meaning; targets and prefixes are in the language of the request. ``search`` and
    ``value_of`` (the module whose output is changed) are for methods that need something else.

    Raises ValueError that names fact, layers and settings when a loss is not finite.
    """
    search = search or Search()
    memories = read_memories(model, tokenizer, requests, layers, settings.num_prefixes, max_tokens=2048, value_of=value_of)
    sites = [value_of(model, layer) for layer in layers]
    if search.attention:
        sites += [attention_of(model, layer) for layer in layers]
    targets = {layer: torch.zeros_like(memories[layer].values) for layer in layers}
    losses, steps = torch.zeros(len(requests), dtype=torch.float64), torch.zeros(len(requests), dtype=torch.float64)
    for chosen, owners in _groups(tokenizer, requests, settings.batch_size, search.merge):
        batch = _Batch(model, tokenizer, [requests[index] for index in chosen], owners, layers[0], sites, len(layers), settings)
        result = batch.optimise(on_progress)
        losses[chosen], steps[chosen] = result.losses, result.steps
        for layer, target in zip(layers, result.targets, strict=False):
            targets[layer][chosen] = target
    return EditVectors(memories=memories, targets=targets, losses=losses, steps=steps)


def _groups(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest], batch_size: int, merge: bool
) -> list[tuple[list[int], list[int]]]:
    """Return batches: the indices of the facts of each, and for each fact the place of its owner in the batch.

    Facts of similar length after the subject are together, for less padding. Facts with the same owner share one v*. A fact owns itself, or
    with ``merge`` the first fact with the same key owns it. A batch exceeds ``batch_size`` only where more facts than that share a key.
    """
    tails = [len(tokenizer(request.prompt[request.subject_span[1] :] + request.target_new).input_ids) for request in requests]
    sharing: dict[object, list[int]] = {}
    for index in sorted(range(len(requests)), key=lambda index: (tails[index], index)):
        sharing.setdefault((requests[index].language, requests[index].up_to_subject) if merge else index, []).append(index)
    batches: list[tuple[list[int], list[int]]] = []
    for indices in sharing.values():
        if not batches or len(batches[-1][0]) + len(indices) > batch_size:
            batches.append(([], []))
        chosen, owners = batches[-1]
        owners += [len(chosen)] * len(indices)
        chosen += indices
    return batches


@dataclass(frozen=True)
class _BatchResult:
    """The result of one batch: target values by site, and by fact the last loss (nats) and the number of steps. float64."""

    targets: list[Float[Tensor, "facts d_model"]]
    losses: Tensor
    steps: Tensor


class _Batch:
    """Facts that are optimised together: their rows, the positions that enter the loss, and one change per site.

    A site is a module whose output at the subject's last token is changed; the update will store only the first ``num_written`` sites.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        requests: Sequence[EditRequest],
        owners: Sequence[int],
        start: int,
        sites: Sequence[nn.Module],
        num_written: int,
        settings: TargetSettings,
    ) -> None:
        self._model, self._requests, self._start, self._settings = model, requests, start, settings
        self._sites, self._num_written = sites, num_written
        rows: list[tuple[int, ...]] = []
        subjects, facts, essence = [], [], []
        losses: list[tuple[int, int, int, float]] = []  # row, position in its tail, target token, weight
        for fact, request in enumerate(requests):
            answer = encode_answer(tokenizer, request.target_new, request.language)
            prompts = contexts(tokenizer, request, settings.num_prefixes)
            for prompt in prompts:
                first = len(prompt.tokens) - 1
                losses += [
                    (len(rows), first - prompt.subject_last + i, token, 1 / len(answer) / len(prompts)) for i, token in enumerate(answer)
                ]
                rows.append(prompt.tokens + answer[:-1])
                subjects.append(prompt.subject_last)
                facts.append(fact)
                essence.append(False)
            template = language(request.language).essence
            at = template.index("{subject}")
            prompt = encode_prompt(tokenizer, template.replace("{subject}", request.subject), (at, at + len(request.subject)))
            rows.append(prompt.tokens)
            subjects.append(prompt.subject_last)
            facts.append(fact)
            essence.append(True)
        # a row's tail begins at its subject's last token: nothing before it can change
        self._upper = UpperLayers(model, rows, tails=subjects, start=start)
        device = model.device
        self._facts = torch.tensor(facts, device=device)
        self._owners = torch.tensor(owners, device=device)
        self._essence = torch.tensor(essence, device=device)
        self._ends = torch.tensor([len(row) - 1 - at for row, at in zip(rows, subjects, strict=True)], device=device)
        self._loss_rows, self._loss_positions, self._loss_tokens = (
            torch.tensor([entry[i] for entry in losses], device=device) for i in range(3)
        )
        self._loss_weights = torch.tensor([entry[3] for entry in losses], device=device)

    def optimise(self, on_progress: Callable[[int], None]) -> _BatchResult:
        """Return target values, losses and step counts at the end of gradient descent.

        ``on_progress`` is called after each step with the number of facts that stopped at it.
        """
        settings, num_facts, sites = self._settings, len(self._requests), range(len(self._sites))
        bare = torch.tensor([int((self._facts == fact).nonzero()[0]) for fact in range(num_facts)], device=self._facts.device)
        seen: dict[int, Tensor] = {}
        with torch.no_grad():
            base = self._forward(torch.arange(len(self._facts), device=self._facts.device), [], seen)[1]
        lengths = [seen[site][bare].norm(dim=1, keepdim=True) for site in sites]
        d_model = seen[0].shape[1]
        # in units of the value's root mean square; Adam is elementwise, so facts do not influence one another
        changes = [torch.zeros(num_facts, d_model, device=base.device, requires_grad=True) for _site in sites]
        units = [length / d_model**0.5 for length in lengths]
        optimiser = torch.optim.Adam(changes, lr=settings.lr)
        active = torch.ones(num_facts, dtype=torch.bool, device=base.device)
        losses, steps = torch.zeros(num_facts, device=base.device), torch.zeros(num_facts, device=base.device)
        for step in range(settings.steps + 1):
            rows = active[self._facts].nonzero()[:, 0]
            deltas = [(changes[site] * units[site])[self._owners] for site in sites]
            with torch.set_grad_enabled(step < settings.steps):
                nll, essence = self._forward(rows, deltas, {})
                drift = functional.kl_div(base[active], essence, log_target=True, reduction="none").sum(1)
                size = torch.stack([(deltas[site] / lengths[site]).square().sum(1) for site in sites]).sum(0)
                loss = self._shared(nll[active] + settings.kl_weight * drift + settings.weight_decay * size[active], active)
            self._check_finite(loss, active)
            losses[active] = loss.detach()
            steps[active] = step
            done = active.clone()
            done[active] = (loss.detach() < settings.stop_below) | (step == settings.steps)
            on_progress(int(done.sum()))
            active = active & ~done
            if not active.any():
                break
            optimiser.zero_grad()
            loss.sum().backward()
            before = [change.detach().clone() for change in changes]
            optimiser.step()
            with torch.no_grad():
                for change, was in zip(changes, before, strict=True):
                    change.mul_((settings.clamp * d_model**0.5 / change.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1))
                    change[~active] = was[~active]  # momentum must not move facts that have stopped
        # the attention's change is not stored anywhere, so targets are computed without it
        written = [float(site < self._num_written) for site in sites]
        return _BatchResult(
            self._targets([(changes[site] * units[site] * written[site]).detach()[self._owners] for site in sites]),
            losses.cpu().double(),
            steps.cpu().double(),
        )

    def _shared(self, loss: Tensor, active: Tensor) -> Tensor:
        """Return the mean loss over the facts that share a v*, for each active fact."""
        owners = self._owners[active]
        counts = torch.bincount(owners, minlength=len(self._requests))
        return (torch.zeros(len(self._requests), device=loss.device).index_add(0, owners, loss) / counts.clamp_min(1))[owners]

    def _forward(self, rows: Tensor, deltas: Sequence[Tensor], seen: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean NLL per fact ``[facts]`` and log-probabilities after the essence prompts ``[active facts, vocab]``.

        Adds ``deltas`` (by site, ``[facts d_model]``) at the subjects' last tokens, and puts each site's values there, ``[rows d_model]``,
        into ``seen``.
        """
        local = torch.full_like(self._facts, -1).scatter(0, rows, torch.arange(len(rows), device=rows.device))

        def inject(site: int) -> Callable[[Any], Any]:
            def change(output: Any) -> Any:
                running, states = self._upper.running, states_of(output)
                if deltas:  # a tail begins at the subject's last token
                    at = (torch.arange(len(running), device=rows.device), torch.zeros_like(running))
                    states = states.index_put(at, deltas[site][self._facts[running]].to(states.dtype), accumulate=True)
                value = states.detach()[:, 0].float()
                seen[site] = seen.get(site, value.new_zeros(len(rows), value.shape[1])).index_copy(0, local[running], value)
                return (states, *output[1:]) if isinstance(output, tuple) else states

            return change

        with ExitStack() as stack:
            for site, module in enumerate(self._sites):
                stack.enter_context(added(module, inject(site)))
            hidden = self._upper.run(rows)
        entries = (local[self._loss_rows] >= 0).nonzero()[:, 0]
        ends = self._essence[rows].nonzero()[:, 0]
        # two calls of the head, because slicing one result would copy its gradient
        logits = head_logits(self._model, hidden[local[self._loss_rows[entries]], self._loss_positions[entries]]).float()
        nll = functional.cross_entropy(logits, self._loss_tokens[entries], reduction="none") * self._loss_weights[entries]
        per_fact = torch.zeros(len(self._requests), device=rows.device).index_add(0, self._facts[self._loss_rows[entries]], nll)
        return per_fact, head_logits(self._model, hidden[ends, self._ends[rows[ends]]]).float().log_softmax(-1)

    def _targets(self, deltas: Sequence[Tensor]) -> list[Float[Tensor, "facts d_model"]]:
        """Return each site's values under all changes, averaged over a fact's contexts."""
        seen: dict[int, Tensor] = {}
        rows = (~self._essence).nonzero()[:, 0]
        with torch.no_grad():
            self._forward(rows, deltas, seen)
        facts = self._facts[rows].cpu()
        counts = torch.bincount(facts, minlength=len(self._requests))[:, None]
        return [
            torch.zeros(len(self._requests), seen[site].shape[1], dtype=torch.float64).index_add(0, facts, seen[site].cpu().double())
            / counts
            for site in range(len(self._sites))
        ]

    def _check_finite(self, loss: Tensor, active: Tensor) -> None:
        bad = ~loss.isfinite()
        if bad.any():
            fact = self._requests[int(active.nonzero()[:, 0][bad][0])]
            raise ValueError(
                f"fact {fact.fact_id} ({fact.language}): v* became NaN or infinite in layers from {self._start} on "
                f"(settings: {self._settings}); lower vectors.lr or vectors.clamp, or use model.dtype float32"
            )
