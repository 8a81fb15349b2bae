"""The corpus: what is filtered, what counts as a copy, what is refused, and that a kill or more workers change nothing."""

import gzip
import json
import os
import random
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from datatrove.data import Document
from datatrove.executor import RayPipelineExecutor
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers import JsonlWriter

import xledit.training.corpus as corpus
from xledit.storage import read_json, write_json
from xledit.training.corpus import (
    CorpusCounts,
    CorpusParams,
    Dataset,
    Jsonl,
    Local,
    MinHash,
    Parquet,
    Quality,
    Ray,
    Repetition,
    Rules,
    Slurm,
    Source,
    Urls,
    Words,
    build,
)

ROOT = Path(__file__).parents[1]
# few buckets of few hashes: fast, and copies meet all the same
MINHASH = MinHash(num_buckets=4, hashes_per_bucket=4)
RULES = {
    "spaced": Rules(quality=Quality(min_avg_word_length=2), repetition=Repetition(), minhash=MINHASH),
    "unspaced": Rules(
        quality=Quality(
            min_doc_words=100, min_avg_word_length=None, max_avg_word_length=None, max_symbol_word_ratio=0.05, max_non_alpha_words_ratio=0.7
        ),
        repetition=Repetition(
            top_n_grams=((4, 0.2), (6, 0.18), (8, 0.16)),
            dup_n_grams=((10, 0.15), (12, 0.14), (14, 0.13), (16, 0.12), (18, 0.11), (20, 0.1)),
        ),
        minhash=msgspec.structs.replace(MINHASH, n_grams=10),
    ),
    "code": Rules(quality=None, repetition=None, minhash=MINHASH),
}
SETTINGS = CorpusParams(rules=RULES)
LOOSE = CorpusParams(rules={"spaced": RULES["code"], "unspaced": RULES["code"]})


def prose(seed: int, words: int = 80) -> str:
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghiéß", k=draw.randint(3, 8))) for _ in range(words)) + "."


def write_lines(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def texts(folder: Path, code: str = "en") -> list[str]:
    return [row["text"] for row in read_rows(folder, code)]


def read_rows(folder: Path, code: str = "en") -> list[dict]:
    return [json.loads(line) for line in gzip.decompress((folder / f"{code}.jsonl.gz").read_bytes()).splitlines()]


def run(
    tmp_path: Path, given: Sequence[object], settings: CorpusParams = SETTINGS, code: str = "en", **keys: Any
) -> tuple[CorpusCounts, list[str]]:
    """Build a corpus of rows, or of bare texts."""
    rows = [{"text": row} if isinstance(row, str) else row for row in given]
    source = Jsonl(language=code, path=str(write_lines(tmp_path / "in.jsonl", rows)), **keys)
    counts = build([source], settings, tmp_path / "out", tmp_path / "work")
    return counts, texts(tmp_path / "out", code)


def test_copies_stay_where_a_source_is_not_to_be_deduplicated(tmp_path: Path) -> None:
    same = prose(1)
    paths = [write_lines(tmp_path / f"{name}.jsonl", [{"text": same}, {"text": same}, {"text": "Too short."}]) for name in ("a", "b")]
    sources = [Jsonl(language="en", path=str(path), deduplicate=path.stem == "a") for path in paths]
    counts = build(sources, SETTINGS, tmp_path / "out", tmp_path / "work")
    assert texts(tmp_path / "out") == [same] * 3, "one of a, both of b; both are filtered"
    steps = counts.languages["en"]
    assert (steps[-1].step, steps[-1].documents, steps[-1].bytes) == ("written", 3, 3 * len(same.encode()))
    assert sum(count.documents for count in steps if count.step.startswith("source")) == 6
    assert sum(sum(count.dropped.values()) for count in steps) == 3
    alone = build(sources[1:], SETTINGS, tmp_path / "alone", tmp_path / "work-alone")
    assert texts(tmp_path / "alone") == [same] * 2
    assert alone.languages["en"][-1].documents == 2


def test_addresses_of_people_and_machines_do_not_stay(tmp_path: Path) -> None:
    text = f"{prose(1)} Write to jane.doe@uni-town.edu or log in at 8.8.8.8; 127.0.0.1 is nobody's."
    _counts, (kept,) = run(tmp_path, [text])
    assert "jane.doe" not in kept and "8.8.8.8" not in kept
    assert "@example." in kept and "127.0.0.1" in kept


# what is a word


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world: can't 3.14", ["Hello", ",", "world", ":", "can't", "3.14"]),
        ("यह एक कुत्ता है।", ["यह", "एक", "कुत्ता", "है", "।"]),
        ("می‌خواهم بروم", ["می‌خواهم", "بروم"]),
        ("한국어 문장", ["한국어", "문장"]),
        (" \n\t ", []),
    ],
)
def test_spaced_text_is_cut_into_words_by_unicodes_rule(text: str, words: list[str]) -> None:
    assert Words(characters=False).word_tokenize(text) == words


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("我爱 北京。", ["我", "爱", "北", "京", "。"]),
        ("ง่าย", ["ง่", "า", "ย"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
        ("ぱ" + "か\u3099", ["ぱ", "か\u3099"]),
    ],
)
def test_unspaced_text_is_cut_into_what_readers_take_for_characters(text: str, characters: list[str]) -> None:
    assert Words(characters=True).word_tokenize(text) == characters


