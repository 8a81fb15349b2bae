"""What is watched while a model is edited: the text's nats are transformers' own loss, recall is `exact_forced`, ruin is seen."""

import csv
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.tiny import CONFIGS, CORPUS, REQUESTS, tiny_model, tiny_tokenizer
from xledit.evaluation import watch
from xledit.evaluation.checks import COLLAPSE_RATIO, Check, collapsed
from xledit.evaluation.metrics import exact_forced
from xledit.evaluation.scoring import score_probes
from xledit.evaluation.watch import Watch, WatchParams, earlier_sample, memory_norms, recalled, text_nats
from xledit.models.family import memory_of
from xledit.models.prompts import encode_answer, encode_text
from xledit.records import EditRequest, Probe

TEXTS = ["法国的首都是巴黎，日本的首都是东京。", "Einstein was born in Ulm, a city on the river Danube.", "红", "It rains.", ""]
LANGUAGES = ("zh", "en")
EVERYTHING = 4096
cached_model = cache(tiny_model)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return cached_model(request.param)


@pytest.fixture
def ruined() -> PreTrainedModel:
    """A model of its own with one NaN in a memory."""
    model = tiny_model("llama")
    with torch.no_grad():
        memory_of(model, 1).get_parameter("weight")[0, 0] = math.nan
    return model


def opened_by(*opening: str) -> PreTrainedTokenizerFast:
    """Return the tiny tokenizer with so many BOS tokens before every text."""
    backend = Tokenizer.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    template = " ".join([*opening, "$A"])
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")


def loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    """Transformers' own loss of unpadded texts, one at a time, the opening's labels masked as it asks; the mean over tokens."""
    total, num_tokens = 0.0, 0
    for text in texts:
        row = torch.tensor([tokenizer(text).input_ids])
        labels = row.clone()
        labels[:, : len(tokenizer("").input_ids)] = -100
        counted = int((labels[:, 1:] != -100).sum())  # transformers predicts nothing at the first place
        if counted:
            total += model(row, labels=labels).loss.item() * counted
            num_tokens += counted
    return total / num_tokens


def nats(model: PreTrainedModel, texts: Sequence[str] = TEXTS, max_tokens: int = EVERYTHING) -> float:
    return text_nats(model, tiny_tokenizer(), texts, max_tokens)


@pytest.mark.parametrize("max_tokens", [1, 40, EVERYTHING])
def test_the_nats_of_a_text_are_the_models_own_loss_for_any_batching(model: PreTrainedModel, max_tokens: int) -> None:
    assert nats(model, max_tokens=max_tokens) == pytest.approx(loss(model, tiny_tokenizer(), TEXTS), rel=1e-5)


@pytest.mark.parametrize("opening", [(), ("<bos>", "<bos>")], ids=["none", "two"])
def test_an_opening_of_any_length_is_not_counted(opening: tuple[str, ...]) -> None:
    model, tokenizer = cached_model("qwen2"), opened_by(*opening)
    assert text_nats(model, tokenizer, TEXTS, EVERYTHING) == pytest.approx(loss(model, tokenizer, TEXTS), rel=1e-5)


@pytest.mark.parametrize("at_once", [1, 7 * CONFIGS["llama"].vocab_size])
def test_how_many_logits_are_held_at_once_does_not_matter(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    model, requests = cached_model("llama"), said_by_the_model(cached_model("llama"))
    wanted, known = nats(model), recalled(model, tiny_tokenizer(), requests, EVERYTHING)
    monkeypatch.setattr(watch, "LOGITS_AT_ONCE", at_once)
    assert nats(model) == pytest.approx(wanted, rel=1e-6)
    assert recalled(model, tiny_tokenizer(), requests, EVERYTHING) == known


def test_no_more_logits_are_computed_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counting(model: PreTrainedModel, hidden: Tensor) -> Tensor:
        logits = head_logits(model, hidden)
        sizes.append(logits.numel())
        return logits

    head_logits = watch.head_logits
    monkeypatch.setattr(watch, "head_logits", counting)
    monkeypatch.setattr(watch, "LOGITS_AT_ONCE", 3000)
    nats(cached_model("llama"))
    assert len(sizes) > 1
    assert max(sizes) <= 3000


@pytest.mark.parametrize("texts", [[], ["", ""]], ids=["none", "empty"])
def test_texts_without_a_token_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="held-out texts have no token to predict; give texts"):
        nats(cached_model("llama"), texts)


