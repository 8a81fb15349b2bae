"""Grids other than the default run to their report, by params.yaml alone: no combined edit, one language, combinations alone."""

from pathlib import Path

import pytest

from tests.conftest import TinyProject, read_json, set_params

pytestmark = pytest.mark.slow
GRIDS = {
    "no combined edit": (["zh", "en"], ["zh", "en"]),
    "one language": (["zh"], ["zh"]),
    "combinations alone": (["zh", "en"], ["sum", "langedit"]),
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_runs_to_its_report(tiny_project: TinyProject, tmp_path: Path, name: str) -> None:
    languages, edits = GRIDS[name]
    copy = tiny_project.copy(tmp_path / "copy")
    set_params(copy.root, {"grid.languages": languages, "grid.edits": edits, "grid.direct": []})
    copy.dvc("checkout", "--allow-missing")  # the cells that no longer are go; the new ones are not there yet
    copy.dvc("repro")
    assert "up to date" in copy.dvc("repro")
    cells = {edit: read_json(copy.root / f"reports/cells/memit-{edit}.json") for edit in edits}
    for edit, cell in cells.items():
        assert sorted(cell["metrics"]) == sorted(languages)
        assert list(cell["transfer"]) == [code for code in languages if edit in languages and code != edit]
    for layer in read_json(copy.root / "reports/geometry/memit.json"):
        runs = {pair: found for pair, found in layer["pairs"].items() if pair.startswith("run")}
        assert len(runs) == (name == "no combined edit")
        assert all(found["additivity_error"] is None for found in runs.values())
        assert len(layer["pairs"]) - len(runs) == (6 if len(languages) == 2 else 2)
    assert "memit" in (copy.root / "reports/index.html").read_text(encoding="utf-8")
