"""Run each stage's command again, in the pipeline's order: wall time, CPU time and memory of each, and whether its bytes come out the same.

Writes reports/benchmark.json and overwrites the outputs, which does not matter as long as the bytes are the same. Where
they are not, the stage is named and the exit code is 1; `dvc checkout --force` puts the old ones back.
"""

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from tools.verify import locked_outputs, md5_of
from xledit.params import section
from xledit.storage import read_tensors, write_json

REPORT = Path("reports/benchmark.json")
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A stage, or one cell of its matrix: its command line and the paths that it writes."""

    name: str
    cmd: str
    outs: tuple[str, ...]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and peak memory (MB) of one stage. CPU time is user and system of all its processes; memory is the largest process's.

    ``identical`` says that every output was written anew and has the bytes of dvc.lock.
    """

    stage: str
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    identical: bool


def commands() -> list[Command]:
    """Return the pipeline's commands, each after those whose outputs it reads."""
    import networkx
    from dvc.repo import Repo

    with Repo(".") as repo:
        order = {stage: place for place, stage in enumerate(repo.index.stages)}
        sorted_stages = networkx.lexicographical_topological_sort(repo.index.graph.reverse(), key=order.__getitem__)
        return [Command(name=stage.addressing, cmd=stage.cmd, outs=tuple(out.def_path for out in stage.outs)) for stage in sorted_stages]


def run(command: Command, locked: dict[Path, str]) -> Measured:
    """Run one command and measure it. Raises CalledProcessError when it fails."""
    outs = [Path(out) for out in command.outs]
    before = [written_at(out) for out in outs]
    started = time.perf_counter()
    process = subprocess.Popen(command.cmd, shell=True)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command.cmd)
    identical = all(written_at(out) != old and md5_of(out) == locked.get(out) for out, old in zip(outs, before, strict=True))
    return Measured(
        stage=command.name,
        wall_s=round(wall, 2),
        cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
        peak_rss_mb=round(usage.ru_maxrss * MAXRSS_UNIT / 1e6, 1),
        identical=identical,
    )


def written_at(out: Path) -> set[tuple[Path, int, int]]:
    """Return path, inode and time of change (ns) of each file of an output: they differ after it is written again, even the same."""
    files = [file for file in (out, *out.rglob("*")) if file.is_file()]
    return {(file, file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def machine() -> dict[str, object]:
    """Return hardware and versions that the timings depend on; nothing that names the machine or its user."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        named = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = named[0] if named else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        **{package: _installed(package) for package in ("torch", "transformers")},
    }


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def rates(cpu_s: dict[str, float]) -> dict[str, float]:
    """Return CPU seconds per fact and per 10,000 tokens of the two most expensive stages, start and loading of the model included.

    A fact counts once for each language and each wording in which its v* was found; a token once for each language.
    """
    per_unit = {}
    if "vectors" in cpu_s:
        paths = [*Path("artifacts/vectors").glob("*.safetensors"), *Path("artifacts/reworded").glob("*.safetensors")]
        num_facts = sum(len(read_tensors(path, dict)[1]["fact_ids"]) for path in paths)
        per_unit["target_value_cpu_s_per_fact"] = round(cpu_s["vectors"] / num_facts, 3)
    if "covariance" in cpu_s:
        paths = Path("artifacts/covariance").glob("*.safetensors")
        num_tokens = sum(max(read_tensors(path, dict)[1]["num_keys"]) for path in paths)
        per_unit["covariance_cpu_s_per_10000_tokens"] = round(cpu_s["covariance"] / num_tokens * 10_000, 3)
    return per_unit


def main() -> int:
    """Run, print and write. Returns 1 when an output's bytes are not those of dvc.lock."""
    # DVC is left to another process: the memory of this one would count as the least of any command
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pipeline = pool.submit(commands).result()
    locked = locked_outputs({command.name for command in pipeline})
    rows, cpu_s = [], {}
    for command in pipeline:
        print(f"> {command.name}", flush=True)
        row = run(command, locked)
        rows.append(row)
        stage = command.name.split("@")[0]
        cpu_s[stage] = cpu_s.get(stage, 0.0) + row.cpu_s
        print(
            f"  {row.wall_s} s, {row.cpu_s} CPU s, {row.peak_rss_mb} MB{'' if row.identical else ', OTHER BYTES than dvc.lock'}", flush=True
        )
    identical = all(row.identical for row in rows)
    write_json(
        REPORT,
        {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "sizes": {"num_facts": section("edit.num_facts", int), "layers": section("edit.layers", list[int])},
            "stages": rows,
            "total": {
                "wall_s": round(sum(row.wall_s for row in rows), 2),
                "cpu_s": round(sum(row.cpu_s for row in rows), 2),
                "peak_rss_mb": max(row.peak_rss_mb for row in rows),
            },
            "rates": rates(cpu_s),
            "identical": identical,
        },
    )
    print(f"{REPORT}: {len(rows)} stages, {'the same bytes' if identical else 'NOT the same bytes'}")
    return int(not identical)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {error}; nothing was written to {REPORT}")
