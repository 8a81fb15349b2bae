"""The rows of the languages agree with the paper, with CLDR and with datatrove."""

import csv
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from babel import Locale
from babel.core import get_global

from xledit.training.catalog import NATURAL, PROGRAMMING, row

# arXiv 2408.06273, section 3.1
PAPER = "ar bg bn ca cs de el en es fa fi fr he hi hu id it ja kk km ko ku ky lo ms my nl pl pt ro ru sv ta tg th tk tl tr uk ur uz vi zh"


def test_the_languages_are_those_of_the_paper() -> None:
    assert list(NATURAL) == PAPER.split()
    assert len(NATURAL) == 43
    assert len(PROGRAMMING) == 16
    assert not NATURAL.keys() & PROGRAMMING.keys()
    assert all(code == each.code for rows in (NATURAL, PROGRAMMING) for code, each in rows.items())
    assert all(each.name and each.family for each in NATURAL.values())
    assert len({each.name for rows in (NATURAL, PROGRAMMING) for each in rows.values()}) == 59


def test_shares_and_gigabytes_add_up_as_in_the_paper() -> None:
    shares = [each.share for each in NATURAL.values() if each.share is not None]
    assert len(shares) == 13
    assert math.isclose(sum(shares), 80.1)
    assert round(sum(each.gigabytes for each in PROGRAMMING.values())) == 535


def test_suffixes_belong_to_one_language() -> None:
    suffixes = [suffix for each in PROGRAMMING.values() for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)


@pytest.mark.parametrize("code", NATURAL)
def test_cldr_knows_the_language_in_that_script(code: str) -> None:
    language = NATURAL[code]
    assert get_global("likely_subtags")[language.locale].split("_")[1] == language.script
    assert Locale.parse(language.locale).languages[language.locale]


def test_datatrove_has_a_row_for_each_language_in_that_script() -> None:
    spec = find_spec("datatrove")
    assert spec
    assert spec.origin
    table = Path(spec.origin).parent / "assets" / "tokenizer_assignment.csv"
    with table.open(encoding="utf-8") as file:
        rows = {(each["code_3"], each["script"]): each for each in csv.DictReader(file)}
    for language in NATURAL.values():
        # datatrove has Chinese characters and Hangul alone for what Chinese and Korean are written in
        found = rows[language.iso3, {"Hans": "Hani", "Kore": "Hang"}.get(language.script, language.script)]
        assert found["code_1"] in (language.code, "")  # none for Filipino
        assert found["default_script"] == "TRUE"


def test_six_languages_put_no_spaces_between_words() -> None:
    assert {code for code, each in NATURAL.items() if each.writing == "unspaced"} == {"ja", "km", "lo", "my", "th", "zh"}
    assert {each.writing for each in PROGRAMMING.values()} == {"code"}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("cn", None),
        ("chinese", "zh (Chinese)"),
        ("Pyhton", "python (Python)"),
        ("c++", "cpp (C++)"),
        ("csharp", "c-sharp (C#)"),
        ("eng", "en "),
    ],
)
def test_an_unknown_language_is_named_with_those_near_it(wrong: str, meant: str | None) -> None:
    with pytest.raises(ValueError, match="unknown language") as error:
        row(wrong)
    assert repr(wrong) in str(error.value)
    assert meant is None or meant in str(error.value)
    assert row("zh") is NATURAL["zh"]
    assert row("python") is PROGRAMMING["python"]


def test_the_catalog_is_light() -> None:
    heavy = "import sys, xledit.training.catalog; print({'torch', 'numpy', 'datatrove', 'babel'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "set()\n"
