"""What every stage script shares: a typer app, a log with times, and errors a person can read."""

import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import typer
from tqdm import tqdm

# the variable that names a file to which each stage adds a line of JSON: its wall-clock and CPU time in seconds, loading included; a
# variable in the file's name ($DVC_EXP_NAME) is replaced
TIMINGS = "XLEDIT_TIMINGS"

log = logging.getLogger("xledit")
# the base class of all usage errors, which typer does not export
USAGE_ERROR: Any = typer.BadParameter.__base__


def run(command: Callable[..., None]) -> None:
    """Run a stage's command as a script: exit 1 with one readable line on bad input, a full disk or a failed solve."""
    started = time.perf_counter()
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    with readable_errors():
        app(standalone_mode=False)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    wall_s, cpu_s = round(time.perf_counter() - started, 2), round(usage.ru_utime + usage.ru_stime, 2)
    log.info("done in %.1f s, %.1f CPU s, %.1f GB at most", wall_s, cpu_s, usage.ru_maxrss / 2**20)
    if TIMINGS in os.environ:
        took = {"stage": os.environ.get("DVC_STAGE", sys.argv[0]), "wall_s": wall_s, "cpu_s": cpu_s}
        with Path(os.path.expandvars(os.environ[TIMINGS])).open("ab") as file:
            file.write(msgspec.json.encode(took) + b"\n")


@contextmanager
def readable_errors() -> Iterator[None]:
    """Exit 1 with one readable line on bad input, a full disk or a failed solve."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        yield
    except USAGE_ERROR as error:
        log.error("error: %s", error.format_message())
        raise SystemExit(1) from error
    except (ValueError, OSError) as error:
        log.error("error: %s", error)
        raise SystemExit(1) from error


def wrote(*paths: Path) -> None:
    """Log what was written and how large it is."""
    for path in paths:
        log.info("wrote %s (%.1f kB)", path, path.stat().st_size / 1000)


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show a bar with rate and time left on a terminal; yields the function to call with each number of items done."""
    done, started = 0, time.perf_counter()
    with tqdm(total=total, unit=f" {unit}", dynamic_ncols=True, mininterval=2.0, disable=None) as bar:

        def step(number: int) -> None:
            nonlocal done
            done += number
            bar.update(number)

        yield step
    log.info("%d %s, %.2f per second", done, unit, done / (time.perf_counter() - started))
