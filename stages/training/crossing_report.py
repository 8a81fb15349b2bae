"""The cells of the joint experiment -> a row per checkpoint, what follows from them, and one figure."""

from pathlib import Path
from typing import Annotated

import typer

from stages.common.runner import log, run, wrote
from xledit.crossing.results import CellCrossing, Grid
from xledit.params import section
from xledit.report.crossing.figure import crossing
from xledit.report.crossing.findings import findings, rows
from xledit.storage import read_json, write_bytes, write_json


def main(
    cells: Annotated[Path, typer.Option(help="folder, a file per cell")],
    out: Annotated[Path, typer.Option(help="folder for rows.json, findings.json and crossing.svg")],
) -> None:
    grids = [section(f"tranyu.{name}", Grid) for name in ("crossing_grid", "crossing_balance")]
    # a level that the settings have no more leaves its file behind
    found = rows([cell for path in sorted(cells.glob("*.json")) if any(map((cell := read_json(path, CellCrossing)).of, grids))])
    if not found:
        raise ValueError(f"{cells}: no cell of tranyu.crossing_grid or crossing_balance; `python -m stages.training.crossing` makes one")
    read = findings(found)
    for line in read.sentences:
        log.info("%s", line)
    write_json(out / "rows.json", found)
    write_json(out / "findings.json", read)
    write_bytes(out / "crossing.svg", crossing(found).encode())
    wrote(out / "rows.json", out / "findings.json", out / "crossing.svg")


if __name__ == "__main__":
    run(main)
