"""A model + questions and sentences about the world -> what it answers, by lm-evaluation-harness; and the paper's benchmarks.

The model is a folder (a checkpoint, a tuned variant, an edited model), a .gguf or the embedded one. Tasks are written into a temporary
folder; nothing is downloaded but the paper's data sets, where ``tranyu.benchmark.suite`` names them.
"""

import logging
import tempfile
from pathlib import Path
from typing import Annotated

import datasets
import typer

from stages.common.devices import start_torch
from stages.common.runner import log, run, wrote
from xledit.families.describe import load_folder
from xledit.models.loading import ModelParams, resolve
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training.benchmark import WORLD, BenchmarkParams, ask_paper, ask_world, asked_facts, has_chat
from xledit.training.benchmark_results import Benchmark
from xledit.training.catalog import NATURAL
from xledit.training.probes import FactProbe
from xledit.training.questions import Questions
from xledit.training.suite import chosen


def main(
    name: Annotated[str, typer.Option(help="embedded, a local folder or a .gguf")],
    files: Annotated[str, typer.Option(help="the local path behind the name")],
    questions: Annotated[Path, typer.Option(help="JSON: questions about facts")],
    probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact")],
    out: Annotated[Path, typer.Option()],
) -> None:
    runtime, params = start_torch(), section("tranyu.benchmark", BenchmarkParams)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    suite = chosen([benchmark for benchmark in params.names if benchmark != WORLD], params.local)
    languages = [code for code in section("tranyu.run.languages", tuple[str, ...]) if code in NATURAL]
    told = section("tranyu.sources.embedded", bool) and WORLD in params.names
    asked, about = read_json(questions, Questions), read_json(probes, list[FactProbe])
    facts = asked_facts(about, asked, languages, params.facts) if told else []
    folder, _source = resolve(ModelParams(name=name, files=files, revision=None, dtype="float32", family="known"))
    model, tokenizer = load_folder(folder, "float32", runtime.device)
    with tempfile.TemporaryDirectory() as scratch:
        world = ask_world(model, tokenizer, facts, asked, Path(scratch), params.batch_size) if facts else []
        log.info("%s: %d facts asked about", name, len(facts))
        paper = ask_paper(model, tokenizer, suite, params, Path(scratch) / "paper") if suite else []
    write_json(out, Benchmark(chat=has_chat(tokenizer), world=tuple(world), paper=tuple(paper)))
    wrote(out)


if __name__ == "__main__":
    run(main)
