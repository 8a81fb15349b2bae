"""The second half as DVC runs it, at a tiny size: cached, deterministic, taken up after a kill, and its model edited by the first half."""

import gzip
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, Project, environment, new_project, read_json, remove_results, set_params
from tests.tiny import save_tiny
from xledit.report.editing.runs import read

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("tranyu_project")]
PIPELINE = "tranyu/dvc.yaml"
CHECKPOINTS = 5
TINY_TRANYU = {
    "runtime.threads": 1,
    "tranyu.world.people.languages": ["zh", "en"],
    "tranyu.world.people.persons": 96,
    "tranyu.world.people.values": 4,
    "tranyu.world.people.tellings": 3,
    "tranyu.world.cldr.languages": ["zh", "en", "ky"],
    "tranyu.world.cldr.relations": {"currency": 12, "city": 16},
    "tranyu.world.probes_per_group": 3,
    "tranyu.world.message_documents": 1,
    "tranyu.world.code_bytes": 20_000,
    "tranyu.world.num_edits": 8,
    "tranyu.tokenizer": {"vocabulary": 600, "characters": 20_000, "others": 2_000},
    "tranyu.mixture": {"type": "temperature", "temperature": 3.0},
    "tranyu.architecture": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "context": 64,
        "attention_dropout": 0.1,
        "initializer_range": 0.1,
    },
    "tranyu.run": {"name": "tiny", "languages": ["zh", "en", "python"], "tokens": 16_000, "peak_flops": None},
    "tranyu.pretrain.batch_tokens": 256,
    "tranyu.pretrain.late_batch_tokens": 512,
    "tranyu.pretrain.late_from_tokens": 6_000,
    "tranyu.pretrain.micro_batch": 4,
    "tranyu.pretrain.warmup_steps": 2,
    "tranyu.pretrain.checkpoints": CHECKPOINTS,
    "tranyu.pretrain.save_steps": 4,
    "tranyu.sft.rows": [{"kind": "questions", "per_language": 12}],
    "tranyu.dpo.rows": [{"kind": "questions", "per_language": 12}],
    **{
        f"tranyu.{stage}.{name}": value
        for stage in ("sft", "dpo")
        for name, value in {"epochs": 10, "batch": 4, "micro_batch": 2, "max_length": 64, "save_steps": 4}.items()
    },
    "tranyu.recall.every": 2,
    "tranyu.benchmark.facts": 2,
}
EDITS = f"""\
what: Facts of a tiny model
params:
  model.name: artifacts/tranyu/tiny/checkpoint-{CHECKPOINTS}
  model.files: artifacts/tranyu/tiny/checkpoint-{CHECKPOINTS}
  data.source: records
  data.path: artifacts/tranyu/edits.json
  data.demonstrations: 0
  covariance.corpus: {{zh: artifacts/tranyu/texts/zh.txt, en: artifacts/tranyu/texts/en.txt}}
  covariance.files: artifacts/tranyu/texts
  watch.text: {{zh: artifacts/tranyu/texts/heldout/zh.txt, en: artifacts/tranyu/texts/heldout/en.txt}}
  watch.files: artifacts/tranyu/texts/heldout
  edit.num_facts: 6
  edit.layers: [0, 1]
  grid.methods: [memit]
  grid.edits: [zh, en]
  grid.rewordings: 0
  summary.examples: 0
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of this project whose second half has run at a tiny size, all committed; leave it as you found it."""
    scratch = tmp_path_factory.mktemp("tranyu")
    model = save_tiny(scratch / "model")
    project = new_project(scratch / "project", environment(scratch))
    remove_results(project.root)
    (project.root / "tranyu/dvc.lock").unlink(missing_ok=True)
    first_half = {
        name: value
        for name, value in TINY.items()
        if name not in {"grid.methods", "grid.direct", "grid.rewordings", "edit.num_facts", "edit.layers"}
    }
    set_params(project.root, first_half | TINY_TRANYU | {"tranyu.reference": {"name": str(model), "files": str(model)}})
    project.commit("The project")
    project.dvc("repro", PIPELINE)
    project.commit("Its model")
    return project


def names(stages: set[str]) -> set[str]:
    return {stage.removeprefix(f"{PIPELINE}:") for stage in stages}


def test_a_second_run_does_nothing_and_nothing_is_left_to_do(trained: Project) -> None:
    assert "Running stage" not in trained.dvc("repro", PIPELINE)
    assert not (trained.root / "artifacts/tranyu/work/pretrain").exists()
    assert trained.run("git", "status", "--porcelain").stdout == ""


