"""Score a model on probes: log-probabilities of the expected answers, and the text that it generates."""

import copy
from collections.abc import Callable, Mapping, Sequence

import msgspec
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from xledit.languages import language
from xledit.models.family import head_logits
from xledit.models.prompts import batches_by_length, encode_answer, encode_text, pad
from xledit.models.tracing import read
from xledit.records import AnswerScore, Probe, Score

# six decimals of a natural logarithm: far below any effect, above the noise of reordered sums
DECIMALS = 6
# free answers get this many tokens beyond the expected answer's own
SPARE_TOKENS = 1


@torch.no_grad()
def score_probes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: Sequence[Probe],
    max_tokens: int,
    on_progress: Callable[[int], None] = lambda _num_probes: None,
    contexts: Mapping[str, str] = {},
) -> list[Score]:
    """Return one score per probe, in order; to efficacy probes the model also generates an answer.

    A prompt is run once for its two expected answers and the generated one. ``max_tokens`` bounds the tokens of a batch of prompts (memory
    and speed, not results), contexts included. ``on_progress`` is called after each batch with the number of its probes. ``contexts`` are
    by ``fact_id`` the text to put before a probe's prompt; between them comes the label of the probe's language (arXiv 2305.12740). Tokens
    that all prompts begin with are run once. ``prompt`` in a score is without context.

    Raises ValueError when there are contexts, but none for the fact of a probe.
    """
    prompts = [encode_text(tokenizer, _in_context(probe, contexts)) for probe in probes]
    # without contexts only an opening token is shared, and running it separately would round its states differently
    beginning = _Beginning(model, _shared(prompts) if contexts else ())
    answers = [
        (encode_answer(tokenizer, probe.target_new, probe.language), encode_answer(tokenizer, probe.target_true, probe.language))
        for probe in probes
    ]
    scores: dict[int, Score] = {}
    for batch in _batches([len(prompt) for prompt in prompts], [max(map(len, pair)) for pair in answers], max_tokens):
        asked = _Asked(model, [prompts[index] for index in batch], beginning)
        pairs = asked.score([answers[index] for index in batch])
        free = [row for row, index in enumerate(batch) if probes[index].kind == "efficacy"]
        # an answer may be written in more tokens than the tokenizer would choose
        lengths = [len(answers[batch[row]][0]) + SPARE_TOKENS for row in free]
        said = dict(zip(free, asked.greedy(free, lengths), strict=True)) if free else {}
        for row, index in enumerate(batch):
            probe, (new, true) = probes[index], pairs[row]
            generated = str(tokenizer.decode(said[row], skip_special_tokens=True)) if row in said else None
            scores[index] = Score(**msgspec.structs.asdict(probe), new=new, true=true, generated=generated)
        on_progress(len(batch))
    return [scores[index] for index in range(len(probes))]


def _in_context(probe: Probe, contexts: Mapping[str, str]) -> str:
    """Return the text that the model reads: the probe's prompt, after context and label where there are contexts."""
    if not contexts:
        return probe.prompt
    if probe.fact_id not in contexts:
        raise ValueError(f"fact {probe.fact_id} is asked about, but has none of the {len(contexts)} contexts; edit and ask the same facts")
    return contexts[probe.fact_id] + language(probe.language).prompt_label + probe.prompt