# filters


@pytest.mark.parametrize(("code", "writing"), [("en", "spaced"), ("zh", "unspaced")])
def test_the_rules_keep_real_text_and_drop_it_repeated(code: str, writing: str) -> None:
    rules, words = RULES[writing], Words(writing == "unspaced")
    assert rules.quality
    assert rules.repetition
    filters = (
        GopherQualityFilter(**msgspec.structs.asdict(rules.quality), language=words),  # pyright: ignore[reportArgumentType]
        GopherRepetitionFilter(**msgspec.structs.asdict(rules.repetition), language=words),  # pyright: ignore[reportArgumentType]
    )

    def keeps(text: str) -> bool:
        return all(each.filter(Document(text=text, id="")) is True for each in filters)

    real = (ROOT / "data" / "corpus" / f"{code}.txt").read_text(encoding="utf-8").splitlines()[:40]
    assert sum(map(keeps, real)) >= 0.95 * len(real)
    assert not any(keeps(text[:30] * 10) for text in real)
    assert not keeps(real[0][:20])


def test_what_each_step_dropped_is_counted(tmp_path: Path) -> None:
    good = [prose(seed) for seed in range(6)]
    given = [*good, good[0], "Too short.", "", " \n", "spam " * 100, good[5] + " Or so."]
    counts, kept = run(tmp_path, given)
    assert kept[:5] == good[:5]
    assert len(kept) == 6
    source, *steps = counts.languages["en"]
    assert source.step == f"source {tmp_path}/in.jsonl (en)"
    assert source.dropped == {"empty": 2}
    assert [(step.step, step.documents, step.dropped) for step in steps] == [
        ("quality", 9, {"gopher_short_doc": 1}),
        ("repetition", 8, {"top_2_gram": 1}),
        ("addresses", 8, {}),
        ("filtered", 8, {}),
        ("duplicates", 6, {"duplicates": 2}),
        ("kept", 6, {}),
    ]
    assert source.characters == sum(len(text) for text in given if text.strip())
    assert source.bytes == sum(len(text.encode()) for text in given if text.strip())
    assert steps[0].characters == source.characters - len("Too short.")
    assert steps[-1].characters == sum(map(len, kept))
    assert steps[-1].bytes == sum(len(text.encode()) for text in kept)
    assert steps[-1].bytes > steps[-1].characters
    write_json(tmp_path / "counts.json", counts)
    assert read_json(tmp_path / "counts.json", CorpusCounts) == counts


def test_a_language_may_have_rules_of_its_own(tmp_path: Path) -> None:
    short = ["Kort.", "Kurz.", "Bref."]
    own = msgspec.structs.replace(SETTINGS, rules=RULES | {"sv": RULES["code"]})
    assert run(tmp_path, short, own, "sv")[1] == short
    with pytest.raises(ValueError, match=r"de: nothing is left of .*in\.jsonl \(de\); dropped: .*'gopher_short_doc': 3.*loosen the rules"):
        run(tmp_path, short, own, "de")


