"""Prepared facts, as stages/prepare.py wrote them, all languages of a fact together, and in the layout of another tool."""

from collections import defaultdict
from pathlib import Path
from typing import Literal, TypeVar

from xledit.benchmark.export import clm_rows, counterfact_rows
from xledit.records import EditRequest, FactRecords, Probe
from xledit.storage import read_json, write_json

T = TypeVar("T", EditRequest, Probe)


def write_layout(to: Literal["clm_bench", "counterfact"], facts: list[FactRecords], out: Path) -> list[Path]:
    """Write facts as another tool reads them. Returns the files.

    CLM-Bench's three files go into the folder itself; CounterFact's rows go into a folder per language as ``multi_counterfact.json``,
    the name under which memit edits several facts at once.
    """
    if to == "clm_bench":
        files = clm_rows(facts)
    else:
        files = {f"{code}/multi_counterfact.json": counterfact_rows(facts, code) for code in facts[0].requests}
    for name, rows in files.items():
        write_json(out / name, rows)
    return [out / name for name in files]


def read_facts(requests: Path, rewordings: Path, probes: Path) -> list[FactRecords]:
    """Return prepared facts in their order. Raises ValueError when there are none or a language lacks a file or a fact."""
    asked = {path.stem: _by_fact(path, EditRequest) for path in sorted(requests.glob("*.json"))}
    if not asked or not all(asked.values()):
        raise ValueError(f"{requests}: has no requests; run `dvc repro prepare`")
    reworded = {code: _by_fact(rewordings / f"{code}.json", EditRequest) for code in asked}
    probed = {code: _by_fact(probes / f"{code}.json", Probe) for code in asked}
    first, *others = asked
    for code in others:
        if asked[code].keys() != asked[first].keys():
            raise ValueError(f"{requests}: {first}.json and {code}.json are of different facts; run `dvc repro prepare`")
    return [
        FactRecords(
            fact_id=fact_id,
            requests={code: found[fact_id][0] for code, found in asked.items()},
            rewordings={code: found[fact_id][0] for code, found in reworded.items() if fact_id in found},
            probes={code: tuple(found.get(fact_id, ())) for code, found in probed.items()},
        )
        for fact_id in asked[first]
    ]


def _by_fact(path: Path, kind: type[T]) -> dict[str, list[T]]:
    """Return the records of a file by fact, in the file's order."""
    found: dict[str, list[T]] = defaultdict(list)
    for record in read_json(path, list[kind]):
        found[record.fact_id].append(record)
    return dict(found)
