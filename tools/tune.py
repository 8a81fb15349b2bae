"""Search settings for a model on the dev facts and write them down: `python -m tools.tune NAME --method memit` -> settings/NAME.yaml.

The model is the one of params.yaml. Each trial is a DVC experiment of the whole pipeline in DVC's queue, so the workspace stays as it
is and trials share what they have in common through the run cache. ``--set KEY=VALUE`` gives a setting one more value to try; the
grid is all combinations. Without it: the layers as they are and moved two down and up, the clamp once and four times, the ridge a
third, once and three times.

Queued trials see what git tracks, with its uncommitted changes; code that git does not know yet is not there. They stay as
experiments, `dvc exp show` lists them. On Ctrl-C the queued and running ones of this search are taken out of the queue; after a kill -9
do it by hand: `dvc queue kill NAME`, `dvc queue remove NAME`.
"""

import io
import itertools
import json
import math
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from stages.common.runner import log, run, wrote
from tools.overlay import LAYERS, SETTINGS, check, check_values, flat, in_line, read_params, round_trip
from xledit.evaluation.intervals import Estimate
from xledit.evaluation.summary import CellSummary
from xledit.geometry.results import UpdateGeometry
from xledit.manifest import ModelManifest
from xledit.reporting.tables import aligned
from xledit.storage import write_bytes

RULE = "the largest mean over languages, each edited alone, of the harmonic mean of exact and locality_tokens; of ties the smaller update"
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
DEV = {"data.source": "benchmark", "data.split": "dev"}
RIDGES = ("old_key_weight", "ridge")  # what the methods call the weight that holds an update small
UNFINISHED, FINISHED = ("Queued", "Running"), ("Success", "Failed")
PATIENCE = 5  # looks at a queue without workers before its trials count as lost; a worker takes seconds to start


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One run: the settings that it tried, and what came out (NaN where it failed).

    ``exact`` and ``locality_tokens`` are shares, by language, of facts and of tokens; ``size`` is the Frobenius norm of the updates
    that the run's geometry has.
    """

    name: str
    values: dict[str, Any]
    state: str
    exact: dict[str, float] = {}
    locality_tokens: dict[str, float] = {}
    size: float = math.nan

    @property
    def score(self) -> float:
        """Return the mean over languages of the harmonic mean, or NaN."""
        means = [_harmonic(share, self.locality_tokens[code]) for code, share in self.exact.items()]
        return round(statistics.fmean(means), 4) if means else math.nan


def best(trials: Sequence[Trial]) -> Trial:
    """Return the trial that ``RULE`` chooses; of equal ones, the first. Raises ValueError when none has a score."""
    scored = [trial for trial in trials if not math.isnan(trial.score)]
    if not scored:
        raise ValueError(
            f"no trial of {len(trials)} came to a score; `dvc queue logs NAME` says why: {', '.join(trial.name for trial in trials)}"
        )
    # a size that is not known comes last
    return min(scored, key=lambda trial: (-trial.score, math.isnan(trial.size), trial.size))


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return all combinations, the last setting changing fastest: trials next to each other share the dear first stages."""
    return [dict(zip(values, row, strict=True)) for row in itertools.product(*values.values())]


def default_grid(tree: Mapping[str, Any], method: str) -> dict[str, list[Any]]:
    """Return the values to try around those of params.yaml, coarse: layers, clamp, and the ridge where the method has one."""
    layers, settings = tree["edit"]["layers"], tree["methods"][method]
    moved = [[layer + step for layer in layers] for step in (-2, 0, 2)]
    values: dict[str, list[Any]] = {LAYERS: [row for row in moved if min(row) >= 0]}
    values["vectors.clamp"] = [tree["vectors"]["clamp"] * factor for factor in (1, 4)]
    values |= {f"methods.{method}.{name}": [settings[name] / 3, settings[name], settings[name] * 3] for name in RIDGES if name in settings}
    return values


