"""Plant small bugs, one at a time, in the code that makes the numbers, and count how many the fast tests see: docs/mutation.json.

`mutmut` makes the bugs (mutants) of the functions of ``MODULES`` and asks of each the tests of ``TESTS`` that reach the function. It works
in a copy, .mutation/, and keeps its verdicts there: a run that was stopped goes on, and after a change the functions that differ are asked
again. ``--survivors`` asks the survivors again, too, after a test was added. Rows of tables, annotations, log calls and asserts are not
mutated. The reason why a survivor is let live is written into docs/mutation.json by hand, and kept.
"""

import ast
import os
import platform
import shutil
import subprocess
import sys
from contextlib import chdir
from datetime import UTC, datetime
from difflib import SequenceMatcher
from pathlib import Path

import msgspec

from xledit.storage import read_json, write_json

REPORT = Path("docs/mutation.json")
COPY = Path(".mutation")
MODULES = (
    "xledit/evaluation/metrics.py",
    "xledit/evaluation/scoring.py",
    "xledit/evaluation/summary.py",
    "xledit/geometry/updates.py",
    "xledit/geometry/vectors.py",
    "xledit/editing/batches.py",
    *(f"stages/editing/{name}.py" for name in ("apply", "covariance", "evaluate", "geometry", "summarise", "update_geometry", "vectors")),
)
TESTS = (
    *(f"tests/test_{name}.py" for name in ("geometry", "metrics", "recompute", "scoring", "sequence", "stages", "summary")),
    "tests/test_report.py::test_the_names_of_compared_updates_are_those_of_the_stage",
)
# mutmut's words; a mutant that came to no end in time counts as let live, until someone has looked: the machine may have been busy
SEEN, UNASKED = "killed", "not checked"
# what mutmut cannot do with the project as it stands, done to the copy, line by line: it passes over functions with a decorator, and
# counts what a shared fixture runs for the first of its tests alone
REWRITTEN = {
    "xledit/evaluation/scoring.py": (
        ("@torch.no_grad()\ndef score_probes(", "#\ndef score_probes("),
        ("\n\n\ndef _in_context(", "\n\nscore_probes = torch.no_grad()(score_probes)\ndef _in_context("),
    ),
    "tests/test_summary.py": (('@pytest.fixture(scope="module")\ndef found(', "@pytest.fixture\ndef found("),),
}
# tests that plant bugs of their own ("not bug") want the source as it is
SETTINGS = f"""
[tool.mutmut]
source_paths = ["stages", "xledit"]
only_mutate = {list(MODULES)}
also_copy = ["data", "params.yaml", "tools"]
do_not_mutate_patterns = ['\\blog\\.\\w+\\(', '\\bwrote\\(', '\\bassert\\b']
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = ["-m", "not slow", "-k", "not bug", {", ".join(f'"{test}"' for test in TESTS)}]
timeout_constant = 30.0
timeout_multiplier = 4.0
"""


class Survivor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mutant that no test saw: its line, what stands there and what stood there instead; and why it lives, or "" for a missing test."""

    line: int
    old: str
    new: str
    reason: str


class Killed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mutants of one module: how many there are, were asked about and were seen, and the others."""

    mutants: int
    run: int
    killed: int
    survivors: tuple[Survivor, ...]


class Mutation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run, by module. ``commit`` is the last one before it."""

    date: str
    commit: str
    machine: str
    modules: dict[str, Killed]


def copy() -> None:
    """Bring the copy up to date; files that are the same there stay untouched, so that mutmut sees which changed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        content = Path(name).read_bytes() if Path(name).is_file() else None
        for old, new in REWRITTEN.get(name, ()):
            assert content is not None and content.count(old.encode()) == 1, f"{name}: {old!r} does not stand there once"
            content = content.replace(old.encode(), new.encode())
        if name == "pyproject.toml":
            assert content is not None
            content += SETTINGS.encode()
        target = COPY / name
        if content is not None and not (target.is_file() and target.read_bytes() == content):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    shutil.rmtree(COPY / "mutants" / "tests", ignore_errors=True)  # mutmut copies tests, but removes none


def verdicts(module: str) -> dict[str, str]:
    """Return what mutmut says of each mutant of a module of the copy, the current folder."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code

    data = SourceFileMutationData(path=module)
    data.load()
    return {name: status_by_exit_code[code] for name, code in data.exit_code_by_key.items()}


def survivor(module: str, mutant: str) -> Survivor:
    """Return a mutant of the copy, the current folder, without a reason."""
    import libcst
    from mutmut.mutation.diff_apply import read_functions_from_index
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    functions = read_functions_from_index(mutant, module)
    assert functions is not None
    old, new = ([line.strip() for line in libcst.Module([function]).code.strip().splitlines()] for function in functions)
    name, in_class = orig_function_and_class_names_from_key(mutant)
    tree = ast.parse(Path(module).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == in_class) if in_class else tree.body
    start = next(node.lineno for node in body if isinstance(node, ast.FunctionDef) and node.name == name)
    _, first, last, new_first, new_last = next(change for change in SequenceMatcher(None, old, new).get_opcodes() if change[0] != "equal")
    head = next(place for place, line in enumerate(old) if line.startswith("def "))
    return Survivor(
        line=start + first - head,
        old=" ".join(old[first:last]),
        new=" ".join(new[new_first:new_last]),
        reason="",
    )


def report() -> Mutation:
    """Return what the copy's verdicts come to, with the reasons that the last report gives."""
    last = read_json(REPORT, Mutation).modules if REPORT.exists() else {}
    modules = {}
    for module in MODULES:
        reasons = {(row.old, row.new): row.reason for row in last[module].survivors} if module in last else {}
        with chdir(COPY):
            found = verdicts(module)
            alive = [survivor(module, name) for name, verdict in found.items() if verdict not in (SEEN, UNASKED)]
        modules[module] = Killed(
            mutants=len(found),
            run=sum(verdict != UNASKED for verdict in found.values()),
            killed=sum(verdict == SEEN for verdict in found.values()),
            survivors=tuple(msgspec.structs.replace(row, reason=reasons.get((row.old, row.new), "")) for row in alive),
        )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    cores = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    return Mutation(date=datetime.now(UTC).date().isoformat(), commit=commit, machine=cores, modules=modules)


def main() -> int:
    """Run mutmut and write the report. Returns 1 when a survivor has no reason."""
    copy()
    names: list[str] = []  # none: all without a verdict
    if "--survivors" in sys.argv:
        with chdir(COPY):
            names = [name for module in MODULES for name, verdict in verdicts(module).items() if verdict != SEEN]
    mutmut = Path(sys.executable).with_name("mutmut")
    subprocess.run([mutmut, "run", *names], cwd=COPY, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    found = report()
    write_json(REPORT, found)
    for module, killed in found.modules.items():
        print(f"{module}: {killed.killed} of {killed.run} killed")
        for row in killed.survivors:
            if not row.reason:
                print(f"  line {row.line}: {row.old}  ->  {row.new}")
    return int(any(not row.reason for killed in found.modules.values() for row in killed.survivors))


if __name__ == "__main__":
    sys.exit(main())
