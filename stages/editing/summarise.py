"""Scores of one edited model and of the unedited one -> every metric with its interval, beside its floor. No torch."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import run, wrote
from xledit.evaluation.checks import Check
from xledit.evaluation.summary import SummaryParams, summarise
from xledit.params import section
from xledit.records import Score
from xledit.storage import read_json, write_json


def main(
    method: Annotated[str, typer.Option()],
    edit: Annotated[str, typer.Option()],
    scores: Annotated[Path, typer.Option()],
    floor: Annotated[Path, typer.Option()],
    labels: Annotated[Path, typer.Option()],
    checks: Annotated[Path, typer.Option()],
    out: Annotated[Path, typer.Option()],
) -> None:
    grid_languages = section("grid.languages", tuple[str, ...])
    edit_languages = (edit,) if edit in grid_languages else grid_languages
    summary = summarise(
        method,
        edit,
        edit_languages,
        read_json(scores, list[Score]),
        read_json(floor, list[Score]),
        read_json(labels, dict[str, dict[str, str]]),
        read_json(checks, list[Check]),
        section("summary", SummaryParams),
        section("seed", int),
    )
    write_json(out, summary)
    wrote(out)


if __name__ == "__main__":
    run(main)