def test_watching_leaves_the_model_as_it_was(model: PreTrainedModel) -> None:
    before = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    nats(model)
    recalled(model, tiny_tokenizer(), REQUESTS, EVERYTHING)
    memory_norms(model, (0, 2))
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, before[name]), name


def test_a_ruined_model_gives_nan_and_has_collapsed(ruined: PreTrainedModel) -> None:
    found = {"zh": nats(ruined)}
    assert math.isnan(found["zh"])
    assert collapsed(found, {"zh": nats(cached_model("llama"))})
    assert math.isnan(memory_norms(ruined, (1,))[1])
    assert not any(recalled(ruined, tiny_tokenizer(), REQUESTS, EVERYTHING))


def test_infinite_nats_are_returned() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        head = model.get_output_embeddings()
        assert head is not None
        head.get_parameter("weight").mul_(1e38)
    assert not math.isfinite(nats(model))


def said_by_the_model(model: PreTrainedModel) -> list[EditRequest]:
    """Requests half of whose answers are what the model itself says, of one or several tokens; those whose text gives them back."""
    requests = list[EditRequest]()
    for request in REQUESTS:
        tokens = list(encode_text(tiny_tokenizer(), request.prompt))
        length = len(tokens)
        for _ in range(3):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            answer = str(tiny_tokenizer().decode(tokens[length:]))
            said = msgspec.structs.replace(request, language="zh", target_new=answer) if answer.strip() else request
            if encode_answer(tiny_tokenizer(), answer, "zh") == tuple(tokens[length:]):
                requests += [said, msgspec.structs.replace(said, target_new=answer + "的")]
    return requests + list(REQUESTS)


@pytest.mark.parametrize("max_tokens", [1, 40, EVERYTHING])
def test_a_fact_is_recalled_where_exact_forced_says_so(model: PreTrainedModel, max_tokens: int) -> None:
    requests = said_by_the_model(model)
    probes = [
        Probe(
            fact_id=request.fact_id,
            language=request.language,
            kind="efficacy",
            prompt=request.prompt,
            target_new=request.target_new,
            target_true=request.target_true,
        )
        for request in requests
    ]
    wanted = [bool(exact_forced(score, score)) for score in score_probes(model, tiny_tokenizer(), probes, EVERYTHING)]
    assert set(wanted) == {True, False}
    assert recalled(model, tiny_tokenizer(), requests, max_tokens) == wanted


def test_no_requests_recall_nothing() -> None:
    assert recalled(cached_model("llama"), tiny_tokenizer(), [], EVERYTHING) == []


def test_the_norm_of_a_memory_is_the_root_of_its_summed_squares(model: PreTrainedModel) -> None:
    for layer, norm in memory_norms(model, (0, 3)).items():
        squares = [value * value for row in memory_of(model, layer).get_parameter("weight").tolist() for value in row]
        assert norm == pytest.approx(math.sqrt(math.fsum(squares)))


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"zh": 0.0, "en": 0.0}, False),
        ({"zh": math.log(10) - 1e-6, "en": -3.0}, False),
        ({"zh": math.log(10) + 1e-6, "en": -3.0}, True),
        ({"zh": -3.0, "en": math.log(10) + 1e-6}, True),
        ({"zh": math.nan, "en": 0.0}, True),
        ({"zh": 0.0, "en": math.nan}, True),
        ({"zh": 0.0, "en": math.inf}, True),
        ({"zh": 0.0, "en": -math.inf}, True),
    ],
)
def test_a_model_has_collapsed_where_a_text_is_over_ten_times_as_perplexing(more: dict[str, float], wanted: bool) -> None:
    unedited = {"en": 3.0, "zh": 4.0}
    assert collapsed({code: unedited[code] + nats for code, nats in more.items()}, unedited) is wanted


def test_collapse_is_ten_times_the_perplexity() -> None:
    assert COLLAPSE_RATIO == 10
    assert collapsed({"zh": math.log(20 * 10.01)}, {"zh": math.log(20)})
    assert not collapsed({"zh": math.log(20 * 9.99)}, {"zh": math.log(20)})


