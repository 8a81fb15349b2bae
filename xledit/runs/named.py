"""A named run: runs/NAME.yaml has the settings that differ from params.yaml, and why. Settings for a model, sizes and searches are runs."""

import itertools
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from xledit.report.editing.runs import RESULTS, read_record
from xledit.runs.settings import Grid, check_values, flat, read_yaml
from xledit.training.costs import Device

RUNS = Path("runs")
SOURCES = RUNS / "tranyu-sources"
# sections whose rows may be a file of these
WITH_SOURCES = ("tranyu.sources", "tranyu.sft", "tranyu.dpo")
NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
DEFAULT = "default"  # the run of params.yaml as it is, in reports/
LAYERS = "edit.layers"
NUM_LAYERS = 6  # the default run edits layers 4 to 9 of 18
DEV = {"data.source": "benchmark", "data.split": "dev"}


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that settings are for, from its public config. ``family`` is its ``config.model_type``."""

    hub: str
    family: str
    num_layers: int
    d_model: int


class NamedRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of runs/.

    ``what`` is one sentence. ``params`` are dotted keys of params.yaml with the values that differ; those of the runs that it
    ``extends`` come first. ``skip`` names cells of the grid that cannot be computed, with the reason. ``search`` gives settings several
    values: one trial per combination, on the dev facts of our benchmark. Settings for a ``model`` say what they rest on (``basis``):
    ``published`` by others, address in ``source``, or the ``rule`` (``recommended_layers``); ``note`` is what the source does not say.
    A size has the ``device`` that it is meant for and the ``limit`` of rows that each task reads of each source, -1 for all.
    """

    what: str
    extends: tuple[str, ...] = ()
    params: dict[str, Any] = {}
    pipeline: Literal["dvc.yaml", "tranyu/dvc.yaml"] = "dvc.yaml"
    skip: dict[str, str] = {}
    search: dict[str, tuple[Any, ...]] = {}
    model: ModelFacts | None = None
    basis: Literal["rule", "published"] | None = None
    source: str = ""
    note: str = ""
    device: Device | None = None
    limit: int = -1

    def __post_init__(self) -> None:
        if not (self.params or self.extends or self.search):
            raise ValueError("nothing differs from the default run; give params, extends or search")
        if (self.model is not None) != (self.basis is not None and bool(self.source)):
            raise ValueError("settings for a model need model, basis and source, and no others do")
        if not all(self.search.values()):
            raise ValueError("search: a setting without values")

    @property
    def trials(self) -> list[dict[str, Any]]:
        """All combinations, the last setting changing fastest, so that neighbouring trials share the expensive first stages."""
        rows = itertools.product(*self.search.values()) if self.search else ()
        return [dict(zip(self.search, row, strict=True)) for row in rows]


def path_of(name: str) -> Path:
    """Return the path of a run's file. Raises ValueError when ``name`` is no valid name of a run."""
    if not NAME.fullmatch(name) or name == DEFAULT:
        raise ValueError(f"{name!r}: a run's name has small letters, digits, dots, hyphens and underscores, and is not {DEFAULT!r}")
    return RUNS / f"{name}.yaml"


def names() -> list[str]:
    """Return the names of all runs."""
    return sorted(path.stem for path in RUNS.glob("*.yaml"))


def read(name: str) -> NamedRun:
    """Return a run with the settings of those that it extends. Raises ValueError with the file and the key that is wrong."""
    return _read(name, ())


def passed_on(name: str) -> dict[str, Any]:
    """Return the settings by dotted key that `xledit use` writes and that runs which extend this one inherit.

    Of a search: those of the runs that it extends, and those that it chose. Raises ValueError when it has not chosen.
    """
    run = _load(name)
    if not run.search:
        return read(name).params
    record = read_record(RESULTS / name) if (RESULTS / name).exists() else None
    if record is None or record.search is None:
        raise ValueError(f"{path_of(name)}: the search has not chosen yet; `xledit run {name}` first")
    return _joined(*(passed_on(other) for other in run.extends), record.search.chosen)


def check(name: str, tree: dict[str, Any]) -> NamedRun:
    """Return a run that fits params.yaml's ``tree``, the types that read it, and its model.

    Raises ValueError with the file and the key that does not.
    """
    run, file = read(name), str(path_of(name))
    grid = grid_of(run, tree, file)
    from xledit.editing.combine import combination

    unknown = [method for method in (*grid.methods, *grid.direct) if method not in tree["methods"]]
    if unknown:
        raise ValueError(f"{file}: grid.methods: {unknown[0]}: no such method; params.yaml has: {', '.join(tree['methods'])}")
    try:
        for edit in grid.edits:
            combination(edit, grid.languages)
        if run.model:
            _check_model(run.model, run.params)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    strange = [cell for cell in run.skip if cell not in grid.cells]
    if strange:
        raise ValueError(f"{file}: skip: {strange[0]}: no such cell; there are {', '.join(grid.cells)}")
    recommended = recommended_layers(run.model.num_layers) if run.model else []
    if _load(name).basis == "rule" and run.params.get(LAYERS) != recommended:  # a run that extends it may say otherwise
        raise ValueError(f"{file}: {LAYERS} is {run.params.get(LAYERS)}, and the rule says {recommended}; change one or the basis")
    if run.search:
        _check_search(run, grid, tree, file)
    return run


