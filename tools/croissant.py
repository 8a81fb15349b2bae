"""Describe our own benchmark for machines: data/croissant.json, in MLCommons' format Croissant 1.0 (https://docs.mlcommons.org/croissant).

The library mlcroissant builds it and holds it against the format; what a column means is read from data/benchmark/README.md, version, date
and citation from docs/datasheet.md, which tells people the same. ``--check`` writes nothing and exits with 1 where the file is not up to
date.
"""

import hashlib
import json
import re
import sys
from datetime import datetime
from pathlib import Path

import mlcroissant as mlc

from xledit.storage import write_bytes

OUT = Path("data/croissant.json")
FOLDER = Path("data/benchmark")
COLUMNS, DATASHEET = FOLDER / "README.md", Path("docs/datasheet.md")
CSV, URL = "text/csv", "https://creativecommons.org/publicdomain/zero/1.0/"
# facts have more columns where a relation has more languages; these are in all tables
FACTS = (
    "id", "domain", "scope", "subject_zh", "subject_en", "object_zh", "object_en", "subject_aliases_zh", "subject_aliases_en",
    "object_aliases_zh", "object_aliases_en", "note",
)  # fmt: skip
TABLES = {
    "relations": ("relation", "split", "tied_to"),
    "prompts": ("relation", "language", "form", "hop", "template"),
    "facts": FACTS,
}


def meanings() -> dict[str, str]:
    """Return what the README of the tables says of each column, without its marks."""
    found: dict[str, str] = {}
    for names, meaning in re.findall(r"^\| ([a-z_, .]+) \| (.+) \|$", COLUMNS.read_text(encoding="utf-8"), re.MULTILINE):
        for name in names.rstrip(". ,").split(", "):
            found.setdefault(name, meaning.replace("`", "").replace("**", ""))
    return found


def stated(name: str) -> str:
    """Return what the datasheet's first table says of the version, the date or the citation."""
    row = re.search(rf"^\| {name} \| (.+) \|$", DATASHEET.read_text(encoding="utf-8"), re.MULTILINE)
    if row is None:
        raise ValueError(f"{DATASHEET}: no row {name!r} in its first table; write | {name} | ... |")
    return row[1]


def describe() -> mlc.Metadata:
    """Return the description. Raises mlcroissant's ValidationError where it breaks the format."""
    ctx = mlc.Context()
    files = [
        mlc.FileObject(
            ctx=ctx,
            id=f"{name}.csv",
            name=f"{name}.csv",
            content_url=f"benchmark/{name}.csv",
            encoding_formats=[CSV],
            sha256=hashlib.sha256((FOLDER / f"{name}.csv").read_bytes()).hexdigest(),
        )
        for name in ("relations", "prompts")
    ]
    facts = mlc.FileSet(ctx=ctx, id="facts-tables", name="facts-tables", encoding_formats=[CSV], includes=["benchmark/facts/*.csv"])
    of_column = meanings()
    records = []
    for table, columns in TABLES.items():
        fields = [
            mlc.Field(
                ctx=ctx,
                id=f"{table}/{column}",
                name=column,
                description=of_column[column],
                data_types=[mlc.DataType.TEXT],
                source=mlc.Source(
                    ctx=ctx,
                    extract=mlc.Extract(ctx=ctx, column=column),
                    file_set="facts-tables" if table == "facts" else None,
                    file_object=None if table == "facts" else f"{table}.csv",
                ),
            )
            for column in columns
        ]
        records.append(mlc.RecordSet(ctx=ctx, id=table, name=table, fields=fields))
    return mlc.Metadata(
        ctx=ctx,
        name="xledit",
        description=(
            "Counterfactual facts for the editing of language models, Chinese first, aligned with English: one fact in both languages, "
            "both word orders, paraphrases, aliases, and questions about what should and should not change."
        ),
        version=stated("version"),
        date_published=datetime.fromisoformat(stated("date")),
        cite_as=stated("citation"),
        license=[URL],
        in_language=["zh", "en"],
        distribution=[*files, facts],
        record_sets=records,
    )


def main() -> int:
    """Write the file, or with ``--check`` say whether it is up to date."""
    content = (json.dumps(describe().to_json(), ensure_ascii=False, indent=1) + "\n").encode()
    if "--check" not in sys.argv:
        write_bytes(OUT, content)
    elif not OUT.exists() or OUT.read_bytes() != content:
        print(f"{OUT} is not up to date; run `python -m tools.croissant`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