def test_what_json_spells_null_has_collapsed() -> None:
    check = Check(num_facts=5, fresh=0.0, kept=None, text_nats={"zh": math.nan}, weight_norms={"3": math.inf}, collapsed=True)
    read = msgspec.json.decode(msgspec.json.encode(check), type=Check)
    assert read == msgspec.structs.replace(check, text_nats={"zh": None}, weight_norms={"3": None})
    assert collapsed(read.text_nats, {"zh": 3.0})


@pytest.mark.parametrize("nats", [{}, {"zh": 3.0}, {"zh": 3.0, "fr": 3.0}, {"zh": 3.0, "en": 3.0, "fr": 3.0}])
def test_other_languages_than_the_unedited_models_are_refused(nats: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"of the unedited model in \['en', 'zh'\]; ask both in the same languages"):
        collapsed(nats, {"zh": 3.0, "en": 3.0})


def test_a_rule_about_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="held-out text in"):
        collapsed({}, {})


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_an_unedited_model_that_cannot_read_is_refused(value: float | None) -> None:
    with pytest.raises(ValueError, match=r"zh: the unedited model gives its text .* nats; use float32, or another model"):
        collapsed({"zh": 3.0}, {"zh": value})


nums, sizes, seeds = st.integers(0, 3000), st.integers(2, 200), st.integers(0, 2**32)


@given(nums, sizes, seeds)
def test_a_sample_of_earlier_facts_asks_each_once_and_all_where_they_are_few(num: int, size: int, seed: int) -> None:
    sample = earlier_sample(num, size, seed)
    assert sample == sorted(set(sample)) == earlier_sample(num, size, seed)
    assert len(sample) == min(num, size)
    assert set(sample) <= set(range(num))


@given(st.integers(1, 3000), sizes, seeds)
def test_a_sample_holds_the_oldest_and_the_newest_and_leaves_no_stretch_out(num: int, size: int, seed: int) -> None:
    sample = earlier_sample(num, size, seed)
    assert (sample[0], sample[-1]) == (0, num - 1)
    stretch = math.ceil(num / size)
    for start in range(num - 2 * stretch + 1):
        assert any(start <= index < start + 2 * stretch for index in sample), (start, stretch)