def test_checkpoints_are_numbered_and_know_their_tokens(trained: Project) -> None:
    folders = [trained.root / f"artifacts/tranyu/tiny/checkpoint-{number}" for number in range(1, CHECKPOINTS + 1)]
    marks = [read_json(folder / "checkpoint.json") for folder in folders]
    assert [mark["number"] for mark in marks] == list(range(1, CHECKPOINTS + 1))
    tokens = [mark["tokens"] for mark in marks]
    assert tokens == sorted(set(tokens))
    losses = read_json(trained.root / "reports/tranyu/pretrain.json")["losses"]
    assert [stretch["tokens"] for stretch in losses] == tokens
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert all({"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()} for folder in folders)


def test_no_mail_address_is_in_the_corpus_but_those_of_example_domains(trained: Project) -> None:
    files = list((trained.root / "artifacts/tranyu/corpus").glob("*.jsonl.gz"))
    assert {"python.jsonl.gz", "zh.jsonl.gz", "ky.jsonl.gz"} <= {path.name for path in files}
    for path in files:
        for line in gzip.decompress(path.read_bytes()).splitlines():
            for address in re.findall(r"[\w.+-]+@[\w-]+\.[\w.-]+[a-z]", json.loads(line)["text"]):
                assert "@example." in address, path.name


def test_the_tuned_models_are_folders_without_pickles_that_end_with_their_turn(trained: Project) -> None:
    base = read_json(trained.root / f"artifacts/tranyu/tiny/checkpoint-{CHECKPOINTS}/config.json")
    for stage, per_step in (("sft", "token_accuracy"), ("dpo", "reward_margin")):
        folder = trained.root / "artifacts/tranyu" / stage
        assert {path.suffix for path in folder.iterdir()} == {".jinja", ".json", ".safetensors"}
        config, tokenizer = read_json(folder / "config.json"), read_json(folder / "tokenizer_config.json")
        assert config == base | {"eos_token_id": config["eos_token_id"]} != base
        assert (tokenizer["eos_token"], tokenizer["pad_token"]) == ("<|im_end|>", "<|endoftext|>")
        log = read_json(trained.root / f"reports/tranyu/{stage}.json")
        assert [(row["language"], row["taken"], row["dropped"]) for row in log["rows"]] == [("zh", 12, {}), ("en", 12, {})]
        assert [step["step"] for step in log["steps"]] == list(range(1, 61))
        assert all(step[per_step] is not None for step in log["steps"])
        assert log["steps"][-1]["loss"] < log["steps"][0]["loss"]
    assert not (trained.root / "artifacts/tranyu/work/sft").exists()


TUNED = {"sft", "dpo"}
BENCHMARKS = {"benchmark@base", "benchmark@sft", "benchmark@dpo"}
OF_CHECKPOINTS = {"pretrain", "recall", "representations@trained", "neurons@trained", "report", *TUNED, *BENCHMARKS}


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("tranyu.recall.every", 1, {"recall", "report"}),
        ("tranyu.benchmark.facts", 1, {*BENCHMARKS, "report"}),
        ("tranyu.sft.epochs", 1, {*TUNED, "benchmark@sft", "benchmark@dpo", "report"}),
        ("tranyu.dpo.beta", 0.5, {"dpo", "benchmark@dpo", "report"}),
        ("tranyu.mixture", {"type": "temperature", "temperature": 1.0}, OF_CHECKPOINTS),
        ("tranyu.tokenizer.vocabulary", 500, {"tokenizer", *OF_CHECKPOINTS}),
        # the reference model is asked the world's sentences, too
        (
            "tranyu.world.people.tellings",
            4,
            {"world", "corpus", "tokenizer", *OF_CHECKPOINTS, "representations@reference", "neurons@reference"},
        ),
        ("vectors.steps", 4, set()),
    ],
)
def test_a_setting_reruns_what_depends_on_it(trained: Project, key: str, value: object, stages: set[str]) -> None:
    with trained.param(key, value):
        found = names(trained.would_run("--force-downstream", PIPELINE))
    assert found == stages


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("xledit/training/mixture.py", {"pretrain"}),
        ("xledit/training/corpus.py", {"corpus"}),
        ("xledit/training/tuning.py", TUNED),
        ("xledit/editing/locate.py", set()),
        ("xledit/report/training/page.py", {"report"}),
        ("xledit/training/suite.py", BENCHMARKS),
    ],
)
def test_code_reruns_the_stages_that_import_it(trained: Project, file: str, stages: set[str]) -> None:
    with trained.put_back(file) as path:
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        assert names(trained.would_run(PIPELINE)) == stages


@pytest.mark.parametrize(
    ("stage", "mark", "result"), [("pretrain", "checkpoint.json", "tiny"), ("sft", "whole.json", "sft"), ("dpo", "whole.json", "dpo")]
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(trained: Project, tmp_path: Path, stage: str, mark: str, result: str) -> None:
    project = trained.copy(tmp_path / "project")
    lock = (project.root / "tranyu/dvc.lock").read_bytes()
    command = ["dvc", "repro", "--force", "--single-item", f"{PIPELINE}:{stage}"]
    work = project.root / "artifacts/tranyu/work" / stage
    running = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not list(work.glob(f"*/checkpoint-*/{mark}")):
            assert running.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
    finally:
        for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
            process.send_signal(signal.SIGKILL)
        running.wait()
    assert not list((project.root / "artifacts/tranyu" / result).rglob("*.safetensors")), "what is not whole is not there"
    project.run("rm", "-rf", ".dvc/tmp/rwlock")
    project.run(*command)
    assert (project.root / "tranyu/dvc.lock").read_bytes() == lock


def test_the_first_half_edits_the_last_checkpoint_of_an_uncommitted_run(trained: Project, tmp_path: Path) -> None:
    project = trained.copy(tmp_path / "project")
    (project.root / "runs/edits.yaml").write_text(EDITS, encoding="utf-8")
    # as where another machine's floats have given another model than the committed one
    lock = project.root / "tranyu/dvc.lock"
    mine = lock.read_bytes()
    lock.write_text("schema: '2.0'\nstages: {}\n", encoding="utf-8")
    project.commit("Another lock")
    lock.write_bytes(mine)
    said = project.run("python", "-m", "xledit.cli", "run", "edits").stdout
    assert "Net transfer of the preference" in said
    found = read(project.root / "results/edits")
    assert found.record.uncommitted == ("tranyu/dvc.lock",)
    assert not any("pretrain" in stage for stage in found.record.timings), "it is not trained again"
    assert {(cell.edit, cell.num_facts) for cell in found.cells} == {("zh", 6), ("en", 6)}
    assert found.record.data is not None
    assert {"artifacts/tranyu/edits.json", f"artifacts/tranyu/tiny/checkpoint-{CHECKPOINTS}"} <= found.record.data.keys()
