"""Audit, token counts, cell summaries and geometry -> one page, the README's figure, one metrics file, the plots' data. No torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from stages.common.runner import log, run, wrote
from xledit.benchmark.results import BenchmarkAudit
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry, VectorGeometry
from xledit.manifest import ModelManifest
from xledit.params import section
from xledit.records import Audit
from xledit.report.common.numbers import aligned
from xledit.report.editing import figures, page, runs, tables
from xledit.storage import read_json, write_bytes, write_json

T = TypeVar("T")


def main(
    reports: Annotated[Path, typer.Option(help="folder")],
    artifacts: Annotated[Path, typer.Option(help="folder with the model's manifest and the tokens")],
    results: Annotated[Path, typer.Option(help="folder that `xledit run` writes")],
) -> None:
    languages, methods = section("grid.languages", tuple[str, ...]), methods_of_the_grid()
    cells = read_cells(reports / "cells")
    tokens = _read_all({code: artifacts / "tokens" / f"{code}.json" for code in languages}, dict[str, int])
    updates = _read_all({method: reports / "geometry" / f"{method}.json" for method in methods}, list[UpdateGeometry])
    vectors = reports / "geometry" / "vectors.json"
    warn_of_others(reports / "geometry", ("vectors", *methods))
    shown_run = page.Run(
        languages=languages,
        methods=methods,
        seed=section("seed", int),
        settings=_settings(methods),
        model=read_json(artifacts / "model.json", ModelManifest),
        audit=read_json(reports / "data.json", Audit),
        benchmark=read_json(reports / "audit.json", BenchmarkAudit),
        tokens=tokens,
        cells=cells,
        vectors=read_json(vectors, list[VectorGeometry]),
        updates=updates,
        others=runs.read_all(results),
    )
    index, figure = reports / "index.html", reports / "transfer.svg"
    write_bytes(index, page.render(shown_run).encode())
    write_bytes(figure, figures.transfer(cells).encode())
    write_json(reports / "plots" / "transfer.json", tables.transfer_plot(cells))
    write_json(reports / "plots" / "cosines.json", tables.cosine_plot(shown_run.vectors))
    write_json(reports / "metrics.json", tables.metrics_tree(cells))
    wrote(index, figure, reports / "metrics.json")
    typer.echo(f"{aligned(tables.headline(cells))}\n{index}")


def methods_of_the_grid() -> tuple[str, ...]:
    """Return the methods that params.yaml names, those that need v* first."""
    return (*section("grid.methods", tuple[str, ...]), *section("grid.direct", tuple[str, ...]))


def read_cells(folder: Path) -> list[CellSummary]:
    """Return the summaries of the cells that ``params.yaml`` names, by method and edit. Warns of files of other cells.

    Raises ValueError with the path of a cell that is missing.
    """
    names = [f"{method}-{edit}" for method in methods_of_the_grid() for edit in section("grid.edits", tuple[str, ...])]
    warn_of_others(folder, names)
    return list(_read_all({name: folder / f"{name}.json" for name in names}, CellSummary).values())


def warn_of_others(folder: Path, names: Iterable[str]) -> None:
    """Warn of files that an earlier grid has left: DVC counts them as a dependency, and a fresh clone does not have them."""
    for path in sorted(set(folder.glob("*.json")) - {folder / f"{name}.json" for name in names}):
        log.warning("%s: not in the grid of params.yaml, not read; delete it", path)


def _read_all(paths: dict[str, Path], kind: type[T]) -> dict[str, T]:
    return {name: read_json(path, kind) for name, path in paths.items()}


def _settings(methods: Iterable[str]) -> dict[str, object]:
    """Return the settings that the page shows, by their labels on the page."""
    of_methods = section("methods", dict[str, object])
    return {
        "Layers edited": section("edit.layers", tuple[int, ...]),
        "Facts": {
            "skipped first": section("data.skip_facts", int),
            "of our own benchmark: split": section("data.split", str),
            "place of the subject": section("data.order", str),
        },
        "Target values": section("vectors", dict[str, object]),
        "Second moment": {"tokens per language, at most": section("covariance.max_tokens", int)},
        **{f"Method {method}": of_methods[method] for method in methods if method in of_methods},
    }


if __name__ == "__main__":
    run(main)
