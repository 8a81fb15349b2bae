"""Scores are those of one whole forward pass per probe and answer, for any batching and any order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from tests.tiny import CONFIGS, VOCABULARY, tiny_model, tiny_tokenizer
from xledit.evaluation.scoring import SPARE_TOKENS, _Asked, _batches, _Beginning, _shared, score_probes
from xledit.families.table import FAMILIES
from xledit.manifest import Family
from xledit.models.prompts import encode_answer, encode_text
from xledit.records import AnswerScore, Probe, Score

PROBES = [
    Probe(fact_id=f"fact-{index}", language=language, kind=kind, prompt=prompt, target_new=new, target_true=true)
    for index, (kind, language, prompt, new, true) in enumerate(
        (
            ("efficacy", "zh", "法国的首都是", "东京", "巴黎"),
            ("efficacy", "en", "In the long history of the country, the capital of France has always been", "Rome", "the city of Paris"),
            ("efficacy", "zh", "写了《红楼梦》的那位清代作家名叫", "的", "曹雪芹"),
            ("efficacy", "en", "It is", "a", "the Federal Republic of Germany in central Europe"),
            ("paraphrase", "zh", "在法国，中央政府所在的城市叫做", "东京", "巴"),
            ("paraphrase", "en", "France", "Tokyo", "Paris"),
            ("locality", "zh", "秘鲁的首都", "东京", "利马"),
            ("locality", "en", "The capital of Peru is", "Tokyo", "Lima"),
        )
    )
]
EXAMPLES = "New Fact: Jia Baoyu lives in Lima.\nPrompt: Jia Baoyu lives in Lima.\n\n新事实：黄河在欧洲。\n提示：长江在亚洲。\n\n"
TOLD = ("新事实：法国的首都是东京。\n", "New Fact: It is so.\n")
# longer than a sliding window and shorter, of one fact and of none, with the end of the examples split by a token or not
CONTEXTS = {
    "examples and a fact": {probe.fact_id: EXAMPLES + TOLD[place % 2] for place, probe in enumerate(PROBES)},
    "the same for all": {probe.fact_id: EXAMPLES for probe in PROBES},
    "a word in common": {probe.fact_id: "The " + TOLD[place % 2] * (1 + place % 3) for place, probe in enumerate(PROBES)},
    "nothing in common": {probe.fact_id: TOLD[place % 2] for place, probe in enumerate(PROBES)},
    "no text": {probe.fact_id: "" for probe in PROBES},
}
LABELS = {"zh": "提示：", "en": "Prompt: "}
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def scored(
    model: PreTrainedModel, probes: Sequence[Probe] = PROBES, max_tokens: int = 4096, contexts: Mapping[str, str] = {}
) -> list[Score]:
    return score_probes(model, tiny_tokenizer(), probes, max_tokens, contexts=contexts)


def whole_prompt(probe: Probe, contexts: Mapping[str, str]) -> tuple[int, ...]:
    """The tokens of the text that stands before an answer, context and all."""
    before = contexts[probe.fact_id] + LABELS[probe.language] if contexts else ""
    return encode_text(tiny_tokenizer(), before + probe.prompt)


def naive_answer(model: PreTrainedModel, probe: Probe, answer: str, contexts: Mapping[str, str]) -> AnswerScore:
    """One pass over prompt and answer; the log-probability of each answer token where it is due."""
    prompt, tokens = whole_prompt(probe, contexts), encode_answer(tiny_tokenizer(), answer, probe.language)
    logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    wanted = sum(logprobs[place, token].item() for place, token in enumerate(tokens))
    return AnswerScore(logprob=wanted, tokens=tokens, argmax=tuple(logprobs.argmax(-1).tolist()))


def naive_greedy(model: PreTrainedModel, probe: Probe, contexts: Mapping[str, str] = {}) -> str:
    """Greedy decoding by hand, without a cache."""
    tokens = list(whole_prompt(probe, contexts))
    length = len(encode_answer(tiny_tokenizer(), probe.target_new, probe.language)) + SPARE_TOKENS
    for _ in range(length):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tiny_tokenizer().decode(tokens[-length:], skip_special_tokens=True)


def assert_same(found: AnswerScore, wanted: AnswerScore) -> None:
    assert (found.tokens, found.argmax) == (wanted.tokens, wanted.argmax)
    assert found.logprob == pytest.approx(wanted.logprob, abs=1e-5 * len(wanted.tokens))


@contextmanager
def reads(model: PreTrainedModel) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the tokens and the mask of each run of the model."""
    found: list[tuple[Tensor, Tensor]] = []
    hook = model.base_model.register_forward_pre_hook(
        lambda _module, _arguments, named: found.append((named["input_ids"], named["attention_mask"])), with_kwargs=True
    )
    try:
        yield found
    finally:
        hook.remove()


