"""Run the pipeline with the settings of studies/NAME.yaml, beside the default run, and keep its cells: `python -m tools.study NAME`.

The run is of the last commit, in a clone of its own that shares DVC's cache, so that neither params.yaml nor dvc.lock of this
tree changes and what is known is not computed again. A run that was killed goes on in its clone, unless there was a commit
since. Writes docs/results/NAME/ (one summary per cell) and docs/results/NAME.json (what was run, from which commit, and what
each stage took; a stage whose result was in the cache keeps the times of the run it came from, also one that was killed).
Prints what crossed. With ``--uncommitted`` the run has this tree's changed and new files, too, dvc.lock files among them: what
was just trained can be edited.
"""

import itertools
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.runner import TIMINGS, log, run
from tools.overlay import set_params
from xledit.reporting import sentences, studies, tables
from xledit.reporting.studies import Study, Timing
from xledit.storage import read_json, write_json

STUDIES = Path("studies")
RESULTS = Path("docs/results")
FOLDER = Path(".dvc/tmp/studies")


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of studies/: what it asks, and dotted settings of params.yaml that differ from the default run's.

    ``skip`` names cells of the grid that there cannot be, with the reason.
    """

    what: str
    params: dict[str, Any]
    skip: dict[str, str] = {}


def main(
    name: Annotated[str, typer.Argument(help="a file of studies/, without .yaml")],
    uncommitted: Annotated[bool, typer.Option("--uncommitted", help="run this tree as it is, not the last commit")] = False,
) -> None:
    """Run a study."""
    plan = read_plan(STUDIES / f"{name}.yaml")
    clone, timings = (FOLDER / name).absolute(), (FOLDER / f"{name}.jsonl").absolute()
    commit = check_out(clone)
    changed = bring(clone) if uncommitted else ()
    _dvc(clone, "cache", "dir", "--local", str(Path(".dvc/cache").absolute()))
    set_params(clone, plan.params)
    log.info("%s: %s; commit %s", name, plan.what, commit[:12])
    grid = _read_yaml(clone / "params.yaml")["grid"]
    cells = [f"{method}-{edit}" for method, edit in itertools.product(grid["methods"], grid["edits"])]
    cells = [cell for cell in cells if cell not in plan.skip]
    # what a trained model was made of must be there: DVC would run stages again that write reports
    _dvc(clone, "checkout", "--quiet", "--allow-missing", "--with-deps", "model")
    # geometry compares each language with all together, which a study need not have
    _dvc(clone, "repro", *(f"summarise@{cell}" for cell in cells), timings=timings)
    earlier = read_json(RESULTS / f"{name}.json", Study).timings if (RESULTS / f"{name}.json").exists() else {}
    found = read_timings(timings)
    shutil.rmtree(RESULTS / name, ignore_errors=True)
    (RESULTS / name).mkdir(parents=True)
    # the clone also has the default run's cells
    for cell in cells:
        shutil.copy(clone / "reports" / "cells" / f"{cell}.json", RESULTS / name)
    study = Study(
        name=name,
        what=plan.what,
        commit=commit,
        changed=changed,
        date=datetime.now(UTC).date().isoformat(),
        params=plan.params,
        timings={stage: found.get(stage) or earlier[stage] for stage in locked_stages(clone) if stage in found or stage in earlier},
    )
    write_json(RESULTS / f"{name}.json", study)
    shutil.rmtree(clone)
    timings.unlink(missing_ok=True)
    log.info("wrote %s", RESULTS / name)
    found_cells = studies.read(RESULTS / f"{name}.json").cells
    typer.echo("\n".join([tables.aligned(tables.headline(found_cells)), *sentences.overall(found_cells)]))


def bring(clone: Path) -> tuple[str, ...]:
    """Copy what differs from the last commit, but for ignored files and studies' results, into a clone of it. Returns the names."""
    where = ("--", f":(exclude){RESULTS}")
    changed, new = _git("diff", "--name-only", "HEAD", *where), _git("ls-files", "--others", "--exclude-standard", *where)
    names = [*changed.splitlines(), *new.splitlines()]
    for name in names:
        if Path(name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, clone / name)
        else:
            (clone / name).unlink(missing_ok=True)
    return tuple(names)


def check_out(clone: Path) -> str:
    """Make a clone of the last commit, or keep the one that there is, but for its settings. Returns the commit."""
    commit = _git("rev-parse", "HEAD")
    if not (clone / ".git").exists() or _git("-C", str(clone), "rev-parse", "HEAD") != commit:
        shutil.rmtree(clone, ignore_errors=True)
        clone.parent.mkdir(parents=True, exist_ok=True)
        _git("clone", "--quiet", "--no-hardlinks", str(Path.cwd()), str(clone))
    _git("-C", str(clone), "checkout", "--quiet", "params.yaml")
    return commit


def read_plan(path: Path) -> Plan:
    """Return a plan. Raises ValueError with the file and the key that is wrong."""
    if not path.exists():
        known = ", ".join(file.stem for file in sorted(STUDIES.glob("*.yaml")))
        raise ValueError(f"{path}: no such study; known: {known}")
    try:
        return msgspec.convert(_read_yaml(path), Plan)
    except (msgspec.ValidationError, YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_timings(path: Path) -> dict[str, Timing]:
    """Return what each stage took, from the lines that the stages wrote; the last run of a stage counts."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {timing.stage: timing for timing in (msgspec.json.decode(line, type=Timing) for line in lines)}


def locked_stages(clone: Path) -> list[str]:
    """Return the names of the stages that have a result."""
    return list(_read_yaml(clone / "dvc.lock")["stages"])


def _read_yaml(path: Path) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _dvc(folder: Path, *arguments: str, timings: Path | None = None) -> None:
    """Run DVC in a clone, whose own code comes first; its output goes to ours. Raises ValueError when it fails."""
    environment = os.environ | {"PYTHONPATH": str(folder)} | ({TIMINGS: str(timings)} if timings else {})
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment).returncode:
        raise ValueError(f"{folder}: `dvc {arguments[0]}` failed (see above); what it has finished is in the cache: run the study again")


if __name__ == "__main__":
    run(main)
