"""Prepared facts, as stages/editing/prepare.py wrote them, all languages of a fact together, and in the layout of another tool."""

from collections import defaultdict
from pathlib import Path
from typing import Literal, TypeVar

from xledit.benchmark.export import clm_rows, counterfact_rows
from xledit.records import EditRequest, FactRecords, Probe
from xledit.storage import read_json, write_json

T = TypeVar("T", EditRequest, Probe)


def write_layout(to: Literal["clm_bench", "counterfact"], facts: list[FactRecords], out: Path) -> list[Path]:
    """Write facts as another tool reads them. Returns the paths written.

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
    requests_of = {path.stem: _by_fact(path, EditRequest) for path in sorted(requests.glob("*.json"))}
    if not requests_of or not all(requests_of.values()):
        raise ValueError(f"{requests}: has no requests; run `dvc repro prepare`")
    rewordings_of = {code: _by_fact(rewordings / f"{code}.json", EditRequest) for code in requests_of}
    probes_of = {code: _by_fact(probes / f"{code}.json", Probe) for code in requests_of}
    first, *rest = requests_of
    for code in rest:
        if requests_of[code].keys() != requests_of[first].keys():
            raise ValueError(f"{requests}: {first}.json and {code}.json are of different facts; run `dvc repro prepare`")
    return [
        FactRecords(
            fact_id=fact_id,
            requests={code: by_fact[fact_id][0] for code, by_fact in requests_of.items()},
            rewordings={code: by_fact[fact_id][0] for code, by_fact in rewordings_of.items() if fact_id in by_fact},
            probes={code: tuple(by_fact.get(fact_id, ())) for code, by_fact in probes_of.items()},
        )
        for fact_id in requests_of[first]
    ]


def _by_fact(path: Path, kind: type[T]) -> dict[str, list[T]]:
    """Return the records of a file by fact, in the file's order."""
    records: dict[str, list[T]] = defaultdict(list)
    for record in read_json(path, list[kind]):
        records[record.fact_id].append(record)
    return dict(records)