def assert_scores_are_those_of_whole_passes(model: PreTrainedModel, scores: list[Score], contexts: Mapping[str, str] = {}) -> None:
    for score, probe in zip(scores, PROBES, strict=True):
        assert [getattr(score, name) for name in Probe.__struct_fields__] == [getattr(probe, name) for name in Probe.__struct_fields__]
        assert_same(score.new, naive_answer(model, probe, probe.target_new, contexts))
        assert_same(score.true, naive_answer(model, probe, probe.target_true, contexts))


@pytest.mark.parametrize("max_tokens", [1, 70, 4096])
def test_scores_are_those_of_one_whole_pass_per_probe_and_answer_for_any_batching(model: PreTrainedModel, max_tokens: int) -> None:
    assert_scores_are_those_of_whole_passes(model, scored(model, max_tokens=max_tokens))


def test_padding_before_a_prompt_does_not_count_where_positions_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "gpt2", Family(layers="transformer.h", memory="mlp.c_proj", final_norm="transformer.ln_f"))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    ).eval()
    assert_scores_are_those_of_whole_passes(model, scored(model))


@pytest.mark.parametrize("max_tokens", [1, 70, 4096])
def test_free_answers_are_greedy_decoding_of_efficacy_probes_only(model: PreTrainedModel, max_tokens: int) -> None:
    free = [naive_greedy(model, probe) if probe.kind == "efficacy" else None for probe in PROBES]
    assert [score.generated for score in scored(model, max_tokens=max_tokens)] == free


@pytest.mark.parametrize(("length", "runs"), [(1, 1), (2, 2)])
def test_answers_that_are_all_of_one_length_are_scored_without_a_run_too_many(model: PreTrainedModel, length: int, runs: int) -> None:
    tokenizer = tiny_tokenizer()
    new, true = [text for text in ("的", "a", "巴", "东") if len(encode_answer(tokenizer, text, "zh")) == length]
    probe = Probe(fact_id="f", language="zh", kind="paraphrase", prompt="法国的首都是", target_new=new, target_true=true)
    with reads(model) as read:
        (score,) = scored(model, [probe])
    assert len(read) == runs
    assert_same(score.new, naive_answer(model, probe, new, {}))
    assert_same(score.true, naive_answer(model, probe, true, {}))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_probes_does_not_matter(model: PreTrainedModel, seed: int) -> None:
    order = random.Random(seed).sample(range(len(PROBES)), len(PROBES))
    ordered, shuffled = scored(model), scored(model, [PROBES[index] for index in order], max_tokens=70)
    for score, index in zip(shuffled, order, strict=True):
        assert (score.fact_id, score.generated) == (ordered[index].fact_id, ordered[index].generated)
        assert_same(score.new, ordered[index].new)
        assert_same(score.true, ordered[index].true)


def test_probes_that_are_not_efficacy_alone_get_no_free_answer(model: PreTrainedModel) -> None:
    assert {score.generated for score in scored(model, PROBES[4:])} == {None}


def test_progress_adds_up_to_the_probes() -> None:
    done: list[int] = []
    score_probes(cached_model("llama"), tiny_tokenizer(), PROBES, 70, done.append)
    assert len(done) > 1
    assert sum(done) == len(PROBES)


def test_no_probes_give_no_scores() -> None:
    assert scored(cached_model("llama"), []) == []


# contexts


@pytest.mark.parametrize(
    ("name", "max_tokens"), [*((name, 4096) for name in CONTEXTS), ("examples and a fact", 1), ("examples and a fact", 400)]
)
def test_scores_in_context_are_those_of_one_whole_pass_over_the_joined_text(model: PreTrainedModel, name: str, max_tokens: int) -> None:
    contexts = CONTEXTS[name]
    assert_scores_are_those_of_whole_passes(model, scored(model, max_tokens=max_tokens, contexts=contexts), contexts)


@pytest.mark.parametrize("name", ["examples and a fact", "a word in common"])
def test_free_answers_in_context_are_greedy_decoding_of_the_joined_text(model: PreTrainedModel, name: str) -> None:
    contexts = CONTEXTS[name]
    free = [naive_greedy(model, probe, contexts) if probe.kind == "efficacy" else None for probe in PROBES]
    assert [score.generated for score in scored(model, contexts=contexts)] == free


def test_a_context_makes_a_difference(model: PreTrainedModel) -> None:
    """At least to short prompts: of a long one, some windows see nothing before."""
    bare, told = scored(model), scored(model, contexts=CONTEXTS["examples and a fact"])
    assert any(abs(a.new.logprob - b.new.logprob) > 1e-3 for a, b in zip(bare, told, strict=True))


