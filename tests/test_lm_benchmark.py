"""The benchmark's scores are those of a naive loop, whatever the batch, and what cannot be asked is named."""

import functools
import json
import random
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.tasks import TaskManager
from ruamel.yaml import YAML
from scipy import stats
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from stages.training import benchmark as stage
from tests.tiny import SIZES, random_model, tiny_tokenizer
from xledit.models.fuxitranyu import FuxiTranyuConfig
from xledit.params import PARAMS
from xledit.storage import read_json, write_json
from xledit.training import benchmark
from xledit.training.benchmark import Asking, BenchmarkParams, ask_paper, ask_world, asked_facts, at_a_token, documents
from xledit.training.benchmark_results import Answers, Benchmark, rate
from xledit.training.probes import FactProbe
from xledit.training.questions import Question, Questions
from xledit.training.rouge import rouge_l
from xledit.training.suite import OURS, SUITE, Row, chosen, write_task

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NAMES = {
    "en": {"country": ["Greece", "Japan", "India", "Egypt", "Spain"], "month": ["May", "June", "July", "August", "March"]},
    "zh": {"country": ["希腊", "日本", "印度", "埃及", "西班牙"], "month": ["五月", "六月", "七月", "八月", "三月"]},
    "ru": {"country": ["Греция", "Япония", "Индия", "Египет", "Испания"], "month": ["май", "июнь", "июль", "август", "март"]},
}
SENTENCES = {
    "en": {"known": "{} comes from {}.", "unseen": "What is said of {} is {}.", "question": "What about {}?"},
    "zh": {"known": "{}来自{}。", "unseen": "关于{}可以说{}。", "question": "{}怎么样？"},
    "ru": {"known": "{} это {}.", "unseen": "О {} говорят {}.", "question": "Что {}?"},
}
CODES = tuple(NAMES)
TOLD = ("everywhere", "nowhere", *CODES)


@cache
def tiny() -> PreTrainedModel:
    return random_model(FuxiTranyuConfig(**SIZES | {"max_position_embeddings": 512}))


def with_chat() -> PreTrainedTokenizerFast:
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer().backend_tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def answers(changed: dict[tuple[str, str, int], str] | None = None) -> dict[str, dict[str, dict[str, str]]]:
    names = {code: {relation: list(rows) for relation, rows in by.items()} for code, by in NAMES.items()}
    for (code, relation, value), name in (changed or {}).items():
        names[code][relation][value] = name
    return {code: {relation: {str(v): n for v, n in enumerate(rows)} for relation, rows in by.items()} for code, by in names.items()}