def test_a_character_counts_as_a_word_only_where_no_spaces_separate_words(tmp_path: Path) -> None:
    longest = "abcdefghij" * 12
    least = {name: Rules(quality=Quality(min_doc_words=100, max_avg_word_length=None), repetition=None, minhash=MINHASH) for name in RULES}
    rules = least | {"lo": msgspec.structs.replace(least["code"], quality=Quality(min_doc_words=100, min_avg_word_length=None))}
    assert run(tmp_path, [longest], CorpusParams(rules=rules), "lo")[1] == [longest]
    with pytest.raises(ValueError, match="gopher_short_doc"):
        run(tmp_path, [longest], CorpusParams(rules=rules), "vi")


def test_code_is_not_filtered_by_words(tmp_path: Path) -> None:
    programs = ["x = 1\n", "#" * 50 + "\n", "pass\n" * 40]
    assert run(tmp_path, [*programs, programs[0]], code="python")[1] == programs


def test_words_of_a_list_are_found_as_whole_words(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("ass\nकुत\n色情\n\n", encoding="utf-8")
    settings = msgspec.structs.replace(LOOSE, word_lists={"en": str(tmp_path / "bad.txt")})
    clean = ["A class.", "first class", "कुत्ता है", "这是内容"]
    counts, kept = run(tmp_path, [*clean, "An ASS!", "कुत है", "这是色情内容"], settings)
    assert kept == clean
    assert counts.languages["en"][1].dropped == {"words": 3}


class NoPage(BaseFilter):
    """Stands for datatrove's URL filter, whose libraries need not be here."""

    def __init__(self, urls: Urls) -> None:
        super().__init__()
        self.domains = urls.extra_domains

    def filter(self, doc: Document) -> bool:
        return not any(domain in doc.metadata["url"] for domain in self.domains)


def test_addresses_are_looked_at_in_sources_that_have_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_url_filter", NoPage)
    pages = [{"text": "a page", "link": "http://bad.com"}, {"text": "another page", "link": "http://good.com"}]
    sources = [
        Jsonl(language="en", path=str(write_lines(tmp_path / "books.jsonl", [{"text": "a book"}]))),
        Jsonl(language="en", path=str(write_lines(tmp_path / "pages.jsonl", pages)), url_key="link"),
    ]
    settings = msgspec.structs.replace(LOOSE, urls=Urls(extra_domains=("bad.com",)))
    counts = build(sources, settings, tmp_path / "out", tmp_path / "work")
    assert [row["metadata"] for row in read_rows(tmp_path / "out")] == [{"url": "http://good.com"}, {}]
    assert texts(tmp_path / "out") == ["another page", "a book"]
    pages_step, urls, books = counts.languages["en"][:3]
    assert (pages_step.documents, urls.documents, urls.dropped, books.documents) == (2, 1, {"urls": 1}, 1)
    write_lines(tmp_path / "pages.jsonl", [{"text": "a page"}])
    with pytest.raises(ValueError, match=r"pages\.jsonl: row 1 has no address under 'link'"):
        build(sources, settings, tmp_path / "out", tmp_path / "work")


@pytest.mark.filterwarnings("ignore:.*'registered_domain' property is deprecated:DeprecationWarning")  # datatrove's
def test_datatroves_url_filter_takes_these_settings_and_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tldextract")
    pytest.importorskip("ahocorasick")
    monkeypatch.setattr(socket, "getaddrinfo", None)
    found = corpus._url_filter(Urls(extra_domains=("bad.co.uk",), use_integrated_lists=False))
    urls = ("http://www.bad.co.uk/x", "http://good.co.uk")
    assert [found.filter(Document(text="", id="", metadata={"url": url})) for url in urls] == [(False, "domain"), True]


# copies


def near_copies(seed: int) -> list[str]:
    """One text, and another that differs in a word of 200: their sets of five words are 0.95 alike."""
    words = prose(seed, 200).split()
    return [" ".join(words), " ".join([*words[:100], "changed", *words[101:]])]


def test_near_copies_leave_one_and_others_all(tmp_path: Path) -> None:
    settings = CorpusParams(rules=RULES | {"spaced": Rules(quality=None, repetition=None, minhash=MinHash())})
    pairs = [near_copies(seed) for seed in range(8)]
    _counts, kept = run(tmp_path, [text for pair in pairs for text in pair], settings)
    assert [sum(text in pair for text in kept) for pair in pairs] == [1] * 8


def test_copies_in_unspaced_text_are_found(tmp_path: Path) -> None:
    lines = (ROOT / "data" / "corpus" / "zh.txt").read_text(encoding="utf-8").splitlines()[:6]
    assert run(tmp_path, [*lines, lines[2].replace("。", "！"), lines[4]], code="zh")[1] == lines


def test_texts_of_fewer_words_than_an_n_gram_are_compared_as_a_whole(tmp_path: Path) -> None:
    assert run(tmp_path, ["one two", "three", "one two", "One, two!", "two one"], LOOSE)[1] == ["one two", "three", "two one"]


@pytest.mark.parametrize("norm", [True, False])
def test_numbers_may_tell_texts_apart(tmp_path: Path, norm: bool) -> None:
    rules = Rules(quality=None, repetition=None, minhash=MinHash(norm_numbers=norm))
    given = ["It was founded in 1912.", "It was founded in 1913."]
    assert len(run(tmp_path, given, CorpusParams(rules={"spaced": rules}))[1]) == (1 if norm else 2)


# sources


ROWS = [{"body": prose(seed), "key": seed, "metadata": {"facts": ["a"]}, "other": 1} for seed in range(3)]
KEYS = {"language": "en", "text_key": "body", "id_key": "key"}


def test_lines_and_tables_give_the_same_documents(tmp_path: Path) -> None:
    write_lines(tmp_path / "lines" / "a.jsonl.gz", ROWS)
    (tmp_path / "tables").mkdir()
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "tables" / "a.parquet")
    lines, tables = Jsonl(**KEYS, path=str(tmp_path / "lines"), glob="*.gz"), Parquet(**KEYS, path=str(tmp_path / "tables"))
    wanted = [{"text": row["body"], "id": str(row["key"]), "metadata": row["metadata"]} for row in ROWS]
    for source in (lines, tables):
        build([source], SETTINGS, tmp_path / "out", tmp_path / "work")
        assert read_rows(tmp_path / "out") == wanted
    counts = build([lines, tables], SETTINGS, tmp_path / "out", tmp_path / "work").languages["en"]
    assert [step.documents for step in counts[:2]] == [3, 3]
    assert counts[-2].dropped == {"duplicates": 3}


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
def test_the_datasets_library_gives_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = write_lines(tmp_path / "lines" / "a.jsonl", ROWS)
    source = Dataset(**KEYS, name=str(path.parent), streaming=streaming)
    for _ in range(2):
        build([source], SETTINGS, tmp_path / "out", tmp_path / "work")
        metadata = {"facts": ["a"], "dataset": str(path.parent)}
        assert read_rows(tmp_path / "out") == [{"text": row["body"], "id": str(row["key"]), "metadata": metadata} for row in ROWS]
    write_lines(path, ROWS[1:])
    build([source], SETTINGS, tmp_path / "out", tmp_path / "work")
    assert texts(tmp_path / "out") == [row["body"] for row in ROWS[1:]]
    with pytest.raises(ValueError, match=r"lines: row 00000/0 has no text under 'text', only body.*; mend it, or correct its row"):
        build([Dataset(language="en", name=str(path.parent))], SETTINGS, tmp_path / "out", tmp_path / "work")
    with pytest.raises(ValueError, match=r"lines: .*split.*; mend it, or correct its row"):
        build([msgspec.structs.replace(source, split="none")], SETTINGS, tmp_path / "out", tmp_path / "work")


