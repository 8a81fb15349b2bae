"""Facts of the world and the paper's benchmarks, put to a model by lm-evaluation-harness.

The tasks and their data are written here; requests, scores and metrics are the harness's. An answer's score is the log-probability of its
tokens, summed (``acc``): the harness's ``acc_norm`` divides by characters, which say less or more in other scripts.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from lm_eval import simple_evaluate
from lm_eval.api.metrics import exact_match_fn
from lm_eval.api.task import Task
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from xledit.storage import write_bytes
from xledit.training import catalog
from xledit.training.benchmark_results import DECIMALS, Answers, Asked, PaperScore, rate
from xledit.training.probes import FactProbe
from xledit.training.questions import Question, Questions
from xledit.training.results import Status
from xledit.training.suite import Row, write_task

WORLD = "world"
CHOICES = 4
# folders of the tasks that go by running text and, where there is a chat template, by that
WAYS: dict[str, tuple[Asked, ...]] = {"sentences": ("known", "unseen"), "questions": ("choice", "free")}
# of free answers: case, spaces around it and the sentence's end do not count
EXACT = {"ignore_case": True, "regexes_to_ignore": [r"^\s+", r"[\s.。।]+$"]}
METRIC = {"choice": {"metric": "acc"}, "free": {"metric": "exact_match", **EXACT}}
# what the harness lets a model write where a task does not say
HFLM_GENERATES = 256
AVERAGED = {"aggregation": "mean", "higher_is_better": True}


class BenchmarkParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.benchmark`` section of params.yaml.

    ``suite`` is ``world`` (questions about the invented persons), ``paper`` (the benchmarks of FuxiTranyu, from a hub), or a list of these
    and of single benchmarks of the paper. ``facts`` are asked at most of each language, place of telling and kind of names: more
    narrow the intervals and take longer. ``documents`` are asked at most of each of the paper's tasks, null for all. ``batch_size``
    rows at a time: memory and speed, not results. ``local`` has folders in the hub's layout that stand for its data sets
    (``{OWNER/NAME: folder}``); ``files`` is the folder that DVC watches for them.
    """

    suite: str | tuple[str, ...]
    facts: int
    documents: int | None
    batch_size: int
    local: dict[str, str]
    files: str

    def __post_init__(self) -> None:
        for name in ("facts", "documents", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not self.names:
            raise ValueError("suite names nothing; name world, paper, or benchmarks of the paper")

    @property
    def names(self) -> tuple[str, ...]:
        """What ``suite`` names."""
        return (self.suite,) if isinstance(self.suite, str) else self.suite


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A fact to be asked about in one language: as a question, and as a sentence in each wording that did not tell it.

    ``choices`` are values of its relation, the right one among them.
    """

    question: Question
    sentences: dict[str, FactProbe]
    choices: tuple[str, ...]

    @property
    def status(self) -> Status:
        """Where the fact is told, as seen from the asked language."""
        told = self.question.told
        if told in ("everywhere", "nowhere"):
            return told  # pyright: ignore[reportReturnType]
        return "here" if told == self.question.language else "elsewhere"


def asked_facts(probes: Sequence[FactProbe], questions: Questions, languages: Sequence[str], most: int) -> list[Asking]:
    """Return facts about persons that no tuned model was taught to answer about, the same ones for every model.

    Of each language, status and kind of names ``most`` at most, evenly by relation. Facts told in one other language that spells the
    object alike are left out: the spelling may tell them.
    """
    stated: dict[tuple[str, str], dict[str, FactProbe]] = {}
    for probe in probes:
        if probe.wording != "told" and (probe.told in ("everywhere", probe.language) or not probe.object_alike):
            stated.setdefault((probe.language, probe.fact_id), {})[probe.wording] = probe
    groups: dict[tuple, dict[str, list[Asking]]] = {}
    for question in questions.questions:
        sentences = stated.get((question.language, question.fact_id), {})
        if question.split != "test" or question.language not in languages or len(sentences) < 2:
            continue
        asking = Asking(question=question, sentences=sentences, choices=_choices(question, questions))
        key = (languages.index(question.language), asking.status, question.names_alike)
        groups.setdefault(key, {}).setdefault(question.relation, []).append(asking)
    return [asking for key in sorted(groups) for asking in _evenly(groups[key], most)]


def _evenly(by_relation: dict[str, list[Asking]], most: int) -> list[Asking]:
    """Return ``most`` facts at most, in turn from each relation, in an order that does not depend on language or model."""
    for facts in by_relation.values():
        facts.sort(key=lambda asking: random.Random(f"benchmark/{asking.question.fact_id}").random())
    longest = max(map(len, by_relation.values()))
    turns = [facts[turn] for turn in range(longest) for _relation, facts in sorted(by_relation.items()) if turn < len(facts)]
    return turns[:most]


def _choices(question: Question, questions: Questions) -> tuple[str, ...]:
    """Return the right value among three wrong ones, in an order that is the same in every language and for every model."""
    named = questions.answers[question.language][question.relation]
    right = named[question.value].casefold()
    others = [value for value in sorted(named) if named[value].casefold() != right]
    draw = random.Random(f"benchmark/{question.fact_id}")
    chosen = [question.value, *draw.sample(others, min(CHOICES - 1, len(others)))]
    return tuple(draw.sample(chosen, len(chosen)))


def at_a_token(tokenizer: PreTrainedTokenizerBase, prompt: str, choices: Sequence[str]) -> tuple[str, list[str]]:
    """Return prompt and choices, with so much of the prompt's end moved to the choices that each begins with a token of its own.

    As in running text: the harness takes for the choice whatever tokens come after as many as the prompt has by itself, so a token that
    reaches from one into the other would be lost. No space ends the prompt, since the harness would move it.
    """
    whole = [tokenizer.encode(prompt + choice) for choice in choices]
    for stop in range(len(prompt), 0, -1):
        if prompt[stop - 1].isspace():
            continue
        tokens = tokenizer.encode(prompt[:stop])
        if all(text[: len(tokens)] == tokens for text in whole):
            return prompt[:stop], [prompt[stop:] + choice for choice in choices]
    return "", [prompt + choice for choice in choices]


def documents(asked: Sequence[Asking], how: Asked, questions: Questions, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[dict]:
    """Return the documents of a task. ``chat``: the harness will put the questions into the tokenizer's chat template."""
    return [
        {
            "fact_id": asking.question.fact_id,
            "relation": asking.question.relation,
            "status": asking.status,
            "names_alike": asking.question.names_alike,
        }
        | (_free(asking, questions, chat=chat) if how == "free" else _multiple_choice(asking, how, questions, tokenizer, chat=chat))
        for asking in asked
    ]


def _multiple_choice(asking: Asking, how: Asked, questions: Questions, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> dict:
    question = asking.question
    named = questions.answers[question.language][question.relation]
    choices = [named[value] for value in asking.choices]
    if how == "choice":
        context = question.text if chat else f"{question.text}\n"
        # with the space that stands before it in a text, as tuned models say it: a small tokenizer has no other token for the word
        gap = " " if catalog.row(question.language).writing == "spaced" else ""
        choices = [f"{gap}{choice}" for choice in choices]
    else:
        context = asking.sentences[how].text[: asking.sentences[how].start]
    if how != "choice" or not chat:
        context, choices = at_a_token(tokenizer, context, choices)
    return {"context": context, "choices": choices, "gold": asking.choices.index(question.value), "chance": 1 / len(choices)}


def _free(asking: Asking, questions: Questions, *, chat: bool) -> dict:
    question = asking.question
    right = questions.answer(question)
    named = [questions.answer(question, code) for code in questions.answers]
    return {
        "context": question.text if chat else f"{question.text}\n",
        "answer": right,
        "elsewhere": sorted({name for name in named if name.casefold() != right.casefold()}),
        "chance": 1 / len(questions.answers[question.language][question.relation]),
    }


def ask_world(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Asking],
    questions: Questions,
    folder: Path,
    batch_size: int,
) -> list[Answers]:
    """Return what the model answers, by language, way of asking, status and kind of names. The tasks are written into ``folder``.

    Sentences are put as running text, whatever the model; questions through the tokenizer's chat template where it has one.
    """
    chat, harness = has_chat(tokenizer), _harness(model, tokenizer, batch_size)
    found: dict[str, tuple[str, Asked, Sequence[dict]]] = {}
    longest = max(
        len(tokenizer.encode(name, add_special_tokens=False))
        for relations in questions.answers.values()
        for names in relations.values()
        for name in names.values()
    )
    most = min(longest + 2, harness.max_length // 2)
    for place, hows in WAYS.items():
        in_chat = chat and place == "questions"
        tasks: dict[str, tuple[str, Asked]] = {}
        for code, how in itertools.product(dict.fromkeys(asking.question.language for asking in asked), hows):
            mine = [asking for asking in asked if asking.question.language == code]
            tasks[f"{WORLD}_{how}_{code}"] = code, how
            rows = documents(mine, how, questions, tokenizer, chat=in_chat)
            _write_world(folder / place, f"{WORLD}_{how}_{code}", rows, _generation(tokenizer, most) if how == "free" else None)
        manager = TaskManager(include_path=str(folder / place), include_defaults=False)
        results = _evaluate(harness, manager, list(tasks), chat=in_chat)
        found |= {name: (code, how, results["samples"][name]) for name, (code, how) in tasks.items()}
    return answers(found)


def has_chat(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the tokenizer has a chat template, as tuned variants have."""
    return bool(getattr(tokenizer, "chat_template", None))


def _generation(tokenizer: PreTrainedTokenizerBase, most: int) -> dict:
    """Return how to generate: greedily, up to the end of the line or of the turn, and ``most`` tokens at most."""
    until = ["\n"]
    if has_chat(tokenizer):
        turns: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": "?"}, {"role": "assistant", "content": "answer"}], tokenize=False
        )
        until += turns.rpartition("answer")[2].split()[:1]
    return {"until": until, "do_sample": False, "max_gen_toks": most}


def _write_world(folder: Path, name: str, rows: Sequence[dict], generation: dict | None) -> None:
    """Write a task of the world and its documents. With ``generation`` the answer is written freely, else chosen."""
    lines = folder / f"{name}.jsonl"
    write_bytes(lines, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    chosen = {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "gold"}
    free = {"output_type": "generate_until", "generation_kwargs": generation, "doc_to_target": "answer"}
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(lines)}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "doc_to_text": "context",
        "target_delimiter": "",
        "metric_list": [METRIC["free" if generation else "choice"] | AVERAGED],
        **(free if generation else chosen),
    }
    # JSON is YAML
    write_bytes(folder / f"{name}.yaml", msgspec.json.encode(settings))


def answers(results: Mapping[str, tuple[str, Asked, Sequence[dict]]]) -> list[Answers]:
    """Return what the harness's samples say, by task: language, way of asking, its documents with their scores.

    Of each language by kind of names; of all languages together also for both kinds.
    """
    groups: dict[tuple, list[tuple[dict, bool, bool]]] = {}
    for code, how, samples in results.values():
        for sample in samples:
            doc, is_free = sample["doc"], how == "free"
            found = doc, bool(sample["exact_match" if is_free else "acc"] == 1), is_free and _is_confused(sample)
            for language, names_alike in ((code, doc["names_alike"]), (None, doc["names_alike"]), (None, None)):
                groups.setdefault((language, how, doc["status"], names_alike), []).append(found)
    rows = []
    for (language, how, status, names_alike), found in groups.items():
        persons, number = len({doc["fact_id"].partition("/")[2] for doc, _right, _confused in found}), len(found)
        rows.append(
            Answers(
                language=language,
                asked=how,
                status=status,
                names_alike=names_alike,
                num_asked=number,
                num_persons=persons,
                right=rate(sum(right for _doc, right, _confused in found) / number, persons),
                chance=round(sum(doc["chance"] for doc, _right, _confused in found) / number, DECIMALS),
                confused=rate(sum(confused for _doc, _right, confused in found) / number, persons) if how == "free" else None,
            )
        )
    return sorted(rows, key=lambda row: (row.language or "", row.asked, row.status, str(row.names_alike)))


def _is_confused(sample: dict) -> bool:
    """Return whether the right answer is given in another language's words."""
    (said,) = sample["filtered_resps"]
    return any(exact_match_fn(references=[name], predictions=[said], **EXACT)["exact_match"] == 1 for name in sample["doc"]["elsewhere"])


def ask_paper(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: dict[str, tuple[Row, ...]],
    params: BenchmarkParams,
    folder: Path,
) -> list[PaperScore]:
    """Return the scores of the paper's benchmarks, all as running text. The tasks are written into ``folder``.

    Raises ValueError for a data set that cannot be read: it is not there, or is a script, which is not run.
    """
    rows = [(name, row) for name, group in suite.items() for row in group]
    for _name, row in rows:
        write_task(folder, row, params.local, folder / "cache")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    tasks = [_load(manager, row) for _name, row in rows]
    harness = _harness(model, tokenizer, params.batch_size)
    for task in tasks:
        _check_room(task, harness.max_length)
    results = _evaluate(harness, manager, tasks, limit=params.documents)
    scores = []
    for name, row in rows:
        value = round(float(results["results"][row.task][f"{row.metric},none"]), DECIMALS)
        scores.append(
            PaperScore(
                benchmark=name,
                language=row.language,
                task=row.task,
                shots=row.shots,
                metric=row.metric,
                value=value,
                num_documents=results["n-samples"][row.task]["effective"],
            )
        )
    return scores


def _load(manager: TaskManager, row: Row) -> Task:
    try:
        return manager.load(row.task)["tasks"][row.task]
    except (RuntimeError, OSError, ValueError) as error:
        raise ValueError(
            f"{row.task}: the data set {row.data} cannot be read ({error}). Offline, or where it is a script, which is not run, name a "
            f"folder with its rows in the hub's layout: tranyu.benchmark.local: {{{row.data}: FOLDER}}"
        ) from error


def _check_room(task: Task, context: int) -> None:
    generated = (task.config.generation_kwargs or {}).get("max_gen_toks", HFLM_GENERATES)
    if task.config.output_type == "generate_until" and generated >= context:
        raise ValueError(
            f"{task.config.task} writes up to {generated} tokens, but the model's context is {context}; leave it out of the suite"
        )


def _harness(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> Any:
    """Return the model as the harness calls it."""
    wrapped: Any = HFLM  # pyright cannot read its signature, nor that of simple_evaluate
    return wrapped(pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=batch_size)


def _evaluate(harness: Any, manager: TaskManager, tasks: Sequence[str | Task], *, chat: bool = False, limit: int | None = None) -> dict:
    """Return the harness's results. It notes date, commit and machine there, too, which no output of ours may hold."""
    evaluate: Any = simple_evaluate
    return evaluate(model=harness, tasks=list(tasks), task_manager=manager, bootstrap_iters=0, limit=limit, apply_chat_template=chat)
