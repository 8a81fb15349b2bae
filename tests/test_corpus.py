"""Running text comes from a file or any data set of the datasets library; what cannot be read is named, with its setting."""

import json
import re
from pathlib import Path

import pytest

from xledit.corpus import read_texts

ROOT = Path(__file__).parents[1]


def from_file(path: Path, content: bytes) -> list[str]:
    path.write_bytes(content)
    return read_texts("zh", {"zh": str(path)})


def test_a_file_has_a_passage_a_line(tmp_path: Path) -> None:
    assert from_file(tmp_path / "zh.txt", "一\n\n  \r\n二 二\r\n三".encode()) == ["一", "二 二", "三"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    assert from_file(tmp_path / "zh.txt", b"\xef\xbb\xbfone\ntwo\n") == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n \n\t\n"])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"zh\.txt: covariance\.corpus\.zh: the file has no text"):
        from_file(tmp_path / "zh.txt", content)


def test_a_file_that_is_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"zh\.txt:3: not UTF-8 .*; save the text as UTF-8"):
        from_file(tmp_path / "zh.txt", "一\n二\n".encode() + "三\n".encode("gbk"))


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.txt: covariance\.corpus\.zh: no such file"):
        read_texts("zh", {"zh": str(tmp_path / "none.txt")})


def test_a_language_without_a_corpus_is_named() -> None:
    with pytest.raises(ValueError, match=r"covariance\.corpus: no text for language 'fr'; it has: zh, en"):
        read_texts("fr", {"zh": "zh.txt", "en": "en.txt"})


@pytest.mark.parametrize("code", ("zh", "en"))
def test_the_projects_corpora_can_be_read(code: str) -> None:
    texts = read_texts(code, {code: str(ROOT / "data" / "corpus" / f"{code}.txt")})
    assert all(text.strip() for text in texts)
    assert sum(map(len, texts)) > 10_000


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The datasets library, without the hub and with a cache of its own."""
    datasets = pytest.importorskip("datasets")
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", tmp_path / "modules")


@pytest.fixture
def folder(offline: None, tmp_path: Path) -> Path:
    return tmp_path / "corpus"


def jsonl(folder: Path, *rows: dict[str, object], name: str = "train.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / name


def test_a_folder_is_read_by_the_datasets_library(folder: Path) -> None:
    jsonl(folder, {"text": "一", "page": 1}, {"text": "  ", "page": 2}, {"text": "two\nlines"}, {"text": None})
    assert read_texts("zh", {"zh": f"datasets:{folder}"}) == ["一", "two\nlines"]


def test_a_single_file_is_read_by_the_datasets_library(folder: Path) -> None:
    assert read_texts("zh", {"zh": f"datasets:{jsonl(folder, {'text': 'one'})}"}) == ["one"]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([{"words": "one"}], "train.jsonl"),
        ([{"text": "one"}], "test.jsonl"),
        ([{"text": None}], "train.jsonl"),
        ([{"text": 3}], "train.jsonl"),
        ([{"text": " "}], "train.jsonl"),
        ([], "train.jsonl"),
    ],
    ids=["no column", "no training split", "null", "not text", "blank", "empty"],
)
def test_a_data_set_without_text_is_named(folder: Path, rows: list[dict[str, object]], name: str) -> None:
    jsonl(folder, *rows, name=name)
    with pytest.raises(ValueError, match=rf"covariance\.corpus.*{re.escape(str(folder))}"):
        read_texts("zh", {"zh": f"datasets:{folder}"})


@pytest.mark.parametrize("name", ["nobody/nothing", "nobody/nothing@config"])
def test_a_data_set_that_cannot_be_reached_is_named(offline: None, name: str) -> None:
    with pytest.raises(ValueError, match=r"covariance\.corpus.*'nobody/nothing"):
        read_texts("zh", {"zh": f"datasets:{name}"})