def test_only_the_named_file_is_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "old-in.jsonl", [{"text": "old"}])
    assert run(tmp_path, ["new"], LOOSE)[1] == ["new"]


def test_a_row_cannot_choose_where_it_is_written(tmp_path: Path) -> None:
    given = [{"text": "a text", "metadata": {"rank": "../../../evil", "id": "../evil", "facts": [1]}, "rank": "../evil", "media": 7}]
    run(tmp_path, given, LOOSE)
    assert read_rows(tmp_path / "out") == [{"text": "a text", "id": "in.jsonl/1", "metadata": {"id": "../evil", "facts": [1]}}]
    assert not list(tmp_path.rglob("*evil*"))
    assert not list(tmp_path.parent.glob("*evil*"))


def broken_gzip(path: Path) -> None:
    path.with_suffix(".jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000)[:-20])
    path.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\nno json\n', r"in\.jsonl: line 2 is not JSON: .*; mend it"),
        (b'{"text": "a"}\n\n{"text": "b"}\n', r"in\.jsonl: line 2 is not JSON"),
        (b'{"text": "\xff"}\n', r"in\.jsonl: line 1 is not JSON: .*UTF-8"),
        (b'{"text": "\\ud800"}\n', r"in\.jsonl: line 1 is not JSON: .*surrogate"),
        (b'["text"]\n', r"in\.jsonl: line 1 is JSON, but no object"),
        (b'{"body": "a", "n": 1}\n', r"in\.jsonl: row 1 has no text under 'text', only body, n; set text_key"),
        (b'{"text": 5}\n', r"in\.jsonl: row 1 has no text under 'text'"),
        (b'{"text": null}\n', r"in\.jsonl: row 1 has no text under 'text'"),
        (b'{"text": " "}\n', r"source .*in.* \(en\): no text in it; correct its path or text_key"),
        (b"", r"source .*in.* \(en\): no text in it"),
        (broken_gzip, r"in\.jsonl\.gz: .*; mend it"),
    ],
)
def test_a_bad_file_is_named_with_the_line(tmp_path: Path, content: bytes | Callable[[Path], None], message: str) -> None:
    path = tmp_path / "in" / "in.jsonl"
    path.parent.mkdir()
    path.write_bytes(content if isinstance(content, bytes) else b"")
    if callable(content):
        content(path)
    with pytest.raises(ValueError, match=message):
        build([Jsonl(language="en", path=str(path.parent))], LOOSE, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "out").exists()