def asked_grid(choices: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values to try from ``KEY=VALUE`` texts, VALUE in YAML; a key given twice has two values.

    Raises ValueError for another form, and for ``data.*``: settings are chosen on the dev facts.
    """
    values: dict[str, list[Any]] = {}
    for choice in choices:
        key, equals, text = choice.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {choice}: expected KEY=VALUE, such as edit.layers=[4,5,6]")
        if key.startswith("data."):
            raise ValueError(f"--set {choice}: settings are chosen on data.split dev of our own benchmark and nowhere else; leave it out")
        try:
            values.setdefault(key, []).append(YAML(typ="safe", pure=True).load(text))
        except YAMLError as error:
            raise ValueError(f"--set {choice}: {text!r} is not YAML") from error
    return values


def overrides(values: Mapping[str, Any], method: str, num_facts: int) -> dict[str, Any]:
    """Return every setting in which a trial differs from params.yaml; the facts are those of the dev split, whatever is asked."""
    return {"grid.methods": [method], "grid.rewordings": 0, "edit.num_facts": num_facts} | dict(values) | DEV


def dvc(*arguments: str) -> str:
    """Return what DVC prints. Raises ValueError with its message when it fails."""
    # files and not pipes: the workers that `queue start` leaves behind would hold a pipe open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # a session of its own, so that a Ctrl-C in the terminal reaches this process alone
        code = subprocess.run(["dvc", *arguments], stdout=out, stderr=err, start_new_session=True).returncode
        out.seek(0)
        err.seek(0)
        if code:
            raise ValueError(f"dvc {' '.join(arguments)}: {err.read().strip()}")
        return out.read()


def git(*arguments: str) -> str:
    """Return what git prints. Raises ValueError with its message when it fails."""
    done = subprocess.run(["git", *arguments], text=True, capture_output=True)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def queue() -> tuple[dict[str, str], int]:
    """Return the state of each task in DVC's queue by name, and how many workers there are."""
    printed = dvc("queue", "status")
    tasks = re.findall(r"^[0-9a-f]{7,}\s+(\S+)\s.*?(\w+)\s*$", printed, re.MULTILINE)
    workers = re.search(r"(\d+) active, (\d+) idle", printed)
    return dict(tasks), sum(map(int, workers.groups())) if workers else 0


def wait(names: Sequence[str], poll: float) -> dict[str, str]:
    """Return the last state of each trial once all have ended. Those that nothing works on any more are "Lost"."""
    known: dict[str, str] = {}
    idle = 0
    while True:
        tasks, workers = queue()
        states = {name: tasks.get(name, "Lost") for name in names}
        for name, state in states.items():
            if state != known.get(name):
                log.info("%s: %s", name, state)
        known, open_states = states, set(states.values()) - set(FINISHED)
        idle = idle + 1 if not workers or open_states == {"Lost"} else 0
        if not open_states:
            return known
        if idle == PATIENCE:
            return {name: state if state in FINISHED else "Lost" for name, state in known.items()}
        time.sleep(poll)


def clear(names: Sequence[str]) -> None:
    """Take trials out of DVC's queue: first those that wait, lest the next one starts, then those that run."""
    for state, command in (("Queued", "remove"), ("Running", "kill")):
        tasks, _ = queue()
        found = [name for name in names if tasks.get(name) == state]
        if found:
            dvc("queue", command, *found)


def run_trials(settings: Mapping[str, Mapping[str, Any]], jobs: int, poll: float) -> dict[str, str]:
    """Run one experiment per name and return their last states. However it is left early, none stays in the queue."""
    queued: list[str] = []
    try:
        for name, values in settings.items():
            options = [part for key, value in values.items() for part in ("--set-param", f"{key}={json.dumps(value)}")]
            with whole():  # DVC changes params.yaml for a moment
                queued.append(name)
                dvc("exp", "run", "--queue", "--name", name, *options)
        dvc("queue", "start", "--jobs", str(jobs))
        return wait(queued, poll)
    except BaseException:
        log.info("taking what is left of %d trials out of the queue", len(queued))
        with whole():
            clear(queued)
        raise


@contextmanager
def whole() -> Iterator[None]:
    """Hold Ctrl-C and a polite kill back until the block is done."""
    caught: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        raise KeyboardInterrupt


def read_trials(
    settings: Mapping[str, Mapping[str, Any]], states: Mapping[str, str], method: str
) -> tuple[list[Trial], ModelManifest | None]:
    """Return the trials with what their commits say, in the order asked for, and the model that they edited."""
    found = {
        experiment["name"]: experiment["revs"][0]
        for commit in json.loads(dvc("exp", "show", "--json", "--no-pager"))
        for experiment in commit["experiments"] or ()
        if experiment["revs"]
    }
    trials, manifest = [], None
    for name, values in settings.items():
        trial = Trial(name=name, values=dict(values), state=states[name])
        if trial.state == "Success":
            trial = _measured(trial, found[name], method)
            manifest = manifest or _manifest(found[name]["rev"])
        trials.append(trial)
    return trials, manifest


def table(trials: Sequence[Trial]) -> list[list[str]]:
    """Return the trials as rows of text, header first."""
    keys = list(trials[0].values)
    codes = list(dict.fromkeys(code for trial in trials for code in trial.exact))
    head = ["trial", *keys, *(f"exact {code}" for code in codes), *(f"kept {code}" for code in codes), "score", "size", "state"]
    return [head] + [
        [
            trial.name.rsplit("-", 1)[1],
            *(str(trial.values[key]) for key in keys),
            *(_text(shares.get(code, math.nan), 3) for shares in (trial.exact, trial.locality_tokens) for code in codes),
            _text(trial.score, 4),
            _text(trial.size, 3),
            trial.state,
        ]
        for trial in trials
    ]


def overlay_text(chosen: Trial, trials: Sequence[Trial], manifest: ModelManifest, tree: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the YAML of an overlay: the chosen trial's layers, vectors and method, all of them, and every trial.

    ``about`` is what ``Tuning`` holds beside the trials. Of a local model only the last part of its path is told.
    """
    method, local = about["method"], manifest.source in ("folder", "gguf")
    merged = flat(tree) | chosen.values
    kept = {key: in_line(value) for key, value in merged.items() if key == LAYERS or key.startswith(("vectors.", f"methods.{method}."))}
    content = {
        "model": _row(
            hub=Path(manifest.name).name if local else manifest.name,
            family=manifest.family,
            num_layers=manifest.num_layers,
            d_model=manifest.d_model,
        ),
        "basis": "tuned",
        "source": f"python -m tools.tune, {chosen.name}",
        "note": f"Chosen by {RULE}.",
        "params": _nested(kept | {key: in_line(value) for key, value in chosen.values.items()}),
        "tuning": {
            **{key: in_line(value) for key, value in about.items()},
            "trials": [
                _row(
                    **trial.values,
                    **{f"exact_{code}": share for code, share in trial.exact.items()},
                    **{f"locality_tokens_{code}": share for code, share in trial.locality_tokens.items()},
                    score=None if math.isnan(trial.score) else trial.score,
                    size=None if math.isnan(trial.size) else round(trial.size, 4),
                    state=trial.state,
                )
                for trial in trials
            ],
        },
    }
    text = io.StringIO()
    round_trip().dump(content, text)
    return text.getvalue()


def _measured(trial: Trial, experiment: Mapping[str, Any], method: str) -> Trial:
    """Return the trial with the numbers of its commit; a trial that was not on the dev facts, or lacks a number, has none."""
    split = experiment["data"]["params"]["params.yaml"]["data"]["data"]["split"]
    if split != DEV["data.split"]:
        return msgspec.structs.replace(trial, state=f"on split {split}")
    revision = experiment["rev"]
    paths = [
        path for path in git("ls-tree", "-r", "--name-only", revision, "reports/cells/").split() if Path(path).name.startswith(f"{method}-")
    ]
    cells = [msgspec.json.decode(git("show", f"{revision}:{path}"), type=CellSummary) for path in paths]
    own = {cell.edit: cell.metrics[cell.edit] for cell in cells if cell.edit_languages == (cell.edit,)}
    exact = {code: _value(metrics["exact"]) for code, metrics in own.items()}
    kept = {code: _value(metrics["locality_tokens"]) for code, metrics in own.items()}
    if not own or any(map(math.isnan, (*exact.values(), *kept.values()))):
        return msgspec.structs.replace(trial, state="no exact or locality_tokens")
    geometry = msgspec.json.decode(git("show", f"{revision}:reports/geometry/{method}.json"), type=list[UpdateGeometry])
    norms = [
        norm
        for layer in geometry
        for name, pair in layer.pairs.items()
        if name.startswith("run")
        for norm in (pair.norm_left, pair.norm_right)
    ]
    return msgspec.structs.replace(trial, exact=exact, locality_tokens=kept, size=math.hypot(*norms) if norms else math.nan)


def _manifest(revision: str) -> ModelManifest:
    from dvc.api import read

    return msgspec.json.decode(read("artifacts/model.json", rev=revision), type=ModelManifest)


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def _value(estimate: Estimate) -> float:
    return math.nan if estimate.value is None else estimate.value


def _text(number: float, decimals: int) -> str:
    return "-" if math.isnan(number) else f"{number:.{decimals}f}"


def _row(**values: Any) -> CommentedMap:
    row = CommentedMap({key: in_line(value) for key, value in values.items()})
    row.fa.set_flow_style()
    return row


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *above, name = key.split(".")
        section = tree
        for part in above:
            section = section.setdefault(part, {})
        section[name] = value
    return tree


def main(
    name: Annotated[str, typer.Argument(help="the overlay to write: settings/NAME.yaml")],
    method: Annotated[str, typer.Option(help="of params.yaml's methods")],
    choices: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, one more value to try; again for more")] = None,
    num_facts: Annotated[int, typer.Option(help="of the dev facts", min=1)] = 100,
    jobs: Annotated[int, typer.Option(help="trials at a time", min=1)] = 1,
    poll: Annotated[float, typer.Option(help="seconds between looks at the queue")] = 5.0,
    overwrite: Annotated[bool, typer.Option(help="replace an overlay that is there")] = False,
) -> None:
    """Queue the trials, wait, choose, write."""
    path, tree = SETTINGS / f"{name}.yaml", read_params()
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a name has small letters, digits, dots and hyphens")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: is there already; choose another name, or --overwrite")
    if method not in tree["methods"]:
        raise ValueError(f"methods.{method}: no such setting; params.yaml has: {', '.join(tree['methods'])}")
    rows = grid(asked_grid(choices or ()) or default_grid(tree, method))
    for row in rows:
        check_values(row, tree, "--set")
    busy = [task for task, state in queue()[0].items() if state in UNFINISHED]
    if busy:
        raise ValueError(f"DVC's queue is not empty ({', '.join(busy)}); wait, or `dvc queue remove` them: starting it would run them too")
    started = datetime.now(UTC)
    about = {
        "commit": git("rev-parse", "HEAD").strip(),
        "changed": git("diff", "--name-only", "HEAD").split(),
        "date": started.date(),
        "method": method,
        "num_facts": num_facts,
    }
    prefix = f"tune-{name.replace('.', '-')}-{started:%Y%m%d%H%M%S}"
    settings = {f"{prefix}-{index:02d}": row for index, row in enumerate(rows, start=1)}
    log.info("%d trials, %d at a time", len(settings), jobs)
    try:
        states = run_trials({name: overrides(row, method, num_facts) for name, row in settings.items()}, jobs, poll)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    trials, manifest = read_trials(settings, states, method)
    typer.echo(aligned(table(trials)))
    chosen = best(trials)
    assert manifest is not None, "a trial with a score has a model"
    write_bytes(path, overlay_text(chosen, trials, manifest, tree, about).encode())
    check(path, tree)
    typer.echo(f"chosen: {chosen.name}, by {RULE}")
    wrote(path)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(main)
