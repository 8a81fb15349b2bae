"""Our facts as tasks of lm-evaluation-harness: four choices of one relation, and the harness scores them as log-probabilities say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from typer.testing import CliRunner

from tests.small_benchmark import BOTH
from tests.tiny import tiny_model, tiny_tokenizer
from xledit.benchmark.lm_eval import task_files
from xledit.benchmark.tables import read_tables
from xledit.cli import app

ROOT = Path(__file__).parents[1]


def test_every_fact_is_asked_in_both_languages_with_choices_of_its_relation() -> None:
    relations = read_tables(ROOT / "data/benchmark", BOTH)
    files, facts = task_files(relations, 1), {fact.fact_id: fact for relation in relations for fact in relation.facts}
    objects = {(relation.name, code): {fact.objects[code] for fact in relation.facts} for relation in relations for code in BOTH}
    documents = {code: [json.loads(line) for line in files[f"xledit_{code}.jsonl"].splitlines()] for code in BOTH}
    assert len(documents["zh"]) == len(documents["en"]) == len(facts)
    for chinese, english in zip(documents["zh"], documents["en"], strict=True):
        assert (chinese["id"], chinese["gold"]) == (english["id"], english["gold"])
        for code, document in (("zh", chinese), ("en", english)):
            fact = facts[document["id"]]
            assert fact.subjects[code] in document["prompt"]
            assert document["choices"][document["gold"]] == fact.objects[code]
            assert len(set(document["choices"])) == 4 and set(document["choices"]) <= objects[fact.relation, code]
    assert task_files(relations, 1) == files != task_files(relations, 2)


@pytest.mark.slow
def test_the_harness_scores_the_tasks_as_log_probabilities_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(app, ["facts", "tasks", "--out", str(tmp_path)]).exit_code == 0
    monkeypatch.chdir(tmp_path)  # as the command tells people to
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    harness: Any = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    found: Any = simple_evaluate(
        harness, tasks=["xledit"], task_manager=TaskManager(include_path=str(tmp_path)), limit=6, log_samples=True, bootstrap_iters=0
    )
    for code, joiner in (("zh", ""), ("en", " ")):
        for sample in found["samples"][f"xledit_{code}"]:
            document = sample["doc"]
            scores = [answer_logprob(model, tokenizer, document["prompt"], joiner + choice) for choice in document["choices"]]
            assert [row[0] for row in sample["filtered_resps"]] == pytest.approx(scores, abs=1e-3)
            assert sample["acc"] == float(scores.index(max(scores)) == document["gold"])


@torch.no_grad()
def answer_logprob(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """The log-probability of the tokens of prompt and answer after as many as the prompt has by itself."""
    start, tokens = len(tokenizer(prompt).input_ids), tokenizer(prompt + answer).input_ids
    logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return sum(logprobs[place - 1, tokens[place]].item() for place in range(start, len(tokens)))
