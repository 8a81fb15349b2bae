"""Importance of units: to first order what switching off does; language-specific neurons as constructed; batches change nothing."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny import CONFIGS, tiny_model, tiny_tokenizer
from xledit.interpret.language_neurons import activation_shares, causal, language_entropy, overlap_chance, overlaps, specific
from xledit.interpret.neurons import (
    UnitImportance,
    ablate,
    activation_of,
    components_of,
    importance,
    mean_of,
    of_components,
    sentence_losses,
    switched_off,
)
from xledit.models.family import memory_of
from xledit.models.prompts import encode_text, pad
from xledit.models.tracing import added, record

SENTENCES = ("The currency of Japan is yen.", "巴黎是法国的首都。", "a b", "France pays in euro, and Austria, too.", "日本的货币是日元。")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_unit_scaled_a_little_changes_the_loss_as_its_importance_says(name: str) -> None:
    model, tokenizer = tiny_model(name).double(), tiny_tokenizer()
    sentence, step = SENTENCES[3], 0.01  # some attention is float32 whatever comes in
    found = importance(model, tokenizer, [sentence], 1000)
    ids, mask = pad([encode_text(tokenizer, sentence)])
    before = sentence_losses(model, ids, mask).item()
    assert found.loss == pytest.approx(before)
    for (layer, path), module in components_of(model).items():
        if layer == 1 and "norm" not in path:  # some norms have heads on an axis of their own
            unit = int(found.raw[layer, path].argmax())

            def scaled(by: float, unit: int = unit) -> Callable[[torch.Tensor], torch.Tensor]:
                return lambda states: states.index_copy(-1, torch.tensor([unit]), by * states[..., [unit]])

            losses = []
            for by in (1 - step, 1 + step):
                with torch.no_grad(), added(module, scaled(by)):
                    losses.append(sentence_losses(model, ids, mask).item())
            change = abs(losses[1] - losses[0]) / (2 * step)
            assert found.raw[layer, path][unit].item() == pytest.approx(change, rel=0.01), path


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "fuxitranyu", "falcon"])
@pytest.mark.parametrize("max_tokens", [1, 60])
def test_importance_is_a_mean_over_sentences_whatever_the_batches(name: str, max_tokens: int) -> None:
    model, tokenizer = tiny_model(name), tiny_tokenizer()
    found = importance(model, tokenizer, SENTENCES, max_tokens)
    alone = mean_of([importance(model, tokenizer, [sentence], 1000) for sentence in SENTENCES])
    assert found.loss == pytest.approx(alone.loss, rel=1e-5)
    for kind in ("raw", "per_nat", "per_token"):
        for place, units in getattr(alone, kind).items():
            torch.testing.assert_close(getattr(found, kind)[place], units, rtol=1e-3, atol=1e-7)
    rows = of_components("zh", found)
    assert all(row.raw == pytest.approx(row.per_unit * row.width) for row in rows)
    # tokens that pull in opposite directions cancel out in the sum over a sentence only
    assert all((found.per_token[place] >= found.raw[place] - 1e-9).all() for place in found.raw)


def test_the_eight_components_of_a_fuxitranyu_layer_have_names() -> None:
    names = {path for layer, path in components_of(tiny_model("fuxitranyu")) if layer == 0}
    attention = {f"self_attn.{part}_proj" for part in "qkvo"}
    assert names == attention | {"input_layernorm", "post_attention_layernorm", "mlp.up_proj", "mlp.down_proj", "mlp.act_fn"}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_activation_is_what_becomes_the_memorys_key(name: str) -> None:
    model = tiny_model(name)
    ids, mask = pad([encode_text(tiny_tokenizer(), SENTENCES[0])])
    activation, memory = activation_of(model, 2), memory_of(model, 2)
    with switched_off({activation: torch.tensor([3])}):
        [(key, _value)] = record(model, [memory], ids, mask)
    assert (key.reshape(-1, key.shape[-1])[:, 3] == 0).all()
    assert (key.reshape(-1, key.shape[-1])[:, 4] != 0).any()


def test_a_unit_whose_effect_is_linear_is_estimated_exactly() -> None:
    model, tokenizer = tiny_model("fuxitranyu").double(), tiny_tokenizer()
    # what a small unit of the last memory does is linear up to the norm; all of them made small
    with torch.no_grad():
        for layer in range(4):
            memory_of(model, layer).get_parameter("weight").mul_(1e-4)
    rows = {row.component: row for row in ablate(model, tokenizer, SENTENCES, 5, 1000)}
    assert rows["mlp.act_fn"].rank_correlation == pytest.approx(1)
    assert rows["mlp.act_fn"].ratio == pytest.approx(1, abs=0.01)


def test_switching_off_ends_with_the_context() -> None:
    model = tiny_model("llama")
    ids, mask = pad([encode_text(tiny_tokenizer(), SENTENCES[0])])
    before = sentence_losses(model, ids, mask)
    with switched_off({activation_of(model, 0): torch.arange(32)}):
        assert not torch.equal(sentence_losses(model, ids, mask), before)
    assert torch.equal(sentence_losses(model, ids, mask), before)


def test_a_sentence_of_one_token_has_no_loss() -> None:
    tokenizer = tiny_tokenizer()
    one = next(text for text in ("", "a", "的") if len(encode_text(tokenizer, text)) < 2)
    with pytest.raises(ValueError, match="fewer than two tokens"):
        importance(tiny_model("llama"), tokenizer, [one], 100)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_entropy_is_highest_for_even_use_and_none_for_one_language(shares: list[float]) -> None:
    even, alone = torch.full((len(shares),), 0.3), torch.eye(len(shares))[0]
    found = language_entropy(torch.stack([torch.tensor(shares), even, alone, torch.zeros(len(shares))], dim=1)[:, None].double())[0]
    assert found[1] == pytest.approx(torch.tensor(len(shares)).double().log().item())
    assert found[2] == 0
    assert found[0] <= found[1] + 1e-9
    assert found[3] == torch.inf


def test_neurons_made_for_one_language_are_found_and_seldom_active_ones_are_not() -> None:
    shares = 0.1 + 0.01 * torch.rand(3, 2, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares[:, 0, :60] = 0.5  # of all languages
    shares[:, 1, 7:12] = torch.tensor([0.9, 0.0, 0.0])[:, None]
    shares[:, 1, 20] = torch.tensor([0.0, 1e-3, 0.0])  # of one language, but hardly ever
    found = specific(shares)
    assert found[0].nonzero().tolist() == [[1, unit] for unit in range(7, 12)]
    assert not found[1:].any(0)[1, 20]


@pytest.mark.parametrize("max_tokens", [1, 1000])
def test_shares_of_active_tokens_leave_the_opening_out(max_tokens: int) -> None:
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    found = activation_shares(model, tokenizer, SENTENCES, max_tokens)
    counts, tokens = torch.zeros(found.shape[1]), 0
    for sentence in SENTENCES:
        ids, mask = pad([encode_text(tokenizer, sentence)])
        own = len(tokenizer(sentence, add_special_tokens=False).input_ids)
        counts += (record(model, [activation_of(model, 2)], ids, mask)[0][1][0, -own:] > 0).sum(0)
        tokens += own
    torch.testing.assert_close(found[2], (counts / tokens).double())


def test_as_many_other_neurons_of_the_same_layers_are_the_null() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    own = torch.zeros(4, 32, dtype=torch.bool)
    own[1, :16] = True
    # the others of the layer matter not at all: they are off already
    with switched_off({activation_of(model, 1): torch.arange(16, 32)}):
        [found] = causal(model, tokenizer, {"zh": own}, {"zh": SENTENCES[1:2], "en": SENTENCES[:1]}, 1000, 0)
    assert found.num_neurons == {"1": 16}
    assert found.random_rise == {"zh": 0, "en": 0}
    assert found.rise["en"] != 0


def test_overlap_of_the_most_important_neurons() -> None:
    def units(*important: int) -> UnitImportance:
        raw = torch.zeros(40)
        raw[list(important)] = 1.0
        return UnitImportance(raw={(0, "act"): raw}, per_nat={}, per_token={}, loss=0.0)

    halves = {"zh": (units(0, 1, 2, 3), units(0, 1, 2, 4)), "en": (units(0, 1, 30, 31), units(0, 1, 30, 31))}
    between, within = overlaps(halves, [(0, "act")], 0.1)
    assert between.mean == pytest.approx(2 / 6)
    assert within.low == pytest.approx(3 / 5)
    assert within.high == 1
    draws = [
        overlaps({code: (units(*torch.randperm(40)[:20].tolist()),) * 2 for code in ("zh", "en")}, [(0, "act")], 0.5)[0].mean or 0
        for _ in range(200)
    ]
    assert sum(draws) / 200 == pytest.approx(overlap_chance(0.5), abs=0.02)
