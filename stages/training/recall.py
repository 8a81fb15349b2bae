"""Checkpoints + sentences -> which facts each checkpoint recalls, by language and by where they are told."""

import functools
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from stages.common.devices import start_torch
from stages.common.runner import log, progress, run, wrote
from xledit.evaluation.watch import said_whole
from xledit.models.fuxitranyu import FAMILY
from xledit.models.loading import read_folder
from xledit.params import section
from xledit.storage import read_json, write_json
from xledit.training.pretrain import marks
from xledit.training.probes import FactProbe
from xledit.training.recall import recall
from xledit.training.results import CheckpointRecall, Recall


class RecallParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``tranyu.recall`` section of params.yaml: ``every`` so many checkpoints is asked, and the last; ``max_tokens`` bounds a batch."""

    every: int
    max_tokens: int

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every is {self.every}; it must be at least 1")


def main(
    checkpoints: Annotated[Path, typer.Option(help="folder with checkpoint-<n>")],
    probes: Annotated[Path, typer.Option(help="JSON: sentences that state each fact")],
    out: Annotated[Path, typer.Option()],
) -> None:
    runtime, params = start_torch(), section("tranyu.recall", RecallParams)
    languages = section("tranyu.run.languages", tuple[str, ...])
    if not section("tranyu.sources.embedded", bool):
        log.info("the corpus is not the embedded one: where it states a fact is not known, and nothing is asked")
        languages = ()
    asked = [probe for probe in read_json(probes, list[FactProbe]) if probe.language in languages]
    chosen = marks(checkpoints)[:: -params.every][::-1]
    found = []
    with progress(len(chosen), "checkpoints") as step:
        for mark in chosen:
            model, tokenizer = read_folder(checkpoints / f"checkpoint-{mark.number}", "float32", runtime.device, FAMILY)
            said = recall(tokenizer, asked, functools.partial(said_whole, model, max_tokens=params.max_tokens))
            found.append(CheckpointRecall(number=mark.number or 0, tokens=mark.tokens, recall=said))
            log.info("checkpoint %s, %d tokens: %s", mark.number, mark.tokens, sentence(said))
            step(1)
    write_json(out, found)
    wrote(out)


def sentence(recalled: list[Recall]) -> str:
    """Return the share of facts that are recalled in a wording of the corpus, by status, over all languages and kinds of names."""
    shares = {}
    for status in dict.fromkeys(row.status for row in recalled):
        rows = [row for row in recalled if row.status == status and row.wording == "known"]
        shares[status] = sum(row.share * row.num_facts for row in rows) / sum(row.num_facts for row in rows)
    return ", ".join(f"{status} {share:.0%}" for status, share in shares.items())


if __name__ == "__main__":
    run(main)