def _shared(prompts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the tokens that all prompts begin with, without the last token of any prompt."""
    if not prompts:
        return ()
    # in lexicographic order all others are between these two
    first, last = min(prompts), max(prompts)
    differ = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: min(differ, min(map(len, prompts)) - 1)]


def _batches(prompts: Sequence[int], answers: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Return indices in batches of similar prompt and similar answer lengths: one long answer must not pad a thousand short ones."""
    batches: list[list[int]] = []
    for doublings in sorted({length.bit_length() for length in answers}):
        chosen = [index for index, length in enumerate(answers) if length.bit_length() == doublings]
        for batch in batches_by_length([prompts[index] + 2 * answers[index] for index in chosen], max_tokens):
            batches.append([chosen[place] for place in batch])
    return batches


class _Beginning:
    """Tokens that many prompts begin with, read once, in a batch of one."""

    def __init__(self, model: PreTrainedModel, tokens: Sequence[int]) -> None:
        self._cache = DynamicCache()
        if tokens:
            ids = torch.tensor([tokens], device=model.device)
            read(model, ids, torch.ones_like(ids), past_key_values=self._cache, use_cache=True)

    def cache(self, padding: Tensor) -> DynamicCache:
        """Return the cache of a batch whose rows begin with ``padding`` (``[batch]``) masked columns, as long as this beginning.

        The tokens of a row follow its masked columns without a gap, because a sliding window counts columns. The last ``padding`` tokens of
        the beginning then have no column in the cache; they are read again with the rest of the prompt.
        """
        columns = torch.arange(self._cache.get_seq_length(), device=padding.device)
        places = (columns - padding[:, None]).clamp_min(0)

        def spread(held: Tensor | None) -> Tensor | None:
            # a layer that shares the keys of another holds none
            return None if held is None else held[0][:, places].transpose(0, 1)

        return DynamicCache([(spread(keys), spread(values)) for keys, values, _window in self._cache])


class _Asked:
    """A batch of prompts that have been read once, ready to be continued in several ways."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], beginning: _Beginning) -> None:
        self._model = model
        ids, self._mask = (tensor.to(model.device) for tensor in pad(prompts, left=True))
        self._cache = beginning.cache((1 - self._mask).sum(1))
        self._first = self._read(ids[:, self._cache.get_seq_length() :], self._mask, self._cache)[:, -1]

    def score(self, answers: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[tuple[AnswerScore, AnswerScore]]:
        """Return the scores of two answers to each prompt, teacher forced; logits are computed only where they predict an answer token."""
        flat = [answer for pair in answers for answer in pair]
        states = self._first.repeat_interleave(2, dim=0)[:, None]
        if max(map(len, flat)) > 1:
            ids, mask = (tensor.to(states.device) for tensor in pad([answer[:-1] for answer in flat]))
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(2)
            states = torch.cat([states, self._read(ids, torch.cat([self._mask.repeat_interleave(2, dim=0), mask], dim=1), cache)], dim=1)
        logprobs = (
            head_logits(self._model, torch.cat([states[row, : len(answer)] for row, answer in enumerate(flat)])).float().log_softmax(-1)
        )
        answer_tokens = torch.tensor([token for answer in flat for token in answer], device=states.device)
        lengths = [len(answer) for answer in flat]
        chosen = logprobs.gather(1, answer_tokens[:, None])[:, 0].cpu().double().split(lengths)
        best = logprobs.argmax(-1).cpu().split(lengths)
        scores = [
            AnswerScore(logprob=round(part.sum().item(), DECIMALS), tokens=tuple(answer), argmax=tuple(argmax.tolist()))
            for answer, part, argmax in zip(flat, chosen, best, strict=True)
        ]
        return list(zip(scores[::2], scores[1::2], strict=True))

    def greedy(self, rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
        """Return the greedy continuation of each row, of ``lengths`` tokens, without teacher forcing."""
        chosen = torch.tensor(rows, device=self._mask.device)
        cache = copy.deepcopy(self._cache)
        cache.batch_select_indices(chosen)
        mask, state, said = self._mask[chosen], self._first[chosen], []
        for _ in range(max(lengths)):
            said.append(head_logits(self._model, state).argmax(-1))
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            state = self._read(said[-1][:, None], mask, cache)[:, -1]
        return [row[:length] for row, length in zip(torch.stack(said, dim=1).tolist(), lengths, strict=True)]

    def _read(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Return the final states ``[batch tokens d_model]`` of ``ids``, which follow the tokens in the cache."""
        return read(self._model, ids, mask, past_key_values=cache, use_cache=True)
