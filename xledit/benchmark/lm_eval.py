"""The benchmark as tasks of lm-evaluation-harness, for people who ask a model about its facts and never edit: pure functions, text out."""

import io
import json
import random
from collections.abc import Sequence
from typing import Any, get_args

from ruamel.yaml import YAML

from xledit.benchmark.read import Choice, Writer
from xledit.benchmark.tables import Fact, Order, Relation
from xledit.languages import language

GROUP = "xledit"
CHOICES = 4


def task_files(relations: Sequence[Relation], seed: int) -> dict[str, str]:
    """Return the files of the tasks by name: a group, and for each language a task with its documents.

    A document asks one fact as a sentence to be completed: which of four objects of its relation, the true one among them. The choices and
    their order are the same in every language; the subject stands first and last in turn. The score is ``acc``: the summed log-probability
    of the true answer is the highest.
    """
    languages = tuple(relations[0].wordings)
    writer = Writer(relations, Choice(split="all", order="first", world_knowledge=True, probes={}), seed)
    facts = [(relation, fact) for relation in relations for fact in relation.facts]
    files = {f"{GROUP}.yaml": _yaml({"group": GROUP, "task": [f"{GROUP}_{code}" for code in languages]})}
    for code in languages:
        lines = []
        for place, (relation, fact) in enumerate(facts):
            if code not in fact.subjects:
                continue
            request = writer.requests(fact, get_args(Order)[place % 2])[code]
            choices = four(relation, fact, seed)
            document = {
                "id": fact.fact_id,
                "relation": relation.name,
                "domain": fact.domain,
                "scope": fact.scope,
                "split": relation.split,
                "prompt": request.prompt,
                "choices": [other.objects[code] for other in choices],
                "gold": [other.answer for other in choices].index(fact.answer),
            }
            lines.append(json.dumps(document, ensure_ascii=False))
        files[f"{GROUP}_{code}.jsonl"] = "\n".join(lines) + "\n"
        files[f"{GROUP}_{code}.yaml"] = _yaml(
            {
                "task": f"{GROUP}_{code}",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": f"{GROUP}_{code}.jsonl"}},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{prompt}}",
                "doc_to_choice": "choices",
                "doc_to_target": "gold",
                "target_delimiter": language(code).joiner,
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
                "metadata": {"version": 1.0},
            }
        )
    return files


def four(relation: Relation, fact: Fact, seed: int) -> list[Fact]:
    """Return facts whose objects are the choices: the fact itself among three of its relation with other objects, or fewer if there are."""
    others = {other.answer: other for other in relation.facts if other.answer != fact.answer}
    draw = random.Random(f"{seed}/lm_eval/{fact.fact_id}")
    chosen = [fact, *draw.sample(list(others.values()), min(CHOICES - 1, len(others)))]
    return draw.sample(chosen, len(chosen))


def _yaml(content: dict[str, Any]) -> str:
    file = io.StringIO()
    YAML(typ="safe", pure=True).dump(content, file)
    return file.getvalue()
