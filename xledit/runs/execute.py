"""From names to kept results: every run or trial becomes a task of DVC's queue, and its results are kept run by run."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from stages.common.runner import log
from xledit.report.editing.runs import RESULTS, SearchRecord, Trial
from xledit.runs import queue, results, search
from xledit.runs.named import NamedRun, check, grid_of, path_of, trial_params
from xledit.runs.settings import Grid, read_params


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its tasks: one, or one per trial."""

    name: str
    run: NamedRun
    grid: Grid
    tasks: tuple[queue.Task, ...]

    @property
    def cells(self) -> list[str]:
        """The names of the cells to keep: those of the grid without skipped ones; none for a run of the training pipeline."""
        return [cell for cell in self.grid.cells if cell not in self.run.skip] if self.run.pipeline == "dvc.yaml" else []


def execute(names: Sequence[str], jobs: int, poll: float) -> Iterator[tuple[Planned, SearchRecord | None]]:
    """Check all runs, run them together, and yield each one that was kept, a search with its trials.

    Raises ValueError before anything runs when a run does not fit; at the end, with the names, when one failed.
    """
    tree = read_params()
    started = f"{datetime.now(UTC):%Y%m%d%H%M%S}"
    plans = [plan(name, tree, started) for name in dict.fromkeys(names)]
    queue.check_idle()
    queue.warn_of_unknown()
    base = results.baseline()
    tasks = [task for planned in plans for task in planned.tasks]
    log.info("experiments: %d, %d at a time; `dvc queue logs NAME --follow` shows one at work", len(tasks), jobs)
    states = queue.run_tasks(tasks, jobs, poll)
    failed = []
    for planned in plans:
        try:
            yield planned, _keep(planned, states, base)
        except ValueError as error:
            failed.append(planned.name)
            log.error("%s: %s", planned.name, error)
    if failed:
        raise ValueError(f"not kept: {', '.join(failed)} (see above); what its stages finished is in the cache: run it again")


def plan(name: str, tree: dict[str, Any], started: str) -> Planned:
    """Return a run's tasks. Raises ValueError with file and key when its settings do not fit, or when no model is named."""
    run, slug = check(name, tree), re.sub("[^a-z0-9]+", "-", name)
    if run.model and not {"model", "model.name"} & run.params.keys():
        raise ValueError(
            f"{path_of(name)}: settings for {run.model.hub} that do not say where your copy is; `xledit use {name}`, or a run with "
            f"`extends: [{name}]` and params model.name and model.files"
        )
    grid = grid_of(run, tree, str(path_of(name)))
    if run.pipeline != "dvc.yaml":
        targets: tuple[str, ...] = (run.pipeline,)
    else:
        targets = tuple(f"{stage}@{cell}" for cell, stage in grid.summaries.items() if cell not in run.skip)
    geometry = tuple(f"update_geometry@{method}" for method in grid.methods) if run.search and not run.skip else ()
    trials = [trial_params(run, trial) for trial in run.trials] if run.search else [run.params]
    ends = [f"-{number:02d}" for number in range(1, len(trials) + 1)] if run.search else [""]
    tasks = [
        queue.Task(name=f"{slug}-{started}{end}", targets=(*targets, *geometry), params=params)
        for end, params in zip(ends, trials, strict=True)
    ]
    return Planned(name=name, run=run, grid=grid, tasks=tuple(tasks))


def _keep(planned: Planned, states: dict[str, str], base: results.Baseline) -> SearchRecord | None:
    """Write a run (of a search: the chosen trial) to results/. Raises ValueError with the end of its log when it failed."""
    record, chosen = None, planned.tasks[0]
    if planned.run.search:
        trials = [_trial(planned, task, values, states[task.name]) for task, values in zip(planned.tasks, planned.run.trials, strict=True)]
        for line in search.table(trials):
            log.info("%s", "  ".join(line))
        best = search.best(trials)
        chosen = planned.tasks[trials.index(best)]
        record = SearchRecord(rule=search.RULE, chosen=best.values, trials=tuple(trials))
    if states[chosen.name] != "Success":
        raise ValueError(
            f"{chosen.name}: {states[chosen.name]}; the end of `dvc queue logs {chosen.name}`:\n{queue.end_of_log(chosen.name)}"
        )
    new = results.keep(planned.name, planned.run, chosen, planned.cells, base, record)
    queue.forget_timings(chosen.name)
    log.info("%s %s", RESULTS / planned.name, "written" if new else "is as it was: the same settings gave the same bytes")
    return record


def _trial(planned: Planned, task: queue.Task, values: dict[str, Any], state: str) -> Trial:
    trial = Trial(values=values, state=state)
    if state != "Success":
        return trial
    revision = queue.revision_of(task.name)
    geometry = results.geometry_of(revision, planned.grid.methods) if not planned.run.skip else []
    return search.measured(trial, results.cells_of(revision, planned.cells), geometry)
