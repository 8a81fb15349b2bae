"""Corpus, tokens, loss and recall of the trained model -> one page, the README's figure, one metrics file. No torch."""

from pathlib import Path
from typing import Annotated

import typer

from stages.runner import run, wrote
from xledit.params import section
from xledit.reporting import training, training_figures, training_tables
from xledit.storage import read_json, write_bytes, write_json
from xledit.training.results import CheckpointRecall, CorpusCounts, LanguageTokens, Pretrained

WORLD = ("relations", "everywhere", "one_language", "variants", "apart")


def main(reports: Annotated[Path, typer.Option(help="folder")]) -> None:
    found = training.TrainingRun(
        name=section("tranyu.run.name", str),
        seed=section("seed", int),
        reference=section("tranyu.reference.name", str),
        settings={
            "Architecture": section("tranyu.architecture", dict),
            "Facts": {name.replace("_", " "): section(f"tranyu.world.{name}", object) for name in WORLD},
            "Tokenizer": section("tranyu.tokenizer", dict),
            "Mixture": section("tranyu.mixture", dict),
            "Pre-training": section("tranyu.pretrain", dict),
        },
        corpus=read_json(reports / "corpus.json", CorpusCounts),
        tokens=read_json(reports / "tokenizer.json", dict[str, LanguageTokens]),
        pretrained=read_json(reports / "pretrain.json", Pretrained),
        recall=read_json(reports / "recall.json", list[CheckpointRecall]),
    )
    index, figure, metrics = reports / "index.html", reports / "recall.svg", reports / "metrics.json"
    write_bytes(index, training.render(found).encode())
    write_bytes(figure, training_figures.recall(found.recall).encode())
    write_json(metrics, training_tables.metrics_tree(found.pretrained, found.recall))
    wrote(index, figure, metrics)
    typer.echo(f"{training.crossing(found.recall[-1].recall)}\n{index}")


if __name__ == "__main__":
    run(main)