def test_probes_of_one_prompt_share_all_of_it_but_one_token(model: PreTrainedModel) -> None:
    contexts = {PROBES[0].fact_id: EXAMPLES}
    for score in scored(model, [PROBES[0]] * 3, contexts=contexts):
        assert_same(score.new, naive_answer(model, PROBES[0], PROBES[0].target_new, contexts))


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [([], 0), ([(5,)], 0), ([(5, 6, 7)], 2), ([(5, 6), (5, 6, 7)], 1), ([(5, 6, 7), (5, 6, 8), (5, 6, 7, 9)], 2), ([(5, 6), (6, 6)], 0)],
)
def test_what_prompts_begin_with_leaves_each_a_token_of_its_own(prompts: list[tuple[int, ...]], shared: int) -> None:
    assert _shared(prompts) == tuple(prompts[0][:shared] if prompts else ())


def test_a_batch_holds_prompts_with_both_their_answers_and_answers_of_like_length() -> None:
    """Two rows of ten tokens and two answers of four are 36 tokens; an answer of twenty would pad those of four."""
    assert _batches([10, 10], [4, 4], 36) == [[0, 1]]
    assert _batches([10, 10], [4, 4], 35) == [[0], [1]]
    assert _batches([10, 10, 10], [4, 20, 5], 1000) == [[0, 2], [1]]


def test_a_batch_that_was_read_once_is_continued_in_any_order(model: PreTrainedModel) -> None:
    prompts, answers = [whole_prompt(probe, {}) for probe in PROBES[:3]], [((5, 6, 7), (8,)), ((9,), (5,)), ((6, 5), (7, 9, 8))]
    asked = _Asked(model, prompts, _Beginning(model, ()))
    scores, said = asked.score(answers), asked.greedy([0, 2], [3, 2])
    assert asked.greedy([2, 0], [2, 3]) == said[::-1]
    assert asked.score(answers) == scores


def test_what_all_contexts_begin_with_is_read_once_for_all_batches(model: PreTrainedModel) -> None:
    contexts = CONTEXTS["examples and a fact"]
    prompts = [whole_prompt(probe, contexts) for probe in PROBES]
    shared = len(encode_text(tiny_tokenizer(), EXAMPLES))
    with reads(model) as runs:
        scored(model, max_tokens=400, contexts=contexts)
    (first, _mask), *others = [(ids, mask) for ids, mask in runs if ids.shape[1] > 1]
    assert first[0].tolist() == list(prompts[0][: first.shape[1]])
    assert abs(first.shape[1] - shared) <= 3, "a token may cover the end of the examples and what follows"
    assert len({len(mask) for _ids, mask in others}) > 1, "several batches, of several sizes"
    assert all(ids.shape[1] < shared for ids, _mask in others)


def test_a_batch_holds_no_more_tokens_than_asked_for_with_its_contexts() -> None:
    for max_tokens in (300, 500, 1000):
        with reads(cached_model("llama")) as runs:
            scored(cached_model("llama"), max_tokens=max_tokens, contexts=CONTEXTS["examples and a fact"])
        # what a prompt's cache holds is a run's mask; answers come after it and in twice as many rows
        held = [before.numel() for (_ids, before), (_more, after) in pairwise(runs) if len(after) == 2 * len(before) > 2]
        assert held
        assert max(held) <= max_tokens


@pytest.mark.parametrize("max_tokens", [1, 70, 4096])
def test_without_contexts_each_prompt_is_read_whole_in_its_batch(model: PreTrainedModel, max_tokens: int) -> None:
    """Nothing is read apart, so that sums are rounded as ever: a run of before contexts gives the same bytes."""
    prompts = sorted(encode_text(tiny_tokenizer(), probe.prompt) for probe in PROBES)
    with reads(model) as runs:
        scored(model, max_tokens=max_tokens)
    opened = [(ids, mask) for ids, mask in runs if ids.shape == mask.shape]
    assert sorted(tuple(row[seen.bool()].tolist()) for ids, mask in opened for row, seen in zip(ids, mask, strict=True)) == prompts


def test_a_probe_of_a_fact_without_context_is_refused() -> None:
    with pytest.raises(ValueError, match="fact fact-1 is asked about, but has none of the 1 contexts; edit and ask the same facts"):
        scored(cached_model("llama"), contexts={"fact-0": EXAMPLES})


def test_no_probes_in_context_give_no_scores() -> None:
    assert scored(cached_model("llama"), [], contexts={"fact-0": EXAMPLES}) == []