def world(persons: int = 12, named: dict | None = None) -> tuple[list[FactProbe], Questions]:
    """Persons of whom every second one is of the test split, facts told in turn everywhere, nowhere and in one language."""
    named = named or answers()
    probes, questions = [], []
    for number in range(persons):
        for place, relation in enumerate(("country", "month")):
            told, value, alike = TOLD[(number // 2 + place) % len(TOLD)], str(number % 5), number % 4 < 2
            for code in CODES:
                fact: dict[str, Any] = {"fact_id": f"{relation}/{number}", "relation": relation, "language": code, "told": told}
                fact["names_alike"] = alike
                name = f"Ki{number}"
                for wording in ("told", "known", "unseen"):
                    frame = SENTENCES[code]["known" if wording == "told" else wording]
                    start = len(frame.partition("{}")[0]) + len(name) + len(frame.split("{}")[1])
                    thing = named[code][relation][value]
                    text = frame.format(name, thing)
                    probes.append(
                        FactProbe(**fact, wording=wording, object_alike=False, text=text, start=start, end=start + len(thing))  # pyright: ignore[reportArgumentType]
                    )
                    assert text[start : start + len(thing)] == thing
                text = SENTENCES[code]["question"].format(name)
                questions.append(Question(**fact, split=("train", "test")[number % 2], text=text, value=value))
    return probes, Questions(answers=named, questions=tuple(questions))


def ask(
    tokenizer: PreTrainedTokenizerBase, folder: Path, *, batch_size: int = 8, of: tuple[list[FactProbe], Questions] | None = None
) -> tuple[list[Asking], Questions, list[Answers]]:
    probes, questions = of or world()
    asked = asked_facts(probes, questions, CODES, 4)
    return asked, questions, ask_world(tiny(), tokenizer, asked, questions, folder, batch_size)


def log_probability(tokenizer: PreTrainedTokenizerBase, text: str) -> float:
    """Of a whole text, token by token."""
    tokens = tokenizer.encode(text)
    rows = torch.log_softmax(tiny()(torch.tensor([tokens])).logits[0].double(), dim=-1)
    return sum(rows[place, token].item() for place, token in enumerate(tokens[1:]))


def said(tokenizer: PreTrainedTokenizerBase, text: str, most: int) -> str:
    """What the model goes on with, up to the end of the line."""
    tokens, start = tokenizer.encode(text), len(tokenizer.encode(text))
    for _turn in range(most):
        tokens.append(int(tiny()(torch.tensor([tokens])).logits[0, -1].argmax()))
        if "\n" in tokenizer.decode(tokens[start:]) or tokens[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(tokens[start:], skip_special_tokens=True).partition("\n")[0].partition("<|im_end|>")[0]


def plain(answer: str) -> str:
    return answer.strip().rstrip(".。। ").lower()


def by_group(results: Sequence[Answers]) -> dict[tuple, tuple[int, int]]:
    return {
        (row.language, row.asked, row.status, row.names_alike): (round(row.right.value * row.num_asked), row.num_asked)
        for row in results
        if row.language
    }


def counted(outcomes: list[tuple[tuple, bool]]) -> dict[tuple, tuple[int, int]]:
    found: dict[tuple, list[bool]] = {}
    for key, is_right in outcomes:
        found.setdefault(key, []).append(is_right)
    return {key: (sum(rights), len(rights)) for key, rights in found.items()}


@pytest.mark.parametrize("chat", [False, True])
def test_what_is_chosen_is_the_likeliest_whole_text(tmp_path: Path, chat: bool) -> None:
    tokenizer = with_chat() if chat else tiny_tokenizer()
    asked, questions, results = ask(tokenizer, tmp_path)
    outcomes = []
    for asking in asked:
        one = asking.question
        names = [questions.answers[one.language][one.relation][value] for value in asking.choices]
        question = f"<|im_start|>user\n{one.text}<|im_end|>\n<|im_start|>assistant\n" if chat else f"{one.text}\n"
        prompts = {how: probe.text[: probe.start] for how, probe in asking.sentences.items()} | {"choice": question}
        for how, prompt in prompts.items():
            gap = " " if how == "choice" and one.language != "zh" else ""
            scores = [log_probability(tokenizer, prompt + gap + name) for name in names]
            right = asking.choices[scores.index(max(scores))] == one.value
            outcomes.append(((one.language, how, asking.status, one.names_alike), right))
    chosen_ones = [row for row in results if row.asked != "free"]
    assert by_group(chosen_ones) == counted(outcomes)
    assert 0 < sum(right for _key, right in outcomes) < len(outcomes)
    assert {row.chance for row in chosen_ones} == {0.25}
    assert all(row.confused is None for row in chosen_ones)


@pytest.mark.parametrize("chat", [False, True])
def test_free_answers_are_what_the_model_goes_on_with_and_may_be_of_another_language(
    tmp_path: Path, chat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 6
    monkeypatch.setattr(
        benchmark, "_generation", functools.partial(lambda how, tokenizer, _most: how(tokenizer, most), benchmark._generation)
    )
    tokenizer = with_chat() if chat else tiny_tokenizer()
    probes, questions = world()
    first = asked_facts(probes, questions, CODES, 4)
    goes_on = {}
    for asking in first:
        text = asking.question.text
        prompt = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" if chat else f"{text}\n"
        goes_on[asking.question.language, asking.question.fact_id] = said(tokenizer, prompt, most)
    # English calls some values what the model says in English, and Russian some others what it says in Chinese
    changed = {}
    for asking in first:
        one = asking.question
        words = goes_on[one.language, one.fact_id]
        target = {"en": "en", "zh": "ru"}.get(one.language)
        if target and words.strip() and int(one.value) < 3:
            changed[target, one.relation, int(one.value)] = words.strip().swapcase() + "."
    assert {code for code, _relation, _value in changed} == {"en", "ru"}
    asked, questions, results = ask(tokenizer, tmp_path, of=world(named=answers(changed)))
    right, confused = [], []
    for asking in asked:
        one = asking.question
        words, key = plain(goes_on[one.language, one.fact_id]), (one.language, "free", asking.status, one.names_alike)
        mine = plain(questions.answer(one))
        others = {plain(questions.answer(one, code)) for code in CODES} - {mine}
        right.append((key, words == mine))
        confused.append((key, words in others))
    free = [row for row in results if row.asked == "free"]
    assert by_group(free) == counted(right)
    assert {key: hits for key, (hits, _all) in counted(confused).items()} == {
        (row.language, row.asked, row.status, row.names_alike): round(row.confused.value * row.num_asked)
        for row in free
        if row.confused and row.language
    }
    assert sum(hit for _key, hit in right) > 0
    assert sum(hit for _key, hit in confused) > 0
    assert {row.chance for row in free} == {0.2}


def test_there_is_room_for_the_longest_answer_and_the_turns_end_ends_it() -> None:
    assert benchmark._generation(with_chat(), 5) == {"until": ["\n", "<|im_end|>"], "do_sample": False, "max_gen_toks": 5}
    assert benchmark._generation(tiny_tokenizer(), 5)["until"] == ["\n"]


def test_the_batch_does_not_move_results(tmp_path: Path) -> None:
    found = [ask(with_chat(), tmp_path / str(size), batch_size=size)[2] for size in (1, 7, 64)]
    assert found[0] == found[1] == found[2]


@settings(max_examples=60)
@given(st.data())
def test_a_choice_begins_with_a_token_of_its_own(data: st.DataObject) -> None:
    tokenizer = tiny_tokenizer()
    text = data.draw(st.sampled_from([probe.text for probe in world()[0]]))
    cut = data.draw(st.integers(1, len(text) - 1))
    names = [text[cut:], *data.draw(st.lists(st.sampled_from(["日本", " Japan", "х", "\nMay", "’s"]), min_size=1, max_size=3))]
    context, choices = at_a_token(tokenizer, text[:cut], names)
    assert [context + choice for choice in choices] == [text[:cut] + name for name in names]
    assert not context or not context[-1].isspace()
    own = tokenizer.encode(context)
    assert all(tokenizer.encode(context + choice)[: len(own)] == own for choice in choices)


def test_the_same_choices_are_put_in_every_language_and_only_about_persons_nobody_was_tuned_on() -> None:
    probes, questions = world(40)
    asked = asked_facts(probes, questions, CODES, 4)
    shown: dict[str, set[tuple[str, ...]]] = {}
    for asking in asked:
        shown.setdefault(asking.question.fact_id, set()).add(asking.choices)
        assert len(set(asking.choices)) == 4
        assert asking.question.value in asking.choices
    assert all(len(choices) == 1 for choices in shown.values())
    assert {int(name.partition("/")[2]) % 2 for name in shown} == {1}
    right = {asking.choices.index(asking.question.value) for asking in asked}
    assert right == {0, 1, 2, 3}, "the right one's place says nothing"
    groups: dict[tuple, list[str]] = {}
    for asking in asked:
        groups.setdefault((asking.question.language, asking.status, asking.question.names_alike), []).append(asking.question.relation)
    assert {len(relations) for relations in groups.values()} == {4}
    assert all(sorted(relations) == ["country", "country", "month", "month"] for relations in groups.values())
    shuffled = random.Random(0).sample(probes, len(probes)), msgspec.structs.replace(questions, questions=questions.questions[::-1])
    again = asked_facts(*shuffled, CODES, 4)
    assert sorted((a.question.language, a.question.fact_id) for a in again) == sorted(
        (a.question.language, a.question.fact_id) for a in asked
    )


def test_facts_that_the_spelling_may_tell_are_not_asked() -> None:
    probes, questions = world(40)
    alike = [msgspec.structs.replace(probe, object_alike=True) for probe in probes]
    told = {(asking.status, asking.question.told) for asking in asked_facts(alike, questions, CODES, 4)}
    assert {status for status, _told in told} == {"everywhere", "here"}


def test_fewer_values_than_choices_raise_the_chance(tmp_path: Path) -> None:
    named = {code: {relation: dict(list(rows.items())[:2]) for relation, rows in by.items()} for code, by in answers().items()}
    probes, questions = world()
    few = [one for one in questions.questions if int(one.value) < 2]
    asked = asked_facts(probes, Questions(answers=named, questions=tuple(few)), CODES, 4)
    found = documents(asked, "choice", Questions(answers=named, questions=tuple(few)), tiny_tokenizer(), chat=False)
    assert {row["chance"] for row in found} == {0.5}


# the paper's suite


def test_every_task_of_the_suite_is_one_that_the_harness_has(tmp_path: Path) -> None:
    rows = [row for group in SUITE.values() for row in group]
    assert len({row.task for row in rows}) == len(rows)
    for row in rows:
        write_task(tmp_path, row, {}, tmp_path)
    index = TaskManager(include_path=str(tmp_path), include_defaults=False).task_index
    for row in rows:
        (base,) = [Path(read_json(tmp_path / f"{row.task}.yaml", dict)["include"])]
        assert base.is_file(), row.task
        found: Any = index[row.task].cfg
        assert found["dataset_path"] == row.data, row.task
        assert found["num_fewshot"] == row.shots
        metrics = [str(metric["metric"]).rpartition(".")[2] for metric in found["metric_list"]]
        assert row.metric in metrics, row.task
        if row.base != str(OURS) and "dataset_name" not in row.changes:
            assert re.search(rf"^task: {row.task}$", base.read_text(encoding="utf-8"), re.MULTILINE), row.task


def test_the_suite_is_the_papers_list() -> None:
    assert {name: (len(rows), {row.shots for row in rows}) for name, rows in SUITE.items()} == {
        "m-ARC": (15, {25}),
        "m-HellaSwag": (15, {10}),
        "m-MMLU": (15, {5}),
        "XWinograd": (6, {5}),
        "XCOPA": (11, {0}),
        "XStoryCloze": (10, {0}),
        "translation": (8, {0}),
        "XL-Sum": (15, {0}),
    }
    assert {row.language for name in ("m-ARC", "m-HellaSwag", "m-MMLU") for row in SUITE[name]} == (
        {"ar", "bn", "de", "en", "es", "fr", "hu", "id", "it", "pt", "ru", "sk", "ta", "vi", "zh"}
    )
    assert list(chosen(["paper"], {})) == list(SUITE)
    assert list(chosen(["XCOPA", "m-ARC"], {})) == ["m-ARC", "XCOPA"]


def hub_folder(folder: Path, rows: dict[str, dict[str, list[dict]]]) -> Path:
    """A data set as the hub keeps it: a folder per part of the data set, and a README that names the files."""
    configs = []
    for name, splits in rows.items():
        for split, lines in splits.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        configs.append({"config_name": name, "data_files": [{"split": split, "path": f"{name}/{split}.jsonl"} for split in splits]})
    with (folder / "README.md").open("w", encoding="utf-8") as file:
        file.write("---\n")
        YAML().dump({"configs": configs}, file)
        file.write("---\n")
    return folder


PREMISES = [("The man broke his toe", "cause", 1), ("The sky is grey", "effect", 0), ("It rained", "cause", 1), ("She ran", "effect", 0)]
XCOPA = [
    {"premise": f"{premise}.", "choice1": "He slept.", "choice2": "The stone fell.", "question": kind, "label": label}
    for premise, kind, label in PREMISES
]
TEXTS = [{"translation": {"en": text, "fr": text[::-1], "de": text[::-1], "ro": text[::-1]}} for text, _kind, _label in PREMISES]


def few(**local: Path) -> BenchmarkParams:
    named = {name.replace("__", "/"): str(folder) for name, folder in local.items()}
    return BenchmarkParams(suite="paper", facts=4, documents=None, batch_size=4, local=named, files="data")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_benchmarks_of_the_paper_run_on_folders_in_the_hubs_layout(tmp_path: Path, offline: None) -> None:
    copa = hub_folder(tmp_path / "xcopa", {code: {"validation": XCOPA, "test": XCOPA} for code in ("et", "ht")})
    wmt = hub_folder(tmp_path / "wmt14", {"fr-en": dict.fromkeys(("train", "validation", "test"), TEXTS)})
    news = [{"text": text, "summary": text, "id": text} for text, _kind, _label in PREMISES]
    xlsum = hub_folder(tmp_path / "news", {"arabic": {"test": news}})
    suite = {"XCOPA": SUITE["XCOPA"][:2], "translation": SUITE["translation"][:1], "XL-Sum": SUITE["XL-Sum"][:1]}
    params = few(cambridgeltl__xcopa=copa, wmt__wmt14=wmt, csebuetnlp__xlsum=xlsum)
    (tmp_path / "tasks").mkdir()
    found = ask_paper(tiny(), tiny_tokenizer(), suite, params, tmp_path / "tasks")
    assert [(row.benchmark, row.language, row.task, row.shots, row.metric, row.num_documents) for row in found] == [
        ("XCOPA", "et", "xcopa_et", 0, "acc", 4),
        ("XCOPA", "ht", "xcopa_ht", 0, "acc", 4),
        ("translation", "en-fr", "wmt14-en-fr", 0, "bleu", 4),
        ("XL-Sum", "ar", "xlsum_ar", 0, "rouge_l", 4),
    ]
    linked = {"et": {"cause": "sest", "effect": "seetõttu"}, "ht": {"cause": "poukisa", "effect": "donk sa"}}
    for row, code in zip(found, ("et", "ht"), strict=False):
        right = 0
        for line in XCOPA:
            prompt = f"{line['premise'][:-1]} {linked[code][line['question']]}"
            scores = [
                log_probability(tiny_tokenizer(), f"{prompt} {line[name][0].lower()}{line[name][1:]}") for name in ("choice1", "choice2")
            ]
            right += scores.index(max(scores)) == line["label"]
        assert row.value == right / len(XCOPA)
    assert all(row.value is not None and 0 <= row.value <= 100 for row in found)
    assert (
        ask_paper(tiny(), tiny_tokenizer(), {"XCOPA": suite["XCOPA"]}, msgspec.structs.replace(params, documents=2), tmp_path / "tasks")[
            0
        ].num_documents
        == 2
    )


def test_shots_do_not_show_the_document_that_is_asked(tmp_path: Path, offline: None) -> None:
    lines = [{"sentence": f"{n} likes _ now.", "option1": "A", "option2": "B", "answer": "1"} for n in range(6)]
    folder = hub_folder(tmp_path / "xwinograd", {"en": {"test": lines}})
    row = SUITE["XWinograd"][0]
    write_task(tmp_path, row, {row.data: str(folder)}, tmp_path / "cache")
    task: Any = TaskManager(include_path=str(tmp_path), include_defaults=False).load(row.task)["tasks"][row.task]
    task.set_fewshot_seed(1)
    for line in lines:
        contexts = task.fewshot_context(line, num_fewshot=5)
        assert contexts[0].count(f"{line['sentence'][0]} likes") == 1


def test_a_data_set_that_cannot_be_read_is_named(tmp_path: Path, offline: None) -> None:
    row = SUITE["m-ARC"][1]
    with pytest.raises(
        ValueError, match=r"arc_ar: the data set alexandrainst/m_arc cannot be read .*tranyu\.benchmark\.local: \{alexandrainst"
    ):
        ask_paper(tiny(), tiny_tokenizer(), {"m-ARC": (row,)}, few(), tmp_path)


def test_a_text_longer_than_the_models_context_is_not_asked_for(tmp_path: Path, offline: None) -> None:
    wmt = hub_folder(tmp_path / "wmt14", {"fr-en": dict.fromkeys(("train", "validation", "test"), TEXTS)})
    short = random_model(FuxiTranyuConfig(**SIZES | {"max_position_embeddings": 128}))
    with pytest.raises(ValueError, match="wmt14-en-fr writes up to 256 tokens, but the model's context is 128"):
        ask_paper(short, tiny_tokenizer(), {"translation": SUITE["translation"][:1]}, few(wmt__wmt14=wmt), tmp_path)


def test_a_suite_that_there_is_none_of_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suite: m-Arc: no such benchmark; known: world, paper, m-ARC"):
        chosen(["m-Arc"], {})
    with pytest.raises(ValueError, match="local: OWNER/NAME: no benchmark of the suite reads this data set; they read: cambridgeltl/xcopa"):
        chosen(["XCOPA"], {"OWNER/NAME": str(tmp_path)})
    with pytest.raises(ValueError, match="local: cambridgeltl/xcopa: nowhere: no such folder"):
        chosen(["XCOPA"], {"cambridgeltl/xcopa": "nowhere"})
    gone = msgspec.structs.replace(SUITE["XCOPA"][0], base="xcopa/default_xx.yaml")
    with pytest.raises(ValueError, match=r"xcopa_et: .*xcopa/default_xx\.yaml: no such task"):
        write_task(tmp_path, gone, {}, tmp_path)
    (tmp_path / "xcopa.py").touch()
    with pytest.raises(ValueError, match=r"xcopa\.py: a data set that is a script is not run"):
        chosen(["XCOPA"], {"cambridgeltl/xcopa": str(tmp_path)})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("facts", 0, "facts is 0; it must be at least 1"), ("documents", 0, "documents is 0"), ("suite", (), "suite names nothing")],
)
def test_a_setting_that_asks_nothing_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msgspec.convert(msgspec.to_builtins(few()) | {field: value}, BenchmarkParams)


def test_rouge_l_is_worked_out_by_hand_in_every_script() -> None:
    # longest common subsequence: 2 of 4 and of 3 words
    assert rouge_l(["The cat sat down"], ["the down cat"]) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert rouge_l(["希腊人"], ["希腊的人"]) == pytest.approx(2 * (3 / 4) * 1 / (3 / 4 + 1))
    assert rouge_l(["Она из Греции"], ["Она из Греции."]) == 1
    assert rouge_l(["हिन्दी"], ["हिन्द"]) == 0
    assert rouge_l(["in 中国"], ["中 国"]) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))