def test_a_worker_names_the_bad_file_too(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "a.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "in" / "b.jsonl", [{"text": "b"}, 7])
    settings = msgspec.structs.replace(LOOSE, tasks=2, executor=Local(workers=2))
    with pytest.raises(ValueError, match=r"b\.jsonl: line 2 is JSON, but no object"):
        build([Jsonl(language="en", path=str(tmp_path / "in"))], settings, tmp_path / "out", tmp_path / "work")


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"a\.parquet: .*; mend it"):
        build([Parquet(language="en", path=str(tmp_path / "a.parquet"))], LOOSE, tmp_path / "out", tmp_path / "work")


def test_wrong_paths_are_named_before_anything_is_built(tmp_path: Path) -> None:
    good = Jsonl(language="en", path=str(write_lines(tmp_path / "in.jsonl", [{"text": "a"}])))
    with pytest.raises(ValueError, match=r"source .*none \(de\): no files; correct its path"):
        build([good, Jsonl(language="de", path=str(tmp_path / "none"))], LOOSE, tmp_path / "out", tmp_path / "work")
    with pytest.raises(ValueError, match=r"source .* \(de\): no files that match \*\.gz"):
        build([good, Jsonl(language="de", path=str(tmp_path), glob="*.gz")], LOOSE, tmp_path / "out", tmp_path / "work")
    with pytest.raises(ValueError, match="no sources"):
        build([], LOOSE, tmp_path / "out", tmp_path / "work")
    with pytest.raises(ValueError, match="rules: none for 'python', nor for 'code', how it is written; they are for: spaced, unspaced"):
        build([Jsonl(language="python", path=str(tmp_path / "in.jsonl"))], LOOSE, tmp_path / "out", tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"\n \n", "no word in it"), (b"\xff", "UTF-8")])