def test_every_batch_is_asked_as_long_as_there_are_half_as_many_as_the_samples_facts() -> None:
    # 40 batches of 50 facts, a sample of 100: each batch holds two whole stretches
    assert {index // 50 for index in earlier_sample(2000, 100, seed=17)} == set(range(40))


def test_another_seed_asks_other_facts() -> None:
    assert len({tuple(earlier_sample(1000, 20, seed)) for seed in range(10)}) == 10


def test_every_fact_in_the_middle_is_drawn_now_and_then() -> None:
    drawn = {index for seed in range(400) for index in earlier_sample(60, 6, seed)}
    assert set(range(10, 50)) <= drawn


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_a_sample_that_cannot_hold_both_ends_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a sample of {size} earlier facts cannot hold the oldest and the newest; ask at least 2"):
        earlier_sample(10, size, seed=0)


def passages(code: str) -> list[str]:
    return (CORPUS.parent / "heldout" / f"{code}.txt").read_text(encoding="utf-8").splitlines()


def sentences(texts: Sequence[str]) -> set[str]:
    return {part.strip(" 　“”\"'") for text in texts for part in re.split(r"[。！？.!?]", text)} - {""}


def names() -> list[str]:
    """All names of subjects that are specific to China, in any language; of the world's some are everyday words (the sea, celery)."""
    found = set[str]()
    for path in (Path(__file__).parents[1] / "data/benchmark/facts").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["scope"] == "world":
                    continue
                found |= {name for column, cell in row.items() if column.startswith("subject_") for name in cell.split("|") if name}
    return sorted(found)


def mentions(text: str, name: str) -> bool:
    """Whether a text has a name in it: a Latin one as words of its own, any other one anywhere."""
    latin = "[A-Za-z0-9À-ɏ]"
    found = rf"(?<!{latin}){re.escape(name)}(?!{latin})" if re.fullmatch(r"[\u0000-\u02ff]+", name) else re.escape(name)
    return name in text and re.search(found, text) is not None


@pytest.mark.parametrize("code", LANGUAGES)
def test_no_sentence_of_the_held_out_text_is_in_the_corpus(code: str) -> None:
    corpus = (CORPUS / f"{code}.txt").read_text(encoding="utf-8")
    assert [sentence for sentence in sentences(passages(code)) if len(sentence) > 3 and sentence in corpus] == []


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_held_out_text_mentions_no_subject_of_the_benchmark(code: str) -> None:
    text = "\n".join(passages(code))
    assert len(names()) > 5000
    assert [name for name in names() if mentions(text, name)] == []


def test_a_mentioned_subject_would_be_seen() -> None:
    assert mentions("we saw Mount Tai.", "Mount Tai")
    assert not mentions("we saw Mount Taivas.", "Mount Tai")
    assert mentions("昨天我去了泰山看日出", "泰山")
    assert mentions("昨天用QQ聊天", "QQ")
    assert mentions("登上K2峰", "K2峰")


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_held_out_text_is_eighty_different_passages_of_moderate_length(code: str) -> None:
    texts = passages(code)
    lengths = [len(text) if code == "zh" else len(text.split()) for text in texts]
    shortest, longest = {"zh": (50, 100), "en": (30, 60)}[code]
    assert len(texts) == len(set(texts)) == 81
    assert shortest <= min(lengths)
    assert max(lengths) <= longest
    assert all(text == text.strip() for text in texts)


# the watch itself: the unedited model first, then the model as it is after each batch

WATCH = WatchParams(files="", facts=2, max_tokens=EVERYTHING, passages=2, text={"zh": "zh.txt", "en": "en.txt"})
PASSAGES = {"zh": TEXTS[:1], "en": TEXTS[1:2]}
ASKED = {"zh": [request for request in REQUESTS if request.language == "zh"] * 3}


def watched(model: PreTrainedModel) -> Watch:
    return Watch(model, tiny_tokenizer(), WATCH, PASSAGES, layers=(1, 2), seed=3)


def test_the_unedited_model_is_as_it_was(model: PreTrainedModel) -> None:
    check = watched(model).unedited(ASKED)
    assert (check.num_facts, check.kept, check.collapsed) == (0, None, False)
    assert check.weight_norms == {"1": 1.0, "2": 1.0}
    assert check.text_nats == {code: text_nats(model, tiny_tokenizer(), texts, EVERYTHING) for code, texts in PASSAGES.items()}


def test_a_check_asks_the_newest_facts_and_a_sample_of_earlier_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def recall(_model: object, _tokenizer: object, requests: Sequence[EditRequest], _max_tokens: int) -> list[bool]:
        asked.append([request.fact_id for request in requests])
        return [len(asked) == 1] * len(requests)

    numbered = {
        code: [msgspec.structs.replace(request, fact_id=f"{code}{place}") for place, request in enumerate(ASKED["zh"])]
        for code in LANGUAGES
    }
    look = watched(cached_model("llama"))
    monkeypatch.setattr(watch, "recalled", recall)
    check = look.check(numbered, slice(3, 5))
    assert asked == [["zh3", "zh4", "en3", "en4"], ["zh0", "zh2", "en0", "en2"]]
    assert (check.num_facts, check.fresh, check.kept) == (5, 1.0, 0.0)


def test_a_grown_weight_and_a_ruined_text_are_seen() -> None:
    model = tiny_model("llama")
    look = watched(model)
    with torch.no_grad():
        memory_of(model, 2).get_parameter("weight").mul_(3)
    grown = look.check(ASKED, slice(0, 1))
    assert grown.weight_norms == pytest.approx({"1": 1.0, "2": 3.0})
    with torch.no_grad():
        memory_of(model, 1).get_parameter("weight").fill_(math.nan)
    assert look.check(ASKED, slice(1, 2)).collapsed


@pytest.mark.parametrize(("name", "value"), [("facts", 1), ("max_tokens", 0), ("passages", 0)])
def test_a_setting_of_the_watch_that_asks_for_too_little_is_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"watch\.{name} is {value}"):
        msgspec.structs.replace(WATCH, **{name: value})
