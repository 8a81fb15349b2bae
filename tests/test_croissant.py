"""data/croissant.json describes the tables that are there: read through the library mlcroissant they are the rows that we read."""

import csv
import hashlib
import json
from pathlib import Path

import mlcroissant as mlc
import pytest

from tools import croissant

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dataset() -> mlc.Dataset:
    return mlc.Dataset(jsonld=str(ROOT / "data/croissant.json"))


def test_the_description_is_up_to_date_and_breaks_nothing(dataset: mlc.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert json.loads(croissant.OUT.read_text(encoding="utf-8")) == json.loads(json.dumps(croissant.describe().to_json()))
    assert not dataset.metadata.issues.errors and not dataset.metadata.issues.warnings
    for distributed in dataset.metadata.distribution:
        if isinstance(distributed, mlc.FileObject):
            assert distributed.sha256 == hashlib.sha256((ROOT / "data" / str(distributed.content_url)).read_bytes()).hexdigest()


@pytest.mark.parametrize("table", croissant.TABLES)
def test_the_rows_are_those_of_the_tables(dataset: mlc.Dataset, table: str) -> None:
    paths = sorted((ROOT / "data/benchmark/facts").glob("*.csv")) if table == "facts" else [ROOT / f"data/benchmark/{table}.csv"]
    expected = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            expected += [tuple(row[name] for name in croissant.TABLES[table]) for row in csv.DictReader(file)]
    found = [
        tuple("" if row[f"{table}/{name}"] is None else row[f"{table}/{name}"].decode() for name in croissant.TABLES[table])
        for row in dataset.records(table)
    ]
    assert sorted(found) == sorted(expected)


def test_the_canary_stands_with_the_tables_and_in_the_datasheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert croissant.stated("canary") in croissant.COLUMNS.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"datasheet\.md: no row 'price' in its first table"):
        croissant.stated("price")