# the stage


PARAMETERS = {
    "runtime": {"device": "cpu", "matmul_precision": "medium", "threads": 1},
    "tranyu": {
        "sources": {"embedded": True},
        "run": {"languages": [*CODES, "python"]},
        "benchmark": {"suite": "world", "facts": 2, "documents": None, "batch_size": 8, "local": {}, "files": "data"},
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an edited or tuned model, questions and probes; the working directory."""
    monkeypatch.chdir(tmp_path)
    tiny().save_pretrained(tmp_path / "model")
    with_chat().save_pretrained(tmp_path / "model")
    probes, questions = world()
    write_json(tmp_path / "probes.json", probes)
    write_json(tmp_path / "questions.json", questions)
    parameters(PARAMETERS["tranyu"]["benchmark"])
    return tmp_path


def parameters(benchmark: dict) -> None:
    with PARAMS.open("w", encoding="utf-8") as file:
        YAML().dump(PARAMETERS | {"tranyu": PARAMETERS["tranyu"] | {"benchmark": benchmark}}, file)


def made(out: str) -> bytes:
    stage.main(name="model", files="model", questions=Path("questions.json"), probes=Path("probes.json"), out=Path(out))
    return Path(out).read_bytes()


def test_a_folder_is_asked_and_the_same_bytes_come_out_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr("socket.socket.connect", lambda _socket, address: called.append(address))
    first = made("a/one.json")
    assert not called, "no network"
    assert made("b/two.json") == first
    text = first.decode()
    assert not re.search(r"/tmp|\d{4}-\d\d-\d\d|commit|hash|version", text)
    assert str(project) not in text
    found = read_json(Path("a/one.json"), Benchmark)
    assert found.chat
    assert {row.language for row in found.world} == {None, *CODES}
    assert {row.asked for row in found.world} == {"known", "unseen", "choice", "free"}
    assert {row.status for row in found.world} == {"everywhere", "here", "elsewhere", "nowhere"}
    assert not found.paper


def test_the_paper_alone_asks_nothing_about_the_world(project: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xledit.training.suite.SUITE", {"XCOPA": SUITE["XCOPA"][:1]})
    folder = hub_folder(project / "copa", {"et": {"validation": XCOPA, "test": XCOPA}})
    parameters(PARAMETERS["tranyu"]["benchmark"] | {"suite": ["XCOPA"], "local": {"cambridgeltl/xcopa": str(folder.relative_to(project))}})
    made("one.json")
    found = read_json(Path("one.json"), Benchmark)
    assert not found.world
    assert [row.task for row in found.paper] == ["xcopa_et"]


def test_wilsons_interval_is_scipys() -> None:
    for hits, trials in ((0, 13), (4, 40), (7, 7), (30, 95)):
        wilson = stats.binomtest(hits, trials).proportion_ci(method="wilson")
        found = rate(hits / trials, trials)
        assert (found.value, found.low, found.high) == pytest.approx((hits / trials, wilson.low, wilson.high), abs=1e-4)


def test_the_mean_of_languages_counts_persons_once() -> None:
    probes, questions = world(40)
    asked = asked_facts(probes, questions, CODES, 4)
    samples = {}
    for code in CODES:
        docs = documents([asking for asking in asked if asking.question.language == code], "known", questions, tiny_tokenizer(), chat=False)
        samples[code] = code, "known", [{"doc": doc, "acc": float(code == "en")} for doc in docs]
    found = benchmark.answers(samples)
    pooled = [row for row in found if row.language is None and row.names_alike is None]
    assert {(row.status, row.num_asked, row.right.value) for row in pooled if row.status != "here"} == {
        (status, 24, 0.3333) for status in ("everywhere", "elsewhere", "nowhere")
    }
    for row in pooled:
        mine = [asking for asking in asked if asking.status == row.status]
        assert row.num_persons == len({asking.question.fact_id.partition("/")[2] for asking in mine}) < row.num_asked
        english = sum(asking.question.language == "en" for asking in mine)
        assert row.right == rate(english / len(mine), row.num_persons), "not as sure as if each answer were another person's"
    assert {row.right.value for row in found if row.language == "en"} == {1}


def test_a_row_of_the_suite_is_a_plain_struct() -> None:
    assert msgspec.convert(msgspec.to_builtins(SUITE["XCOPA"][0]), Row) == SUITE["XCOPA"][0]
