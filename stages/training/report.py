"""Corpus, tokens, loss, recall, analyses and answers of the trained models -> one page, the README's figures, metrics. No torch."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import run, wrote
from xledit.interpret.results import Neurons, Representations
from xledit.params import section
from xledit.report.training import benchmark, figures, interpret, interpret_figures, page, tables
from xledit.storage import read_json, write_bytes, write_json
from xledit.training.benchmark_results import Benchmark
from xledit.training.results import CheckpointRecall, CorpusCounts, LanguageTokens, Pretrained

# of PeopleParams, which would import babel
FACTS = ("persons", "names_alike", "relations", "values", "everywhere", "one_language", "tellings", "bare")


def main(
    reports: Annotated[Path, typer.Option(help="folder")],
    paper: Annotated[Path, typer.Option(help="CSV: benchmarks as FuxiTranyu's authors report them")],
) -> None:
    name, people = section("tranyu.run.name", str), section("tranyu.world.people", dict)
    titles = {"trained": f"{name}, last checkpoint", "reference": section("tranyu.reference.name", str)}
    analysed = [
        interpret.Analysed(
            title=title,
            states=read_json(reports / "representations" / f"{kind}.json", Representations),
            neurons=read_json(reports / "neurons" / f"{kind}.json", Neurons),
        )
        for kind, title in titles.items()
    ]
    benchmarks = {path.stem: read_json(path, Benchmark) for path in sorted((reports / "benchmark").glob("*.json"))}
    found = page.TrainingRun(
        name=name,
        seed=section("seed", int),
        reference=section("tranyu.reference.name", str),
        settings={
            "Architecture": section("tranyu.architecture", dict),
            "Facts": {name.replace("_", " "): people[name] for name in FACTS},
            "Tokenizer": section("tranyu.tokenizer", dict),
            "Mixture": section("tranyu.mixture", dict),
            "Pre-training": section("tranyu.pretrain", dict),
        },
        corpus=read_json(reports / "corpus.json", CorpusCounts),
        tokens=read_json(reports / "tokenizer.json", dict[str, LanguageTokens]),
        pretrained=read_json(reports / "pretrain.json", Pretrained),
        recall=read_json(reports / "recall.json", list[CheckpointRecall]),
        analysed=analysed,
        benchmarks=benchmarks,
        paper=benchmark.read_paper(paper),
    )
    index, figure, states, metrics = (reports / file for file in ("index.html", "recall.svg", "states.svg", "metrics.json"))
    write_bytes(index, page.render(found).encode())
    write_bytes(figure, figures.recall(found.recall).encode())
    write_bytes(states, interpret_figures.states(analysed).encode())
    numbers = {"analyses": interpret.metrics_tree(analysed), "benchmark": benchmark.metrics_tree(benchmark.titled(benchmarks))}
    write_json(metrics, tables.metrics_tree(found.pretrained, found.recall) | numbers)
    wrote(index, figure, states, metrics)
    typer.echo(f"{page.crossing(found.recall[-1].recall)}\n{index}")


if __name__ == "__main__":
    run(main)
