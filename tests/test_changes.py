"""A change reruns what depends on it and no more: the promise of the import graph, asked of DVC on the tiny project."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TinyProject, set_params

pytestmark = pytest.mark.slow
COMMENT = "\n# a change\n"
METHOD = '''"""A method that somebody adds."""

from xledit.editing.locate import WeightedFit


class Added(WeightedFit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """MEMIT under another name."""
'''
ROW = """fr:
  name: French
  script: Latn
  joiner: " "
  sentence_end: "."
  essence: "{subject} est"
  prefixes: []
  new_fact_label: "Nouveau fait : "
  prompt_label: "Question : "
"""
Edit = Callable[[Path], None]


def added(path: str, text: str = COMMENT) -> Edit:
    """Add text to the end of a file, or write a new one."""

    def edit(root: Path) -> None:
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    return edit


def setting(path: str, value: object) -> Edit:
    return lambda root: set_params(root, {path: value})  # pyright: ignore[reportReturnType]


APPLY = {"apply", "apply_direct", "update_geometry", "update_geometry_direct"}
MEMIT = {"apply@memit-zh", "apply@memit-en", "apply@memit-mixed", "update_geometry@memit"}
SUMMARIES = {"summarise", "summarise_direct", "report"}
# what changes -> the cells that run at once; a name without @ stands for all cells of a stage
CHANGES: dict[str, tuple[Edit, set[str]]] = {
    "add a method": (added("xledit/editing/methods/added.py", METHOD), set()),
    "change a method": (added("xledit/editing/methods/memit.py"), MEMIT),
    "change settings of a method": (setting("methods.memit.old_key_weight", 1.5), MEMIT | {"report"}),  # the page shows them
    "change what the closed forms share": (added("xledit/editing/locate.py"), APPLY),
    "add a family row": (added("xledit/families/table.py", '\nFAMILIES["new"] = Family()\n'), {"model"}),
    "add a metric": (added("xledit/evaluation/metrics.py"), SUMMARIES),
    "add a field to a summary": (added("xledit/evaluation/summary.py"), SUMMARIES),
    "add a figure": (added("xledit/report/editing/figures.py"), {"report"}),
    "add a sentence": (added("xledit/report/editing/sentences.py"), {"report"}),
    "add a reader of data sets": (added("xledit/datasets/added.py", '"""A reader."""\n'), {"prepare"}),
    "add a language": (added("xledit/languages.yaml", ROW), {"prepare"}),
    "newer linter, type checker, test runner": (added("requirements-dev.lock"), set()),
    "change a developers' check": (added("tools/readme.py"), set()),
    "change the second half": (added("xledit/training/pretrain.py"), set()),
}
# what no such change may ever touch, because it takes hours on a large model
DEAR = {"covariance", "vectors", "floor"}


def stage_of(cell: str) -> str:
    return cell.partition("@")[0]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_reruns_its_own_cells(tiny_project: TinyProject, tmp_path: Path, name: str) -> None:
    copy = tiny_project.copy(tmp_path / "copy")
    edit, wanted = CHANGES[name]
    edit(copy.root)
    runs = copy.would_run()
    assert runs == {cell for cell in copy.lock() if cell in wanted or stage_of(cell) in wanted}
    assert not DEAR & {stage_of(cell) for cell in runs}


@pytest.mark.parametrize("name", ["add a family row", "add a language"])
def test_what_runs_again_in_seconds_gives_the_same_bytes_and_nothing_follows(tiny_project: TinyProject, tmp_path: Path, name: str) -> None:
    copy = tiny_project.copy(tmp_path / "copy")
    edit, (stage,) = CHANGES[name]
    edit(copy.root)
    said = copy.dvc("repro")
    assert [line for line in said.splitlines() if line.startswith("Running stage")] == [f"Running stage '{stage}':"]
    assert copy.run("git", "diff", "--name-only", "--", "reports", "artifacts").stdout == ""


def test_a_method_that_was_added_runs_in_its_own_cells(tiny_project: TinyProject, tmp_path: Path) -> None:
    copy = tiny_project.copy(tmp_path / "copy")
    added("xledit/editing/methods/added.py", METHOD)(copy.root)
    params = copy.root / "params.yaml"
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("  memit: {", "  added: {old_key_weight: 2.0}\n  memit: {", 1), encoding="utf-8")
    set_params(copy.root, {"grid.methods": ["memit", "added"], "grid.edits": ["zh"]})
    ran = {line.split("'")[1] for line in copy.dvc("repro").splitlines() if line.startswith("Running stage")}
    own = {f"{stage}@added-zh" for stage in ("apply", "evaluate", "summarise")} | {"update_geometry@added"}
    # the geometry of all methods is of the grid's edits
    assert ran == own | {"update_geometry@memit", "update_geometry_direct@ft_m", "update_geometry_direct@ike", "report"}