def test_a_word_list_must_be_there(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    settings = msgspec.structs.replace(LOOSE, word_lists={"en": str(tmp_path / "bad.txt")})
    with pytest.raises(ValueError, match=rf"word_lists: .*bad\.txt: .*{reason}"):
        run(tmp_path, ["a"], settings)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (Source, {"kind": "jsonl", "path": "x", "language": "Chinese"}, r"unknown language 'Chinese'; did you mean zh"),
        (Source, {"kind": "csv", "path": "x", "language": "zh"}, "Invalid value 'csv'"),
        (Source, {"kind": "jsonl", "language": "zh"}, "missing required field `path`"),
        (Source, {"kind": "datasets", "language": "zh", "name": "x", "path": "x"}, "unknown field `path`"),
        (CorpusParams, {"rules": {"pythn": {"quality": None, "repetition": None, "minhash": {}}}}, r"did you mean python"),
        (CorpusParams, {"rules": {}, "word_lists": {"xx": "x"}}, "unknown language 'xx'"),
        (CorpusParams, {"rules": {}, "tasks": 0}, r"`int` >= 1 - at `\$\.tasks`"),
        (CorpusParams, {"rules": {"code": {"quality": {"min_words": 3}, "repetition": None, "minhash": {}}}}, "unknown field `min_words`"),
        (CorpusParams, {"rules": {}, "executor": {"type": "kubernetes"}}, "Invalid value 'kubernetes'"),
    ],
)
def test_a_wrong_setting_is_named(kind: Any, given: dict, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(given, kind)


# the same bytes


class Whole(NamedTuple):
    """A corpus built in one go: three files that share some texts, in two tasks."""

    source: Source
    settings: CorpusParams
    content: bytes
    counts: CorpusCounts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    for name in "abc":
        rows = [{"text": prose(seed), "id": f"{name}{seed}"} for seed in range(ord(name) % 3, 9, 2)]
        write_lines(folder / "in" / f"{name}.jsonl", rows)
    source, settings = Jsonl(language="en", path=str(folder / "in")), msgspec.structs.replace(SETTINGS, tasks=2)
    counts = build([source], settings, folder / "out", folder / "work")
    assert sorted(texts(folder / "out")) == sorted(prose(seed) for seed in range(9))
    assert [step.documents for step in counts.languages["en"]] == [13, 13, 13, 13, 13, 9, 9]
    return Whole(source, settings, (folder / "out" / "en.jsonl.gz").read_bytes(), counts)


def built(tmp_path: Path, whole: Whole, settings: CorpusParams | None = None) -> tuple[bytes, CorpusCounts]:
    counts = build([whole.source], settings or whole.settings, tmp_path / "out", tmp_path / "work")
    return (tmp_path / "out" / "en.jsonl.gz").read_bytes(), counts


def test_two_workers_give_the_same_bytes_as_one(tmp_path: Path, whole: Whole) -> None:
    two = msgspec.structs.replace(whole.settings, executor=Local(workers=2))
    assert built(tmp_path, whole, two) == (whole.content, whole.counts)


def test_more_tasks_than_files_leave_nothing_out(tmp_path: Path, whole: Whole) -> None:
    built(tmp_path, whole, msgspec.structs.replace(whole.settings, tasks=5))
    assert sorted(texts(tmp_path / "out")) == sorted(prose(seed) for seed in range(9))


def test_the_bytes_know_nothing_of_the_time(tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip.time, "time", lambda: 1e9)  # pyright: ignore[reportAttributeAccessIssue]
    assert built(tmp_path, whole)[0] == whole.content


class Killed(BaseException):
    """What no handler of errors stops."""


def test_after_a_kill_before_any_step_nothing_is_done_twice(tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = {"filter": 2, "signatures": 2, "pairs": MINHASH.num_buckets, "clusters": 1, "keep": 2}
    ran, plain = list[str](), Local.executor
    with monkeypatch.context() as patch:
        for killed in tasks:

            def executor(self: Local, pipeline: list, tasks: int, logs: str, name: str, killed: str = killed) -> Any:
                if name == f"en-{killed}":
                    raise Killed
                found = plain(self, pipeline, tasks, logs, name)
                ran.extend([name] * len(found.get_incomplete_ranks()))
                return found

            patch.setattr(Local, "executor", executor)
            with pytest.raises(Killed):
                built(tmp_path, whole)
    assert not (tmp_path / "out").exists()
    assert ran == [f"en-{name}" for name in tasks if name != "keep" for _ in range(tasks[name])]
    assert built(tmp_path, whole) == (whole.content, whole.counts)


def test_a_kill_in_the_middle_of_a_file_resumes(tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    written, plain = [], JsonlWriter.write

    def write(self: JsonlWriter, document: Document, rank: int = 0) -> None:
        plain(self, document, rank)
        written.append(document)
        if len(written) in (3, 14, 24):  # in the first and the second task of a step, and in a later step
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(JsonlWriter, "write", write)
        for _ in range(3):
            with pytest.raises(Killed):
                built(tmp_path, whole)
        assert built(tmp_path, whole) == (whole.content, whole.counts)


def test_what_was_built_from_other_input_or_settings_is_not_taken_for_this(tmp_path: Path) -> None:
    first, second = ["The first of them."], ["The other one then."]
    assert run(tmp_path, first, LOOSE)[1] == first
    assert run(tmp_path, second, LOOSE)[1] == second
    assert run(tmp_path, first, LOOSE)[1] == first
    with pytest.raises(ValueError, match="nothing is left"):
        run(tmp_path, first)
    (tmp_path / "out" / "en.jsonl.gz").unlink()
    assert run(tmp_path, first, LOOSE)[1] == first


# clusters

SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
open("{log}", "a").write(script)
assert re.search("^#SBATCH --wait$", script, re.M), "comes back before the job has ended"
run = re.search("launch_pickled_pipeline .*", script)
for rank in range(int(re.search("--array=0-(.*)", script)[1]) + 1) if run else ():
    environment = os.environ | {{"SLURM_ARRAY_TASK_ID": str(rank), "SLURM_NODELIST": "localhost"}}
    code = "import sys; from datatrove.tools.launch_pickled_pipeline import main; sys.argv = sys.argv[1:]; main()"
    subprocess.run([sys.executable, "-c", code, *run[0].split()], env=environment, check=True)
print("Submitted batch job 1")
"""


def write_script(path: Path, content: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """Slurm commands that run each job at once."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write_script(tmp_path / "bin" / "sbatch", SBATCH.format(python=sys.executable, log=tmp_path / "scripts"))
    write_script(tmp_path / "bin" / "scontrol", "#!/bin/sh\necho localhost\n")
    return Slurm(partition="cpu", time="1:00:00", sbatch_args={"account": "us"})


@pytest.mark.slow
def test_slurm_jobs_give_the_same_bytes(tmp_path: Path, whole: Whole, slurm: Slurm) -> None:
    few = {"spaced": msgspec.structs.replace(RULES["spaced"], minhash=MinHash(num_buckets=1, hashes_per_bucket=4))}
    local = msgspec.structs.replace(whole.settings, rules=few, tasks=1)
    assert built(tmp_path / "slurm", whole, msgspec.structs.replace(local, executor=slurm)) == built(tmp_path / "local", whole, local)
    scripts = (tmp_path / "scripts").read_text(encoding="utf-8")
    assert scripts.count("#SBATCH --partition=cpu") == 10  # five steps, and after each what merges its statistics
    assert scripts.count("#SBATCH --account=us") == 10


def test_ray_is_given_the_tasks(tmp_path: Path) -> None:
    executor = Ray(workers=3).executor([], 5, str(tmp_path), "")
    assert isinstance(executor, RayPipelineExecutor)
    assert (executor.world_size, executor.workers) == (5, 3)


def test_jobs_that_fail_are_named(tmp_path: Path, whole: Whole, slurm: Slurm) -> None:
    write_script(tmp_path / "bin" / "sbatch", "#!/bin/sh\nexit 1\n")
    with pytest.raises(RuntimeError, match=r"logs/filter: tasks \[0, 1\] did not finish; read their logs there and run again"):
        built(tmp_path, whole, msgspec.structs.replace(whole.settings, executor=slurm))
