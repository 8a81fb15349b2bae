"""Write what each stage imports into the ``deps`` of all dvc.yaml files, or with ``--check`` say where they differ.

DVC does not follow Python imports (treeverse/dvc#9195): without this a changed module would not rerun its stages. A folder of
``FOLDERS`` is one idea: a stage that imports several of its files depends on the folder. Of the methods, which are imported by name, a
cell depends on its own method's file and on what any method imports from elsewhere. A package's ``__init__.py`` that holds nothing
but its docstring is no dep.
"""

import ast
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import grimp
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

PIPELINES = (Path("dvc.yaml"), Path("tranyu/dvc.yaml"), Path("crossing/dvc.yaml"))
CODE = ("stages/", "xledit/")
FOLDERS = (
    "stages/common",
    "xledit/benchmark",
    "xledit/crossing",
    "xledit/datasets",
    "xledit/families",
    "xledit/geometry",
    "xledit/models",
    "xledit/report/common",
    "xledit/report/editing",
    "xledit/report/training",
)
METHODS = "xledit.editing.methods"
ALL_METHODS, OWN_METHOD = "xledit/editing/methods", "xledit/editing/methods/${item.method}.py"
yaml = YAML()
yaml.preserve_quotes = True
yaml.width = 140
yaml.indent(mapping=2, sequence=4, offset=2)


def imports_of(module: str, graph: grimp.ImportGraph, methods: str = OWN_METHOD) -> list[str]:
    """Return the files and folders of the module, of all project modules that it imports, directly or not, and of their packages.

    ``methods`` stands for the files of methods.
    """
    seen, waiting = set[str](), {module}
    while waiting:
        name = waiting.pop()
        seen.add(name)
        imported = set(graph.find_modules_directly_imported_by(name))
        if name == METHODS:
            imported |= {child for child in graph.modules if child.startswith(f"{METHODS}.")}
        waiting |= ({name.rpartition(".")[0], *imported} - {""}) - seen
    files = {methods if name.startswith(f"{METHODS}.") else str(path) for name in seen if (path := _file(name))}
    files -= {str(_file(METHODS))} if methods == ALL_METHODS else set()
    return sorted(_folded(files))


def _folded(files: Iterable[str]) -> set[str]:
    """Return the files, with a folder of FOLDERS in place of its files where there are several."""
    inside = {folder: [file for file in files if file.startswith(f"{folder}/")] for folder in FOLDERS}
    whole = {folder for folder, members in inside.items() if len(members) > 1}
    return {file for file in files if not any(file in inside[folder] for folder in whole)} | whole


@cache
def _file(module: str) -> Path | None:
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    return None if file is None or holds_only_words(file) else file


def holds_only_words(file: Path) -> bool:
    """Return whether a file is a package's ``__init__.py`` of a docstring alone: importing it can change nothing."""
    if file.name != "__init__.py":
        return False
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def module_of(stage: dict) -> str:
    """Return the module that the stage runs."""
    cmd = stage["cmd"].split()
    return cmd[cmd.index("-m") + 1]


def is_code(dep: str) -> bool:
    """Return whether a dep is on code, which this tool writes."""
    return dep.startswith(CODE) and Path(dep).suffix in (".py", "")  # a folder, too, also one that is gone


def expected_deps(stage: dict, graph: grimp.ImportGraph) -> list[str]:
    """Return the stage's deps with those on code replaced by its imports."""
    methods = OWN_METHOD if "${item.method}" in stage["cmd"] else ALL_METHODS
    return [*(dep for dep in stage["deps"] if not is_code(dep)), *imports_of(module_of(stage), graph, methods)]


def main() -> int:
    """Return 1 when ``--check`` finds a difference."""
    graph = grimp.build_graph("stages", "xledit", cache_dir=None)
    differing = sum(update(path, graph, check="--check" in sys.argv) for path in PIPELINES if path.exists())
    return int("--check" in sys.argv and differing > 0)


def update(path: Path, graph: grimp.ImportGraph, check: bool) -> int:
    """Write a file's deps, or only print what differs. Returns how many do."""
    tree = yaml.load(path.read_text(encoding="utf-8"))
    differing, done = 0, set[int]()
    for name, written in tree["stages"].items():
        stage = written.get("do", written)  # of foreach
        if id(stage["deps"]) in done:  # the same list by a YAML alias
            continue
        done.add(id(stage["deps"]))
        if module_of(stage) not in graph.modules:
            print(f"{path}: stage {name}: no module {module_of(stage)}")
            differing += 1
            continue
        expected = expected_deps(stage, graph)
        for dep in sorted(set(expected) ^ set(stage["deps"])):
            print(f"{path}: stage {name}: {'missing' if dep in expected else 'superfluous'} dep: {dep}")
            differing += 1
        stage["deps"][:] = [DoubleQuotedScalarString(dep) if "$" in dep else dep for dep in expected]
        stage["deps"].fa.set_flow_style()
    if differing and not check:
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(tree, file)
    return differing


if __name__ == "__main__":
    sys.exit(main())
