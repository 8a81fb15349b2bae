"""Raw data set -> requests, rewordings, probes and demonstrations per language, aligned by fact; and the audit of the data set.

Reads the data set that ``data.source`` names. Writes one JSON per language and kind, the facts' labels, the rows of the run's languages,
and the audit. No torch.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from stages.common.runner import log, run, wrote
from xledit.benchmark import read as benchmark
from xledit.datasets import bizsre, bmike, clm_bench, counterfact, fact_records, mzsre, zsre
from xledit.datasets.demonstrations import draw
from xledit.datasets.selection import RULE, select
from xledit.languages import language
from xledit.params import section
from xledit.records import PUBLISHED_LANGUAGE, Audit, FactRecords
from xledit.storage import write_json

# data sets of the field, read from a local copy of the published files, and facts that are already records
READERS = {
    "bizsre": bizsre.read,
    "bmike": bmike.read,
    "counterfact": counterfact.read,
    "mzsre": mzsre.read,
    "records": fact_records.read,
    "zsre": zsre.read,
}


class DataParams(benchmark.Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``data`` section of params.yaml: choices within our own benchmark (``Choice``), and where the data are.

    ``path`` is the file or folder of our own benchmark or of another data set (``READERS``), as published. ``skip_facts`` leaves out that
    many usable facts before taking ``edit.num_facts``. ``demonstrations`` is how many other facts are prepared as in-context examples, 0
    for none: from the dev split of our own benchmark, or from another data set's facts that are not edited.
    """

    source: Literal["benchmark", "clm_bench", "bizsre", "bmike", "counterfact", "mzsre", "records", "zsre"]
    clm_bench_dir: str
    clm_bench_url: str
    path: str
    demonstrations: int
    skip_facts: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("data.demonstrations", self.demonstrations, 0)
        check_at_least("skip_facts", self.skip_facts, 0)


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise ValueError when a count is below its least value."""
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def main(out: Annotated[Path, typer.Option(help="folder for the records")], audit: Annotated[Path, typer.Option()]) -> None:
    data = section("data", DataParams)
    languages = section("grid.languages", tuple[str, ...])
    num_facts, seed = section("edit.num_facts", int), section("seed", int)
    check_at_least("edit.num_facts", num_facts, 1)
    if data.source == "benchmark":
        facts, data_audit = benchmark.read(
            Path(data.path),
            languages,
            data,
            num_facts=num_facts,
            skip_facts=data.skip_facts,
            seed=seed,
        )
        others = benchmark.spare(Path(data.path), languages, data, facts, seed=seed)
    else:
        others, data_audit = read_public(data, languages)
        facts, colliding = select(others, num_facts, data.skip_facts)
        data_audit = msgspec.structs.replace(
            data_audit, num_selected=len(facts), dropped=data_audit.dropped | colliding, rules=(*data_audit.rules, RULE)
        )
    log.info(
        "%s: %d facts read, %d selected, %d dropped",
        data_audit.source,
        data_audit.num_read,
        data_audit.num_selected,
        len(data_audit.dropped),
    )
    demonstrations = draw(others, facts, languages, data.demonstrations, seed)
    paths = []
    for code in languages:
        parts = {
            "requests": [fact.requests[code] for fact in facts],
            "rewordings": [fact.rewordings[code] for fact in facts if code in fact.rewordings],
            "probes": [probe for fact in facts for probe in fact.probes[code]],
            "demonstrations": demonstrations[code],
        }
        for name, records in parts.items():
            paths.append(out / name / f"{code}.json")
            write_json(paths[-1], records)
    paths += [out / "labels.json", out / "languages.json", audit]
    write_json(out / "languages.json", {code: language(code) for code in (*languages, PUBLISHED_LANGUAGE)})
    write_json(out / "labels.json", {fact.fact_id: fact.labels for fact in facts})
    write_json(audit, data_audit)
    wrote(*paths)


def read_public(data: DataParams, languages: tuple[str, ...]) -> tuple[list[FactRecords], Audit]:
    """Return the usable facts of a public data set and its audit; CLM-Bench is fetched first if it is not in its folder."""
    if data.source == "clm_bench":
        clm_bench.fetch(Path(data.clm_bench_dir), data.clm_bench_url)
        return clm_bench.read(Path(data.clm_bench_dir), languages)
    return READERS[data.source](Path(data.path), languages)


if __name__ == "__main__":
    run(main)
