"""The cells of the joint experiment -> a row per checkpoint, what follows from them, and one figure."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import log, run, wrote
from xledit.crossing.results import CellCrossing
from xledit.report.crossing.figure import crossing
from xledit.report.crossing.findings import findings, rows, sentences
from xledit.storage import read_json, write_bytes, write_json


def main(
    cells: Annotated[Path, typer.Option(help="folder, a file per cell")],
    out: Annotated[Path, typer.Option(help="folder for rows.json, findings.json and crossing.svg")],
) -> None:
    found = rows([read_json(path, CellCrossing) for path in sorted(cells.glob("*.json"))])
    if not found:
        raise ValueError(f"{cells}: no cells; `python -m stages.training.crossing` makes one")
    for line in sentences(found):
        log.info("%s", line)
    write_json(out / "rows.json", found)
    write_json(out / "findings.json", findings(found))
    write_bytes(out / "crossing.svg", crossing(found).encode())
    wrote(out / "rows.json", out / "findings.json", out / "crossing.svg")


if __name__ == "__main__":
    run(main)
