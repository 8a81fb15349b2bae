"""CLM-Bench (arXiv 2601.17397): fetched by address, never copied into the project (it has no licence), audited, read into records.

1,010 counterfactual edits worded in Chinese and in English. Row i of both files is one fact; the ids in the files are not unique.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pooch

from xledit import storage
from xledit.datasets.rows import CHECKS, Row, find, target_equals_truth
from xledit.records import Audit, EditRequest, FactRecords, Probe

COMMIT = "c981f5a486e31c18c2e6c3c22002e5050e29e327"
URL = f"https://raw.githubusercontent.com/kekeaii/CLM_bench/{COMMIT}"
FILE_OF = {"zh": "chinese_fields_with_loc.json", "en": "english_fields_with_loc.json"}
FILES: dict[str, str] = {
    FILE_OF["zh"]: "0678bcc8b51900d116f54d0d9091ebd6005dcaade9cb1f513e86b608456c3cff",
    FILE_OF["en"]: "76b80e14369e08efa7cfeef16ca38128ed6ba790c994eaf619e15ea6d77ff19b",
    "merged_alternate_fields_no_english.json": "6e56f8de03582e275898f2fde3becc5b7b9ef627a133c4e31ca5c28e80c35b86",
}
REMEDY = "check the network, or put local copies of the data set's files into data.clm_bench_dir"
RULES = (
    "the files are paired by row, because their ids are not unique",
    "a row with a null or empty truth, with a target equal to the truth (but for case), or with a prompt without its subject is dropped",
    "the paraphrase is a rewording only where it has the subject (in any case) and differs from the prompt",
    "a locality question whose answer is the fact's new target is left out",
)


def fetch(folder: Path, url: str = URL) -> None:
    """Download the files that ``folder`` does not have, each whole and with the right hash or not at all.

    Raises ValueError with the file, its address and what to do.
    """
    for name, digest in FILES.items():
        if (folder / name).exists():
            continue  # pooch would replace a local copy of another hash; read() says so instead
        try:
            with _quiet(pooch.get_logger()):
                pooch.retrieve(f"{url}/{name}", known_hash=f"sha256:{digest}", fname=name, path=folder)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            raise ValueError(f"{folder / name}: not downloaded from {url}/{name}: {error}; {REMEDY}") from error


def read(folder: Path, languages: Sequence[str]) -> tuple[list[FactRecords], Audit]:
    """Return the records of all rows that can be edited in all of ``languages``, and the audit of all rows.

    Raises ValueError with the file, and the row where there is one, when a file is missing, not the pinned one or
    not as expected, and with the known languages for another one.
    """
    unknown = [code for code in languages if code not in FILE_OF]
    if unknown:
        raise ValueError(f"CLM-Bench has no language {unknown[0]!r}; it has: {', '.join(FILE_OF)}")
    for name, digest in FILES.items():
        _verify(folder / name, digest)
    columns = {code: _rows(folder / FILE_OF[code], code) for code in languages}
    lengths = {FILE_OF[code]: len(rows) for code, rows in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{folder}: the files are paired by row, but have different numbers of rows: {lengths}; {REMEDY}")
    facts, dropped = [], {}
    for number, pair in enumerate(zip(*columns.values(), strict=True)):
        fact_id = f"clm-{number:04d}"
        reason = next((f"{reason} ({row.language})" for row in pair if (reason := unusable(row))), None)
        if reason:
            dropped[fact_id] = reason
        else:
            facts.append(_records(fact_id, pair))
    source = f"CLM-Bench, arXiv 2601.17397, github.com/kekeaii/CLM_bench at {COMMIT}"
    defects = {name: check(columns) for name, check in CHECKS.items()}
    num_read = max(lengths.values(), default=0)
    return facts, Audit(source=source, num_read=num_read, num_selected=len(facts), defects=defects, dropped=dropped, rules=RULES)


def unusable(row: Row) -> str | None:
    """Return why a row cannot be an edit, or None."""
    if not row.truth.strip():
        return "null or empty truth"
    if target_equals_truth(row):
        return "target equals truth"
    return None if find(row.subject, row.prompt) else "subject not in prompt"


def _verify(path: Path, expected: str) -> None:
    if not path.exists():
        raise ValueError(f"{path}: not found; {REMEDY}")
    if (actual := storage.sha256(path)) != expected:
        raise ValueError(f"{path}: SHA-256 is {actual}, wanted {expected} (commit {COMMIT}); delete it, then {REMEDY}")


def _rows(path: Path, code: str) -> list[Row]:
    rows = storage.read_json(path, list[dict[str, str | int | None]])
    named = [{name.removeprefix("english_"): value for name, value in row.items()} | {"language": code} for row in rows]
    try:
        return msgspec.convert(named, list[Row])
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {error} (rows count from 0, fields without the prefix english_); {REMEDY}") from error


def _records(fact_id: str, pair: Sequence[Row]) -> FactRecords:
    requests, rewordings, probes = {}, {}, {}
    for row in pair:
        answers = {"fact_id": fact_id, "language": row.language, "target_new": row.target_new, "target_true": row.truth}
        span, reworded = find(row.subject, row.prompt), find(row.subject, row.rephrase_prompt)
        assert span is not None  # unusable() has dropped the others
        requests[row.language] = EditRequest(prompt=row.prompt, subject_span=span, **answers)
        if reworded and row.rephrase_prompt != row.prompt:
            rewordings[row.language] = EditRequest(prompt=row.rephrase_prompt, subject_span=reworded, **answers)
        questions = [Probe(kind="efficacy", prompt=row.prompt, **answers), Probe(kind="paraphrase", prompt=row.rephrase_prompt, **answers)]
        if row.loc_ans.strip() != row.target_new.strip():
            questions.append(Probe(kind="locality", prompt=row.loc.strip(), **answers | {"target_true": row.loc_ans}))
        probes[row.language] = tuple(questions)
    return FactRecords(fact_id=fact_id, requests=requests, rewordings=rewordings, probes=probes)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
