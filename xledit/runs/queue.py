"""Runs through DVC's queue: each is an experiment on the tracked files, with uncommitted changes, in a folder of its own.

Stages that experiments share come from DVC's run cache, also after a kill. Files that git does not track are missing. Experiments
stay, `dvc exp show` lists them. On Ctrl-C ours are taken out of the queue; after a kill -9 do it by hand: `dvc queue kill NAME`,
`dvc queue remove NAME`.
"""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from stages.common.runner import TIMINGS, log
from xledit.params import PARAMS
from xledit.report.editing.runs import RESULTS, Timing
from xledit.runs.named import RUNS
from xledit.runs.settings import set_params
from xledit.storage import write_bytes

UNFINISHED, FINISHED = ("Queued", "Running"), ("Success", "Failed")
PATIENCE = 5  # looks at a queue without workers before its tasks count as lost; a worker takes seconds to start
TIMES = Path(".dvc/tmp/timings")  # a file per experiment, to which each of its stages appends a Timing
STARTED = "[0-9]" * 14  # in the name of an experiment, as a pattern
LOG_LINES = 15
NOT_RUNS = ("--", f":(exclude){RESULTS}", f":(exclude){RUNS}")


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment: its name, the stages that it is to reproduce, and the settings in which it differs."""

    name: str
    targets: tuple[str, ...]
    params: dict[str, Any]


def check_idle() -> None:
    """Raise ValueError when DVC's queue has tasks: starting the queue would run them, too."""
    busy = [task for task, state in _queue()[0].items() if state in UNFINISHED]
    if busy:
        raise ValueError(f"DVC's queue is not empty ({', '.join(busy)}); wait, or `dvc queue remove` them: starting it would run them too")


def run_tasks(tasks: Sequence[Task], jobs: int, poll: float) -> dict[str, str]:
    """Run experiments and return the last state of each by name. On any exception all are taken out of the queue."""
    queued: list[str] = []
    try:
        for task in tasks:
            with _whole(), _changed(task.params):
                queued.append(task.name)
                dvc("exp", "run", "--queue", "--name", task.name, *task.targets)
        TIMES.mkdir(parents=True, exist_ok=True)
        # DVC tells each stage the experiment that it runs in
        os.environ[TIMINGS] = str(TIMES.absolute() / "$DVC_EXP_NAME.jsonl")
        dvc("queue", "start", "--jobs", str(jobs))
        return _wait(queued, poll)
    except BaseException:
        log.info("taking what is left of %d runs out of the queue", len(queued))
        with _whole():
            _clear(queued)
        raise


def revision_of(name: str) -> str:
    """Return the commit hash of an experiment that succeeded."""
    return git("for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").strip()


def end_of_log(name: str) -> str:
    """Return the last lines that an experiment printed."""
    return "\n".join(dvc("queue", "logs", name).splitlines()[-LOG_LINES:])


def timings_of(name: str) -> dict[str, Timing]:
    """Return the timing of each stage of an experiment by stage, also of earlier tries that were killed; the last one counts."""
    slug, end = _parts(name)
    return {timing.stage: timing for path in sorted(TIMES.glob(f"{slug}-{STARTED}{end}.jsonl")) for timing in _read(path)}


def forget_timings(name: str) -> None:
    """Remove the times of an experiment and of all tries and trials of its run, once they are kept elsewhere."""
    for path in TIMES.glob(f"{_parts(name)[0]}-{STARTED}*.jsonl"):
        path.unlink()


def uncommitted() -> tuple[str, ...]:
    """Return the tracked files that differ from the last commit, runs and results apart."""
    return _lines(git("diff", "--name-only", "HEAD", *NOT_RUNS))


def warn_of_unknown() -> None:
    """Warn of files that git does not know: an experiment does not have them."""
    if new := _lines(git("ls-files", "--others", "--exclude-standard", *NOT_RUNS)):
        log.warning("git does not know %s: a run does not see what was never added; `git add` it", ", ".join(new))


def dvc(*arguments: str) -> str:
    """Run DVC and return its standard output. Raises ValueError with its message when it fails."""
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
    """Run git and return its standard output. Raises ValueError with its message when it fails."""
    done = subprocess.run(["git", *arguments], text=True, encoding="utf-8", capture_output=True)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.splitlines())


def _read(path: Path) -> list[Timing]:
    """Return the timings in a file in order, without a last line that is still being written; none without the file."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [msgspec.json.decode(line, type=Timing) for line in lines]


def _parts(name: str) -> tuple[str, str]:
    """Return the run's slug and the trial's ending ("-01", or "") of an experiment's name; the starting time is between them."""
    match = re.fullmatch(r"(.+)-\d{14}(|-\d+)", name)
    assert match, name
    return match[1], match[2]


def _queue() -> tuple[dict[str, str], int]:
    """Return the state of each task in DVC's queue by name, and how many workers there are."""
    printed = dvc("queue", "status")
    tasks = re.findall(r"^[0-9a-f]{7,}\s+(\S+)\s.*?(\w+)\s*$", printed, re.MULTILINE)
    workers = re.search(r"(\d+) active, (\d+) idle", printed)
    return dict(tasks), sum(map(int, workers.groups())) if workers else 0


def _wait(names: Sequence[str], poll: float) -> dict[str, str]:
    """Return the last state of each experiment by name once all have ended. Those that no worker runs any more are "Lost"."""
    last: dict[str, str] = {}
    logged = dict.fromkeys(names, 0)
    idle = 0
    while True:
        tasks, workers = _queue()
        states = {name: tasks.get(name, "Lost") for name in names}
        for name, state in states.items():
            if state != last.get(name):
                log.info("%s: %s", name, state)
            for timing in _read(TIMES / f"{name}.jsonl")[logged[name] :]:
                log.info("%s: %s took %.1f s", name, timing.stage, timing.wall_s)
                logged[name] += 1
        last, open_states = states, set(states.values()) - set(FINISHED)
        idle = idle + 1 if not workers or open_states == {"Lost"} else 0
        if not open_states:
            return last
        if idle == PATIENCE:
            return {name: state if state in FINISHED else "Lost" for name, state in last.items()}
        time.sleep(poll)


def _clear(names: Sequence[str]) -> None:
    """Take experiments out of DVC's queue: first those that wait, so that none of them starts, then those that run."""
    for state, command in (("Queued", "remove"), ("Running", "kill")):
        tasks, _ = _queue()
        ours = [name for name in names if tasks.get(name) == state]
        if ours:
            dvc("queue", command, *ours)


@contextmanager
def _changed(values: Mapping[str, Any]) -> Iterator[None]:
    """Change params.yaml inside the block, in which DVC reads it: its own --set-param cannot replace a section."""
    before = PARAMS.read_bytes()
    try:
        set_params(Path(), values)
        yield
    finally:
        write_bytes(PARAMS, before)


@contextmanager
def _whole() -> Iterator[None]:
    """Delay SIGINT and SIGTERM until the block is done, then raise KeyboardInterrupt."""
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