def trial_params(run: NamedRun, values: dict[str, Any]) -> dict[str, Any]:
    """Return all settings of one trial of a search."""
    return _joined(run.params, values, DEV)


def grid_of(run: NamedRun, tree: dict[str, Any], source: str) -> Grid:
    """Return the grid of a run. Raises ValueError with ``source`` and the key when its settings do not fit."""
    return msgspec.convert(check_values({"grid": tree["grid"]} | run.params, tree, source)["grid"], Grid)


def recommended_layers(num_layers: int) -> list[int]:
    """Return six consecutive layers, the first at two ninths (22 %) of the depth, rounded half up: 4 to 9 of 18.

    The default run's layers, carried to other depths; a model that is too shallow gives those that it has. A rule, not a
    measurement: only the 18-layer default has been tried.
    """
    first = (4 * num_layers + 9) // 18
    return list(range(first, min(first + NUM_LAYERS, num_layers)))


def _read(name: str, above: tuple[str, ...]) -> NamedRun:
    if name in above:
        raise ValueError(f"{path_of(above[-1])}: extends: {' -> '.join((*above, name))} goes in a circle")
    run = _load(name, above[-1] if above else None)
    bases = [_read(other, (*above, name)) for other in run.extends]
    inherited = [passed_on(other) if base.search else base.params for other, base in zip(run.extends, bases, strict=True)]
    of_last = {
        field: value for part in (*bases, run) for field in ("model", "basis", "source", "device") if (value := getattr(part, field))
    }
    skip = {cell: reason for part in (*bases, run) for cell, reason in part.skip.items()}
    return msgspec.structs.replace(run, params=_joined(*inherited, _with_sources(name, run)), skip=skip, **of_last)


def _load(name: str, asked_by: str | None = None) -> NamedRun:
    path = path_of(name)
    try:
        return msgspec.convert(read_yaml(path), NamedRun)
    except FileNotFoundError as error:
        by = f"{path_of(asked_by)}: extends: " if asked_by else ""
        raise ValueError(f"{by}{path}: no such run; known: {', '.join(names()) or 'none'}") from error
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_sources(name: str, run: NamedRun) -> dict[str, Any]:
    """Return a run's own settings, a file of runs/tranyu-sources in place of its name, each row with the run's limit."""
    params = run.params
    for key in WITH_SOURCES:
        section = params.get(key)
        if not isinstance(section, dict) or not isinstance(file := section.get("rows"), str):
            continue
        files = {path.name: path for path in sorted(SOURCES.glob("*.yaml"))}
        if file not in files:
            raise ValueError(f"{path_of(name)}: {key}.rows: {file}: no such file in {SOURCES}; known: {', '.join(files) or 'none'}")
        params = params | {key: section | {"rows": [row | {"limit": run.limit} for row in read_yaml(files[file])]}}
    return params


def _joined(*all_values: dict[str, Any]) -> dict[str, Any]:
    """Return settings in the order in which they are to be set: a later value replaces an earlier one and moves to the end."""
    joined: dict[str, Any] = {}
    for values in all_values:
        for key, value in values.items():
            joined.pop(key, None)
            joined[key] = value
    return joined


def _check_search(run: NamedRun, grid: Grid, tree: dict[str, Any], file: str) -> None:
    settings = [*run.search.items(), *((key, (value,)) for key, value in run.params.items())]
    elsewhere = [key for key, values in settings if key in ("data", "data.path", *DEV) and any(value != DEV.get(key) for value in values)]
    if elsewhere:
        raise ValueError(
            f"{file}: {elsewhere[0]}: settings are chosen on data.split dev of our own benchmark and nowhere else; leave it out"
        )
    if len(grid.methods) + len(grid.direct) != 1 or any(key.split(".")[0] == "grid" for key in run.search):
        raise ValueError(f"{file}: search: its trials have the same cells, of one method; name it in params under grid.methods")
    for trial in run.trials:
        check_values(trial_params(run, trial), tree, file)


def _check_model(model: ModelFacts, values: dict[str, Any]) -> None:
    from xledit.families.table import FAMILIES
    from xledit.models.family import check_layers

    if model.family not in FAMILIES:
        raise ValueError(f"model.family {model.family!r} is none of {', '.join(FAMILIES)}")
    check_layers(tuple(flat(values).get(LAYERS, ())), model.num_layers)
