"""Languages in a model's states: what theory promises of each measure, and that batches change nothing."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from tests.tiny import CONFIGS, tiny_model, tiny_tokenizer
from xledit.interpret.lens import lens
from xledit.interpret.parallel import Parallel, of_files, of_probes
from xledit.interpret.representations import (
    chance_within,
    compare,
    depth_states,
    linear_cka,
    mexa,
    probed_language,
    retrieval_within,
    sentence_states,
)
from xledit.interpret.unification import object_states, unification, unified
from xledit.models.prompts import encode_text, opening_tokens, pad
from xledit.training.probes import FactProbe
from xledit.training.recall import answer_row

SENTENCES = ("The currency of Japan is yen.", "巴黎是法国的首都。", "a", "France pays in euro, and Austria, too.", "日本的货币是日元。")


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_that_transformers_gives(name: str) -> None:
    model = tiny_model(name)
    ids, mask = pad([encode_text(tiny_tokenizer(), sentence) for sentence in SENTENCES])
    found = depth_states(model, ids, mask)
    theirs = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    assert len(found) == len(theirs)
    for ours, wanted in zip(found, theirs, strict=True):
        torch.testing.assert_close(ours[mask.bool()], wanted.detach()[mask.bool()], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_pooled_states_do_not_depend_on_batches_and_leave_the_opening_out(max_tokens: int) -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    found = sentence_states(model, tokenizer, SENTENCES, max_tokens)
    for place, sentence in enumerate(SENTENCES):
        ids, mask = pad([encode_text(tokenizer, sentence)])
        states = depth_states(model, ids, mask).double()[:, 0]
        own = len(tokenizer(sentence, add_special_tokens=False).input_ids)
        torch.testing.assert_close(found["last"][:, place], states[:, -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found["mean"][:, place], states[:, -own:].mean(1), atol=1e-5, rtol=1e-5)


@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10), dimensions=st.integers(2, 9))
def test_cka_knows_rotation_scale_and_shift_from_another_content(seed: int, scale: float, dimensions: int) -> None:
    left = draw(seed, 40, dimensions)
    turned = scale * left @ torch.from_numpy(ortho_group.rvs(dimensions, random_state=seed)) + draw(seed + 1, dimensions)
    assert linear_cka(left, turned) == pytest.approx(1)
    assert linear_cka(left, draw(seed + 2, 40, dimensions)) < 0.8
    # the definition, by covariances
    other = draw(seed + 3, 40, 5)
    one, two = left - left.mean(0), other - other.mean(0)
    assert linear_cka(left, other) == pytest.approx(((two.T @ one).norm() ** 2 / ((one.T @ one).norm() * (two.T @ two).norm())).item())


def test_a_shared_direction_makes_the_papers_cosine_high_and_its_null_too_but_no_retrieval() -> None:
    shared = 50 * torch.ones(1, 20, 30)
    states = {"zh": shared + draw(1, 1, 20, 30), "en": shared + draw(2, 1, 20, 30)}
    found = compare(states, Parallel(sentences={"zh": ("",) * 20, "en": ("",) * 20}, groups=("",) * 20), "mean", 0)[0]
    assert found.means.mean > 0.99
    assert found.means_unrelated.mean > 0.99
    assert found.different.mean > 0.99
    assert abs(found.centred_same.mean) < 0.15
    assert found.retrieval.mean <= 0.3


def test_translations_that_share_content_are_found_and_their_language_told() -> None:
    content, offset = draw(1, 1, 20, 30), 3 * draw(2, 30)
    states = {"zh": content + 0.1 * draw(3, 1, 20, 30), "en": content + offset}
    found = compare(states, Parallel(sentences={"zh": ("",) * 20, "en": ("",) * 20}, groups=("a", "b") * 10), "mean", 0)[0]
    assert found.retrieval.mean == 1
    assert found.retrieval_within.mean == 1
    assert found.cka.mean > 0.95 > 0.8 > found.cka_shuffled.mean
    assert found.language == 1
    assert found.language_shuffled < 0.9


def test_a_pattern_alone_is_found_among_all_sentences_and_not_within_its_group() -> None:
    groups = ("a",) * 30 + ("b",) * 30
    pattern = torch.cat([draw(1, 1, 20).expand(30, 20), draw(2, 1, 20).expand(30, 20)]) * 10
    left, right = pattern + 0.1 * draw(3, 60, 20), pattern + 0.1 * draw(4, 60, 20)
    assert chance_within(groups) == pytest.approx(1 / 30)
    assert retrieval_within(left, right, groups) < 0.15
    # neighbours of another group do not count, however near
    assert retrieval_within(draw(5, 4, 3), draw(6, 4, 3), ("a", "b", "c", "d")) == 1


def test_the_probe_never_sees_a_translation_of_what_it_is_asked() -> None:
    # a language is told by nothing but each sentence's own mark, which both languages carry alike
    marks = torch.eye(10, dtype=torch.float64)
    states = {"zh": marks, "en": marks}
    assert probed_language(states, torch.arange(10).chunk(2), None) == pytest.approx(0.5)


def probe(fact: str, code: str, object_: str, **fields: object) -> FactProbe:
    text = f"{fact} is {object_}."
    place = {"start": len(text) - len(object_) - 1, "end": len(text) - 1}
    plain = {"relation": "currency", "told": "everywhere", "wording": "told", "names_alike": True, "object_alike": False} | place
    return FactProbe(fact_id=fact, language=code, text=text, **plain | fields)  # pyright: ignore[reportArgumentType]


def world() -> list[FactProbe]:
    objects = {"zh": ("日元", "欧元", "法国", "中国"), "en": ("Japan", "euro", "francs", "China")}
    return [probe(f"currency/{place}", code, name) for code, names in objects.items() for place, name in enumerate(names)]


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_the_last_depth_of_the_lens_is_what_the_model_says(name: str) -> None:
    model, tokenizer = tiny_model(name), tiny_tokenizer()
    number, depths = lens(model, tokenizer, world(), ("zh", "en"), 10_000)
    assert number == 8
    assert len(depths) == len(model.get_submodule("transformer.h" if name == "gpt2" else "model.layers")) + 1
    chances = []
    for each in world():
        whole = encode_text(tokenizer, each.text)
        opening = len(whole) - len(tokenizer(each.text, add_special_tokens=False).input_ids)
        offsets = tokenizer(each.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        first = opening + next(place for place, (_start, stop) in enumerate(offsets) if stop > each.start)
        logits = model(input_ids=torch.tensor([whole[:first]])).logits[0, -1]
        chances.append(logits.softmax(-1)[whole[first]].item())
    assert depths[-1].asked == pytest.approx(sum(chances) / 8, rel=1e-4)
    again = lens(model, tokenizer, world(), ("zh", "en"), 1)[1]
    assert [row.asked for row in again] == pytest.approx([row.asked for row in depths], rel=1e-4)
    assert set(depths[0].others) == {"zh", "en"}


def test_parallel_sentences_are_facts_that_all_languages_state_and_do_not_all_spell_alike() -> None:
    more = [probe("code/9", code, "JPY", object_alike=True) for code in ("zh", "en")] + [probe("currency/10", "en", "yuan")]
    others = [
        probe(f"currency/{place}", code, code, **fields)
        for code in ("zh", "en")
        for place, fields in enumerate(({"wording": "known"}, {"told": "nowhere"}), start=20)
    ]
    found = of_probes([*world(), *more, *others], ("zh", "en"))
    assert len(found.groups) == 4
    assert set(found.groups) == {"currency"}
    assert all(line.startswith(f"currency/{place}") for lines in found.sentences.values() for place, line in enumerate(lines))


def test_files_of_parallel_sentences_are_checked(tmp_path: Path) -> None:
    (tmp_path / "zho_Hans.dev").write_text("一\n二\n三\n四\n", encoding="utf-8")
    (tmp_path / "eng_Latn.dev").write_text("one\ntwo\nthree\nfour\n", encoding="utf-8")
    files = {"zh": str(tmp_path / "zho_Hans.dev"), "en": str(tmp_path / "eng_Latn.dev")}
    assert of_files(files).sentences["en"][2] == "three"
    (tmp_path / "eng_Latn.dev").write_text("one\ntwo\nthree\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"same number of lines.*eng_Latn\.dev has 3"):
        of_files(files)
    (tmp_path / "eng_Latn.dev").write_text("one\n\nthree\nfour\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2 is empty"):
        of_files(files)
    with pytest.raises(ValueError, match="cannot be read"):
        of_files(files | {"en": str(tmp_path / "none")})
    with pytest.raises(ValueError, match="needs two languages"):
        of_files({"zh": files["zh"]})
    with pytest.raises(ValueError, match="no probes in ky"):
        of_probes(world(), ("zh", "ky"))


@given(seed=st.integers(0, 99), number=st.integers(2, 12))
def test_mexa_is_the_share_whose_translation_is_nearest_from_both_sides(seed: int, number: int) -> None:
    left, right = draw(seed, number, 6), draw(seed, number, 6) + draw(seed + 1, number, 6)
    alike = torch.cosine_similarity(left[:, None], right[None], dim=-1).tolist()
    nearest = [all(alike[i][i] > alike[i][j] and alike[i][i] > alike[j][i] for j in range(number) if j != i) for i in range(number)]
    assert mexa(left, right) == pytest.approx(sum(nearest) / number)
    assert mexa(left, left * 2) == 1


# unification

RELATIONS = ["a"] * 12 + ["b"] * 12
VALUES = [f"{relation}{place % 4}" for place, relation in enumerate(RELATIONS)]
PLACES = [(code, wording) for code in ("zh", "en", "ky") for wording in ("told", "known")]


def test_one_representation_for_all_languages_scores_one_and_one_for_each_nothing() -> None:
    shared = draw(0, 1, 24, 50)
    shifts = {place: draw(3 + number, 1, 1, 50) for number, place in enumerate(PLACES)}  # of language and wording
    (one,) = unified({place: shared + shift for place, shift in shifts.items()}, RELATIONS, VALUES, names_alike=True)
    assert (one.score.low, one.score.high, one.num_facts) == (pytest.approx(1), pytest.approx(1), 24)
    own = {code: draw(20 + number, 1, 24, 50) for number, code in enumerate(("zh", "en", "ky"))}
    (apart,) = unified({place: own[place[0]] + shift for place, shift in shifts.items()}, RELATIONS, VALUES, names_alike=True)
    assert apart.reworded.mean == pytest.approx(1)
    assert abs(apart.score.mean or 1) < 0.1


def test_names_in_own_letters_are_compared_between_scripts_only() -> None:
    states = {(code, wording): draw(number, 1, 24, 50) for number, (code, wording) in enumerate(PLACES)}
    states |= {("vi", wording): states["en", wording] for wording in ("told", "known")}  # as English: Latin letters, too
    for names_alike, highest in ((True, 1), (False, 0.5)):
        (row,) = unified(states, RELATIONS, VALUES, names_alike=names_alike)
        assert (row.same.high == pytest.approx(1)) == names_alike
        assert row.same.high is not None and row.same.high <= highest + 1e-9


def test_facts_that_a_model_does_not_hold_have_no_score() -> None:
    states = {place: draw(number, 1, 24, 400) for number, place in enumerate(PLACES)}
    (row,) = unified(states, RELATIONS, VALUES, names_alike=True)
    assert row.reworded.mean is not None and abs(row.reworded.mean) < 0.1
    assert (row.score.mean, row.score.low, row.score.high) == (None, None, None)


def test_a_shared_value_is_told_from_a_shared_fact() -> None:
    of_value = {value: draw(place, 50) for place, value in enumerate(sorted(set(VALUES)))}
    shared = torch.stack([of_value[value] for value in VALUES])[None] + 0.3 * draw(40, 1, 24, 50)
    states = {place: shared + 0.3 * draw(50 + number, 1, 24, 50) for number, place in enumerate(PLACES)}
    (row,) = unified(states, RELATIONS, VALUES, names_alike=False)
    assert row.same.mean > row.same_value.mean > 0.5 > row.different.mean  # type: ignore[operator]


def test_the_measures_are_those_of_a_naive_loop() -> None:
    states = {place: draw(number, 2, 24, 7) for number, place in enumerate(PLACES)}
    found = unified(states, RELATIONS, VALUES, names_alike=True)[1]

    def row(place: tuple[str, str], fact: int) -> torch.Tensor:
        mates = [other for other in range(24) if RELATIONS[other] == RELATIONS[fact]]
        return states[place][1, fact] - states[place][1, mates].mean(0)

    def mean(one: tuple[str, str], other: tuple[str, str], pairs: list[tuple[int, int]]) -> float:
        return sum(torch.cosine_similarity(row(one, i), row(other, j), dim=0).item() for i, j in pairs) / len(pairs)

    every = [(i, j) for i in range(24) for j in range(24) if RELATIONS[i] == RELATIONS[j]]
    wanted = {
        "same": [(i, i) for i in range(24)],
        "same_value": [(i, j) for i, j in every if i != j and VALUES[i] == VALUES[j]],
        "different": [(i, j) for i, j in every if VALUES[i] != VALUES[j]],
    }
    pairs = [("zh", "en"), ("zh", "ky"), ("en", "ky")]
    for name, places in wanted.items():
        by_pair = [mean((one, "told"), (other, "told"), places) for one, other in pairs]
        measured = getattr(found, name)
        assert (measured.mean, measured.low, measured.high) == (
            pytest.approx(sum(by_pair) / 3),
            pytest.approx(min(by_pair)),
            pytest.approx(max(by_pair)),
        )
    again = [mean((code, "told"), (code, "known"), wanted["same"]) for code in ("zh", "en", "ky")]
    assert found.reworded.mean == pytest.approx(sum(again) / 3)


def test_unification_reads_where_the_object_is_predicted_whatever_the_batch() -> None:
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()

    def probe(fact: int, code: str, wording: str, *, alike: bool) -> FactProbe:
        start = f"P{fact} {'来自' if code == 'zh' else 'is from'} {'' if wording == 'told' else 'the land '}"
        object_ = ("Greece", "Japan")[fact % 2] if code == "en" else ("希腊", "日本")[fact % 2]
        return FactProbe(
            fact_id=f"country/{fact}", relation="country", language=code, told="everywhere", wording=wording, names_alike=alike,  # type: ignore[arg-type]
            object_alike=False, text=start + object_ + ".", start=len(start), end=len(start) + len(object_),
        )  # fmt: skip

    probes = [probe(fact, code, wording, alike=fact < 4) for fact in range(8) for code in ("zh", "en") for wording in ("told", "known")]
    found = unification(model, tokenizer, probes, ("zh", "en"), 10_000)
    assert [(row.depth, row.names_alike, row.num_facts) for row in found] == [
        (depth, alike, 4) for alike in (True, False) for depth in range(len(found) // 2)
    ]
    one = object_states(model, tokenizer, probes[:5], 1)
    torch.testing.assert_close(object_states(model, tokenizer, probes[:5], 10_000), one, atol=1e-5, rtol=1e-5)
    for place, asked in enumerate(probes[:5]):
        row = answer_row(tokenizer, asked)
        ids, mask = pad([opening_tokens(tokenizer) + row.tokens[: -len(row.answer) + 1 or None]])
        torch.testing.assert_close(one[:, place], depth_states(model, ids, mask).double()[:, 0, -1], atol=1e-5, rtol=1e-5)


def test_the_most_sentences_are_taken_evenly_by_relation(tmp_path: Path) -> None:
    def probe(relation: str, fact: int, code: str) -> FactProbe:
        return FactProbe(
            fact_id=f"{relation}/{fact}", relation=relation, language=code, told="everywhere", wording="told", names_alike=True,
            object_alike=False, text=f"{relation}{fact}{code}", start=0, end=1,
        )  # fmt: skip

    probes = [probe(relation, fact, code) for relation in "ab" for fact in range(6) for code in ("zh", "en")]
    some = of_probes(probes, ("zh", "en"), most=5)
    assert some.groups == ("a", "a", "a", "b", "b")
    assert some.sentences["en"] == ("a0en", "a1en", "a2en", "b0en", "b1en")
    assert of_probes(probes, ("zh", "en")).groups == ("a",) * 6 + ("b",) * 6
    for code in ("zh", "en"):
        (tmp_path / code).write_text("".join(f"{code} {line}\n" for line in range(9)), encoding="utf-8")
    lines = of_files({code: str(tmp_path / code) for code in ("zh", "en")}, most=4)
    assert lines.sentences["zh"] == ("zh 0", "zh 1", "zh 2", "zh 3") and len(lines.groups) == 4
