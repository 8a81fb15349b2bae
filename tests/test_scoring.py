"""Scores are those of one whole forward pass per probe and answer, for any batching and any order."""

import random
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from tests.tiny import CONFIGS, VOCABULARY, tiny_model, tiny_tokenizer
from xledit.evaluation.scoring import SPARE_TOKENS, score_probes
from xledit.models.families import FAMILIES, Family
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
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


def scored(model: PreTrainedModel, probes: Sequence[Probe] = PROBES, max_tokens: int = 4096) -> list[Score]:
    return score_probes(model, tiny_tokenizer(), probes, max_tokens)


def naive_answer(model: PreTrainedModel, probe: Probe, answer: str) -> AnswerScore:
    """One pass over prompt and answer; the log-probability of each answer token where it is due."""
    prompt, tokens = encode_text(tiny_tokenizer(), probe.prompt), encode_answer(tiny_tokenizer(), answer, probe.language)
    logprobs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)[len(prompt) - 1 : -1]
    wanted = sum(logprobs[place, token].item() for place, token in enumerate(tokens))
    return AnswerScore(logprob=wanted, tokens=tokens, argmax=tuple(logprobs.argmax(-1).tolist()))


def naive_greedy(model: PreTrainedModel, probe: Probe) -> str:
    """Greedy decoding by hand, without a cache."""
    tokens = list(encode_text(tiny_tokenizer(), probe.prompt))
    length = len(encode_answer(tiny_tokenizer(), probe.target_new, probe.language)) + SPARE_TOKENS
    for _ in range(length):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tiny_tokenizer().decode(tokens[-length:], skip_special_tokens=True)


def assert_same(found: AnswerScore, wanted: AnswerScore) -> None:
    assert (found.tokens, found.argmax) == (wanted.tokens, wanted.argmax)
    assert found.logprob == pytest.approx(wanted.logprob, abs=1e-5 * len(wanted.tokens))


def assert_scores_are_those_of_whole_passes(model: PreTrainedModel, scores: list[Score]) -> None:
    for score, probe in zip(scores, PROBES, strict=True):
        assert [getattr(score, name) for name in Probe.__struct_fields__] == [getattr(probe, name) for name in Probe.__struct_fields__]
        assert_same(score.new, naive_answer(model, probe, probe.target_new))
        assert_same(score.true, naive_answer(model, probe, probe.target_true))


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
