"""The results of a run in results/NAME: its cells, and run.json with commit, settings, model, data and timings."""

import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry
from xledit.manifest import ModelManifest
from xledit.params import PARAMS
from xledit.report.editing.runs import CELLS, RECORD, RESULTS, ModelIdentity, RunCells, RunRecord, SearchRecord, read, read_record
from xledit.runs.named import DEFAULT, NamedRun, path_of
from xledit.runs.queue import Task, git, revision_of, timings_of, uncommitted
from xledit.runs.settings import flat, read_params
from xledit.storage import read_json, write_bytes, write_json

MANIFEST = Path("artifacts/model.json")
# the first folder of a stage's dependency that is no data
CODE = ("stages", "xledit", "reports", "docs", str(RESULTS))


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The tree that experiments start from: the last commit, the tracked files that differ from it, and the settings among them."""

    commit: str
    uncommitted: tuple[str, ...]
    params: dict[str, Any]
    date: str


def baseline() -> Baseline:
    """Return the commit, changed files and changed settings of the current tree."""
    commit = git("rev-parse", "HEAD").strip()
    committed = flat(params_at(commit))
    return Baseline(
        commit=commit,
        uncommitted=uncommitted(),
        params={key: value for key, value in flat(read_params()).items() if key not in committed or committed[key] != value},
        date=datetime.now(UTC).date().isoformat(),
    )


def keep(name: str, run: NamedRun, task: Task, cells: Iterable[str], base: Baseline, search: SearchRecord | None) -> bool:
    """Write results/NAME from an experiment. Returns False, with nothing written, when the same result is kept already.

    A result that differs in date, commit and timings alone is the same.

    Raises:
        ValueError: the model is not the one that the run's settings are for.
    """
    revision = revision_of(task.name)
    summaries = {cell: _show(revision, f"reports/cells/{cell}.json") for cell in cells}
    lock = _lock(_show(revision, Path(run.pipeline).with_suffix(".lock")))
    manifest = _manifest(revision) if summaries else None
    if manifest and run.model:
        actual = {field: getattr(manifest, field) for field in ("family", "num_layers", "d_model")}
        expected = {field: getattr(run.model, field) for field in actual}
        if actual != expected:
            raise ValueError(
                f"{path_of(name)}: settings for {run.model.hub}, {expected}, and model.name is {manifest.name}, {actual}; nothing kept"
            )
    folder = RESULTS / name
    earlier = read_record(folder) if (folder / RECORD).exists() else None
    record = RunRecord(
        name=name,
        what=run.what,
        commit=base.commit,
        uncommitted=base.uncommitted,
        date=base.date,
        params=base.params | task.params,
        model=None if manifest is None else msgspec.convert(manifest, ModelIdentity, from_attributes=True),
        data=data_of(lock, summaries),
        timings={stage: took for stage, took in (earlier.timings if earlier else {}).items() if stage in lock} | timings_of(task.name),
        search=search,
    )
    kept = {path.stem: path.read_bytes() for path in (folder / CELLS).glob("*.json")}
    if earlier and summaries and kept == summaries and _what_counts(earlier) == _what_counts(record):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    for cell, content in summaries.items():
        write_bytes(folder / CELLS / f"{cell}.json", content)
    if not summaries:
        write_bytes(folder / "metrics.json", _show(revision, "reports/tranyu/metrics.json"))
    write_json(folder / RECORD, record)
    return True


def kept(name: str) -> RunCells:
    """Return the run of results/NAME, or params.yaml's own from reports/. Raises ValueError with the names that there are."""
    if name == DEFAULT:
        return _default()
    folder = RESULTS / path_of(name).stem
    if not (folder / RECORD).exists():
        names = ", ".join(path.parent.name for path in sorted(RESULTS.glob(f"*/{RECORD}")))
        raise ValueError(f"{folder}: no such results; `xledit run {name}` makes them; known: {DEFAULT}, {names}")
    return read(folder)


def cells_of(revision: str, cells: Iterable[str]) -> list[CellSummary]:
    """Return the summaries of an experiment."""
    return [msgspec.json.decode(_show(revision, f"reports/cells/{cell}.json"), type=CellSummary) for cell in cells]


def geometry_of(revision: str, methods: Iterable[str]) -> list[UpdateGeometry]:
    """Return the geometry of an experiment's updates."""
    return [
        layer
        for method in methods
        for layer in msgspec.json.decode(_show(revision, f"reports/geometry/{method}.json"), type=list[UpdateGeometry])
    ]


def data_of(lock: dict[str, Any], cells: Iterable[str]) -> dict[str, str]:
    """Return the MD5 by path of the data (no code) that a run's stages read and no stage writes. ``lock``: stages of a dvc.lock."""
    made = {out["path"] for stage in lock.values() for out in stage.get("outs", ())}
    read_by_stages = {
        dep["path"]: dep.get("md5") for stage in _stages(lock, cells) for dep in stage.get("deps", ()) if dep["path"] not in made
    }
    return {
        path: md5 for path, md5 in sorted(read_by_stages.items()) if md5 and path.split("/")[0] not in CODE and not path.endswith(".lock")
    }


def params_of(lock: dict[str, Any], cells: Iterable[str]) -> dict[str, Any]:
    """Return the settings that a run's stages have read, by dotted key. ``lock``: stages of a dvc.lock."""
    read = [stage.get("params", {}).get(str(PARAMS), {}) for stage in _stages(lock, cells)]
    return {key: value for values in read for key, value in flat(values).items()}


def _stages(lock: dict[str, Any], cells: Iterable[str]) -> list[dict[str, Any]]:
    """Return the entries of the stages that belong to the given cells or to no cell."""
    return [stage for name, stage in lock.items() if "@" not in name or name.split("@")[1] in cells]


def _default() -> RunCells:
    """Return the run of reports/, with the settings in dvc.lock: params.yaml may have changed since."""
    lock = _lock(Path("dvc.lock").read_bytes())
    summaries = [read_json(path, CellSummary) for path in sorted(Path("reports/cells").glob("*.json"))]
    cells = [f"{cell.method}-{cell.edit}" for cell in summaries]
    record = RunRecord(
        name=DEFAULT,
        what="The run of params.yaml",
        commit=git("log", "-1", "--format=%H", "--", "dvc.lock").strip(),
        uncommitted=uncommitted(),
        date=None,
        params=params_of(lock, cells),
        model=read_json(MANIFEST, ModelIdentity) if MANIFEST.exists() else None,
        data=data_of(lock, cells),
    )
    return RunCells(record=record, cells=tuple(summaries))


def _what_counts(record: RunRecord) -> RunRecord:
    return msgspec.structs.replace(record, commit=None, uncommitted=None, date=None, timings={})


def _show(revision: str, path: str | Path) -> bytes:
    """Return a file of a commit. Raises ValueError when it is not there."""
    return git("show", f"{revision}:{path}").encode()


def _lock(content: bytes) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(content.decode())["stages"]


def _manifest(revision: str) -> ModelManifest:
    from dvc.api import read as read_tracked

    return msgspec.json.decode(read_tracked(str(MANIFEST), rev=revision), type=ModelManifest)


def params_at(commit: str) -> dict[str, Any]:
    """Return the tree of params.yaml at a commit. Raises ValueError when this clone does not have it."""
    return YAML(typ="safe", pure=True).load(_show(commit, PARAMS).decode())
