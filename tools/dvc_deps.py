"""Write each stage's imports into the ``deps`` of both dvc.yaml files, or with ``--check`` say where they differ.

DVC does not follow Python imports (treeverse/dvc#9195): without this a changed module would not rerun its stages.
"""

import sys
from pathlib import Path

import grimp
from ruamel.yaml import YAML

PIPELINES = (Path("dvc.yaml"), Path("tranyu/dvc.yaml"))
CODE = ("stages/", "xledit/")
yaml = YAML()
yaml.preserve_quotes = True
yaml.width = 200
yaml.indent(mapping=2, sequence=4, offset=2)


def imports_of(module: str, graph: grimp.ImportGraph) -> list[str]:
    """Return the files of the module, of all project modules that it imports, directly or not, and of their packages."""
    found, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        found.add(name)
        package = name.rpartition(".")[0]
        waiting |= ({package, *graph.find_modules_directly_imported_by(name)} - {""}) - found
    return sorted(str(path) for name in found if (path := _file(name)))


def _file(module: str) -> Path | None:
    path = Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def module_of(stage: dict) -> str:
    """Return the module that the stage runs."""
    cmd = stage["cmd"].split()
    return cmd[cmd.index("-m") + 1]


def wanted_deps(stage: dict, graph: grimp.ImportGraph) -> list[str]:
    """Return the stage's deps with the code files replaced by its imports."""
    kept = [dep for dep in stage["deps"] if not (dep.startswith(CODE) and dep.endswith(".py"))]
    return [*kept, *imports_of(module_of(stage), graph)]


def main() -> int:
    """Return 1 when ``--check`` finds a difference."""
    graph = grimp.build_graph("stages", "xledit", cache_dir=None)
    differing = sum(update(path, graph, check="--check" in sys.argv) for path in PIPELINES if path.exists())
    return int("--check" in sys.argv and differing > 0)


def update(path: Path, graph: grimp.ImportGraph, check: bool) -> int:
    """Write a file's deps, or only print what differs. Returns how many do."""
    tree = yaml.load(path.read_text(encoding="utf-8"))
    differing = 0
    for name, found in tree["stages"].items():
        stage = found.get("do", found)  # of foreach
        if module_of(stage) not in graph.modules:
            print(f"{path}: stage {name}: no module {module_of(stage)}")
            differing += 1
            continue
        wanted = wanted_deps(stage, graph)
        for dep in sorted(set(wanted) ^ set(stage["deps"])):
            print(f"{path}: stage {name}: {'missing' if dep in wanted else 'superfluous'} dep: {dep}")
            differing += 1
        stage["deps"][:] = wanted
    if differing and not check:
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(tree, file)
    return differing


if __name__ == "__main__":
    sys.exit(main())
